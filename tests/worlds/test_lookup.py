"""What a world says of a split or a task that it does not have."""

from dataclasses import dataclass

import pytest

from steptool.core.errors import WorldError
from steptool.core.types import Task
from steptool.worlds.lookup import case_of, of_split, of_task

TASK = Task(id="t1", group="g", query="What now?", tools=())


@dataclass
class Case:
    task: Task


def test_a_split_that_is_not_there_is_named_with_those_that_are() -> None:
    assert of_split("dev", {"train": [1], "dev": []}, "world w") == []
    with pytest.raises(WorldError, match="world w: no split 'validation'\n  fix: name one of train, dev, test"):
        of_split("validation", {"train": [1]}, "world w")  # type: ignore[arg-type]


def test_what_a_split_has_can_be_changed_without_harm() -> None:
    splits = {"train": [1]}
    of_split("train", splits, "world w").append(2)
    assert splits == {"train": [1]}


def test_a_task_of_another_world_is_named_with_the_file_that_makes_tasks() -> None:
    assert of_task(TASK, {"t1": ()}, "world w") == (), "nothing is known of it, but it is there"
    says = "world w: task t1 is not one of this world's\n  fix: make the tasks again from the present %s: dvc repro"
    with pytest.raises(WorldError, match=says % "params.yaml"):
        of_task(TASK, {}, "world w")
    with pytest.raises(WorldError, match=says % "tasks.jsonl"):
        of_task(TASK, {}, "world w", "tasks.jsonl")


def test_a_case_must_be_of_exactly_this_task() -> None:
    case = Case(TASK)
    assert case_of(TASK, {"t1": case}, "world w") is case
    for other in (TASK.model_copy(update={"query": "What else?"}), TASK.model_copy(update={"id": "t2"})):
        with pytest.raises(WorldError, match=f"task {other.id} is not one of this world's"):
            case_of(other, {"t1": case}, "world w")
