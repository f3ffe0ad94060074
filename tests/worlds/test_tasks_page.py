"""docs/tasks.md says what the code does: its tables of answers, of questions and of numbers of tasks, and its lines."""

from __future__ import annotations

import re
from typing import Any

import pytest

from steptool.core.types import AnswerCheck
from steptool.evaluation.power import smallest_difference
from steptool.worlds.answers import is_correct
from steptool.worlds.project.split import question_of
from steptool.worlds.project.tasks import TaskLine
from tests.project import ROOT

PAGE = (ROOT / "docs" / "tasks.md").read_text()


def table(header: str) -> list[list[str]]:
    """The cells of the rows of the table that begins with `header`."""
    _, _, behind = PAGE.partition(f"{header}\n")
    rows = behind.partition("\n\n")[0].splitlines()[1:]
    assert rows
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows]


def said(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def check_of(cell: str) -> AnswerCheck:
    kind, _, _ = cell.partition(" ")
    text = said(cell)[0]
    expected: Any = {"number": lambda: float(text), "text": lambda: text, "set": lambda: text.split(", ")}[kind]()
    return AnswerCheck.model_validate({"kind": kind, "expected": expected, "strict": False})


@pytest.mark.parametrize("row", table("| expected | question | right | refused |"), ids=lambda row: row[0])
def test_answers_are_judged_as_the_page_says(row: list[str]) -> None:
    check, question = check_of(row[0]), row[1]
    assert said(row[2]) and said(row[3])
    assert [answer for answer in said(row[2]) if not is_correct(check, answer, question)] == []
    assert [answer for answer in said(row[3]) if is_correct(check, answer, question)] == []


@pytest.mark.parametrize("row", table("| expected | question | right, but refused | wrong, but accepted |"), ids=str)
def test_known_limits_are_those_of_the_page(row: list[str]) -> None:
    check, question = check_of(row[0]), row[1]
    assert [answer for answer in said(row[2]) if is_correct(check, answer, question)] == []
    assert [answer for answer in said(row[3]) if not is_correct(check, answer, question)] == []


@pytest.mark.parametrize("row", table("| query | the same question | another question |"), ids=lambda row: row[0])
def test_questions_are_told_apart_as_the_page_says(row: list[str]) -> None:
    asked = question_of(row[0])
    assert {question_of(query) for query in said(row[1])} == {asked}
    assert asked not in {question_of(query) for query in said(row[2])}


def test_so_many_tasks_show_what_the_page_says() -> None:
    header = next(line for line in PAGE.splitlines() if line.startswith("| test tasks |"))
    (row,) = table(header)
    tasks = [int(cell) for cell in header.strip("|").split("|")[1:]]
    shown = [smallest_difference(count) for count in tasks]
    assert [round(100 * (each or 0)) for each in shown] == [int(cell.strip("| ")) for cell in row[1:]]


def test_every_line_of_the_page_is_a_task() -> None:
    lines = [line for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 10
    for line in lines:
        assert TaskLine.model_validate_json(line).query


def test_every_field_of_a_task_is_on_the_page() -> None:
    fields = {field.alias or name for name, field in TaskLine.model_fields.items()}
    assert {said(row[0])[0] for row in table("| field | what it says |")} == fields
