"""What the bundled world, its demonstrations, the rules, the rewards and the metrics gave before the code moved.

Only values are pinned, not records: names of fields and files may change, results may not. What moved since:

    was                                       is
    Task.subset                               Task.group
    Task.relevant_tools, Task.answer_check    Reference.relevant_tools, Reference.answer_check
    Step.call                                 Step.action.calls[0]
    Step.observation                          Step.observations[0]; none of the last step

    what            from                                             pinned
    tasks           mini, seed 17, 640 + 240 + 300                   id, group, query, tools, answer
    replies         its 320 demonstrations, every call really made   call, reply, error
    judgements      the rules on these                               success, contribution, verdict a step
    rewards         both forms                                       one a step, to 12 digits
    streams         the toy tokenizer, prompt and demonstration      token ids and mask
    summary         the demonstrations as attempts at their tasks    every number
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from steptool.annotators.rules import Rules
from steptool.core.plugins import revision_of
from steptool.core.types import ScoredTrajectory, Task, Trajectory, content_hash
from steptool.evaluation.metrics import evaluate
from steptool.formats.episode import encode
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential
from steptool.testing import CONDITIONS
from steptool.worlds.base import SPLITS
from steptool.worlds.mini import MiniWorld

GOLDEN = {
    "tasks": "7450371291b5f937",
    "replies": "8f3357b34e5de10d",
    "judgements": "0e5b30d35ebadb53",
    "rewards potential": "3554fda02d3f207a",
    "rewards paper": "d18825923711955c",
    "streams": "bb27c332c8cf956d",
}
SUMMARY = {
    "pass_rate": 0.78125,
    "finish_rate": 0.834375,
    "pass_rate_finished": 0.9363295880149812,
    "tool_recall": 0.9552083333333335,
    "calls_per_task": 3.309375,
    "tokens_per_task": 0.0,
    "call_success": 0.8119079837618404,
    "pass_rate_G1_instruction": 0.7625,
    "pass_rate_G2_instruction": 0.7850467289719626,
    "pass_rate_G3_instruction": 0.8301886792452831,
    "pass_rate_I1": 0.7625,
    "pass_rate_I2": 0.7850467289719626,
    "pass_rate_I3": 0.8301886792452831,
}


@pytest.fixture(scope="module")
def world() -> MiniWorld:
    return MiniWorld(MiniWorld.Config(train_tasks=640, dev_tasks=240, test_tasks=300), seed=17)


@pytest.fixture(scope="module")
def tasks(world: MiniWorld) -> dict[str, Task]:
    return {task.id: task for split in SPLITS for task in world.tasks(split)}


@pytest.fixture(scope="module")
def demonstrations(world: MiniWorld) -> list[Trajectory]:
    return world.demonstrations(320, 0.22, seed=17)


@pytest.fixture(scope="module")
def scored(world: MiniWorld, tasks: dict[str, Task], demonstrations: list[Trajectory]) -> list[ScoredTrajectory]:
    rules = Rules(Rules.Config())
    judged = []
    for demo in demonstrations:
        task = tasks[demo.task_id]
        judgements = asyncio.run(rules.annotate(demo, task, world.reference(task)))
        judged.append(ScoredTrajectory(trajectory=demo, judgements=tuple(judgements), annotator=revision_of(rules)))
    return judged


def check(name: str, value: Any) -> None:
    assert content_hash(value) == GOLDEN[name]


def test_tasks_are_what_they_were(world: MiniWorld, tasks: dict[str, Task]) -> None:
    rows = []
    for task in tasks.values():
        reference = world.reference(task)
        assert reference.answer_check is not None
        tools = [[tool.name, tool.description, tool.parameters] for tool in task.tools]
        answer = [reference.answer_check.kind, reference.answer_check.expected, reference.answer_check.tolerance]
        rows.append([task.id, task.group, task.query, tools, list(reference.relevant_tools), answer])
    check("tasks", rows)


def test_replies_are_what_they_were(demonstrations: list[Trajectory]) -> None:
    rows = []
    for step in (step for item in demonstrations for step in item.steps):
        (call,) = step.action.calls
        reply = [[observation.text, observation.error] for observation in step.observations]
        rows.append([[call.name, call.arguments], reply[0] if reply else None])
    check("replies", rows)


def test_judgements_are_what_they_were(scored: list[ScoredTrajectory]) -> None:
    check("judgements", [[[j.success, j.contribution, j.solved] for j in item.judgements] for item in scored])


@pytest.mark.parametrize("form", [Potential(Potential.Config()), Paper(Paper.Config())], ids=["potential", "paper"])
def test_rewards_are_what_they_were(scored: list[ScoredTrajectory], form: Potential | Paper) -> None:
    check(f"rewards {form.name}", [[f"{r:.12g}" for r in form.rewards(item)] for item in scored])


def test_token_streams_are_what_they_were(scored: list[ScoredTrajectory], tasks: dict[str, Task]) -> None:
    chat = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    streams = []
    for item in scored[:64]:
        ids, mask = encode(chat, tasks[item.trajectory.task_id], item.trajectory.steps)
        streams.append([list(ids), list(mask)])
    check("streams", streams)


def as_sampled(demonstration: Trajectory) -> Trajectory:
    """An evaluation is of attempts under known conditions."""
    fields = {name: value for name, value in demonstration if name != "id"}
    return Trajectory.create(**{**fields, "conditions": CONDITIONS})


def test_metrics_are_what_they_were(world: MiniWorld, scored: list[ScoredTrajectory], tasks: dict[str, Task]) -> None:
    attempted = [tasks[item.trajectory.task_id] for item in scored]
    first = scored[0]
    evaluation = evaluate(
        "demonstrations",
        first.trajectory.policy,
        [item.model_copy(update={"trajectory": as_sampled(item.trajectory)}) for item in scored],
        attempted,
        {task.id: world.reference(task) for task in attempted},
        conditions=CONDITIONS,
        annotator=first.annotator,
        attempts=1,
        split="train",
        resamples=200,
        confidence=0.95,
        rng=np.random.default_rng(17),
    )
    found = evaluation.summary()
    assert {name: found[name] for name in SUMMARY} == pytest.approx(SUMMARY, rel=1e-12)
