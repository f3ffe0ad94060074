"""Files in and out: what is written comes back, and what is broken says where.

line 1   {"schema_version": 2, "kind": "Task", "rows": 2}
line 2   {"id": "a", …}
line 3   {"id": "b", …}
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from steptool.core.errors import DataError, StorageError
from steptool.core.storage import (
    MANIFEST,
    file_hash,
    manifest,
    output_folder,
    read_json,
    read_jsonl,
    read_record,
    rows_of,
    stream_jsonl,
    write_bytes,
    write_json,
    write_jsonl,
)
from steptool.core.types import Task, ToolCall
from steptool.testing import step, task, tool, unreadable

TASKS = [task("a", "How many?", tool("count")), task("b", "Où?\u2028\n", group="G2_category")]

# No lone surrogates: they have no UTF-8 form, and no JSON file can hold them as such.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(ToolCall, name=TEXT, arguments=st.dictionaries(TEXT, JSON, max_size=3))


@pytest.fixture(params=["tasks.jsonl", "tasks.jsonl.gz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    assert write_jsonl(path, TASKS) == 2
    return path


def lines_of(path: Path) -> list[bytes]:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines(keepends=True)


def put(path: Path, lines: list[bytes]) -> None:
    raw = b"".join(lines)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


# Round trips


def test_records_come_back_equal(file: Path) -> None:
    assert read_jsonl(file, Task) == TASKS


@given(st.lists(CALLS, max_size=4), st.sampled_from(["calls.jsonl", "calls.jsonl.gz"]))
def test_any_record_survives_a_round_trip(calls: list[ToolCall], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        assert write_jsonl(path, calls) == len(calls)
        assert read_jsonl(path, ToolCall) == calls


def test_equal_records_give_equal_bytes(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / file.name
    write_jsonl(again, iter(TASKS))
    assert again.read_bytes() == file.read_bytes()


def test_no_records_are_a_file_too(tmp_path: Path) -> None:
    assert write_jsonl(tmp_path / "none.jsonl", []) == 0
    assert read_jsonl(tmp_path / "none.jsonl", Task) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(tmp_path / "x.jsonl", [step(unreadable(), action_ids=(1,), logprobs=value)])
    assert list(tmp_path.iterdir()) == []


@given(JSON)
def test_any_json_survives_a_round_trip(value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.json"
        write_json(path, value)
        assert read_json(path) == value


# Broken files: each error names the file, and the line where there is one


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.jsonl: no such file\n.*dvc"):
        read_jsonl(tmp_path / "gone.jsonl", Task)


@pytest.mark.parametrize("kept", [0, 1, 10, 25, -9, -1])
def test_a_truncated_gzip_is_a_data_error(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    write_jsonl(path, TASKS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"tasks\.jsonl\.gz"):
        read_jsonl(path, Task)


def test_a_flipped_byte_anywhere_in_a_gzip_never_passes_for_data(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    write_jsonl(path, TASKS)
    whole = path.read_bytes()
    header = 10  # its time stamp, flags and system byte do not matter to the content
    for place in range(header, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"tasks\.jsonl\.gz"):
            read_jsonl(path, Task)


def test_a_cut_last_line_is_named(file: Path) -> None:
    lines = lines_of(file)
    put(file, [*lines[:2], lines[2][:-20]])
    with pytest.raises(DataError, match=rf"{file.name}:3: the last line is cut off"):
        read_jsonl(file, Task)


def test_a_missing_record_is_noticed_by_the_count(file: Path) -> None:
    put(file, lines_of(file)[:2])
    with pytest.raises(DataError, match=r"1 rows, but its first line says 2"):
        read_jsonl(file, Task)


def test_another_schema_version_is_refused(file: Path) -> None:
    lines = lines_of(file)
    put(file, [lines[0].replace(b'"schema_version": 2', b'"schema_version": 99'), *lines[1:]])
    with pytest.raises(DataError, match=rf"{file.name}:1: schema version 99, expected 2"):
        read_jsonl(file, Task)


@pytest.mark.parametrize("header", [b"[]\n", b"{}\n", b'{"schema_version": 2}\n', b'"x"\n', b"\n", b""])
def test_a_file_without_our_header_is_refused(file: Path, header: bytes) -> None:
    put(file, [header, *lines_of(file)[1:]] if header else [])
    with pytest.raises(DataError, match=rf"{file.name}:1: "):
        read_jsonl(file, Task)


def test_records_of_another_kind_are_refused(file: Path) -> None:
    with pytest.raises(DataError, match=r"holds Task records, expected ToolCall"):
        read_jsonl(file, ToolCall)


def test_broken_json_names_its_line(file: Path) -> None:
    lines = lines_of(file)
    put(file, [lines[0], b'{"id": "a",, }\n', lines[2]])
    with pytest.raises(DataError, match=rf"{file.name}:2: not JSON: .* column 12"):
        read_jsonl(file, Task)


def test_a_record_that_breaks_an_invariant_names_line_record_and_field(file: Path) -> None:
    lines = lines_of(file)
    record = json.loads(lines[2])
    record["tools"] = [{"name": "f", "description": "", "parameters": 3}]
    put(file, [*lines[:2], json.dumps(record).encode() + b"\n"])
    with pytest.raises(DataError, match=rf"{file.name}:3: Task b: tools\.0\.parameters: .*valid dictionary"):
        read_jsonl(file, Task)


def test_bytes_that_are_not_utf8_are_a_data_error(file: Path) -> None:
    put(file, [*lines_of(file)[:2], b'{"id": "\xff"}\n'])
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl(file, Task)


def test_broken_json_document_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{\n "a": 1,\n "b": }\n')
    with pytest.raises(DataError, match=r"m\.json:3: not JSON"):
        read_json(tmp_path / "m.json")


# Hashes and manifests


def test_a_document_of_another_schema_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_json(path, {"name": "G1.find", "arguments": 3})
    with pytest.raises(DataError, match=r"one\.json: ToolCall: arguments: .*\n  fix: run `dvc repro`"):
        read_record(path, ToolCall)
    call = ToolCall(name="G1.find", arguments={"city": "Oslo"})
    write_json(path, call.model_dump(mode="json"))
    assert read_record(path, ToolCall) == call


def test_folder_hash_sees_names_and_contents_and_not_the_place(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return file_hash(tmp_path / name)

    one = folder("one", {"a": "x", "sub/b": "y"})
    assert folder("same", {"sub/b": "y", "a": "x"}) == one
    assert folder("text", {"a": "x", "sub/b": "z"}) != one
    assert folder("name", {"a": "x", "sub/c": "y"}) != one
    assert folder("border", {"a": "xy", "sub/b": ""}) != one


def test_manifest_holds_only_what_determines_the_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    made = [manifest("sample", {"tasks": 3}, {"tasks": tmp_path / "in"}, seed=7) for _ in range(2)]
    assert made[0] == made[1]
    assert set(made[0]) == {"stage", "params", "inputs", "schema_version", "code_version", "seed"}


def test_a_missing_input_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        file_hash(tmp_path / ("a" * 300))
    unreadable = Path("/proc/self/mem")  # nothing is at its first address
    with pytest.raises(DataError, match="/proc/self/mem: cannot be read: Input/output error"):
        file_hash(unreadable)
    with pytest.raises(DataError, match="no such file or folder"):
        manifest("sample", {}, {"tasks": tmp_path / "gone"}, seed=7)


# Output folders: whole or not at all


def test_an_output_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    with output_folder(tmp_path / "deep" / "out", {"seed": 1}) as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == [MANIFEST, "x"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_failed_block_leaves_the_previous_output(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out", {}) as folder:
        (folder / "x").write_text("old")
    with pytest.raises(RuntimeError, match="boom"), output_folder(tmp_path / "out", {}) as folder:  # noqa: PT012
        (folder / "x").write_text("new")
        raise RuntimeError("boom")
    assert (tmp_path / "out" / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_new_output_replaces_the_whole_of_the_old(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with output_folder(tmp_path / "out", {}) as folder:
            (folder / name).write_text(name)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST, "new"]


WRITER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from steptool.core.storage import output_folder

    with output_folder(Path(sys.argv[1]), {}) as folder:
        (folder / "part").write_text("new")
        if sys.argv[2] == "hang":
            print("writing", flush=True)
            time.sleep(60)
""")


def test_a_killed_writer_leaves_no_output_and_the_next_run_succeeds(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for before in (None, "old"):  # nothing there yet; then an earlier output
        with subprocess.Popen([sys.executable, "-c", WRITER, str(out), "hang"], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert (out / "part").read_text() == before if before else not out.exists()

        subprocess.run([sys.executable, "-c", WRITER, str(out), "run"], check=True)
        assert (out / "part").read_text() == "new"
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        (out / "part").write_text("old")


GRAPH = YAML(typ="safe").load((Path(__file__).parents[2] / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OUTPUTS = [
    (out if isinstance(out, str) else next(iter(out))).replace("${key}", "r1")
    for stage in GRAPH.values()
    for out in stage.get("do", stage)["outs"]
]
"""The output of every stage."""


def make(path: Path, kind: str) -> None:
    """Put something at `path`: a file, a folder, or a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = path.parent.parent / f"elsewhere{path.name}"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        (path / "weights").write_text("mine")
    elif kind == "link to a folder":
        make(elsewhere, "folder")
        path.symlink_to(elsewhere)
    elif kind == "link to a file":
        make(elsewhere, "file")
        path.symlink_to(elsewhere)
    else:
        path.symlink_to(elsewhere)


KINDS = ["file", "folder", "link to a folder", "link to a file", "link to nothing"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["r1", ".r1.tmp", ".r1.old"])
@pytest.mark.parametrize("output", [out for out in OUTPUTS if Path(out).suffix == ""])
def test_whatever_is_in_the_place_of_an_output_is_replaced(tmp_path: Path, output: str, place: str, kind: str) -> None:
    """before   models/r1, its .tmp or its .old is a file, a folder, or a link to one or to nothing
    after    models/r1 is the folder that was written, nothing lies beside it, and what a link pointed to is whole
    """
    out = tmp_path / "checkout" / output
    make(out.with_name(place.replace("r1", out.name)), kind)
    with output_folder(out, {}) as folder:
        (folder / "x").write_text("new")
    assert not out.is_symlink()
    assert sorted(file.name for file in out.iterdir()) == [MANIFEST, "x"]
    assert [file.name for file in out.parent.iterdir() if not file.name.startswith("elsewhere")] == [out.name]
    for kept in out.parent.parent.glob("elsewhere*"):
        assert (kept / "weights" if kept.is_dir() else kept).read_text() == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_in_the_place_of_an_output_stays_when_the_stage_fails(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "checkout" / "models" / "r1"
    make(out, kind)
    with pytest.raises(RuntimeError), output_folder(out, {}):
        raise RuntimeError
    assert [file.name for file in out.parent.iterdir()] == ["r1"]
    assert (out.is_symlink(), out.is_file(), out.is_dir()) == {
        "file": (False, True, False),
        "folder": (False, False, True),
        "link to a folder": (True, False, True),
        "link to a file": (True, True, False),
        "link to nothing": (True, False, False),
    }[kind]


def test_an_output_below_a_link_to_another_disk_is_written_there(tmp_path: Path) -> None:
    disk, checkout = tmp_path / "disk", tmp_path / "checkout"
    disk.mkdir()
    checkout.mkdir()
    (checkout / "data").symlink_to(disk)
    with output_folder(checkout / "data" / "trajectories" / "r1", {}):
        pass
    assert (checkout / "data").is_symlink()
    assert [file.name for file in (disk / "trajectories" / "r1").iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("file", "move .*/checkout/data away"),
        ("link to a file", "the folder that the link .*/checkout/data points to"),
        ("link to nothing", "the folder that the link .*/checkout/data points to"),
    ],
)
def test_what_is_in_the_way_among_the_parents_is_named(tmp_path: Path, kind: str, fix: str) -> None:
    make(tmp_path / "checkout" / "data", kind)
    with (
        pytest.raises(StorageError, match=fix) as caught,
        output_folder(tmp_path / "checkout/data/trajectories/r1", {}),
    ):
        pass
    assert "space" not in str(caught.value)


def test_an_output_that_a_killed_writer_had_moved_aside_comes_back_first(tmp_path: Path) -> None:
    make(tmp_path / ".r1.old", "folder")
    with pytest.raises(RuntimeError), output_folder(tmp_path / "r1", {}):
        raise RuntimeError
    assert (tmp_path / "r1" / "weights").read_text() == "mine"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_manifest_that_cannot_be_written_is_noticed_before_the_work(tmp_path: Path, value: float) -> None:
    make(tmp_path / "r1", "folder")
    worked = False
    with pytest.raises(DataError, match="manifest"), output_folder(tmp_path / "r1", {"params": {"kl": value}}):
        worked = True
    assert not worked
    assert (tmp_path / "r1" / "weights").read_text() == "mine"


LARGE = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    from steptool.core.errors import StorageError
    from steptool.core.storage import output_folder, write_bytes

    out, limit = Path(sys.argv[1]), int(sys.argv[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for write in ("file", "folder"):
        try:
            if write == "file":
                write_bytes(out.parent / "file", b"x" * 1_000_000)
            else:
                with output_folder(out, {}) as folder:
                    (folder / "weights").write_bytes(b"x" * 1_000_000)
        except StorageError as error:
            print(error.where, "|", error.found)
""")


def check_that_a_failed_write_keeps_the_previous(folder: Path, limit: int, reason: str) -> None:
    write_bytes(folder / "file", b"old")
    with output_folder(folder / "out", {}) as out:
        (out / "weights").write_bytes(b"old")
    command = [sys.executable, "-c", LARGE, str(folder / "out"), str(limit)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [f"{folder}/file | cannot write: {reason}", f"{folder}/out | cannot write: {reason}"]
    assert (folder / "file").read_bytes() == (folder / "out" / "weights").read_bytes() == b"old"
    assert sorted(p.name for p in folder.iterdir()) == ["file", "out"]


def test_a_file_over_the_size_limit_is_a_storage_error_and_keeps_the_previous(tmp_path: Path) -> None:
    check_that_a_failed_write_keeps_the_previous(tmp_path, limit=65536, reason="File too large")


def test_a_full_disk_is_a_storage_error_and_keeps_the_previous(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted only by root")
    try:
        check_that_a_failed_write_keeps_the_previous(tmp_path, limit=0, reason="No space left on device")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_where_the_file_should_go_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match=r"/x: cannot write"):
        write_bytes(tmp_path / "x", b"")
    assert isinstance(StorageError("x"), OSError)


def test_records_are_written_as_they_come(tmp_path: Path) -> None:
    """Before the third is made, the first was let go."""
    alive: list[weakref.ref[Any]] = []

    def made() -> Iterator[Task]:
        for name in ("a", "b", "c"):
            assert sum(one() is not None for one in alive) <= 1
            record = TASKS[0].model_copy(update={"id": name})
            alive.append(weakref.ref(record))
            yield record
            del record

    assert write_jsonl(tmp_path / "t.jsonl", made()) == 3
    assert [task.id for task in stream_jsonl(tmp_path / "t.jsonl", Task)] == ["a", "b", "c"]
    assert rows_of(tmp_path / "t.jsonl") == 3
