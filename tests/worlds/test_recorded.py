"""The recorded world, on a pack of two requests made here, and on the real one where STEPTOOL_RECORDED names it.

request   offered                                     recorded
q1        find(id, deep?), hidden(), not: secret      find {"deep":true,"id":"a"}: "yes", else "no";  find {"id":"ä"}
q2        hidden()                                    hidden {}: hard error
"""

import asyncio
import gzip
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.plugins import NoSettings, revision_of
from steptool.core.types import Action, Observation, Outcome, StopReason, Task, ToolCall, Trajectory
from steptool.engines.base import Generation
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.testing import LOGPROB, conditions, revision
from steptool.worlds.base import SPLITS
from steptool.worlds.checks import check_tasks
from steptool.worlds.recorded import RecordedWorld
from steptool.worlds.toolbench.pack import QUERIES, REPLIES

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


def opened(path: Path, requests: int = 2) -> RecordedWorld:
    """All the requests are for testing."""
    return RecordedWorld(config(path, test=requests), seed=0)


def config(path: Path, train: int = 0, dev: int = 0, test: int = 2) -> RecordedWorld.Config:
    return RecordedWorld.Config(path=str(path), train_tasks=train, dev_tasks=dev, test_tasks=test)


def call(world: RecordedWorld, query: str, name: str, arguments: dict[str, Any]) -> Observation:
    task = next(task for task in world.tasks("test") if task.id == query)
    return asyncio.run(world.open(task, seed=0).call(ToolCall(name=name, arguments=arguments)))


def check(world: RecordedWorld) -> None:
    """As `prepare` does."""
    tasks = world.tasks("test")
    check_tasks({"test": tasks}, {task.id: world.reference(task) for task in tasks}, "recorded")


def test_requests_become_tasks_with_the_tools_that_the_model_saw(pack: Path) -> None:
    world = opened(pack)
    task, other = world.tasks("test")
    assert (task.id, task.group, other.id, other.group) == ("q1", "G1_tool", "q2", "G3_instruction")
    assert [tool.name for tool in task.tools] == ["find", "hidden"]
    assert list(task.tools[0].parameters["properties"]) == ["id", "deep"]
    assert task.tools[0].parameters["required"] == ["id"]
    assert task.tools[1].parameters["properties"] == {}
    assert world.tasks("train") == world.tasks("dev") == []


def test_of_a_request_is_known_which_of_its_tools_help(pack: Path) -> None:
    world = opened(pack)
    reference = world.reference(world.tasks("test")[0])
    assert (reference.task_id, reference.relevant_tools, reference.can_be_checked) == ("q1", ("find",), False)


def test_requests_are_dealt_out_to_the_splits_from_the_groups_in_turn(pack: Path) -> None:
    third = {**REQUESTS[0], "query_id": "q3", "query": "Find b."}
    write(pack / QUERIES, [REQUESTS[0], third, REQUESTS[1]])
    world = RecordedWorld(config(pack, train=1, dev=1, test=1), seed=0)
    assert [[task.id for task in world.tasks(split)] for split in SPLITS] == [["q1"], ["q2"], ["q3"]]


def test_an_unknown_split_is_refused(pack: Path) -> None:
    with pytest.raises(WorldError, match="train, dev, test"):
        opened(pack).tasks("validation")  # type: ignore[arg-type]


def test_a_call_gets_its_commonest_reply_whatever_the_order_of_arguments(pack: Path) -> None:
    world = opened(pack)
    assert call(world, "q1", "find", {"id": "a", "deep": True}) == Observation(text="yes")
    assert call(world, "q1", "find", {"deep": True, "id": "a"}) == Observation(text="yes")
    assert call(world, "q1", "find", {"id": "ä"}) == Observation(text="umlaut", error="soft")
    assert call(world, "q2", "hidden", {}) == Observation(text="down", error="hard")


@pytest.mark.parametrize("filed", ['{"id":"x","n":1}', '{ "n": 1, "id": "x" }', '{"n":1,"id":"\\u0078"}'])
def test_a_reply_is_found_however_its_arguments_were_written(pack: Path, filed: str) -> None:
    odd = [{"name": "find", "arguments": text, "responses": []} for text in ("{id: x}", "[1]", "")]  # no call has these
    write(pack / REPLIES, [*odd, {"name": "find", "arguments": filed, "responses": [{"text": "yes", "error": "none"}]}])
    assert call(opened(pack), "q1", "find", {"id": "x", "n": 1}) == Observation(text="yes")


def test_a_miss_is_a_typed_error(pack: Path) -> None:
    assert call(opened(pack), "q1", "find", {"id": "b"}).error == "no_recording"
    assert call(opened(pack), "q2", "find", {"id": "a", "deep": True}).error == "unknown_tool"


def test_only_a_judge_can_tell_whether_an_answer_is_right(pack: Path) -> None:
    world = opened(pack)
    task = world.tasks("test")[0]
    assert asyncio.run(world.open(task, seed=0).close("yes")) == Outcome(evidence="only a judge can tell")
    assert asyncio.run(world.open(task, seed=0).close(None)) == Outcome(evidence="only a judge can tell")
    assert asyncio.run(world.open(task, seed=0).say("Which one?")) is None


def test_the_revision_follows_the_content(pack: Path) -> None:
    before = revision_of(opened(pack))
    assert before.name == "recorded"
    assert revision_of(RecordedWorld(config(pack), seed=1)) == before
    assert revision_of(opened(pack, requests=1)) != before
    write(pack / REPLIES, RECORDINGS[:-1])
    assert revision_of(opened(pack)) != before


@pytest.mark.parametrize("gone", [QUERIES, REPLIES])
def test_the_content_of_a_pack_without_a_file_is_not_known(pack: Path, gone: str) -> None:
    (pack / gone).unlink()
    with pytest.raises(DataError, match=rf"no {gone} on this machine"):
        RecordedWorld.content(config(pack))


def test_more_requests_than_are_recorded_are_refused(pack: Path) -> None:
    with pytest.raises(InputError, match=r"2 requests are recorded, which leaves 0 for test"):
        RecordedWorld(config(pack, train=1, dev=1, test=1), seed=0)


def test_the_folder_can_come_from_the_environment(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPTOOL_RECORDED", str(pack))
    unnamed = RecordedWorld.Config(train_tasks=0, dev_tasks=0, test_tasks=2)
    assert RecordedWorld(unnamed, seed=0).tasks("test") == opened(pack).tasks("test")
    assert RecordedWorld.content(unnamed) == RecordedWorld.content(config(pack))
    monkeypatch.delenv("STEPTOOL_RECORDED")
    for asked in (RecordedWorld.content, partial(RecordedWorld, seed=0)):
        with pytest.raises(DataError, match="STEPTOOL_RECORDED"):
            asked(unnamed)


def test_broken_files_are_named_with_their_line(pack: Path) -> None:
    write(pack / QUERIES, [REQUESTS[0], {**REQUESTS[1], "query": 5}])
    with pytest.raises(DataError, match=r"queries.jsonl.gz:2: Query: query: Input should be a valid string"):
        opened(pack)
    whole = (pack / REPLIES).read_bytes()
    write(pack / QUERIES, REQUESTS)
    (pack / REPLIES).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"tool_responses.jsonl.gz:1: not a whole gzip file"):
        opened(pack)
    (pack / REPLIES).unlink()
    with pytest.raises(DataError, match="no such file"):
        opened(pack)


PACK = Path(os.environ.get("STEPTOOL_RECORDED", "nowhere"))
PUBLISHED = 650
"""Requests of the published pack."""


@pytest.mark.skipif(not (PACK / QUERIES).exists(), reason="STEPTOOL_RECORDED names no recorded pack")
def test_judged_runs_replay_through_the_chat_format() -> None:
    """Twenty published runs, said again word by word: same calls, a reply to each, one token stream."""
    world, chat = opened(PACK, PUBLISHED), JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    tasks = {task.id: task for task in world.tasks("test")}
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
            done = replay(world, chat, task, [*steps, finish])
            assert (done.stop_reason, done.answer) == (StopReason.finished, run["final_answer"])
            assert [call for step in done.steps for call in step.action.calls] == [*steps, finish]
            errors = [observation.error for step in done.steps for observation in step.observations]
            calls += len(steps)
            hits += sum(error not in ("no_recording", "unknown_tool") for error in errors)
    assert replayed == 20
    assert hits == calls, "every call of a recorded run has a recording"


def replay(world: RecordedWorld, chat: JsonCall, task: Task, calls: list[ToolCall]) -> Trajectory:
    """An attempt at the task by a policy that makes these calls."""
    actions = iter([chat.render(Action(calls=(call,))) for call in calls])

    async def act(stream: Sequence[int], most: int, seed: int) -> Generation:
        ids = next(actions)
        return Generation(tuple(ids), (LOGPROB,) * len(ids), stopped=True)

    attempt = Attempt(
        task=task,
        open=partial(world.open, task, seed=0),
        act=act,
        format=chat,
        conditions=conditions(max_calls=20, max_step_tokens=4096, max_tokens=100_000),
        policy=revision("recorded"),
        seed=0,
        number=0,
        tool_timeout_s=5.0,
    )
    (done,) = asyncio.run(Chain(NoSettings()).attempt(attempt))
    return done


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
    world = opened(pack)
    assert world.tasks("test")[0].tools[0].parameters["properties"]["id"]["type"] == read
    check(world)


@pytest.mark.parametrize("spelled", ["DATE (YYYY-MM-DD)", "", "strin", "\x1b[2J", "x" * 10_000])
def test_a_type_that_json_has_not_is_named_with_its_line(spelled: str, pack: Path) -> None:
    parameters = [{**PARAMETERS[0], "type": spelled}]
    write(pack / QUERIES, changed(1, api_list=[{**FIND, "parameters": parameters}]))
    with pytest.raises(
        DataError, match=r"queries.jsonl.gz:2: Query: api_list.0.parameters.0.type: .* is no type of JSON"
    ) as caught:
        opened(pack)
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)


def test_a_parameter_that_is_listed_twice_is_required_once(pack: Path) -> None:
    write(pack / QUERIES, changed(0, api_list=[{**FIND, "parameters": [PARAMETERS[0], PARAMETERS[0]]}]))
    world = opened(pack)
    assert world.tasks("test")[0].tools[0].parameters["required"] == ["id"]
    check(world)


REFUSED = {
    "an id twice": ([*REQUESTS, {**REQUESTS[1], "query": "Other?"}], "task q2: test has a task of this id too"),
    "a name": (changed(0, api_list=[{**FIND, "name": "a\nb"}], relevant_apis=[]), "cannot be called"),
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
        check(opened(pack, requests=len(requests)))


@pytest.mark.skipif(not (PACK / QUERIES).exists(), reason="STEPTOOL_RECORDED names no recorded pack")
def test_the_published_pack_passes_but_for_the_request_whose_tools_are_all_hidden() -> None:
    with pytest.raises(DataError, match="test task 44774: offers no tools") as caught:
        check(opened(PACK, PUBLISHED))
    assert ";" not in caught.value.found, "it is the only problem"
