"""What the bundled world, its demonstrations, the rules, the rewards and the metrics gave before the code moved.

Only values are pinned, not records: names of fields and files may change, results may not.

    what            from                                             pinned
    tasks           mini, seed 17, 640 + 240 + 300                   id, subset, query, tools, answer
    replies         its 320 demonstrations, every call really made   call, reply, error
    judgements      the rules on these                               success, contribution, verdict a step
    rewards         both forms                                       one a step, to 12 digits
    streams         the toy tokenizer, prompt and demonstration      token ids and mask
    summary         the demonstrations as attempts at their tasks    every number
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steptool.annotators.rules import ANNOTATOR, annotate
from steptool.config.settings import RewardParams
from steptool.core.types import ScoredTrajectory, Task, content_hash
from steptool.evaluation.metrics import Budget, evaluate
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.rewards.shaping import step_rewards
from steptool.worlds.mini import MiniWorld, expert_demonstrations

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
    return MiniWorld(17, 640, 240, 300)


@pytest.fixture(scope="module")
def tasks(world: MiniWorld) -> dict[str, Task]:
    return {task.id: task for split in ("train", "dev", "test") for task in world.all_tasks(split)}


@pytest.fixture(scope="module")
def scored(world: MiniWorld, tasks: dict[str, Task]) -> list[ScoredTrajectory]:
    demonstrations = expert_demonstrations(world, 320, 0.22, 17)
    return [
        annotate(demo, tasks[demo.task_id], world.reset(tasks[demo.task_id], 0).verify(demo.answer))
        for demo in demonstrations
    ]


def check(name: str, value: Any) -> None:
    assert content_hash(value) == GOLDEN[name]


def test_tasks_are_what_they_were(tasks: dict[str, Task]) -> None:
    rows = []
    for task in tasks.values():
        assert task.answer_check is not None
        tools = [[tool.name, tool.description, tool.parameters] for tool in task.tools]
        answer = [task.answer_check.kind, task.answer_check.expected, task.answer_check.tolerance]
        rows.append([task.id, task.subset, task.query, tools, list(task.relevant_tools), answer])
    check("tasks", rows)


def test_replies_are_what_they_were(scored: list[ScoredTrajectory]) -> None:
    steps = [
        [
            step.call and [step.call.name, step.call.arguments],
            step.observation and [step.observation.text, step.observation.error],
        ]
        for item in scored
        for step in item.trajectory.steps
    ]
    check("replies", steps)


def test_judgements_are_what_they_were(scored: list[ScoredTrajectory]) -> None:
    check("judgements", [[[j.success, j.contribution, j.solved] for j in item.judgements] for item in scored])


@pytest.mark.parametrize("form", ["potential", "paper"])
def test_rewards_are_what_they_were(scored: list[ScoredTrajectory], form: str) -> None:
    params = RewardParams.model_validate({"form": form})
    check(f"rewards {form}", [[f"{r:.12g}" for r in step_rewards(item, params, 0.99)] for item in scored])


def test_token_streams_are_what_they_were(scored: list[ScoredTrajectory], tasks: dict[str, Task]) -> None:
    chat = ChatFormat(tiny_model.tokenizer())
    streams = []
    for item in scored[:64]:
        ids, mask = chat.encode(tasks[item.trajectory.task_id], item.trajectory.steps)
        streams.append([list(ids), list(mask)])
    check("streams", streams)


def test_metrics_are_what_they_were(world: MiniWorld, scored: list[ScoredTrajectory], tasks: dict[str, Task]) -> None:
    attempted = [tasks[item.trajectory.task_id] for item in scored]
    first = scored[0].trajectory
    budget = Budget.of(attempted, first.sampling, attempts=1, world=world.revision, annotator=ANNOTATOR, split="train")
    evaluation = evaluate(
        "demonstrations",
        first.policy,
        scored,
        attempted,
        budget,
        resamples=200,
        confidence=0.95,
        rng=np.random.default_rng(17),
    )
    found = evaluation.summary()
    assert {name: found[name] for name in SUMMARY} == pytest.approx(SUMMARY, rel=1e-12)
