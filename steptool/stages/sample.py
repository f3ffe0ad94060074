"""Stage `sample`: trajectories of an arm's policy on the training tasks of a round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steptool.config.arms import round_of
from steptool.config.places import CANARY, PARAMS, PROMPTS, TASKS, TRAJECTORIES
from steptool.config.settings import load_params
from steptool.core.storage import write_json, write_jsonl
from steptool.core.types import Task
from steptool.formats.base import Format, Shortens
from steptool.policies.precision import compute_dtype
from steptool.rollouts.collect import open_sampler, sampling_of
from steptool.stages.common import stage
from steptool.stages.rounds import Prompts, draw_of_round, tasks_of_round

MAX_BROKEN = 0.5
"""Share of the attempts that faults may have ended: with more, nothing is worth writing. `validate` asks for less."""


def shortened(format: Format, tasks: Sequence[Task]) -> dict[str, int]:
    """What `format` leaves out, a line each, and in the prompts of how many tasks; the most frequent first."""
    if not isinstance(format, Shortens):
        return {}
    return dict(Counter(line for task in tasks for line in dict.fromkeys(format.shortened(task))).most_common())


def main(round: str) -> None:
    params = load_params(PARAMS)
    wanted = round_of(params, round)
    acting = {key: getattr(params, key) for key in ("sample", "world", "format", "engine", "search")}
    uses = {**acting, "dtype": compute_dtype(params.model)}
    inputs = {"tasks": TASKS, "policy": wanted.policy}
    with stage("sample", TRAJECTORIES / round, params, uses=uses, inputs=inputs, argument=round) as running:
        tasks = tasks_of_round(params, wanted.index)
        seed = params.seed + draw_of_round(params, wanted.index) + 1
        with open_sampler(params, wanted.policy, seed=seed) as sampler:
            searches = sampler.searches(
                tasks, sampling_of(params), params.sample.attempts, what=f"sample {round}", max_broken=MAX_BROKEN
            )
        trajectories = [trajectory for search in searches for trajectory in search]
        write_jsonl(running.out / "trajectories.jsonl.gz", trajectories)
        if sampler.asked is not None:
            write_json(running.out / CANARY, sampler.asked.model_dump())
        write_json(running.out / PROMPTS, Prompts(shortened=shortened(sampler.format, tasks)).model_dump())
        calls = sum(len(t.steps) for t in trajectories)
        tokens = sum(len(s.action_ids) for t in trajectories for s in t.steps)
        broken = sum(t.stop_reason.broken for t in trajectories)
        counts = {"trajectories": len(trajectories), "calls": calls, "sampled_tokens": tokens, "broken": broken}
        running.run.summary(counts)
        lost = f", {broken} ended by a fault of the engine or the world" if broken else ""
        running.says(
            f"{len(trajectories)} trajectories of {len(tasks)} tasks, {calls} calls, {tokens} sampled tokens{lost}"
        )
