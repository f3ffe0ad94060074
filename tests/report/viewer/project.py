"""A small project to look at: two arms evaluated, a round of four attempts, and its settings.

task    sft                        ppo
t1      find(tea) → 7, answers 6   find(tea) → 7, answers 7      only ppo solves it
t2      gives up                   gives up                      neither
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from steptool.core.storage import write_jsonl
from steptool.core.types import ScoredTrajectory, Step, Task
from steptool.testing import call, finish, give_up, reference, scored, step, task, tool, trajectory

PARAMS = """
world: {use: mini}
reward: {use: paper, alpha: 0.5, step_cost: 0, budget_cost: 0, gamma: 1.0}
rounds: {r1: {from: sft}}
arms:
  sft: {method: sft, from: base, data: [demonstrations]}
  ppo: {method: step_ppo, from: sft, data: [r1], settings: {baseline: attempts, lambda_step: 1.0}}
compare: [[ppo, sft]]
"""
FIND = tool("find", "finds the number of a thing", needs={"name": "string"})
TASKS = [
    task("t1", "Which number has tea?", FIND, group="numbers"),
    task("t2", "Which number has <b>coffee</b>?", FIND),
]
HOSTILE = "<img src=x onerror=alert(1)>‮evil"
"""A reply that is no markup here, with a character that turns the direction of writing."""


def found(name: str = "tea", reply: object = 7) -> Step:
    return step(call("find", name=name), reply, context_ids=(1, 2), action_ids=(10, 11, 12))


def ended(of: Step) -> Step:
    return of.model_copy(update={"context_ids": (3,), "action_ids": (20, 21), "action_logprobs": (-0.1, -2.0)})


def attempt(of: Task, *steps: Step, solved: float | None, arm: str = "sft", number: int = 0) -> ScoredTrajectory:
    return scored(trajectory(*steps, of=of, solved=solved, policy=f"models/{arm}", attempt=number, seed=number))


def answers(text: str) -> Step:
    return ended(finish(text))


SFT = [
    attempt(TASKS[0], found(), answers("6"), solved=0.0),
    attempt(TASKS[1], step(call("find", name="coffee"), error="rate_limit", action_ids=(9,)), give_up(), solved=0.0),
]
PPO = [
    attempt(TASKS[0], found(), answers("7"), solved=1.0, arm="ppo"),
    attempt(TASKS[1], found("coffee", HOSTILE), ended(give_up()), solved=0.0, arm="ppo"),
]
ROUND = [
    attempt(TASKS[0], found(), answers("7"), solved=1.0),
    attempt(TASKS[0], found("tee", "none"), answers("0"), solved=0.0, number=1),
]


def write(root: Path, *, params: str = PARAMS) -> Path:
    """The project in a folder; `root` itself."""
    (root / "params.yaml").write_text(params)
    files: dict[str, Iterable[BaseModel]] = {
        "metrics/evaluation/sft.trajectories.jsonl.gz": SFT,
        "metrics/evaluation/ppo.trajectories.jsonl.gz": PPO,
        "data/scored/r1/scored.jsonl.gz": ROUND,
        "data/trajectories/r1/trajectories.jsonl.gz": [each.trajectory for each in ROUND],
        "data/tasks/demonstrations.jsonl": [trajectory(found(), answers("7"), of=TASKS[0], conditions=None)],
        "data/tasks/train.jsonl": TASKS[:1],
        "data/tasks/test.jsonl": TASKS[1:],
        "data/tasks/references.jsonl": [reference(TASKS[0], 7, ["find"])],
    }
    for name, records in files.items():
        write_jsonl(root / name, records)
    return root
