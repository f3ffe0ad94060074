"""Stage `sample`: trajectories of the current policy on training tasks."""

from __future__ import annotations

from steptool.params import load_params
from steptool.stages.common import DEMONSTRATIONS, PARAMS, TASKS, TRAJECTORIES, read_tasks, round_of, stage
from steptool.stages.generate import generate
from steptool.storage import read_jsonl, write_jsonl
from steptool.types import Sampling, Task, Trajectory
from steptool.params import Params
from pathlib import Path


def main(round: str) -> None:
    params = load_params(PARAMS)
    index, settings = round_of(params, round)
    policy = Path(settings.policy)
    uses = {"sample": params.sample, "world": params.world, "dtype": params.model.dtype}
    inputs = {"tasks": TASKS, "policy": policy}
    with stage("sample", TRAJECTORIES / round, params, uses=uses, inputs=inputs, round=round) as running:
        tasks = tasks_of_round(params, index)
        with generate(params, policy, seed=params.seed + index + 1) as sampler:
            trajectories = sampler.attempts(tasks, sampling_of(params), params.sample.attempts, what=f"sample {round}")
        write_jsonl(running.out / "trajectories.jsonl.gz", trajectories)
        calls = sum(len(t.steps) for t in trajectories)
        tokens = sum(len(s.action_ids) for t in trajectories for s in t.steps)
        running.run.summary({"trajectories": len(trajectories), "calls": calls, "sampled_tokens": tokens})
        running.says(f"{len(trajectories)} trajectories of {len(tasks)} tasks, {calls} calls, {tokens} sampled tokens")


def tasks_of_round(params: Params, index: int) -> list[Task]:
    """Training tasks of round `index`: those without a demonstration first, then the others, each round the next ones."""
    shown = {demo.task_id for demo in read_jsonl(DEMONSTRATIONS, Trajectory)}
    tasks = sorted(read_tasks("train"), key=lambda task: task.id in shown)
    start = index * params.sample.tasks
    return [tasks[(start + offset) % len(tasks)] for offset in range(min(params.sample.tasks, len(tasks)))]


def sampling_of(params: Params) -> Sampling:
    wanted = params.sample
    return Sampling(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        max_calls=wanted.max_calls,
        max_step_tokens=wanted.max_step_tokens,
        max_tokens=wanted.max_tokens,
    )
