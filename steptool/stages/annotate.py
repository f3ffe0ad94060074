"""Stage `annotate`: a success and a contribution for every call, a verdict for every answer."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Any

from steptool.annotators.rules import ANNOTATOR, annotate, unjudged
from steptool.config.places import EXTERNAL_WORLD, PARAMS, SCORED, TASKS, TRAJECTORIES
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError, StepToolError, WorldError, describe
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import Revision, ScoredTrajectory, StopReason, Task, Trajectory
from steptool.stages.common import stage
from steptool.stages.rounds import read_tasks, round_of
from steptool.worlds import World, open_world, world_content


def main(round: str) -> None:
    params = load_params(PARAMS)
    round_of(params, round)
    source = TRAJECTORIES / round / "trajectories.jsonl.gz"
    uses = {"world": params.world, "annotator": ANNOTATOR.revision}
    inputs = {"trajectories": source, "tasks": TASKS}
    external = {EXTERNAL_WORLD: lambda: world_content(params.world)}
    out = SCORED / round
    with stage("annotate", out, params, uses=uses, inputs=inputs, external=external, round=round) as running:
        scored = judge(params, read_jsonl(source, Trajectory), read_tasks("train"), source=source)
        write_jsonl(running.out / "scored.jsonl.gz", scored)
        solve_rate = sum(s.solved for s in scored) / max(len(scored), 1)
        unknown = len(unjudged(scored))
        running.run.summary({"solve_rate": solve_rate, "unjudged": unknown})
        apart = f"; {unknown} answers count as unsolved because nothing here can check them" if unknown else ""
        running.says(f"{len(scored)} trajectories, {solve_rate:.1%} solved{apart}")


def judge(params: Params, trajectories: list[Trajectory], tasks: list[Task], *, source: Path) -> list[ScoredTrajectory]:
    """Annotate trajectories of `tasks` by rules and the world's own check of the answer.

    `source`: the file that errors name, with a trajectory and its task. Raises DataError where tasks, world and
    trajectories are not of one make, WorldError where the world fails to check an answer.
    """
    world = open_world(params.world, params.seed)
    by_id = {task.id: task for task in tasks}
    scored = []
    for trajectory in trajectories:
        where = f"{source}: trajectory {trajectory.id} of task {trajectory.task_id}"
        again = "run `dvc repro`: it samples again, with the tasks and the world of today"
        task = by_id.get(trajectory.task_id)
        if task is None:
            raise DataError(f"its task is not among the {len(tasks)} of {TASKS}", where=where, fix=again)
        if trajectory.world != world.revision:
            found = f"it was made in world {_name(trajectory.world)}, params.yaml now gives {_name(world.revision)}"
            raise DataError(found, where=where, fix=again)
        verdict = _verdict(world, trajectory, task, where)
        try:
            scored.append(annotate(trajectory, task, verdict))
        except DataError as error:
            raise DataError(f"{error.where}: {error.found}", where=where, fix=error.fix) from error
    return scored


def _verdict(world: World, trajectory: Trajectory, task: Task, where: str) -> float | None:
    if trajectory.stop_reason is not StopReason.finished:
        return 0.0
    try:
        verdict: Any = world.reset(task, trajectory.seed).verify(trajectory.answer)
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # a world is code of somebody else: SystemExit would end this with exit status 0
        said, fix = (fault.found, fault.fix) if isinstance(fault, StepToolError) else (describe(fault), None)
        found = f"world {world.revision.name} cannot check its answer: {said}"
        fix = fix or "mend the task's answer_check, or the world's `verify`; then run the same command again"
        raise WorldError(found, where=where, fix=fix) from fault
    if verdict is None:
        return None
    is_number = isinstance(verdict, Real)
    if not (is_number and 0 <= verdict <= 1):
        found = f"world {world.revision.name} gave the verdict {verdict!r:.100} on its answer"
        raise WorldError(found, where=where, fix="let the world's `verify` return a number from 0 to 1, or None")
    return float(verdict)


def _name(revision: Revision) -> str:
    return f"{revision.name} {revision.revision}"
