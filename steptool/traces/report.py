"""What an import did: kept, merged, skipped and scrubbed, and what judgement by rules says of what was kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from steptool.annotators.rules import Rules
from steptool.core.errors import DataError
from steptool.core.types import Frozen, Judgement, Reference, Task, Trajectory

MOST_JUDGED = 1_000
"""Trajectories that are judged for the report."""
MOST_PLACES = 3
"""Places that are named for each reason to skip a record."""
MOST_FAULTS = 8
"""Kinds of faults that are listed."""


class Places(Frozen):
    count: int
    first: tuple[str, ...]
    """Where the first few stand."""


class Judged(Frozen):
    """Judgement by rules of the first trajectories. A step is any action but the last."""

    trajectories: int
    steps: int
    succeeded: float | None
    """Mean success of their steps, None without any."""
    contributed: float | None
    """Mean contribution."""
    succeeded_by_label: dict[str, float]
    """Mean success of the steps of attempts that the source calls solved, and of those that it does not."""
    faults: dict[str, int]
    """What the steps failed by, the commonest first."""


class Report(Frozen):
    """`import.json`."""

    source: str
    kind: str
    kept: int
    """Trajectories that the folder holds."""
    earlier: int = 0
    """Of these, the ones that it held before; `--add`."""
    tasks: int
    tasks_with_a_check: int
    copies: int
    """Conversations that were in the source, or in the folder, before."""
    beginnings: int
    """Conversations that go on in another one, as a log of requests holds them."""
    skipped: dict[str, Places]
    """Records by the reason why they were left out."""
    stop_reasons: dict[str, int]
    models: dict[str, int]
    labels: dict[str, int]
    """How many attempts are solved, not solved, in between and unknown."""
    contradictions: int
    """Attempts whose copies have different labels: unknown."""
    system_messages: int
    """Messages of the system that were left out."""
    tools: int
    inferred_tools: tuple[str, ...]
    """Tools whose arguments are known from calls alone."""
    varied_tools: tuple[str, ...]
    """Tools that the source describes in several ways; the commonest is kept."""
    scrubbed: dict[str, int]
    """Occurrences by what they were."""
    never_found: tuple[str, ...] = ()
    """Options that name a field which nothing had, such as `--drop nmae`."""
    judged: Judged


class Skips:
    """Counts what was left out."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, where: str, reason: str) -> None:
        self._count[reason] += 1
        places = self._first.setdefault(reason, [])
        if len(places) < MOST_PLACES:
            places.append(where)

    def places(self) -> dict[str, Places]:
        """The commonest reason first."""
        return {
            reason: Places(count=count, first=tuple(self._first[reason])) for reason, count in self._count.most_common()
        }

    def __str__(self) -> str:
        return "; ".join(f"{count:,} × {reason}" for reason, count in self._count.most_common())


def judge(done: Sequence[Trajectory], tasks: Mapping[str, Task]) -> Judged:
    """What the rules say; a trajectory whose tools have broken schemas is left out."""
    judged = asyncio.run(_judge(done, tasks))
    by_label: dict[str, list[float]] = {}
    for trajectory, judgements in judged:
        if trajectory.outcome.solved is not None:
            label = "solved" if trajectory.outcome.solved >= 0.5 else "not solved"
            by_label.setdefault(label, []).extend(each.success for each in judgements if each.success is not None)
    steps = [each for _, judgements in judged for each in judgements[:-1]]
    faults = Counter(_kind(each.reason) for each in steps if each.success is not None and each.success < 1)
    return Judged(
        trajectories=len(judged),
        steps=len(steps),
        succeeded=_mean([each.success for each in steps]),
        contributed=_mean([each.contribution for each in steps]),
        succeeded_by_label={
            label: mean for label, found in sorted(by_label.items()) if (mean := _mean(found)) is not None
        },
        faults=dict(faults.most_common(MOST_FAULTS)),
    )


async def _judge(done: Sequence[Trajectory], tasks: Mapping[str, Task]) -> list[tuple[Trajectory, Sequence[Judgement]]]:
    rules, found = Rules(Rules.Config()), []
    for trajectory in done:
        reference = Reference(task_id=trajectory.task_id)
        try:
            found.append((trajectory, await rules.annotate(trajectory, tasks[trajectory.task_id], reference)))
        except DataError:
            continue
    return found


def _kind(reason: str) -> str:
    """`bad arguments`, `error: unknown_id`: a reason without what it quotes."""
    kind, _, rest = reason.partition(";")[0].partition(":")
    return f"{kind}:{rest}" if kind == "error" else kind


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
