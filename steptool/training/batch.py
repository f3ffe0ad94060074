"""From scored trajectories to packed rows of tokens.

The attempts at one task share their prompt, so a row stores it once:

    row        [ prompt A | attempt 1 | attempt 2 | prompt B | attempt 1 ]
    position     0 … p-1    p …         p …         0 … q-1    q …
    sees         itself     A, itself   A, itself   itself     B, itself

What each token attends to is given by `Span`s, so packing is exact and costs no attention between
trajectories. Sampled tokens are numbered through the whole batch, trajectory by trajectory; a row
knows which of them it holds (`tokens`), so everything else is a flat tensor [N] indifferent to packing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steptool.errors import DataError
from steptool.types import ScoredTrajectory


@dataclass(frozen=True)
class Episode:
    """One trajectory as a token stream: `ids` with M sampled tokens in it.

    `predict[j]` is the position in `ids` whose logits predict sampled token j, one before the token.
    """

    trajectory_id: str
    task_id: str
    ids: tuple[int, ...]
    prompt_length: int
    predict: tuple[int, ...]
    step_ids: tuple[int, ...]
    engine_logprobs: tuple[float, ...]
    rewards: tuple[float, ...]
    temperature: float
    truncated: bool
    """True if the state after the last token must be bootstrapped."""

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.ids[: self.prompt_length]

    @property
    def targets(self) -> tuple[int, ...]:
        return tuple(self.ids[position + 1] for position in self.predict)


def episode(scored: ScoredTrajectory, rewards: Sequence[float]) -> Episode | None:
    """The token stream of a trajectory, or None if nothing was sampled because the engine failed.

    Context after the last sampled token is kept only where its value is needed (a truncation).
    Raises DataError for a step that was not sampled by us, a first step without prompt tokens, and
    rewards that are not finite or not one a step.
    """
    trajectory = scored.trajectory
    where = f"trajectory {trajectory.id}"
    if len(rewards) != len(trajectory.steps):
        raise DataError(f"{len(rewards)} rewards for {len(trajectory.steps)} steps", where=where)
    if not all(map(math.isfinite, rewards)):
        raise DataError(f"rewards {list(rewards)} are not all finite", where=where, fix="look at its judgements")
    truncated = not trajectory.stop_reason.terminated
    sampled = [step for step in trajectory.steps if step.action_ids]
    unsampled_tail = truncated and len(sampled) == len(trajectory.steps) - 1 and not trajectory.steps[-1].action_ids
    if len(sampled) != len(trajectory.steps) and not unsampled_tail:
        raise DataError(
            "a step has no sampled tokens",
            where=where,
            fix="train on it with `steptool sft`, or sample it with a policy",
        )
    if not sampled:
        return None
    if not trajectory.steps[0].context_ids:
        raise DataError("its first step has no prompt tokens", where=where, fix="sample it again")
    ids: list[int] = []
    predict: list[int] = []
    step_ids: list[int] = []
    for index, step in enumerate(sampled):
        ids += step.context_ids
        predict += range(len(ids) - 1, len(ids) - 1 + len(step.action_ids))
        step_ids += [index] * len(step.action_ids)
        ids += step.action_ids
    if unsampled_tail:
        ids += trajectory.steps[-1].context_ids
    return Episode(
        trajectory_id=trajectory.id,
        task_id=trajectory.task_id,
        ids=tuple(ids),
        prompt_length=len(trajectory.steps[0].context_ids),
        predict=tuple(predict),
        step_ids=tuple(step_ids),
        engine_logprobs=tuple(logprob for step in sampled for logprob in step.action_logprobs),
        rewards=tuple(rewards[: len(sampled)]),
        temperature=trajectory.sampling.temperature,
        truncated=truncated,
    )


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of a row: causal among themselves, and all see [prefix_start, prefix_stop)."""

    start: int
    stop: int
    prefix_start: int = 0
    prefix_stop: int = 0


@dataclass(frozen=True, eq=False)
class Row:
    """L tokens for one forward pass, M of them sampled. Index tensors are int64."""

    input_ids: Tensor
    position_ids: Tensor
    spans: tuple[Span, ...]
    predict: Tensor
    """[M] position whose logits predict the token."""
    targets: Tensor
    """[M] vocabulary id of the token."""
    tokens: Tensor
    """[M] number of the token in the batch."""
    temperature: Tensor
    """[M] that it was sampled at."""
    ends: Tensor
    """[E] position of the last token of each trajectory."""
    episodes: tuple[int, ...]
    """[E] which trajectories, as indices into the batch."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Batch:
    """E trajectories with N sampled tokens, and the rows that hold them."""

    episodes: tuple[Episode, ...]
    rows: tuple[Row, ...]
    starts: tuple[int, ...]
    """[E + 1] number of the first token of each trajectory, then N."""

    @property
    def tokens(self) -> int:
        return self.starts[-1]

    def tokens_of(self, index: int) -> slice:
        """The tokens of one trajectory."""
        return slice(self.starts[index], self.starts[index + 1])

    def step_ids(self, index: int) -> Tensor:
        return torch.tensor(self.episodes[index].step_ids)

    def engine_logprobs(self) -> Tensor:
        return torch.tensor([logprob for item in self.episodes for logprob in item.engine_logprobs])

    def weights(self, *, by_step: bool) -> Tensor:
        """[N] how much each token counts in a mean: 1, or 1/|S_k| so that every step counts once."""
        if not by_step:
            return torch.ones(self.tokens)
        parts = []
        for index in range(len(self.episodes)):
            _, inverse, counts = torch.unique(self.step_ids(index), return_inverse=True, return_counts=True)
            parts.append(1 / counts[inverse])
        return torch.cat(parts)

    def first_tokens(self) -> Tensor:
        """[N] 1 at the first token of every step, else 0."""
        parts = [torch.diff(self.step_ids(i), prepend=torch.tensor([-1])) for i in range(len(self.episodes))]
        return (torch.cat(parts) > 0).float()


def pack(episodes: Iterable[Episode], row_tokens: int) -> Batch:
    """Put trajectories into rows of at most `row_tokens`; one that is longer gets a row of its own.

    Attempts with the same task and prompt share the prompt; a group that does not fit is split and
    its prompt repeated. Groups are then placed longest first into the first row with room.
    """
    items = tuple(episodes)
    starts = [0]
    for item in items:
        starts.append(starts[-1] + len(item.predict))
    bins: list[list[_Group]] = []
    for group in sorted(_groups(items, row_tokens), key=lambda g: (-g.length, g.members[0])):
        room = next((b for b in bins if sum(g.length for g in b) + group.length <= row_tokens), None)
        if room is None:
            bins.append([group])
        else:
            room.append(group)
    rows = tuple(_row(b, items, starts) for b in bins)
    return Batch(items, rows, tuple(starts))


@dataclass
class _Group:
    """Attempts that share a prompt and a row."""

    length: int
    members: list[int] = field(default_factory=list)


def _groups(items: Sequence[Episode], row_tokens: int) -> list[_Group]:
    groups: list[_Group] = []
    current: dict[tuple[str, tuple[int, ...]], _Group] = {}
    for index, item in enumerate(items):
        key = (item.task_id, item.prompt)
        rest = len(item.ids) - item.prompt_length
        group = current.get(key)
        if group is None or group.length + rest > row_tokens:
            group = current[key] = _Group(item.prompt_length)
            groups.append(group)
        group.members.append(index)
        group.length += rest
    return groups


def _row(groups: Sequence[_Group], items: Sequence[Episode], starts: Sequence[int]) -> Row:
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    predict: list[int] = []
    targets: list[int] = []
    tokens: list[int] = []
    temperature: list[float] = []
    ends: list[int] = []
    members: list[int] = []
    for group in groups:
        prompt = items[group.members[0]].prompt
        prompt_start, prompt_stop = len(ids), len(ids) + len(prompt)
        spans.append(Span(prompt_start, prompt_stop))
        ids += prompt
        positions += range(len(prompt))
        for index in group.members:
            item = items[index]
            start, shift = len(ids), len(ids) - len(prompt)
            ids += item.ids[len(prompt) :]
            positions += range(len(prompt), len(item.ids))
            spans.append(Span(start, len(ids), prompt_start, prompt_stop))
            predict += (p + (shift if p >= len(prompt) else prompt_start) for p in item.predict)
            targets += item.targets
            tokens += range(starts[index], starts[index + 1])
            temperature += [item.temperature] * len(item.predict)
            ends.append(len(ids) - 1)
            members.append(index)
    return Row(
        input_ids=torch.tensor(ids),
        position_ids=torch.tensor(positions),
        spans=tuple(spans),
        predict=torch.tensor(predict),
        targets=torch.tensor(targets),
        tokens=torch.tensor(tokens),
        temperature=torch.tensor(temperature),
        ends=torch.tensor(ends),
        episodes=tuple(members),
    )
