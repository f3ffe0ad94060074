"""The recorded world, on a pack of two requests made here, and on the real one where STEPTOOL_RECORDED names it.

request   offered                                     recorded
q1        find(id, deep?), hidden(), not: secret      find {"deep":true,"id":"a"}: "yes", else "no";  find {"id":"ä"}
q2        hidden()                                    hidden {}: hard error
"""

import asyncio
import gzip
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, InputError, RecordingMiss
from steptool.core.types import Observation, Revision, Sampling, StopReason, ToolCall
from steptool.engines.fake import ScriptedGenerator
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.rollouts.rollout import rollout
from steptool.worlds.checks import check_tasks
from steptool.worlds.recorded import QUERIES, REPLIES, RecordedWorld

PARAMETERS = [
    {"name": "id", "type": "string", "required": True, "description": "which"},
    {"name": "deep", "type": "boolean", "required": False, "description": ""},
]
FIND = {"name": "find", "description": "Finds.", "category": "Data", "parameters": PARAMETERS}
HIDDEN = {**FIND, "name": "hidden", "parameters": PARAMETERS[1:], "parameters_hidden_from_model": True}
SECRET = {**FIND, "name": "secret", "not_shown_to_model": True}
REQUESTS = [
    {
        "query_id": "q1",
        "subset": "G1_tool",
        "query": "Find a.",
        "api_list": [FIND, HIDDEN, SECRET],
        "relevant_apis": [{"name": "find"}, {"name": "secret"}],
    },
    {"query_id": "q2", "subset": "G3_instruction", "query": "?", "api_list": [HIDDEN], "relevant_apis": []},
]
RECORDINGS = [
    {
        "name": "find",
        "arguments": '{"deep":true,"id":"a"}',
        "responses": [{"text": "yes", "error": "none"}, {"text": "no", "error": "none"}],
    },
    {"name": "find", "arguments": '{"id":"ä"}', "responses": [{"text": "umlaut", "error": "soft"}]},
    {"name": "hidden", "arguments": "{}", "responses": [{"text": "down", "error": "hard"}]},
]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write(tmp_path / QUERIES, REQUESTS)
    write(tmp_path / REPLIES, RECORDINGS)
    return tmp_path


def call(world: RecordedWorld, query: str, name: str, arguments: dict[str, Any]) -> Observation:
    task = next(task for task in world.all_tasks("test") if task.id == query)
    return asyncio.run(world.reset(task, seed=0).call(name, arguments))


def test_requests_become_tasks_with_the_tools_that_the_model_saw(pack: Path) -> None:
    world = RecordedWorld(pack)
    (task,) = world.tasks("G1_tool")
    assert [tool.name for tool in task.tools] == ["find", "hidden"]
    assert list(task.tools[0].parameters["properties"]) == ["id", "deep"]
    assert task.tools[0].parameters["required"] == ["id"]
    assert task.tools[1].parameters["properties"] == {}
    assert task.relevant_tools == ("find",)
    assert task.answer_check is not None
    assert task.answer_check.kind == "judge"
    assert [t.id for t in world.all_tasks("test")] == ["q1", "q2"]
    assert world.all_tasks("train") == world.tasks("G1_tool", "dev") == []


def test_a_call_gets_its_commonest_reply_whatever_the_order_of_arguments(pack: Path) -> None:
    world = RecordedWorld(pack)
    assert call(world, "q1", "find", {"id": "a", "deep": True}) == Observation(text="yes")
    assert call(world, "q1", "find", {"deep": True, "id": "a"}) == Observation(text="yes")
    assert call(world, "q1", "find", {"id": "ä"}) == Observation(text="umlaut", error="soft")
    assert call(world, "q2", "hidden", {}) == Observation(text="down", error="hard")


@pytest.mark.parametrize("filed", ['{"id":"x","n":1}', '{ "n": 1, "id": "x" }', '{"n":1,"id":"\\u0078"}'])
def test_a_reply_is_found_however_its_arguments_were_written(pack: Path, filed: str) -> None:
    odd = [{"name": "find", "arguments": text, "responses": []} for text in ("{id: x}", "[1]", "")]  # no call has these
    write(pack / REPLIES, [*odd, {"name": "find", "arguments": filed, "responses": [{"text": "yes", "error": "none"}]}])
    assert call(RecordedWorld(pack), "q1", "find", {"id": "x", "n": 1}) == Observation(text="yes")


def test_a_miss_is_a_typed_error(pack: Path) -> None:
    assert call(RecordedWorld(pack), "q1", "find", {"id": "b"}).error == "no_recording"
    assert call(RecordedWorld(pack), "q2", "find", {"id": "a", "deep": True}).error == "unknown_tool"
    with pytest.raises(RecordingMiss, match="no recorded reply to find") as caught:
        call(RecordedWorld(pack, on_miss="raise"), "q1", "find", {"id": "b"})
    assert "task q1" in str(caught.value)


def test_only_a_judge_can_tell_whether_an_answer_is_right(pack: Path) -> None:
    world = RecordedWorld(pack)
    session = world.reset(world.all_tasks("test")[0], seed=0)
    assert session.verify("yes") is None
    assert session.verify(None) == 0.0


def test_the_revision_follows_the_content(pack: Path) -> None:
    before = RecordedWorld(pack).revision
    assert RecordedWorld(pack).revision == before
    assert RecordedWorld(pack, on_miss="raise").revision != before
    write(pack / REPLIES, RECORDINGS[:-1])
    assert RecordedWorld(pack).revision != before


def test_more_requests_than_are_recorded_are_refused(pack: Path) -> None:
    with pytest.raises(InputError, match=r"2 requests are recorded, which leaves 0 for test"):
        RecordedWorld(pack, train_tasks=1, dev_tasks=1, test_tasks=1)


def test_the_folder_can_come_from_the_environment(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPTOOL_RECORDED", str(pack))
    assert RecordedWorld().revision == RecordedWorld(pack).revision
    monkeypatch.delenv("STEPTOOL_RECORDED")
    with pytest.raises(DataError, match="STEPTOOL_RECORDED"):
        RecordedWorld()


def test_broken_files_are_named_with_their_line(pack: Path) -> None:
    write(pack / QUERIES, [REQUESTS[0], {**REQUESTS[1], "query": 5}])
    with pytest.raises(DataError, match=r"queries.jsonl.gz:2: Query: query: Input should be a valid string"):
        RecordedWorld(pack)
    whole = (pack / REPLIES).read_bytes()
    write(pack / QUERIES, REQUESTS)
    (pack / REPLIES).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"tool_responses.jsonl.gz:1: not a whole gzip file"):
        RecordedWorld(pack)
    (pack / REPLIES).unlink()
    with pytest.raises(DataError, match="no such file"):
        RecordedWorld(pack)


PACK = Path(os.environ.get("STEPTOOL_RECORDED", "nowhere"))


@pytest.mark.skipif(not (PACK / QUERIES).exists(), reason="STEPTOOL_RECORDED names no recorded pack")
def test_judged_runs_replay_through_the_chat_format() -> None:
    """Twenty published runs, said again word by word: same calls, a reply to each, one token stream."""
    world, chat = RecordedWorld(PACK), ChatFormat(tiny_model.tokenizer())
    tasks = {task.id: task for task in world.all_tasks("test")}
    sampling = Sampling(temperature=1.0, top_p=1.0, max_calls=20, max_step_tokens=4096, max_tokens=100_000)
    replayed = hits = calls = 0
    with gzip.open(PACK / "judged_runs" / "steptool_cot.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            run = json.loads(line)
            task = tasks[run["query_id"]]
            steps = [call for step in run["steps"] if (call := readable(step))]
            if replayed == 20 or not run["final_answer"] or len(steps) + 1 < len(run["steps"]):
                continue
            replayed += 1
            finish = ToolCall(name="Finish", arguments={"answer": run["final_answer"]})
            generator = ScriptedGenerator([chat.render_action("", step) for step in [*steps, finish]])
            done = asyncio.run(
                rollout(
                    task,
                    partial(world.reset, task, seed=0),
                    generator,
                    chat,
                    sampling,
                    policy=Revision(name="recorded", revision="1"),
                    world=world.revision,
                    seed=0,
                    attempt=0,
                    tool_timeout_s=5.0,
                )
            )
            assert (done.stop_reason, done.answer) == (StopReason.finished, run["final_answer"])
            assert [step.call for step in done.steps] == [*steps, finish]
            errors = [step.observation.error for step in done.steps if step.observation]
            calls += len(steps)
            hits += sum(error not in ("no_recording", "unknown_tool") for error in errors)
    assert replayed == 20
    assert hits == calls, "every call of a recorded run has a recording"


def readable(step: dict[str, Any]) -> ToolCall | None:
    """The step's call; None for its `Finish`, for an invented function, and where the arguments are not strict JSON."""
    if step["name"] == "Finish" or step["error"] == "hallucinated" or "resolved" in step:
        return None
    try:
        return ToolCall(name=step["name"], arguments=json.loads(step["arguments"]))
    except ValueError:
        return None


# What a pack is refused for


def changed(request: int, **changes: Any) -> list[dict[str, Any]]:
    return [{**row, **(changes if number == request else {})} for number, row in enumerate(REQUESTS)]


@pytest.mark.parametrize(
    ("spelled", "read"),
    [("STRING", "string"), ("Number", "number"), (" Boolean ", "boolean"), ("ARRAY", "array"), ("integer", "integer")],
)
def test_types_as_toolbench_spells_them_are_those_of_json(spelled: str, read: str, pack: Path) -> None:
    parameters = [{**PARAMETERS[0], "type": spelled}]
    write(pack / QUERIES, changed(0, api_list=[{**FIND, "parameters": parameters}]))
    (task,) = RecordedWorld(pack).tasks("G1_tool")
    assert task.tools[0].parameters["properties"]["id"]["type"] == read
    check_tasks({"test": RecordedWorld(pack).all_tasks("test")}, "recorded")


@pytest.mark.parametrize("spelled", ["DATE (YYYY-MM-DD)", "", "strin", "\x1b[2J", "x" * 10_000])
def test_a_type_that_json_has_not_is_named_with_its_line(spelled: str, pack: Path) -> None:
    parameters = [{**PARAMETERS[0], "type": spelled}]
    write(pack / QUERIES, changed(1, api_list=[{**FIND, "parameters": parameters}]))
    with pytest.raises(
        DataError, match=r"queries.jsonl.gz:2: Query: api_list.0.parameters.0.type: .* is no type of JSON"
    ) as caught:
        RecordedWorld(pack)
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)


def test_a_parameter_that_is_listed_twice_is_required_once(pack: Path) -> None:
    write(pack / QUERIES, changed(0, api_list=[{**FIND, "parameters": [PARAMETERS[0], PARAMETERS[0]]}]))
    (task,) = RecordedWorld(pack).tasks("G1_tool")
    assert task.tools[0].parameters["required"] == ["id"]
    check_tasks({"test": [task]}, "recorded")


REFUSED = {
    "an id twice": ([*REQUESTS, {**REQUESTS[1], "query": "Other?"}], "task q2: test has a task of this id too"),
    "a name": (changed(0, api_list=[{**FIND, "name": "3d_search"}], relevant_apis=[]), "tool '3d_search' cannot be"),
    "Finish": (changed(0, api_list=[{**FIND, "name": "Finish"}], relevant_apis=[]), "ends an attempt"),
    "a tool twice": (changed(0, api_list=[FIND, FIND]), "offers 2 tools of the name 'find'"),
    "no tools": (changed(0, api_list=[SECRET]), "offers no tools"),
    "no question": (changed(0, query=""), "asks nothing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_requests_that_nobody_could_do_are_refused_before_anything_is_sampled(case: str, pack: Path) -> None:
    requests, says = REFUSED[case]
    write(pack / QUERIES, requests)
    with pytest.raises(DataError, match=says):
        check_tasks({"test": RecordedWorld(pack).all_tasks("test")}, "recorded")


@pytest.mark.skipif(not (PACK / QUERIES).exists(), reason="STEPTOOL_RECORDED names no recorded pack")
def test_the_published_pack_passes_but_for_the_request_whose_tools_are_all_hidden() -> None:
    tasks = RecordedWorld(PACK).all_tasks("test")
    check_tasks({"test": [task for task in tasks if task.id != "44774"]}, "recorded")
    with pytest.raises(DataError, match="test task 44774: offers no tools"):
        check_tasks({"test": tasks}, "recorded")
