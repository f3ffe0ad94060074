"""Stage `sample`: trajectories of an arm's policy on the training tasks of a round, or those of imported traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steptool.config.arms import Round, round_of
from steptool.config.places import CANARY, PARAMS, PROMPTS, TASKS, TRAJECTORIES
from steptool.config.plugins import Use
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError
from steptool.core.storage import write_json, write_jsonl
from steptool.core.types import Task
from steptool.formats.base import Format, Shortens
from steptool.policies.precision import compute_dtype
from steptool.rollouts.collect import open_sampler, sampling_of
from steptool.stages.common import stage
from steptool.stages.rounds import Prompts, draw_of_round, read_references, read_tasks, tasks_of_round
from steptool.worlds.base import SPLITS

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
    if wanted.traces is None:
        _sample(params, wanted)
    else:
        _take_over(params, round, wanted.traces)


def _sample(params: Params, wanted: Round) -> None:
    round = wanted.name
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


def _take_over(params: Params, round: str, traces: Use) -> None:
    """The attempts at training tasks that were imported, in place of sampled ones."""
    with stage(
        "sample", TRAJECTORIES / round, params, uses={"traces": traces}, inputs={"tasks": TASKS}, argument=round
    ) as running:
        splits = {split: read_tasks(split) for split in SPLITS}
        training = {task.id: task for task in splits["train"]}
        tasks = [task for found in splits.values() for task in found]
        trajectories, left_out = traces.build().attempts(training, tasks, read_references())
        if not trajectories:
            raise DataError(
                f"none of {left_out.total()} attempts is of a training task",
                where=str(traces.config.path),
                fix="import traces of tasks of this world, or take the round out of `rounds`",
            )
        write_jsonl(running.out / "trajectories.jsonl.gz", trajectories)
        running.run.summary({"trajectories": len(trajectories), "left_out": left_out.total()})
        asked = len({trajectory.task_id for trajectory in trajectories})
        apart = "".join(f"; left out {count} {reason}" for reason, count in left_out.items())
        running.says(f"{len(trajectories)} imported trajectories of {asked} tasks{apart}")
