"""The policy that PPO trains: a causal language model with LoRA on its upper layers, and a value head.

    tokens ─ embeddings ─ layers below `lora_first_layer` ─┐ lower: frozen, no gradient, computed once a row
                                                           │
      ┌────────────────────────────────────────────────────┘
      └ layers with LoRA ─ norm ─┬ output embeddings ─ log-probability of each sampled token
                                 └ (detached) value head ─ V of the state before it

Since the lower half never changes, its output for a row is kept through all epochs (`lower`, `upper`).

A policy folder is either a plain model, or an adapter:

    adapter_config.json  adapter_model.safetensors  value_head.safetensors  policy.json {"base": folder}
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel

from steptool.errors import ModelError
from steptool.params import TrainParams
from steptool.training.attention import SPAN_ATTENTION
from steptool.training.base_model import check_model_folder
from steptool.training.batch import Row
from steptool.training.policy_folder import load_tensors, merge_adapter, resolve_policy, save_policy
from steptool.training.precision import Dtype, autocast

__all__ = ["PolicyWithValue", "adapter_groups", "check_model_folder", "merge_adapter", "resolve_policy"]

_HEAD_CHUNK = 1024  # sampled tokens whose logits exist at once


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
        cls, folder: Path, params: TrainParams, *, dtype: Dtype = "float32", seed: int = 0, device: str | None = None
    ) -> PolicyWithValue:
        """Load a policy folder for training; a plain model gets a fresh adapter drawn from `seed`.

        Raises ModelError for a folder that lacks a part, or an adapter that does not fit `params` or its base.
        """
        resolved = resolve_policy(folder)
        model = AutoModelForCausalLM.from_pretrained(
            resolved.base, dtype=getattr(torch, dtype), attn_implementation=SPAN_ATTENTION, local_files_only=True
        )
        policy = cls.wrap(model, params, base=resolved.base, seed=seed)
        if resolved.adapter is not None:
            load_tensors(policy.peft, policy.value_head, resolved.adapter)
        return policy.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @classmethod
    def wrap(cls, model: PreTrainedModel, params: TrainParams, *, base: Path, seed: int = 0) -> PolicyWithValue:
        """Put a fresh adapter and value head on a model in memory; it computes in the type that its weights have."""
        decoder = model.get_decoder()
        config: Any = model.config
        layers, first = len(decoder.layers), params.lora_first_layer
        if first >= layers:
            raise ModelError(
                f"has {layers} layers, none at or above {first}",
                where=str(base),
                fix=f"set train.lora_first_layer below {layers}",
            )
        if kinds := set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
            raise ModelError(
                f"has {', '.join(sorted(kinds))} layers", where=str(base), fix="use one with full attention"
            )
        model.set_attn_implementation(SPAN_ATTENTION)
        modules = decoder.layers.named_modules()
        linears = {name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)}
        lora = LoraConfig(
            r=params.lora_rank,
            lora_alpha=params.lora_alpha,
            lora_dropout=0.0,
            target_modules=sorted(linears),
            layers_to_transform=list(range(first, layers)),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft = get_peft_model(model, lora)
        return cls(peft, ValueHead(config.hidden_size), first, base)

    @property
    def device(self) -> torch.device:
        return self.value_head.linear.weight.device

    @property
    def _model(self) -> Any:
        return self.peft.get_base_model()

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
    def lower(self, row: Row) -> Tensor:
        """[1, L, hidden] entering the first layer that trains."""
        ids = row.input_ids.to(self.device)[None]
        with self._only(slice(0, self.first_layer), normalise=False) as decoder, autocast(self._model):
            return self._run(decoder, row, input_ids=ids)

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
            with adapter, self._only(slice(self.first_layer, None), normalise=True) as decoder:
                hidden = self._run(decoder, row, inputs_embeds=lower.to(self.device))[0]
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

    def save(self, folder: Path) -> None:
        """Write adapter, value head, policy.json and the tokenizer into an existing folder."""
        save_policy(self.peft, self.value_head, self.base, folder)

    @contextmanager
    def _only(self, part: slice, *, normalise: bool) -> Iterator[nn.Module]:
        """The decoder reduced to some of its layers, its final norm switched on or off."""
        decoder: Any = self._model.get_decoder()
        layers, norm = decoder.layers, decoder.norm
        decoder.layers = layers[part]
        decoder.norm = norm if normalise else nn.Identity()
        try:
            yield decoder
        finally:
            decoder.layers, decoder.norm = layers, norm

    def _run(self, decoder: nn.Module, row: Row, **inputs: Tensor) -> Tensor:
        positions = row.position_ids.to(self.device)[None]
        hidden: Tensor = decoder(**inputs, position_ids=positions, use_cache=False, spans=row.spans).last_hidden_state
        return hidden

    def _score(
        self, hidden: Tensor, temperature: Tensor, reference: Tensor | None, targets: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `_score_chunk` says. Many states go in chunks whose logits are computed again, never kept."""
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
        scores = self._log_softmax(hidden, temperature)
        picked = scores[state, targets]
        with torch.no_grad():
            entropy = -(scores.exp() * scores).sum(-1)
        if reference is None:
            return picked, entropy, None
        with torch.no_grad():
            theirs = self._log_softmax(reference, temperature)
        return picked, entropy, (scores.exp() * (scores - theirs)).sum(-1)

    def _log_softmax(self, hidden: Tensor, temperature: Tensor) -> Tensor:
        head: Any = self._model.get_output_embeddings()
        return F.log_softmax(head(hidden).float().div_(temperature[:, None]), dim=-1)


def _states(row: Row) -> tuple[Tensor, Tensor]:
    """The S distributions that a row's M tokens were sampled from: one token of each [S], and which is whose [M].

    Attempts at a task that are still alike sample from the same one, and the vocabulary is what costs.
    """
    drawn = torch.stack([row.predict.double(), row.temperature.double()], 1)
    distinct, state = drawn.unique(dim=0, return_inverse=True)
    one = torch.empty(len(distinct), dtype=torch.long)
    one[state] = torch.arange(len(state))
    return one, state


def adapter_groups(policy: PolicyWithValue, learning_rate: float, params: TrainParams) -> list[dict[str, Any]]:
    """The adapter's matrices as optimiser groups: B learns at `learning_rate`, A `lora_plus` times slower.

    LoRA+ (arXiv 2402.12354). At the start B is 0 and A has no gradient; in a later round, with one rate for
    both, the same rate moves the policy ten times as far.
    """
    named = policy.policy_parameters()
    slow = [p for name, p in named.items() if ".lora_A." in name]
    fast = [p for name, p in named.items() if ".lora_A." not in name]
    return [{"params": fast, "lr": learning_rate}, {"params": slow, "lr": learning_rate / params.lora_plus}]
