"""A causal language model of Transformers, run in parts: some of its layers, its head.

Both parts are run by the model's own `forward` with something else in the place of the rest, so what an architecture
does to embeddings and logits (scales, caps) is done here too. `difference` measures, before anything is trained,
whether the parts give the same as the whole model.

    from the tokens   embeddings ─ layers[:n] ─ X                      X keeps what enters layer n
    from layer n      embeddings ─ X …        ─ X layers[n:] ─ norm    X hands on what it kept
    the head                                      X ─ head             X is the decoder
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from steptool.core.errors import ModelError, reason

FLOAT32_DIFFERENCE, BFLOAT16_DIFFERENCE = 2e-3, 0.1
"""Nats that rounding explains. Over some sixty architectures with random weights the largest difference was 1e-5 in
float32. In bfloat16 rounding sends some tokens to other experts, so the median counts there: it was 0.03."""


class Given(nn.Module):
    """Takes the place of `layer`. It keeps its own input, and passes on `hidden` instead if that is given. With `runs`
    it calls `layer` on what it passes on.
    """

    def __init__(self, layer: nn.Module, hidden: Tensor | None = None, *, runs: bool = False) -> None:
        super().__init__()
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type
        self.layer = layer if runs else None
        self.hidden = hidden
        self.entered: Tensor | None = None

    def forward(self, hidden: Tensor, *arguments: Any, **options: Any) -> Any:
        self.entered = hidden
        if self.hidden is not None:
            hidden = self.hidden
        return hidden if self.layer is None else self.layer(hidden, *arguments, **options)


class GivenDecoder(nn.Module):
    """Stands in for the decoder: its last hidden state is `hidden`."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_arguments: Any, **_options: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self.hidden)


def decoder_of(model: PreTrainedModel, where: str) -> Any:
    """The decoder, whose `layers` is the list of its layers. Raises ModelError for a model that is built otherwise."""
    decoder: Any = model.base_model
    if decoder is model or not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        raise _unsupported(model, "it is not built of one decoder with a list `layers`", where)
    return decoder


@contextmanager
def layers(decoder: Any, stand_ins: list[nn.Module]) -> Iterator[None]:
    """The decoder with other layers."""
    kept = decoder.layers
    decoder.layers = nn.ModuleList(stand_ins)
    try:
        yield
    finally:
        decoder.layers = kept


def entering(decoder: Any, first: int, **inputs: Any) -> Tensor:
    """[1, L, hidden] that enters layer `first`."""
    kept = list(decoder.layers)
    after = [Given(layer) for layer in kept[first:]]
    with layers(decoder, [*kept[:first], *after]):
        decoder(**inputs, use_cache=False)
    entered = after[0].entered
    if entered is None:
        raise RuntimeError(f"{type(decoder).__name__} does not run layer {first}")
    return entered


def leaving(decoder: Any, first: int, entered: Tensor, **inputs: Any) -> Tensor:
    """[1, L, hidden] after the last layer and the norm, computed from what enters layer `first`."""
    kept = list(decoder.layers)
    before = [Given(layer, entered) for layer in kept[:first]]
    with layers(decoder, [*before, Given(kept[first], entered, runs=True), *kept[first + 1 :]]):
        hidden: Tensor = decoder(**inputs, use_cache=False).last_hidden_state
    return hidden


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """[M, vocabulary] of final hidden states [M, hidden]."""
    name = model.base_model_prefix
    decoder = getattr(model, name)
    setattr(model, name, GivenDecoder(hidden[None]))
    try:
        given: Any = model(input_ids=hidden.new_zeros((1, len(hidden)), dtype=torch.long), use_cache=False)
    finally:
        setattr(model, name, decoder)
    found: Tensor = given.logits[0]
    return found


def difference(model: PreTrainedModel, ids: Tensor, ours: Tensor) -> Tensor:
    """[M] how far `ours` [M, vocabulary] are from the logits of the whole model for one stream `ids` [M].

    At each place the mean size of the log-ratio under the model's own distribution, in nats. The model's attention is
    the eager one, the only one in which every architecture does all that it should (Gemma 2 caps scores there alone).
    """
    used = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        own = model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    finally:
        model.set_attn_implementation(used)
    return ((own - ours.float().log_softmax(-1)).abs() * own.exp()).sum(-1)


@contextmanager
def small_window(model: PreTrainedModel, most: int) -> Iterator[None]:
    """Sliding windows of at most `most` tokens, so that short streams are longer than they are."""
    holders: list[Any] = [holder for holder in (model.config, *model.modules()) if _window(holder) > most]
    kept = [holder.sliding_window for holder in holders]
    try:
        for holder in holders:
            holder.sliding_window = most
        yield
    finally:
        for holder, window in zip(holders, kept, strict=True):
            holder.sliding_window = window


def _window(holder: object) -> int:
    window = getattr(holder, "sliding_window", None)
    return window if isinstance(window, int) else 0


@contextmanager
def refusing(model: PreTrainedModel, where: str) -> Iterator[None]:
    """Whatever a first run of the model raises becomes a ModelError that names its class."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise _unsupported(model, reason(error), where) from error


def require_close(model: PreTrainedModel, differences: Tensor, where: str) -> None:
    """Raise ModelError where the `difference` [M] is more than rounding explains."""
    embeddings: Any = model.get_input_embeddings()
    rounded = embeddings.weight.dtype == torch.bfloat16
    found = float(differences.median() if rounded else differences.max())
    most = BFLOAT16_DIFFERENCE if rounded else FLOAT32_DIFFERENCE
    if not found <= most:  # nor NaN
        raise _unsupported(
            model,
            "its log-probabilities in training differ from those of Transformers' own forward pass by up to "
            f"{float(differences.max()):.2g} nats (rounding explains {most:g})",
            where,
        )


def _unsupported(model: PreTrainedModel, why: str, where: str | Path) -> ModelError:
    return ModelError(
        f"{type(model).__name__} cannot be trained here: {why}",
        where=str(where),
        fix="set model.base to a model of another architecture; Llama, Qwen, Mistral, Gemma and Granite are trained",
    )
