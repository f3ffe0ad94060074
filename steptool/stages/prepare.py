"""Stage `prepare`: the tasks of a world, what is known of them, and demonstrations of how to do them."""

from __future__ import annotations

from collections.abc import Sequence

from steptool.config.places import DEMONSTRATIONS, PARAMS, REFERENCES, TASKS
from steptool.config.settings import load_params
from steptool.core.storage import write_jsonl
from steptool.core.types import Task, Trajectory
from steptool.stages.common import stage
from steptool.worlds.base import SPLITS, World
from steptool.worlds.checks import check_demonstrations, check_tasks


def main() -> None:
    params = load_params(PARAMS)
    source = params.demonstrations
    world: World = params.world.build(seed=params.seed)
    splits: dict[str, Sequence[Task]] = {split: world.tasks(split) for split in SPLITS}
    tasks = {task.id: task for found in splits.values() for task in found}
    references = {name: world.reference(task) for name, task in tasks.items()}
    check_tasks(splits, references, params.world.name)
    demonstrations: list[Trajectory] = list(source.build().read(world, tasks, params.seed))
    settings = ", ".join(f"{key}: {value}" for key, value in source.dump().items())
    check_demonstrations(demonstrations, splits, f"demonstrations: {{{settings}}}")
    uses = {"world": params.world, "demonstrations": source}
    with stage("prepare", TASKS, params, uses=uses, inputs={}) as running:
        counts = {split: write_jsonl(running.out / f"{split}.jsonl", found) for split, found in splits.items()}
        counts["demonstrations"] = write_jsonl(running.out / DEMONSTRATIONS.name, demonstrations)
        write_jsonl(running.out / REFERENCES.name, references.values())
        running.run.summary(counts)
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        unchecked = sum(not reference.can_be_checked for reference in references.values())
        apart = f"; {unchecked} have no check: `reward: {{use: auto}}` learns from their calls alone"
        running.says(f"{listed}{apart if unchecked else ''}")
