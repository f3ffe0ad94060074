from __future__ import annotations

from pathlib import Path

import pytest

from steptool.core.errors import DataError
from steptool.core.storage import write_jsonl
from steptool.report.viewer.sources import Source, only, sources_of
from tests.report.viewer import project


def names(sources: list[Source]) -> dict[str, list[str]]:
    return {source.key: [part.name for part in source.parts] for source in sources}


def test_what_the_last_stage_wrote_comes_first_and_arms_come_in_their_order(tmp_path: Path) -> None:
    project.write(tmp_path)
    found = sources_of(tmp_path, ["sft", "ppo", "r1"])
    assert list(names(found).items()) == [
        ("evaluation", ["sft", "ppo"]),
        ("scored", ["r1"]),
        ("sampled", ["r1"]),
        ("demonstrations", ["demonstrations"]),
    ]


def test_without_an_order_parts_come_by_their_names(tmp_path: Path) -> None:
    assert names(sources_of(project.write(tmp_path)))["evaluation"] == ["ppo", "sft"]


def test_imported_traces_are_a_source(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "traces/support/trajectories.jsonl.gz", [])
    assert names(sources_of(tmp_path)) == {"traces": ["support"]}


def test_a_path_leaves_what_lies_below_it(tmp_path: Path) -> None:
    found = sources_of(project.write(tmp_path))
    assert names(only(found, tmp_path, [tmp_path / "metrics"])) == {"evaluation": ["ppo", "sft"]}
    one = tmp_path / "metrics/evaluation/ppo.trajectories.jsonl.gz"
    assert names(only(found, tmp_path, [one])) == {"evaluation": ["ppo"]}


def test_other_files_are_a_source_of_their_own_and_their_names_tell_them_apart(tmp_path: Path) -> None:
    for name in ("a/run.jsonl", "b/run.jsonl", "b/trajectories.jsonl.gz"):
        write_jsonl(tmp_path / name, [])
    paths = [tmp_path / "a/run.jsonl", tmp_path / "b/run.jsonl", tmp_path / "b"]
    assert names(only([], tmp_path, paths)) == {"files": ["a/run", "b/run", "trajectories"]}


def test_a_path_without_attempts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        only([], tmp_path, [tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"(?s)holds no file of attempts.*traces import"):
        only([], tmp_path, [tmp_path])
