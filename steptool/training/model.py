"""The policy that is trained: a causal language model with LoRA on its upper layers, and a value head.

    tokens ─ embeddings ─ layers below `lora_first_layer` ─┐ lower: frozen, no gradient, computed once a row
                                                           │
      ┌────────────────────────────────────────────────────┘
      └ layers with LoRA ─ norm ─┬ output embeddings ─ log-probability of each sampled token
                                 └ (detached) value head ─ V of the state before it

Since the lower half never changes, its output for a row is kept through all epochs (`lower`, `upper`).

A policy folder is either a plain model, or an adapter:

    adapter_config.json  adapter_model.safetensors  value_head.safetensors
    policy.json {"base": folder, "weights": hash of the base's weights}
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from peft import PeftModel
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from steptool.core.errors import ModelError
from steptool.core.fields import LARGEST, Many, Natural, Positive, Settings
from steptool.policies.folder import (
    fresh_adapter,
    load_tensors,
    lora_config,
    resolve_policy,
    save_policy,
)
from steptool.policies.model_folder import load_model
from steptool.policies.precision import Dtype, autocast
from steptool.training import decoder
from steptool.training.attention import SPAN_ATTENTION
from steptool.training.batch import Row, pack
from steptool.training.episode import Episode
from steptool.training.scoring import scores_of

_HEAD_CHUNK = 1024  # sampled tokens whose logits exist at once
_LOGPROBS_ROW = 1024  # tokens of a row that is only measured
_CHECK_WINDOW = 8  # tokens of half a stream that is compared with Transformers


class AdapterSettings(Settings):
    """The adapter that a method trains. An arm that starts from another needs the same shape."""

    lora_rank: Many = 16
    lora_alpha: Positive = 32
    lora_plus: Annotated[float, Field(ge=1, le=LARGEST)] = 16.0
    """How much faster the adapter's B learns than its A (arXiv 2402.12354)."""
    lora_first_layer: Natural = 16
    """LoRA adapts this layer and all above; gradients stop below it."""


class Output(NamedTuple):
    """Of one row: log-probabilities [M], and final hidden states in float32, detached."""

    logprobs: Tensor
    entropy: Tensor
    """[M] of the distribution over the vocabulary, in nats, detached."""
    features: Tensor
    """[M, hidden] at the position that predicts the token."""
    end_features: Tensor
    """[E, hidden] at the last token of each trajectory."""
    divergence: Tensor | None
    """[M] KL(policy, reference) over the whole vocabulary, in nats, where the reference's features were given."""


class ValueHead(nn.Module):
    """V = w · layer_norm(x) / sqrt(hidden) + b, in float32, 0 at first.

    The norm and the scale make one learning rate fit hidden sizes and models alike.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[…, hidden] -> […]."""
        size = features.shape[-1]
        return self.linear(F.layer_norm(features.float(), (size,)) / size**0.5).squeeze(-1)


class PolicyWithValue(nn.Module):
    """See the module. Stays in eval mode: dropout would make the ratio of equal policies differ from 1."""

    def __init__(self, model: PeftModel, value_head: ValueHead, first_layer: int, base: Path) -> None:
        super().__init__()
        self.peft = model
        self.value_head = value_head
        self.first_layer = first_layer
        self.base = base
        self.eval()

    @classmethod
    def load(
        cls,
        folder: Path,
        adapter: AdapterSettings,
        *,
        dtype: Dtype = "float32",
        seed: int = 0,
        device: str | None = None,
    ) -> PolicyWithValue:
        """Load a policy folder for training; a plain model gets a fresh adapter drawn from `seed`.

        Raises ModelError for a folder that lacks a part, an adapter that does not fit `adapter` or its base, and an
        architecture that is not computed here as Transformers computes it.
        """
        resolved = resolve_policy(folder)
        model = load_model(resolved.base, dtype=getattr(torch, dtype))
        policy = cls.wrap(model, adapter, base=resolved.base, seed=seed)
        if resolved.adapter is not None:
            load_tensors(policy.peft, policy.value_head, resolved.adapter)
        policy.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        policy.check_computation()
        return policy

    @classmethod
    def wrap(cls, model: PreTrainedModel, adapter: AdapterSettings, *, base: Path, seed: int = 0) -> PolicyWithValue:
        """Put a fresh adapter and value head on a model in memory; it computes in the type that its weights have."""
        config: Any = model.config
        blocks = decoder.decoder_of(model, str(base)).layers
        layers, first = len(blocks), adapter.lora_first_layer
        if first >= layers:
            raise ModelError(
                f"has {layers} layers, none at or above {first}",
                where=str(base),
                fix=f"set lora_first_layer of the arm's method, under `methods` in params.yaml, below {layers}",
            )
        if kinds := set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
            raise ModelError(
                f"has {', '.join(sorted(kinds))} layers",
                where=str(base),
                fix="set model.base to a model whose layers are all of full or sliding attention",
            )
        modules = blocks.named_modules()
        linears = {name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)}
        lora = lora_config(adapter.lora_rank, adapter.lora_alpha, sorted(linears), list(range(first, layers)))
        with decoder.refusing(model, str(base)):
            model.set_attn_implementation(SPAN_ATTENTION)
            peft = fresh_adapter(model, lora, seed)
        return cls(peft, ValueHead(config.hidden_size), first, base)

    @property
    def device(self) -> torch.device:
        return self.value_head.linear.weight.device

    @property
    def _model(self) -> Any:
        return self.peft.get_base_model()

    @property
    def vocabulary(self) -> int:
        return int(self._model.get_input_embeddings().weight.shape[0])

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's weights by name."""
        return {name: p for name, p in self.peft.named_parameters() if p.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Adapter and value head by name, in a fixed order."""
        return {
            **{f"policy.{name}": p for name, p in self.policy_parameters().items()},
            **{f"value.{name}": p for name, p in self.value_head.named_parameters()},
        }

    @torch.no_grad()
    def check_computation(self) -> None:
        """Raise ModelError unless packed rows give the log-probabilities of Transformers' own forward pass.

        attempts  A a…, A b…, B c…: two that share a beginning and one that does not, in one row, each longer than
        the sliding window, which is made small meanwhile.
        """
        model, where = self._model, str(self.base)
        drawn = torch.randint(0, self.vocabulary, (3, 2 * _CHECK_WINDOW), generator=torch.Generator().manual_seed(1))
        drawn[1, :_CHECK_WINDOW] = drawn[0, :_CHECK_WINDOW]
        (row,) = pack(map(_stream, drawn.tolist()), drawn.numel()).rows
        with decoder.refusing(model, where), decoder.small_window(model, _CHECK_WINDOW - 3), autocast(model):
            features = self(row).features
            ones = torch.ones(len(features), device=self.device)
            scores = torch.empty(len(features), self.vocabulary)
            scores[row.tokens] = self._logits(features, ones).log_softmax(-1).cpu()
            found = [
                decoder.difference(model, ids[:-1].to(self.device), own.to(self.device))
                for ids, own in zip(drawn, scores.chunk(len(drawn)), strict=True)
            ]
        decoder.require_close(model, torch.cat(found), where)

    @torch.no_grad()
    def lower(self, row: Row) -> Tensor:
        """[1, L, hidden] entering the first layer that trains."""
        with autocast(self._model):
            return decoder.entering(self._model.base_model, self.first_layer, **self._inputs(row))

    def upper(
        self, row: Row, lower: Tensor, *, reference: bool = False, reference_features: Tensor | None = None
    ) -> Output:
        """Log-probabilities and features of a row from `lower`; `reference` switches the adapter off.

        `reference_features` [M, hidden], those of an earlier call with `reference`, ask for the divergence from it.

        The logits are divided by the temperature that each token was sampled at, so the policy is the
        distribution that was sampled from.
        """
        with autocast(self._model):
            adapter = self.peft.disable_adapter() if reference else nullcontext()
            entered = lower.to(self.device)
            with adapter:
                hidden = decoder.leaving(self._model.base_model, self.first_layer, entered, **self._inputs(row))[0]
            states, state = (index.to(self.device) for index in _states(row))
            picked = hidden[row.predict.to(self.device)[states]]
            against = None if reference_features is None else reference_features[states.cpu()].to(picked)
            temperature = row.temperature.to(self.device)[states]
            logprobs, entropy, divergence = self._score(
                picked, temperature, against, row.targets.to(self.device), state
            )
        return Output(
            logprobs,
            entropy[state],
            picked.detach().float()[state],
            hidden[row.ends.to(self.device)].detach().float(),
            None if divergence is None else divergence[state],
        )

    def forward(self, row: Row) -> Output:
        return self.upper(row, self.lower(row))

    @torch.no_grad()
    def logprobs(self, streams: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability, at temperature 1, of every token of each stream but its first."""
        if not streams:
            return []
        batch = pack([_stream(list(ids)) for ids in streams], _LOGPROBS_ROW)
        found = torch.zeros(batch.tokens)
        for row in batch.rows:
            found[row.tokens] = self(row).logprobs.cpu()
        return [part.tolist() for part in found.split([len(ids) - 1 for ids in streams])]

    def save(self, folder: Path) -> None:
        """Write adapter, value head, policy.json and the tokenizer into an existing folder."""
        save_policy(self.peft, self.value_head, self.base, folder)

    def _inputs(self, row: Row) -> dict[str, Any]:
        ids, positions = row.input_ids.to(self.device)[None], row.position_ids.to(self.device)[None]
        return {"input_ids": ids, "position_ids": positions, "spans": row.spans}

    def _score(
        self, hidden: Tensor, temperature: Tensor, reference: Tensor | None, targets: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `_score_chunk`. Many states are split into chunks, whose logits are computed again for the gradient and
        not kept."""
        if len(hidden) <= _HEAD_CHUNK:
            return self._score_chunk(hidden, temperature, reference, targets, state)
        order = state.argsort()
        parts = []
        for start in range(0, len(hidden), _HEAD_CHUNK):
            at = slice(start, start + _HEAD_CHUNK)
            own = order[(state[order] >= at.start) & (state[order] < at.stop)]
            theirs = None if reference is None else reference[at]
            chunk = (hidden[at], temperature[at], theirs, targets[own], state[own] - start)
            parts.append(checkpoint(self._score_chunk, *chunk, use_reentrant=False))
        logprobs, entropy, divergence = zip(*parts, strict=True)
        whole = None if reference is None else torch.cat(divergence)
        return torch.cat(logprobs)[order.argsort()], torch.cat(entropy), whole

    def _score_chunk(
        self, hidden: Tensor, temperature: Tensor, reference: Tensor | None, targets: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probability [M] of each target in its state, entropy [S] and divergence [S] of each state.

        `hidden` and `reference` are [S, hidden], of the policy and of what it is compared with.
        """
        with torch.no_grad():
            theirs = None if reference is None else self._logits(reference, temperature).log_softmax(-1)
        return scores_of(self._logits(hidden, temperature), theirs, targets, state)

    def _logits(self, hidden: Tensor, temperature: Tensor) -> Tensor:
        return decoder.logits(self._model, hidden).float().div_(temperature[:, None])


def _stream(ids: list[int]) -> Episode:
    """A token stream all of whose tokens but the first count as sampled."""
    own = range(len(ids) - 1)
    return Episode("", "", tuple(ids), 1, tuple(own), (0,) * len(own), (0.0,) * len(own), (0.0,), 1.0, truncated=False)


def _states(row: Row) -> tuple[Tensor, Tensor]:
    """The S distributions that a row's M tokens were sampled from: one token of each [S], and which is whose [M].

    Attempts at a task with the same tokens so far sample from the same distribution. Each is computed once, because a
    distribution over the vocabulary is expensive.
    """
    drawn = torch.stack([row.predict.double(), row.temperature.double()], 1)
    distinct, state = drawn.unique(dim=0, return_inverse=True)
    one = torch.empty(len(distinct), dtype=torch.long)
    one[state] = torch.arange(len(state))
    return one, state


def adapter_groups(policy: PolicyWithValue, learning_rate: float, adapter: AdapterSettings) -> list[dict[str, Any]]:
    """The adapter's matrices as optimiser groups: B learns at `learning_rate`, A `lora_plus` times slower.

    LoRA+ (arXiv 2402.12354). At the start B is 0 and A has no gradient; in a later round, with one rate for
    both, the same rate moves the policy ten times as far.
    """
    named = policy.policy_parameters()
    slow = [p for name, p in named.items() if ".lora_A." in name]
    fast = [p for name, p in named.items() if ".lora_A." not in name]
    return [{"params": fast, "lr": learning_rate}, {"params": slow, "lr": learning_rate / adapter.lora_plus}]
