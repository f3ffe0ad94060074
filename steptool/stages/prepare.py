"""Stage `prepare`: the tasks of a world and the expert demonstrations."""

from __future__ import annotations

from steptool.params import load_params
from steptool.stages.common import DEMONSTRATIONS, EXTERNAL_WORLD, PARAMS, TASKS, stage
from steptool.storage import write_jsonl
from steptool.worlds import open_world, world_content
from steptool.worlds.mini import MiniWorld, expert_demonstrations


def main() -> None:
    params = load_params(PARAMS)
    uses = {"world": params.world, "demonstrations": params.demonstrations}
    external = {EXTERNAL_WORLD: lambda: world_content(params.world)}
    with stage("prepare", TASKS, params, uses=uses, inputs={}, external=external) as running:
        world = open_world(params.world, params.seed)
        counts = {
            split: write_jsonl(running.out / f"{split}.jsonl", world.all_tasks(split))
            for split in ("train", "dev", "test")
        }
        wanted = params.demonstrations
        demonstrations = (
            expert_demonstrations(world, wanted.count, wanted.flawed, params.seed)
            if isinstance(world, MiniWorld)
            else []
        )
        counts["demonstrations"] = write_jsonl(running.out / DEMONSTRATIONS.name, demonstrations)
        running.run.summary(counts)
        running.says(", ".join(f"{count} {name}" for name, count in counts.items()) + f" ({world.revision.revision})")
