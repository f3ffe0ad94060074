"""Stage `prepare`: the tasks of a world, what is known of them, and demonstrations of how to do them."""

from __future__ import annotations

from steptool.config.places import DEMONSTRATIONS, PARAMS, REFERENCES, TASKS
from steptool.config.settings import load_params
from steptool.core.storage import write_jsonl
from steptool.stages.common import stage
from steptool.worlds.base import SPLITS
from steptool.worlds.checks import check_demonstrations, check_tasks


def main() -> None:
    params = load_params(PARAMS)
    world, source = params.world.build(seed=params.seed), params.demonstrations
    splits = {split: world.tasks(split) for split in SPLITS}
    tasks = {task.id: task for of_split in splits.values() for task in of_split}
    references = {name: world.reference(task) for name, task in tasks.items()}
    check_tasks(splits, references, params.world.name)
    demonstrations = list(source.build().read(world, tasks, params.seed))
    settings = ", ".join(f"{key}: {value}" for key, value in source.dump().items())
    check_demonstrations(demonstrations, splits, f"demonstrations: {{{settings}}}")
    uses = {"world": params.world.dump(), "demonstrations": source.dump()}
    with stage("prepare", TASKS, params, uses=uses, inputs={}) as running:
        counts = {split: write_jsonl(running.out / f"{split}.jsonl", found) for split, found in splits.items()}
        write_jsonl(running.out / REFERENCES.name, references.values())
        counts["demonstrations"] = write_jsonl(running.out / DEMONSTRATIONS.name, demonstrations)
        running.run.summary(counts)
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        unchecked = sum(not reference.can_be_checked for reference in references.values())
        apart = (
            f"; {unchecked} tasks have no answer to check exactly: the world or the annotator must tell what is solved"
        )
        running.says(f"{listed}{apart if unchecked else ''}")
