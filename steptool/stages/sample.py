"""Stage `sample`: trajectories of the current policy on training tasks."""

from __future__ import annotations

from pathlib import Path

from steptool.config.places import EXTERNAL_WORLD, PARAMS, TASKS, TRAJECTORIES
from steptool.config.settings import load_params
from steptool.core.storage import write_jsonl
from steptool.policies.precision import compute_dtype
from steptool.rollouts.collect import generate
from steptool.stages.common import stage
from steptool.stages.rounds import draw_of_round, round_of, sampling_of, tasks_of_round
from steptool.worlds import world_content

MAX_BROKEN = 0.5
"""Share of the attempts that faults may have ended: with more, nothing is worth writing. `validate` asks for less."""


def main(round: str) -> None:
    params = load_params(PARAMS)
    index, settings = round_of(params, round)
    policy = Path(settings.policy)
    uses = {"sample": params.sample, "world": params.world, "dtype": compute_dtype(params.model)}
    inputs = {"tasks": TASKS, "policy": policy}
    external = {EXTERNAL_WORLD: lambda: world_content(params.world)}
    out = TRAJECTORIES / round
    with stage("sample", out, params, uses=uses, inputs=inputs, external=external, round=round) as running:
        tasks = tasks_of_round(params, index)
        with generate(params, policy, seed=params.seed + draw_of_round(params, index) + 1) as sampler:
            trajectories = sampler.attempts(
                tasks, sampling_of(params), params.sample.attempts, what=f"sample {round}", max_broken=MAX_BROKEN
            )
        write_jsonl(running.out / "trajectories.jsonl.gz", trajectories)
        calls = sum(len(t.steps) for t in trajectories)
        tokens = sum(len(s.action_ids) for t in trajectories for s in t.steps)
        broken = sum(not t.stop_reason.terminated for t in trajectories)
        counts = {"trajectories": len(trajectories), "calls": calls, "sampled_tokens": tokens, "broken": broken}
        running.run.summary(counts)
        lost = f", {broken} ended by a fault of the engine or the world" if broken else ""
        running.says(
            f"{len(trajectories)} trajectories of {len(tasks)} tasks, {calls} calls, {tokens} sampled tokens{lost}"
        )
