"""From scored trajectories to packed rows of tokens.

The attempts at one task share their prompt, and often their first actions and replies too. A row stores
what attempts begin with alike once, as a prefix tree; `abc` are tokens after the prompt of task A:

    attempts   A a b c, A a b c, A a d        B e
    row        [ A a b c | d        | B e ]
    position     0 … 3     2          0 …
    sees         itself    A a, d     itself

What each token attends to is given by `Span`s, so packing is exact and costs no attention between trajectories. Memory
decides the size of a row (`row_tokens`), whole tasks that of a minibatch (`Batch.groups`). So the length of a row does
not change what an optimiser step learns. Sampled tokens are numbered through the whole batch, trajectory by trajectory;
a row knows which of them it holds (`tokens`), so everything else is a flat tensor [N] that does not depend on packing.
Where several attempts sampled a stored token, each has its own number, advantage and share of the loss. Trajectories
that an objective compares within a row, such as the two of a pair, are one *unit*: they are always in the same row and
minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from steptool.training.episode import Episode

Unit = tuple[int, ...]
"""Indices of the trajectories that one row must hold."""


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of a row: causal among themselves, and all see the ranges of `prefix`."""

    start: int
    stop: int
    prefix: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """L tokens for one forward pass, M of them sampled. Index tensors are int64."""

    input_ids: Tensor
    position_ids: Tensor
    spans: tuple[Span, ...]
    predict: Tensor
    """[M] position whose logits predict the token; may repeat."""
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
    trees: tuple[tuple[tuple[int, ...], slice], ...]
    """The prefix trees in the row: the trajectories of each, and its tokens. No token sees another tree."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Batch:
    """E trajectories with N sampled tokens, and how to put them into rows of at most `row_tokens` tokens."""

    episodes: tuple[Episode, ...]
    starts: tuple[int, ...]
    """[E + 1] number of the first token of each trajectory, then N."""
    row_tokens: int
    units: tuple[Unit, ...]
    """Every trajectory is in one of them."""

    @cached_property
    def groups(self) -> tuple[tuple[Unit, ...], ...]:
        """The units whose first trajectories have one task and prompt: what stays together in a minibatch."""
        found: dict[tuple[str, tuple[int, ...]], list[Unit]] = {}
        for unit in self.units:
            first = self.episodes[unit[0]]
            found.setdefault((first.task_id, first.prompt), []).append(unit)
        return tuple(map(tuple, found.values()))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Rows that hold all trajectories."""
        return self.rows_of(self.groups)

    def rows_of(self, groups: Iterable[Sequence[Unit]]) -> tuple[Row, ...]:
        """Rows that hold these groups, longest tree first, each in the first row with room.

        A group whose tree is longer than a row is split, and what its parts share is repeated; a unit that is longer
        gets a row of its own. What a tree holds does not depend on which other groups there are.
        """
        bins: list[list[_Tree]] = []
        trees = [tree for group in groups for tree in _trees(self.episodes, group, self.row_tokens)]
        for tree in sorted(trees, key=lambda t: (-t.length, t.members[0])):
            room = next((b for b in bins if sum(t.length for t in b) + tree.length <= self.row_tokens), None)
            if room is None:
                bins.append([tree])
            else:
                room.append(tree)
        return tuple(_row(b, self.episodes, self.starts) for b in bins)

    @property
    def tokens(self) -> int:
        return self.starts[-1]

    def tokens_of(self, index: int) -> slice:
        """The tokens of one trajectory."""
        return slice(self.starts[index], self.starts[index + 1])

    def owners(self) -> Tensor:
        """[N] which trajectory each token is of."""
        lengths = [len(item.predict) for item in self.episodes]
        return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))

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


def pack(episodes: Iterable[Episode], row_tokens: int, together: Iterable[Sequence[int]] | None = None) -> Batch:
    """Number the sampled tokens of trajectories, to be put into rows of at most `row_tokens`.

    `together` are units of indices, one row each; None where every trajectory is a unit of its own. Raises ValueError
    unless they hold every trajectory once.
    """
    items = tuple(episodes)
    units = tuple((index,) for index in range(len(items))) if together is None else tuple(map(tuple, together))
    if sorted(index for unit in units for index in unit) != list(range(len(items))) or () in units:
        raise ValueError(f"the units do not hold every one of {len(items)} trajectories once")
    return Batch(items, tuple(accumulate((len(item.predict) for item in items), initial=0)), row_tokens, units)


@dataclass(frozen=True)
class _Tree:
    """Attempts that share a row and their common beginnings. `length` counts the tokens of their prefix tree."""

    length: int = 0
    members: tuple[int, ...] = ()

    def grown(self, items: Sequence[Episode], unit: Unit) -> _Tree:
        length, members = self.length, self.members
        for index in unit:
            ids = items[index].ids
            length += len(ids) - max((_shared(items[member].ids, ids) for member in members), default=0)
            members = (*members, index)
        return _Tree(length, members)


def _trees(items: Sequence[Episode], group: Sequence[Unit], row_tokens: int) -> list[_Tree]:
    trees: list[_Tree] = []
    for unit in group:
        grown = trees[-1].grown(items, unit) if trees else None
        if grown is not None and grown.length <= row_tokens:
            trees[-1] = grown
        else:
            trees.append(_Tree().grown(items, unit))
    return trees


def _shared(one: Sequence[int], two: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _row(trees: Sequence[_Tree], items: Sequence[Episode], starts: Sequence[int]) -> Row:
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    predict: list[int] = []
    targets: list[int] = []
    tokens: list[int] = []
    temperature: list[float] = []
    ends: list[int] = []
    members: list[int] = []
    places: list[tuple[tuple[int, ...], slice]] = []
    for tree in trees:
        begin = len(ids)
        before: tuple[int, ...] = ()
        where: list[int] = []  # the row's index of each token of the attempt
        # Attempts are sorted by their tokens, so none shares more with an earlier one than with the one before it.
        for index in sorted(tree.members, key=lambda i: items[i].ids):
            item = items[index]
            shared = _shared(before, item.ids)
            start, stop = len(ids), len(ids) + len(item.ids) - shared
            where = [*where[:shared], *range(start, stop)]
            if stop > start:
                spans.append(Span(start, stop, _ranges(where[:shared])))
            ids += item.ids[shared:]
            positions += range(shared, len(item.ids))
            predict += (where[position] for position in item.predict)
            targets += item.targets
            tokens += range(starts[index], starts[index + 1])
            temperature += [item.temperature] * len(item.predict)
            ends.append(where[-1])
            members.append(index)
            before = item.ids
        places.append((tree.members, slice(begin, len(ids))))
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
        trees=tuple(places),
    )


def _ranges(indices: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Increasing indices as [start, stop) ranges."""
    breaks = [i for i in range(1, len(indices)) if indices[i] != indices[i - 1] + 1]
    edges = [0, *breaks, len(indices)]
    return tuple((indices[a], indices[b - 1] + 1) for a, b in pairwise(edges) if b > a)
