"""Made-up evaluations that look like a real run; `python sample_data.py FILE` writes their report for the eye."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from steptool.core.types import (
    FINISH,
    SUBSETS,
    AnswerCheck,
    Judgement,
    Observation,
    Revision,
    Sampling,
    ScoredTrajectory,
    Step,
    StopReason,
    Task,
    Tool,
    ToolCall,
    Trajectory,
)
from steptool.evaluation.compare import compare
from steptool.evaluation.metrics import Budget, Evaluation, evaluate
from steptool.report.page import ReportData, RoundStats, render_report

WORLD = Revision(name="mini", revision="4c1f09aa")
RULES = Revision(name="rules", revision="1")
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_calls=8, max_step_tokens=64, max_tokens=1024)
LOOKUP = Tool(
    name="libris.find_book",
    description="find a book by its title",
    parameters={"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
    category="books",
)
DETAILS = Tool(
    name="libris.book_details",
    description="details of a book",
    parameters={"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    category="books",
)


def task(index: int, subset: str = "G1_tool") -> Task:
    return Task(
        id=f"{subset}-{index:03d}",
        subset=subset,
        query=f"My reading group meets in spring. In which year did “The Glass Orchard {index}” first appear?",
        tools=(LOOKUP, DETAILS),
        relevant_tools=(LOOKUP.name, DETAILS.name),
        answer_check=AnswerCheck(kind="number", expected=1970 + index % 50),
    )


def call(name: str, arguments: dict[str, Any], text: str | None = None, error: str | None = None) -> Step:
    observation = None if text is None else Observation(text=text, error=error)
    ids = tuple(range(18))
    return Step(
        call=ToolCall(name=name, arguments=arguments),
        observation=observation,
        context_ids=(1, 2, 3),
        action_ids=ids,
        action_logprobs=(-0.1,) * len(ids),
    )


def parse_error(problem: str, text: str = "parse error") -> Step:
    return Step(parse_error=problem, observation=Observation(text=text, error="parse_error"))


def finish(answer: str) -> Step:
    return call(FINISH, {"answer": answer})


def give_up() -> Step:
    return call(FINISH, {"give_up": True})


def scored(
    of: Task,
    steps: list[Step],
    solved: float,
    *,
    policy: str = "sft",
    attempt: int = 0,
    stop: StopReason | None = None,
    sampling: Sampling = SAMPLING,
) -> ScoredTrajectory:
    """A judged trajectory whose stop reason follows from its last step unless given."""
    last = steps[-1] if steps else None
    answer = None
    if last is not None and last.is_finish and last.call is not None:
        answer = last.call.arguments.get("answer")
        stop = stop or (StopReason.finished if answer is not None else StopReason.gave_up)
    trajectory = Trajectory.create(
        task_id=of.id,
        subset=of.subset,
        steps=tuple(steps),
        stop_reason=stop or StopReason.call_budget,
        answer=answer,
        policy=Revision(name=policy, revision="0"),
        world=WORLD,
        sampling=sampling,
        seed=attempt,
        attempt=attempt,
    )
    judgements = [
        Judgement(
            success=float(step.call is not None and not (step.observation and step.observation.error)), contribution=0.5
        )
        for step in steps[:-1]
    ]
    if steps:
        judgements.append(Judgement(solved=solved))
    return ScoredTrajectory(trajectory=trajectory, judgements=tuple(judgements), annotator=RULES)


def budget(tasks: list[Task], attempts: int = 1, sampling: Sampling = SAMPLING) -> Budget:
    return Budget.of(tasks, sampling, attempts=attempts, world=WORLD, annotator=RULES, split="test")


def evaluation(
    name: str, judged: list[ScoredTrajectory], tasks: list[Task], attempts: int = 1, seed: int = 0
) -> Evaluation:
    return evaluate(
        name,
        Revision(name=name, revision="0"),
        judged,
        tasks,
        budget(tasks, attempts),
        resamples=500,
        confidence=0.95,
        rng=np.random.default_rng(seed),
    )


def attempt_at(of: Task, skill: float, rng: np.random.Generator, policy: str) -> ScoredTrajectory:
    """One attempt that solves the task with probability `skill`, and else fails in one of the usual ways."""
    title = of.query.split("“")[1].split("”")[0]
    find = call(LOOKUP.name, {"title": title}, f'{{"id":"bk417","title":"{title}"}}')
    limit = call(LOOKUP.name, {"title": title}, '{"error":"rate limit, retry"}', "rate_limit")
    details = call(DETAILS.name, {"id": "bk417"}, '{"id":"bk417","year":1983,"pages":312,"author":"Ines Ferrow"}')
    hiccup = [limit] if rng.random() < 0.35 else []
    if rng.random() < skill:
        return scored(of, [*hiccup, find, details, finish("1983")], 1.0, policy=policy)
    kind = rng.choice(6, p=[0.38, 0.3, 0.12, 0.08, 0.07, 0.05])
    if kind == 0:
        return scored(of, [limit, give_up()], 0.0, policy=policy)
    if kind == 1:
        return scored(of, [*hiccup, find, finish("312")], 0.0, policy=policy)
    if kind == 2:
        return scored(of, [limit] * 8, 0.0, policy=policy)
    if kind == 3:
        broken = call(DETAILS.name, {"book": "bk417"}, '{"error":"missing_argument: id"}', "missing_argument")
        return scored(of, [find, *[broken] * 7], 0.0, policy=policy)
    if kind == 4:
        return scored(
            of, [call("libris.year", {"id": "bk417"}, "no such tool", "unknown_tool")] * 8, 0.0, policy=policy
        )
    return scored(of, [parse_error("no JSON object after the tool's name")] * 8, 0.0, policy=policy)


def report_data(tasks_per_subset: int = 50) -> ReportData:
    rng = np.random.default_rng(7)
    tasks = [task(index, subset) for index in range(tasks_per_subset) for subset in SUBSETS]
    hardness = {subset: 0.06 * position for position, subset in enumerate(SUBSETS)}
    judged, evaluations = {}, []
    for name, skill in (("sft", 0.6), ("r1", 0.68), ("r2", 0.74), ("r3", 0.8), ("rft", 0.66)):
        judged[name] = [attempt_at(each, skill - hardness[each.subset], rng, name) for each in tasks]
        evaluations.append(evaluation(name, judged[name], tasks))
    comparisons = [compare(each, evaluations[0], resamples=1000, confidence=0.95, seed=3) for each in evaluations[1:]]
    comparisons.append(compare(evaluations[3], evaluations[4], resamples=1000, confidence=0.95, seed=3))
    rewards = {
        each.trajectory.id: [0.2] * (len(each.judgements) - 1) + [each.solved - 0.02]
        for records in judged.values()
        for each in records
    }
    training = {
        f"r{number}": [
            {
                "explained_variance": 0.75 - 0.6 * math.exp(-(index + 6 * number) / 9) + float(rng.normal(0, 0.02)),
                "approx_kl": 0.004 + 0.002 * index / 8 + float(rng.normal(0, 0.0006)),
                "grad_norm": 0.6 + float(rng.normal(0, 0.1)),
                "clip_fraction": 0.02 + 0.01 * index / 8 + float(rng.normal(0, 0.004)),
            }
            for index in range(8)
        ]
        for number in (1, 2, 3)
    }
    stats = {
        f"r{number}": RoundStats(
            solve_rate=0.38 + 0.08 * number,
            call_success=0.66 + 0.06 * number,
            reward_by_step=tuple(0.1 + 0.05 * number + 0.06 * step - 0.01 * step**2 for step in range(7)),
            advantage_by_step=tuple(0.12 - 0.05 * number + 0.03 * math.sin(step) for step in range(7)),
        )
        for number in (1, 2, 3)
    }
    return ReportData(
        evaluations=evaluations,
        comparisons=comparisons,
        judged=judged,
        training=training,
        round_stats=stats,
        tasks=tasks,
        rewards=rewards,
        meta={"seed": 17, "code_version": "0.1.0", "params": "seed: 17\nworld:\n  name: mini\n"},
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_report(report_data()), encoding="utf-8")
