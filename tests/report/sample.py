"""Made-up results that look like a real run.

`python -m tests.report.sample FILE [SHARE]` writes their page for the eye; SHARE of the tasks have a check.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from steptool.core.types import (
    SUBSETS,
    Outcome,
    Reference,
    Revision,
    ScoredTrajectory,
    Step,
    StopReason,
    Task,
    Trajectory,
)
from steptool.evaluation.compare import compare
from steptool.evaluation.metrics import Evaluation, evaluate, primary_measure
from steptool.report.page import ReportData, Round, Trained, render_report
from steptool.report.results import Arm
from steptool.testing import (
    call,
    conditions,
    finish,
    give_up,
    reference,
    step,
    tool,
    trajectory,
    unreadable,
)
from steptool.testing import scored as judged_by_default
from steptool.testing import task as build_task

CONDITIONS = conditions(temperature=0.0)
LOOKUP = tool("libris.find_book", "find a book by its title", needs={"title": "string"}, category="books")
DETAILS = tool("libris.book_details", "details of a book", needs={"id": "string"}, category="books")
IDS = tuple(range(18))

SFT = Arm(name="warmup", method="sft", start="base", data=("demonstrations",))
FIRST = Arm(name="first", method="step_ppo", start="warmup", data=("monday",))
SECOND = Arm(name="second", method="step_ppo", start="first", data=("tuesday",))
FILTERED = Arm(name="filtered", method="rft", start="warmup", data=("monday", "tuesday"))
THEIRS = Arm(name="theirs")
ARMS = [SFT, FIRST, SECOND, FILTERED, THEIRS]
SKILLS = {"warmup": 0.6, "first": 0.7, "second": 0.8, "filtered": 0.66, "theirs": 0.64}
PAIRS = [("second", "warmup"), ("second", "filtered")]


class Retries:
    """A metric of a project."""

    describes = "calls that repeat the one before"
    is_rate = False

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        actions = [each.action for each in scored.trajectory.steps]
        return sum(one == other for one, other in pairwise(actions)), 1


def task(index: int, group: str = "G1_tool") -> Task:
    query = f"My reading group meets in spring. In which year did “The Glass Orchard {index}” first appear?"
    return build_task(f"{group}-{index:03d}", query, LOOKUP, DETAILS, group=group)


def did(name: str, reply: Any = None, error: str | None = None, **arguments: Any) -> Step:
    return step(call(name, **arguments), reply, error=error, context_ids=(1, 2, 3), action_ids=IDS)


def answer(text: str) -> Step:
    return finish(text, action_ids=IDS)


def scored(
    of: Task,
    steps: Sequence[Step],
    solved: float | None,
    *,
    arm: str = "warmup",
    attempt: int = 0,
    stop: StopReason | None = None,
) -> ScoredTrajectory:
    """A judged attempt of an arm."""
    made = trajectory(
        *steps, of=of, solved=solved, policy=arm, conditions=CONDITIONS, seed=attempt, attempt=attempt, stop=stop
    )
    return judged_by_default(made)


def evaluation(
    arm: str,
    judged: list[ScoredTrajectory],
    tasks: list[Task],
    attempts: int = 1,
    seed: int = 0,
    *,
    checked: Collection[Task] | None = None,
) -> Evaluation:
    """`checked` are the tasks with a check; all, where nothing else is said."""
    return evaluate(
        arm,
        Revision(name=arm, revision="1"),
        judged,
        tasks,
        {
            each.id: reference(each, 1983 if checked is None or each in checked else None, [LOOKUP.name, DETAILS.name])
            for each in tasks
        },
        conditions=CONDITIONS,
        annotator=Revision(name="rules", revision="1"),
        split="test",
        attempts=attempts,
        more={"retries": Retries()},
        resamples=500,
        confidence=0.95,
        rng=np.random.default_rng(seed),
    )


def without_verdict(of: ScoredTrajectory) -> ScoredTrajectory:
    fields = {name: value for name, value in of.trajectory if name != "id"}
    return judged_by_default(Trajectory.create(**fields | {"outcome": Outcome()}))


def attempt_at(of: Task, skill: float, rng: np.random.Generator, arm: str) -> ScoredTrajectory:
    """One attempt that solves the task with probability `skill`, and else fails in one of the usual ways."""
    title = of.query.split("“")[1].split("”")[0]
    find = did(LOOKUP.name, {"id": "bk417", "title": title}, title=title)
    limit = did(LOOKUP.name, {"error": "rate limit, retry"}, "rate_limit", title=title)
    details = did(DETAILS.name, {"id": "bk417", "year": 1983, "pages": 312, "author": "Ines Ferrow"}, id="bk417")
    hiccup = [limit] if rng.random() < 0.35 else []
    if rng.random() < skill:
        return scored(of, [*hiccup, find, details, answer("1983")], 1.0, arm=arm)
    wrong = did(DETAILS.name, {"error": "missing_argument: id"}, "missing_argument", book="bk417")
    unknown = did("libris.year", "no such tool", "unknown_tool", id="bk417")
    garbled = step(unreadable("no JSON object after the tool's name"), error="parse_error")
    ways = [
        [limit, give_up(action_ids=IDS)],
        [*hiccup, find, answer("312")],
        [limit] * 8,
        [find, *[wrong] * 7],
        [unknown] * 8,
        [garbled] * 8,
    ]
    return scored(of, ways[rng.choice(6, p=[0.38, 0.3, 0.12, 0.08, 0.07, 0.05])], 0.0, arm=arm)


def report_data(
    tasks_per_group: int = 50,
    *,
    arms: Sequence[Arm] = ARMS,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    checked: float = 1.0,
) -> ReportData:
    """`checked`: share of the tasks that have a check."""
    rng = np.random.default_rng(7)
    tasks = [task(index, group) for index in range(tasks_per_group) for group in SUBSETS]
    hardness = {group: 0.06 * position for position, group in enumerate(SUBSETS)}
    judged, evaluations = {}, {}
    for arm in arms:
        skill = SKILLS.get(arm.name, 0.7)
        made = [attempt_at(each, skill - hardness[each.group], rng, arm.name) for each in tasks]
        known = tasks[: round(checked * len(tasks))]
        judged[arm.name] = made[: len(known)] + [without_verdict(each) for each in made[len(known) :]]
        evaluations[arm.name] = evaluation(arm.name, judged[arm.name], tasks, checked=known)
    measure = primary_measure(list(evaluations.values()))
    trained = [arm for arm in arms if arm.method]
    rounds = dict.fromkeys(source for arm in trained for source in arm.data if source != "demonstrations")
    return ReportData(
        arms=list(arms),
        evaluations=list(evaluations.values()),
        comparisons=[
            compare(
                evaluations[candidate],
                evaluations[baseline],
                resamples=1000,
                confidence=0.95,
                seed=3,
                measure=measure,
            )
            for candidate, baseline in pairs
        ],
        judged=judged,
        trained={arm.name: training(arm, rng) for arm in trained},
        rounds={
            name: Round(
                sampled_from=arms[index].name,
                solve_rate=0.38 + 0.08 * index if checked else None,
                call_success=0.66 + 0.06 * index,
                reward_by_step=tuple(0.1 + 0.05 * index + 0.06 * k - 0.01 * k**2 for k in range(7)),
            )
            for index, name in enumerate(rounds)
        },
        tasks=tasks,
        rewards={
            each.trajectory.id: [0.2] * (len(each.judgements) - 1) + [(each.solved or 0) - 0.02]
            for records in judged.values()
            for each in records
        },
        meta={"seed": 17, "base model": "smollm2", "params.yaml": "seed: 17\nworld: {use: mini}\n"},
    )


def training(arm: Arm, rng: np.random.Generator) -> Trained:
    if arm.method != "step_ppo":
        rows = [{"step": k, "loss": 2.1 * math.exp(-k / 20) + 0.3 + float(rng.normal(0, 0.05))} for k in range(80)]
        return Trained(steps=rows)
    rows = [
        {
            "step": k,
            "explained_variance": 0.75 - 0.6 * math.exp(-k / 9) + float(rng.normal(0, 0.02)),
            "approx_kl": 0.004 + 0.002 * k / 8 + float(rng.normal(0, 0.0006)),
            "grad_norm": 0.6 + float(rng.normal(0, 0.1)),
            "clip_fraction": 0.02 + 0.01 * k / 8 + float(rng.normal(0, 0.004)),
            "value_loss": 0.4 - 0.02 * k,
        }
        for k in range(16)
    ]
    return Trained(steps=rows, advantage_by_step=tuple(0.12 + 0.03 * math.sin(k) for k in range(7)))


if __name__ == "__main__":
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    Path(sys.argv[1]).write_text(render_report(report_data(checked=share)), encoding="utf-8")
