"""Stage `prepare`: the tasks of a world and the expert demonstrations."""

from __future__ import annotations

from pathlib import Path

from steptool.config.places import DEMONSTRATIONS, EXTERNAL_DEMONSTRATIONS, EXTERNAL_WORLD, PARAMS, TASKS
from steptool.config.settings import Params, load_params
from steptool.core.storage import write_jsonl
from steptool.core.types import Trajectory
from steptool.stages.common import stage
from steptool.worlds import World, open_world, world_content
from steptool.worlds.checks import Splits, check_demonstrations, check_tasks, without_check
from steptool.worlds.demonstrations import demonstrations_content, read_demonstrations
from steptool.worlds.mini import MiniWorld, expert_demonstrations


def main() -> None:
    params = load_params(PARAMS)
    world = open_world(params.world, params.seed)
    splits = {split: world.all_tasks(split) for split in ("train", "dev", "test")}
    check_tasks(splits, world.revision.name)
    demonstrations = _demonstrations(world, splits, params)
    uses = {"world": params.world, "demonstrations": params.demonstrations}
    external = {
        EXTERNAL_WORLD: lambda: world_content(params.world),
        EXTERNAL_DEMONSTRATIONS: lambda: demonstrations_content(params.demonstrations.path),
    }
    with stage("prepare", TASKS, params, uses=uses, inputs={}, external=external) as running:
        counts = {split: write_jsonl(running.out / f"{split}.jsonl", tasks) for split, tasks in splits.items()}
        counts["demonstrations"] = write_jsonl(running.out / DEMONSTRATIONS.name, demonstrations)
        running.run.summary(counts)
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        unchecked = without_check(splits)
        apart = f"; {unchecked} tasks have no check of their answer: sample them, but do not train or evaluate on them"
        running.says(f"{listed} ({world.revision.revision}){apart if unchecked else ''}")


def _demonstrations(world: World, splits: Splits, params: Params) -> list[Trajectory]:
    wanted = params.demonstrations
    if wanted.path:
        return read_demonstrations(Path(wanted.path), splits, world.revision, params.seed)
    if not isinstance(world, MiniWorld):
        return []
    made = expert_demonstrations(world, wanted.count, wanted.flawed, params.seed)
    check_demonstrations(made, splits, f"world {world.revision.name}")
    return made
