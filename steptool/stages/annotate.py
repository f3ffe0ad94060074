"""Stage `annotate`: a success and a contribution for every call, a verdict for every answer."""

from __future__ import annotations

from steptool.params import Params, load_params
from steptool.rewards.rules import ANNOTATOR, annotate
from steptool.stages.common import EXTERNAL_WORLD, PARAMS, SCORED, TASKS, TRAJECTORIES, read_tasks, round_of, stage
from steptool.storage import read_jsonl, write_jsonl
from steptool.types import ScoredTrajectory, Task, Trajectory
from steptool.worlds import open_world, world_content


def main(round: str) -> None:
    params = load_params(PARAMS)
    round_of(params, round)
    source = TRAJECTORIES / round / "trajectories.jsonl.gz"
    uses = {"world": params.world, "annotator": ANNOTATOR.revision}
    inputs = {"trajectories": source, "tasks": TASKS}
    external = {EXTERNAL_WORLD: lambda: world_content(params.world)}
    out = SCORED / round
    with stage("annotate", out, params, uses=uses, inputs=inputs, external=external, round=round) as running:
        scored = judge(params, read_jsonl(source, Trajectory), read_tasks("train"))
        write_jsonl(running.out / "scored.jsonl.gz", scored)
        solve_rate = sum(s.solved for s in scored) / max(len(scored), 1)
        running.run.summary({"solve_rate": solve_rate})
        running.says(f"{len(scored)} trajectories, {solve_rate:.1%} solved")


def judge(params: Params, trajectories: list[Trajectory], tasks: list[Task]) -> list[ScoredTrajectory]:
    """Annotate trajectories of `tasks` by rules and the world's own check of the answer."""
    world = open_world(params.world, params.seed)
    by_id = {task.id: task for task in tasks}
    return [annotate(t, by_id[t.task_id], world.reset(by_id[t.task_id], t.seed).verify(t.answer)) for t in trajectories]
