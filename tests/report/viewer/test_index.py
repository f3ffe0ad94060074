from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from steptool.core.errors import DataError
from steptool.core.storage import write_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.report.viewer.index import BLOCK, Index, state_of
from steptool.report.viewer.records import Row
from steptool.report.viewer.sources import Part, Source, sources_of
from steptool.report.viewer.tasks import Tasks
from steptool.testing import call, finish, message, scored, step, trajectory, unreadable
from tests.report.viewer import project
from tests.report.viewer.project import PPO, ROUND, SFT


def opened(root: Path, key: str = "evaluation") -> Index:
    sources = sources_of(root, ["sft", "ppo"])
    source = next(source for source in sources if source.key == key)
    return Index(root, source, Tasks(root, sources))


def of_file(path: Path) -> Index:
    source = Source("files", "Files", "file", (Part("file", path),))
    return Index(path.parent, source, Tasks(path.parent, [source]))


def rows(index: Index) -> list[Row]:
    return [row for block in index.blocks() for row in block]


def test_a_row_says_what_the_list_shows(tmp_path: Path) -> None:
    found = rows(opened(project.write(tmp_path)))
    assert [(row.part, row.task, row.solved) for row in found] == [
        (0, "t1", 0.0),
        (0, "t2", 0.0),
        (1, "t1", 1.0),
        (1, "t2", 0.0),
    ]
    assert found[0]._asdict() == {
        "part": 0,
        "task": "t1",
        "group": "numbers",
        "attempt": 0,
        "solved": 0.0,
        "stop": "finished",
        "steps": 2,
        "tokens": 5,
        "logprob": round((3 * -0.5 - 0.1 - 2.0) / 5, 4),
        "tools": ("find",),
        "errors": (),
        "query": "Which number has tea?",
        "answer": "6",
    }
    assert (found[1].stop, found[1].errors, found[1].answer) == ("gave_up", ("rate_limit",), None)


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    index = opened(project.write(tmp_path))
    assert len(rows(index)) == 4
    assert index.records([3, 0]) == [PPO[1], SFT[0]]
    assert index.attempts_at("t1") == [0, 2]
    assert index.attempts_at("nothing") == []
    sampled = opened(tmp_path, "sampled")
    assert len(rows(sampled)) == 2
    assert sampled.records([1]) == [ROUND[1].trajectory]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("TEA", [0, 2]),  # of the question and of the call
        ('"has tea"', [0, 2]),
        ("tea has", [0, 2]),  # words in any order
        ('"tea has"', []),
        ("onerror", [3]),  # a reply
        ("rate_limit", [1]),
        ("models/ppo", [2, 3]),
        ('"name": "coffee"', [1, 3]),  # two phrases and a colon
        ("", [0, 1, 2, 3]),
    ],
)
def test_search_finds_all_words_wherever_they_stand(tmp_path: Path, text: str, found: list[int]) -> None:
    index = opened(project.write(tmp_path))
    assert len(rows(index)) == 4
    assert index.search(text) == found


def test_what_could_not_be_read_and_messages_are_listed_and_searched(tmp_path: Path) -> None:
    talk = step(message("Which tea?"), "Green.", thought="")
    lost = step(unreadable("no JSON here"), error="parse_error")
    made = trajectory(talk, lost, step(call("find", name="ø"), 7), finish("7"), solved=None)
    write_jsonl(tmp_path / "a.jsonl", [scored(made)])
    index = of_file(tmp_path / "a.jsonl")
    (row,) = rows(index)
    assert (row.solved, row.errors, row.tools, row.logprob) == (None, ("unreadable", "parse_error"), ("find",), None)
    assert [index.search(text) for text in ("green", "Which", "JSON", "Ø")] == [[0]] * 4


def test_blocks_come_while_the_file_is_read(tmp_path: Path) -> None:
    many = [project.attempt(project.TASKS[0], project.answers(str(n)), solved=1.0) for n in range(BLOCK + 7)]
    write_jsonl(tmp_path / "a.jsonl.gz", many)
    index = of_file(tmp_path / "a.jsonl.gz")
    assert [row.answer for row in rows(index)] == [str(n) for n in range(BLOCK + 7)]
    assert index.is_read


@pytest.mark.parametrize(
    ("damage", "rows_left", "problem"),
    [
        (lambda lines: lines[:2], 1, "1 rows, but its first line says 2"),
        (lambda lines: [*lines[:2], "{\n"], 1, "a.jsonl:3"),
        (lambda lines: [lines[0], lines[1].replace('"steps"', '"stops"'), lines[2]], 0, "trajectory.steps"),
        (lambda lines: ['{"query": "x"}\n'], 0, "traces import"),
        (lambda lines: [lines[0].replace("ScoredTrajectory", "Task"), *lines[1:]], 0, "holds Task records"),
        (lambda lines: [lines[0].replace('version": 2', 'version": 1'), *lines[1:]], 0, "schema version 1"),
        (lambda lines: [], 0, "it is empty"),
    ],
    ids=["cut", "no JSON", "a field is missing", "of a user", "of another kind", "of another version", "empty"],
)
def test_what_can_be_read_of_a_damaged_file_is_shown_with_the_line_that_cannot(
    tmp_path: Path, damage: Callable[[list[str]], list[str]], rows_left: int, problem: str
) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, SFT)
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    index = of_file(path)
    assert len(rows(index)) == rows_left
    assert problem in "".join(index.problems)


def test_one_damaged_file_hides_no_other(tmp_path: Path) -> None:
    root = project.write(tmp_path)
    (root / "metrics/evaluation/sft.trajectories.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    index = opened(root)
    assert [row.part for row in rows(index)] == [1, 1]
    assert len(index.problems) == 1


def test_a_record_that_breaks_an_invariant_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [SFT[0].trajectory])
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace('"seed":0', '"seed":1'))
    index = of_file(tmp_path / "a.jsonl")
    assert len(rows(index)) == 1
    with pytest.raises(DataError, match="does not match the content"):
        index.records([0])


@pytest.mark.parametrize("number", ["NaN", "-1e999"])
def test_a_number_that_is_none_keeps_the_page_from_no_other_row(tmp_path: Path, number: str) -> None:
    file = tmp_path / "scored.jsonl"
    write_jsonl(file, ROUND)
    first, second, third = file.read_text().splitlines()
    file.write_text("\n".join([first, second, third.replace("-0.5", number, 1)]))
    index = of_file(file)
    assert len(rows(index)) == 1, "JSON.parse refuses NaN, and with it the whole block"
    assert "scored.jsonl:3" in index.problems[0] and "finite number" in index.problems[0]


def test_the_state_changes_with_the_files(tmp_path: Path) -> None:
    index = opened(project.write(tmp_path))
    assert state_of(tmp_path, index.source) == index.state
    write_jsonl(tmp_path / "metrics/evaluation/sft.trajectories.jsonl.gz", list[ScoredTrajectory]())
    assert state_of(tmp_path, index.source) != index.state
