"""Judged attempts at made-up tasks, and their evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steptool import testing
from steptool.core.types import Conditions, Reference, ScoredTrajectory, Step, StopReason, Task
from steptool.evaluation.base import Metric
from steptool.evaluation.metrics import Evaluation, evaluate
from steptool.testing import conditions, reference, revision, tool, trajectory

CONDITIONS = conditions(temperature=0.0)
LOOKUP = tool("libris.find_book", "find a book by its title", needs={"title": "string"}, category="books")
DETAILS = tool("libris.book_details", "details of a book", needs={"id": "string"}, category="books")
TOKENS = {"context_ids": (1, 2, 3), "action_ids": tuple(range(18))}


def task(index: int, group: str = "G1_tool") -> Task:
    return testing.task(
        f"{group}-{index:03d}", f"When did “The Glass Orchard {index}” appear?", LOOKUP, DETAILS, group=group
    )


def references(tasks: Sequence[Task]) -> dict[str, Reference]:
    return {each.id: reference(each, 1970, relevant=(LOOKUP.name, DETAILS.name)) for each in tasks}


def call(name: str, arguments: dict[str, Any], reply: Any = None, error: str | None = None) -> Step:
    return testing.step(testing.call(name, **arguments), reply, error=error, **TOKENS)


def finish(answer: str) -> Step:
    return testing.finish(answer, **TOKENS)


def give_up() -> Step:
    return testing.give_up(**TOKENS)


def scored(
    of: Task,
    steps: list[Step],
    solved: float | None,
    *,
    policy: str = "sft",
    attempt: int = 0,
    stop: StopReason | None = None,
    under: Conditions | None = CONDITIONS,
) -> ScoredTrajectory:
    """A judged attempt whose stop reason follows from its last step unless given."""
    made = trajectory(*steps, of=of, stop=stop, solved=solved, policy=policy, conditions=under, attempt=attempt)
    return testing.scored(made)


def evaluation(
    name: str,
    judged: Sequence[ScoredTrajectory],
    tasks: Sequence[Task],
    attempts: int = 1,
    *,
    known: Mapping[str, Reference] | None = None,
    more: Mapping[str, Metric] | None = None,
) -> Evaluation:
    return evaluate(
        name,
        revision(name),
        judged,
        tasks,
        references(tasks) if known is None else known,
        conditions=CONDITIONS,
        annotator=revision("rules"),
        attempts=attempts,
        split="test",
        resamples=500,
        confidence=0.95,
        rng=np.random.default_rng(0),
        more=more,
    )
