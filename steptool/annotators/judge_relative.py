"""Judges attempts at one task against each other, and one attempt against another. Each is asked in both orders.

score of an attempt     mean of its scores as the attempts are shown in one order and in the other, over the votes
a against b             a wins where it is preferred in both orders; where the orders disagree it is a tie
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean

from steptool.annotators.judge_answers import read_preference, read_ranks
from steptool.annotators.judge_asking import Answer, Asking
from steptool.annotators.judge_prompt import PREFER, RANK, compare_question, prefer_schema, rank_schema
from steptool.core.types import Reference, Task, Trajectory

Scores = dict[str, float | None]


class Relative:
    """Ranks the attempts at each task that `look_ahead` was given, once."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._attempts: dict[str, dict[str, Trajectory]] = {}
        self._ranked: dict[str, asyncio.Task[tuple[Scores, float]]] = {}

    def look_ahead(self, trajectories: Sequence[Trajectory]) -> None:
        """These are compared from now on, and those of before no more."""
        self._attempts, self._ranked = {}, {}
        for each in trajectories:
            self._attempts.setdefault(each.task_id, {})[each.id] = each

    async def score(self, trajectory: Trajectory, task: Task, reference: Reference) -> tuple[float | None, float]:
        """In [0, 1], and its share of the cost. 0 without an answer; None of an attempt that a fault ended, of the only
        one with an answer, and where the judge gives no usable answer."""
        if trajectory.answer is None:
            return (None if trajectory.stop_reason.broken else 0.0), 0.0
        siblings = self._attempts.get(task.id, {})
        answered = [siblings[id] for id in sorted(siblings) if siblings[id].answer is not None]
        if len(answered) < 2 or trajectory.id not in siblings:
            return None, 0.0
        if task.id not in self._ranked:
            self._ranked[task.id] = asyncio.create_task(self._rank(answered, task, reference))
        scores, cost = await self._ranked[task.id]
        return scores[trajectory.id], cost / len(answered)

    async def _rank(self, attempts: Sequence[Trajectory], task: Task, reference: Reference) -> tuple[Scores, float]:
        most = self._asking.config.max_observation

        async def asked(order: Sequence[Trajectory], vote: int) -> tuple[Sequence[Trajectory], Answer[list[float]]]:
            question = compare_question(order, task, reference, most)
            schema = rank_schema()
            return order, await self._asking.ask(
                RANK, question, schema, lambda text: read_ranks(text, len(order)), vote=vote
            )

        orders = (list(attempts), list(reversed(attempts)))
        votes = range(self._asking.config.votes)
        answers = await asyncio.gather(*(asked(order, vote) for vote in votes for order in orders))
        found: dict[str, list[float]] = {each.id: [] for each in attempts}
        for vote in votes:  # an order alone would favour those that stand where the judge likes them
            both = answers[2 * vote : 2 * vote + 2]
            for order, answer in both if all(each.value is not None for _, each in both) else ():
                for attempt, score in zip(order, answer.value or (), strict=True):
                    found[attempt.id].append(score)
        return {id: fmean(own) if own else None for id, own in found.items()}, sum(each.cost for _, each in answers)


async def preferred(
    asking: Asking, one: Trajectory, other: Trajectory, task: Task, reference: Reference
) -> tuple[float | None, bool]:
    """1 where `one` is better, 0 where `other` is, 1/2 for a tie, as a mean over the votes; None where no vote could be
    used. And whether the two orders disagreed in any.

    Of two attempts of which one has no answer, the other is better; of two without, neither. Nobody is asked then.
    """
    if one.answer is None or other.answer is None:
        return 0.5 + ((one.answer is not None) - (other.answer is not None)) / 2, False
    most = asking.config.max_observation

    async def asked(first: Trajectory, second: Trajectory, vote: int) -> int | None:
        question = compare_question((first, second), task, reference, most)
        return (await asking.ask(PREFER, question, prefer_schema(), read_preference, vote=vote)).value

    votes = range(asking.config.votes)
    found = await asyncio.gather(*(asked(*pair, vote) for vote in votes for pair in ((one, other), (other, one))))
    pairs = [(found[2 * vote], found[2 * vote + 1]) for vote in votes]
    usable = [(straight, swapped) for straight, swapped in pairs if straight is not None and swapped is not None]
    if not usable:
        return None, False
    values = [0.5 + straight / 2 if straight == -swapped else 0.5 for straight, swapped in usable]
    return fmean(values), any(straight != -swapped for straight, swapped in usable)
