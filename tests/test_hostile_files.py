"""Files that only hurt, put in place of every file that a stage reads: one DataError, in bounded time and memory.

reader         reads
read_json      summaries, comparisons
read_record    evaluations
read_jsonl     tasks, trajectories, judgements (plain or gzip)
RecordedWorld  queries and replies of a recorded pack
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.core import storage
from steptool.core.errors import DataError, InputError
from steptool.core.storage import parse_json, parse_record, read_json, read_jsonl, read_record, write_jsonl
from steptool.core.types import AnswerCheck, Reference, ScoredTrajectory, Task, Tool, ToolCall, Trajectory
from steptool.worlds.recorded import RecordedWorld
from steptool.worlds.toolbench.pack import QUERIES, REPLIES, VARIABLE

HEADER = json.dumps({"schema_version": 2, "kind": "ToolCall", "rows": 1})
QUERY = {
    "query_id": "q1",
    "subset": "G1_tool",
    "query": "Find a.",
    "api_list": [{"name": "find", "description": "", "category": "Data", "parameters": []}],
    "relevant_apis": [],
}
REPLY = {"name": "find", "arguments": "{}", "responses": [{"text": "yes", "error": "none"}]}

HOSTILE_VALUES = {
    "deep list": "[" * 200_000 + "]" * 200_000,
    "deep object": '{"a":' * 200_000 + "1" + "}" * 200_000,
    "300 levels": "[" * 300 + "]" * 300,
    "4301 digits": "1" * 4301,
    "a million digits": "1" * 1_000_000,
    "NaN": "NaN",
    "infinity": "-Infinity",
    "overflow": "1e999",
    "a name twice": '{"a": 1, "a": 2}',
    "surrogate": '"\\ud800"',
    "surrogate in a name": '{"\\udfff": 1}',
    "cut": '{"a": [1, 2',
    "NUL": "\x00",
    "nothing": "",
    "text": "hello",
    "two values": "1 2",
    "BOM": "\ufeff{}",
    "comment": "{} // yes",
    "single quotes": "{'a': 1}",
    "trailing comma": "[1,]",
    "control character": '"a\nb"',
    "conflict": "<<<<<<< HEAD",
}


def read_calls(path: Path) -> list[ToolCall]:
    return read_jsonl(path, ToolCall)


def read_call(path: Path) -> ToolCall:
    return read_record(path, ToolCall)


def read_pack(path: Path) -> RecordedWorld:
    return pack(path.parent)


def pack(folder: Path, requests: int = 1) -> RecordedWorld:
    """All the requests are for testing."""
    config = RecordedWorld.Config(path=str(folder), train_tasks=0, dev_tasks=0, test_tasks=requests)
    return RecordedWorld(config, seed=0)


def lay(folder: Path, reader: Callable[[Path], Any], line: bytes, *, packed: bool = True) -> Path:
    """The file of a reader with `line` where its first record should stand."""
    if reader is read_pack:
        (folder / REPLIES).write_bytes(gzip.compress(json.dumps(REPLY).encode()))
        path, content = folder / QUERIES, json.dumps(QUERY).encode() + b"\n" + line + b"\n"
        path.write_bytes(gzip.compress(content))
    elif reader is read_calls:
        path = folder / ("calls.jsonl.gz" if packed else "calls.jsonl")
        content = HEADER.encode() + b"\n" + line + b"\n"
        path.write_bytes(gzip.compress(content) if packed else content)
    else:
        path = folder / "call.json"
        path.write_bytes(line)
    return path


READERS = pytest.mark.parametrize("reader", [read_json, read_call, read_calls, read_pack])


def refused(reader: Callable[[Path], Any], path: Path, within_s: float = 5.0) -> str:
    started = time.monotonic()
    gc.disable()  # Hypothesis is called at each collection, which fails where a reader has used the stack up
    try:
        with pytest.raises(DataError) as caught:
            reader(path)
    finally:
        gc.enable()
    assert time.monotonic() - started < within_s
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert said.startswith(f"{path.parent}/")
    assert len(said.splitlines()) == 2
    assert len(said) < 1500
    assert "\x1b" not in said
    return said


@READERS
@pytest.mark.parametrize("case", HOSTILE_VALUES)
def test_what_is_no_json_is_refused_in_one_line(reader: Callable[[Path], Any], case: str, tmp_path: Path) -> None:
    said = refused(reader, lay(tmp_path, reader, HOSTILE_VALUES[case].encode()))
    assert "not JSON" in said or "a name twice" in case


@READERS
def test_bytes_that_are_not_utf8_are_refused(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    for line in (b"\xff\xfe{\x00}\x00", b'"\xed\xa0\x80"', b'"\xc0\xaf"'):
        assert "cannot be read" in refused(reader, lay(tmp_path, reader, line))


@READERS
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "gone", "no permission"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    reader: Callable[[Path], Any], kind: str, tmp_path: Path
) -> None:
    path = lay(tmp_path, reader, b"{}")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "no permission":
        path.symlink_to("/proc/self/mem")
    refused(reader, path)


@READERS
def test_lines_that_end_as_windows_writes_them_are_read(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    whole = {"name": "find", "arguments": {"a": "ä"}} if reader is not read_pack else {**QUERY, "query_id": "q2"}
    reader(lay(tmp_path, reader, json.dumps(whole).encode() + b"\r"))


# Size


@pytest.mark.parametrize("packed", [True, False])
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(packed: bool, tmp_path: Path) -> None:
    """400 MB of blanks, which gzip makes 400 kB: no more than a line's limit is ever held."""
    path = tmp_path / ("calls.jsonl.gz" if packed else "calls.jsonl")
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        for _ in range(400):
            file.write(b" " * 1_000_000)
    tracemalloc.start()
    try:
        assert "a line of more than 33,554,432 bytes" in refused(read_calls, path, within_s=20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * storage.MAX_LINE


def test_a_gzip_of_many_good_lines_unpacks_to_a_limited_multiple_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ALWAYS_ALLOWED", 1 << 20)
    path = tmp_path / "calls.jsonl.gz"
    calls = [ToolCall(name="find", arguments={"text": "a" * 1000})] * 4000
    write_jsonl(path, calls)
    assert path.stat().st_size * storage.MAX_GROWTH < 4_000_000
    assert "unpacks to more than 100 times its size" in refused(read_calls, path)
    monkeypatch.setattr(storage, "ALWAYS_ALLOWED", 8 << 20)
    assert read_calls(path) == calls


def test_a_bomb_in_a_pack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_LINE", 1 << 20)
    path = lay(tmp_path, read_pack, b" " * (2 << 20))
    assert "a line of more than 1,048,576 bytes" in refused(read_pack, path)
    path = lay(tmp_path, read_pack, json.dumps({**QUERY, "query_id": "q2"}).encode())
    (tmp_path / REPLIES).write_bytes(gzip.compress(b" " * (2 << 20)))
    with pytest.raises(DataError, match=rf"{REPLIES}:1: a line of more than"):
        read_pack(path)


def test_a_document_has_a_limited_size(tmp_path: Path) -> None:
    path = tmp_path / "call.json"
    with path.open("wb") as file:
        file.truncate(20 << 30)  # takes no space on the disk
    assert "it is larger than 67,108,864 bytes" in refused(read_json, path)


def test_a_thousand_equal_names_are_found_at_once(tmp_path: Path) -> None:
    names = ", ".join(f'"{number}": 0' for number in range(200_000))
    assert "'199999' is given twice" in refused(
        read_json, lay(tmp_path, read_json, f'{{{names}, "199999": 1}}'.encode())
    )


# Wrong shapes


RECORDS = [Task, Reference, Tool, AnswerCheck, ToolCall, Trajectory, ScoredTrajectory]
SHAPES: list[Any] = [
    None,
    True,
    3,
    1.5,
    "x",
    [],
    [[]],
    [{}],
    {},
    {"id": 3},
    {"id": "\x1b[2J" * 100},
    {"id": ["x"] * 1000},
]


@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_a_value_of_the_wrong_shape_names_the_record(model: Any, shape: Any) -> None:
    with pytest.raises(DataError) as caught:
        parse_record(shape, model, where="here.json", fix="mend it")
    assert str(caught.value).startswith(f"here.json: {model.__name__}")
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
TASK = Task(id="a", group="s", query="?", tools=(Tool(name="f", description="", parameters={}),))
REFERENCE = Reference(
    task_id="a", answer_check=AnswerCheck(kind="number", expected=3, tolerance=0.5), relevant_tools=("f",)
)


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, *path, key)


PLACES = [(record, path) for record in (TASK, REFERENCE) for path in places(record.model_dump(mode="json"))]


@given(st.sampled_from(PLACES), ANYTHING)
def test_a_record_with_anything_anywhere_is_one_or_a_data_error(
    place: tuple[Task | Reference, tuple[Any, ...]], value: Any
) -> None:
    record, path = place
    changed = record.model_dump(mode="json")
    if not path:
        changed = value
    else:
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
    with suppress(DataError):
        parse_record(changed, type(record), where="here", fix="mend it")


@pytest.mark.parametrize(
    "header",
    [
        *('{"schema_version": true, "kind": "ToolCall", "rows": 0}', '{"schema_version": 2, "kind": 3, "rows": 0}'),
        *('{"schema_version": 2, "kind": "ToolCall", "rows": "0"}', '{"schema_version": 2, "kind": "ToolCall"}'),
        *('{"schema_version": 2, "kind": "ToolCall", "rows": -1}', '{"schema_version": 2, "kind": null, "rows": null}'),
        *('{"schema_version": "2", "kind": "ToolCall", "rows": 0}', '{"schema_version": [2]}'),
        '{"schema_version": 2, "kind": "ToolCall", "rows": 1e3}',
    ],
)
def test_a_header_of_another_shape_is_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(header + "\n")
    refused(read_calls, path)


@given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u\n\t dD8', max_size=40))
def test_what_is_read_is_what_python_reads_and_can_be_written_again(text: str) -> None:
    try:
        value = parse_json(text)
    except ValueError:
        return
    assert value == json.loads(text)
    assert parse_json(json.dumps(value, allow_nan=False)) == value


# Damage


def damaged(whole: bytes, seed: int, count: int) -> Iterator[bytes]:
    """`whole` with one bit changed, `count` times, each at another place; then cut at some."""
    rng = random.Random(seed)
    for _ in range(count):
        place = rng.randrange(len(whole) * 8)
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)
    for _ in range(count // 4):
        yield whole[: rng.randrange(len(whole))]


def opens_or_says_why(folder: Path, requests: int) -> bool:
    said: list[str] = []
    try:
        pack(folder, requests)
    except InputError as error:
        said = str(error).splitlines()
    assert not said or (len(said) == 2 and str(folder) in said[0])
    return not said


def test_a_changed_bit_in_a_pack_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """In a gzip file a changed bit shows by its checksum, but for the ten bytes before the data."""
    rows = [{**QUERY, "query_id": f"q{number}"} for number in range(30)]
    for name, content in ((QUERIES, rows), (REPLIES, [REPLY])):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / name).write_bytes(gzip.compress(text.encode(), mtime=0))
    whole = (tmp_path / QUERIES).read_bytes()
    before = pack(tmp_path, 30).tasks("test")
    for content in damaged(whole, seed=1, count=400):
        (tmp_path / QUERIES).write_bytes(content)
        if opens_or_says_why(tmp_path, 30):
            assert content[10:] == whole[10:]
            assert pack(tmp_path, 30).tasks("test") == before


PACK = Path(os.environ.get(VARIABLE, "nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not (PACK / QUERIES).exists(), reason=f"{VARIABLE} names no recorded pack")
def test_a_changed_bit_in_the_published_pack_is_refused(tmp_path: Path) -> None:
    for name in (QUERIES, REPLIES):
        (tmp_path / name).write_bytes((PACK / name).read_bytes())
    for name in (QUERIES, REPLIES):
        whole = (PACK / name).read_bytes()
        for content in damaged(whole, seed=2, count=60):
            (tmp_path / name).write_bytes(content)
            assert not opens_or_says_why(tmp_path, 650) or content[10:] == whole[10:]
        (tmp_path / name).write_bytes(whole)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from steptool.worlds.recorded import RecordedWorld
from steptool.core.errors import DataError
try:
    RecordedWorld(RecordedWorld.Config(path=sys.argv[1]), seed=0)
except DataError as error:
    print(error)
"""


@pytest.mark.slow
def test_three_megabytes_that_become_three_gigabytes_fit_in_two(tmp_path: Path) -> None:
    lay(tmp_path, read_pack, b"{}")
    (tmp_path / QUERIES).write_bytes(gzip.compress(bytes(1 << 20)) * 3000)  # a gzip file may have many parts
    assert (tmp_path / QUERIES).stat().st_size < 4_000_000
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "a line of more than" in done.stdout
    # in KiB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20
