"""How much likelier one policy finds the actions of recorded attempts than another does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from steptool.core.errors import DataError, ModelError
from steptool.core.types import Trajectory
from steptool.policies.folder import resolve_policy, saved_config
from steptool.system.progress import progress
from steptool.training.batch import Batch, pack
from steptool.training.episode import Episode, sampled_episode
from steptool.training.model import AdapterSettings, PolicyWithValue

ROW = 2048
"""Tokens of a row."""


class StepRatios:
    """Of two policy folders; they are loaded when they are first asked, in float32: the difference of two policies is
    of the size of what bfloat16 rounds away."""

    def __init__(self, policy: Path, reference: Path) -> None:
        self._folders = (policy, reference)

    @cached_property
    def _policies(self) -> tuple[PolicyWithValue, PolicyWithValue]:
        """Raises ModelError where one is no policy, or they have other vocabularies."""
        first, second = (PolicyWithValue.load(folder, _shape(folder)) for folder in self._folders)
        if first.vocabulary != second.vocabulary:
            raise ModelError(
                f"has {second.vocabulary} tokens, and {self._folders[0]} has {first.vocabulary}: they do not read the "
                "same text alike",
                where=str(self._folders[1]),
                fix="take a policy and the one that it was trained from",
            )
        return first, second

    def __call__(self, attempts: Sequence[Trajectory]) -> list[list[float | None]]:
        """log π(action) − log π_reference(action) of every step of every attempt, in nats at temperature 1; None where
        nothing was sampled here.

        Raises DataError for tokens that the policies do not have, and what loading them raises.
        """
        found: list[list[float | None]] = [[None] * len(attempt.steps) for attempt in attempts]
        streams = {index: made for index, attempt in enumerate(attempts) if (made := _stream(attempt))}
        if not streams:
            return found
        for made in streams.values():
            if max(made.ids) >= self._policies[0].vocabulary:
                raise DataError(
                    f"has token {max(made.ids)}, and {self._folders[0]} has {self._policies[0].vocabulary} tokens",
                    where=f"trajectory {made.trajectory_id}",
                    fix="compare policies of the model that sampled it",
                )
        batch = pack(streams.values(), ROW)
        first, second = (_logprobs(policy, batch) for policy in self._policies)
        for number, (index, made) in enumerate(streams.items()):
            gain = (first - second)[batch.tokens_of(number)]
            steps = gain.new_zeros(len(made.rewards)).index_add(0, batch.step_ids(number), gain)
            found[index][: len(steps)] = steps.tolist()
        return found


def _shape(folder: Path) -> AdapterSettings:
    """Of the adapter of a policy; a plain model gets a small one, which changes nothing."""
    adapter = resolve_policy(folder).adapter
    if adapter is None:
        return AdapterSettings(lora_rank=1, lora_first_layer=0)
    saved = saved_config(adapter)
    layers = saved.layers_to_transform
    first = min(layers) if isinstance(layers, list) else int(layers or 0)
    return AdapterSettings(lora_rank=saved.r, lora_alpha=saved.lora_alpha, lora_first_layer=first)


def _stream(attempt: Trajectory) -> Episode | None:
    sampled = [bool(step.action_ids) for step in attempt.steps]
    if attempt.conditions is None or not any(sampled) or not all(sampled[:-1]):
        return None
    if not sampled[-1] and attempt.stop_reason.terminated:
        return None
    made = sampled_episode(attempt, [0.0] * len(attempt.steps))
    return made and replace(made, temperature=1.0)


@torch.no_grad()
def _logprobs(policy: PolicyWithValue, batch: Batch) -> Tensor:
    """[N] in float64."""
    found = torch.zeros(batch.tokens, dtype=torch.float64)
    with progress("compare policies", len(batch.rows), "rows") as advance:
        for row in batch.rows:
            found[row.tokens] = policy(row).logprobs.double().cpu()
            advance(1)
    return found
