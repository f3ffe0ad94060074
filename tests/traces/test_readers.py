"""One attempt as each source writes it is the same attempt:

s Be brief.   u What does Dune cost?   a find(Dune) find(Emma), "I look."   t 9.5   t no such book, an error
a Which one?   u Dune   a 9.5
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steptool.config.plugins import BUILT_IN
from steptool.core.errors import InputError
from steptool.core.messages import MessageCall
from steptool.core.types import AnswerCheck, StopReason
from steptool.traces.conversation import Conversation, Skipped
from steptool.traces.kinds import kind_of, reader_of
from steptool.traces.scrub import Scrubber
from steptool.traces.steps import Attempt, attempt_of

SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
FUNCTION = {"name": "find", "description": "The price of a book.", "parameters": SCHEMA}
DUNE, EMMA = '{"title": "Dune"}', '{"title": "Emma"}'
ERROR = '{"error": "no such book"}'

OPENAI_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What does Dune cost?"}]},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "find", "arguments": DUNE}},
            {"id": "2", "type": "function", "function": {"name": "find", "arguments": EMMA}},
        ],
    },
    {"role": "tool", "tool_call_id": "2", "content": ERROR},
    {"role": "tool", "tool_call_id": "1", "content": "9.5"},
    {"role": "assistant", "content": "Which one?"},
    {"role": "user", "content": "Dune"},
    {"role": "assistant", "content": "9.5"},
]
OPENAI_TOOLS = [{"type": "function", "function": FUNCTION}, {"type": "web_search"}]
ANTHROPIC_MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "What does Dune cost?"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "1", "name": "find", "input": {"title": "Dune"}},
            {"type": "tool_use", "id": "2", "name": "find", "input": {"title": "Emma"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "9.5"}]},
            {"type": "tool_result", "tool_use_id": "2", "content": ERROR, "is_error": True},
        ],
    },
    {"role": "assistant", "content": "Which one?"},
    {"role": "user", "content": "Dune"},
    {"role": "assistant", "content": [{"type": "text", "text": "9.5"}]},
]
ANTHROPIC_TOOLS = [{"name": "find", "description": "The price of a book.", "input_schema": SCHEMA}]
ITEMS: list[dict[str, Any]] = [
    {"role": "user", "content": "What does Dune cost?"},
    {"type": "reasoning", "summary": []},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
    {"type": "function_call", "call_id": "1", "name": "find", "arguments": DUNE},
    {"type": "function_call", "call_id": "2", "name": "find", "arguments": EMMA},
    {"type": "function_call_output", "call_id": "1", "output": "9.5"},
    {"type": "function_call_output", "call_id": "2", "output": ERROR},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Which one?"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Dune"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "9.5"}]},
]
ATIF = {
    "schema_version": "ATIF-v1.7",
    "agent": {
        "name": "shop",
        "version": "1",
        "model_name": "gpt",
        "tool_definitions": [{"type": "function", "function": FUNCTION}],
    },
    "steps": [
        {"step_id": 1, "source": "system", "message": "Be brief."},
        {"step_id": 2, "source": "user", "message": "What does Dune cost?"},
        {
            "step_id": 3,
            "source": "agent",
            "message": "I look.",
            "tool_calls": [
                {"tool_call_id": "1", "function_name": "find", "arguments": {"title": "Dune"}},
                {"tool_call_id": "2", "function_name": "find", "arguments": {"title": "Emma"}},
            ],
            "observation": {
                "results": [{"source_call_id": "1", "content": "9.5"}, {"source_call_id": "2", "content": ERROR}]
            },
        },
        {"step_id": 4, "source": "agent", "message": "Which one?"},
        {"step_id": 5, "source": "user", "message": "Dune"},
        {"step_id": 6, "source": "agent", "message": "9.5"},
    ],
    "extra": {"solved": True},
}
RECORDS: dict[str, tuple[str, Any]] = {
    "fine-tuning": ("openai", {"messages": OPENAI_MESSAGES, "tools": OPENAI_TOOLS, "model": "gpt", "solved": True}),
    "request and response": (
        "openai",
        {
            "request": {"messages": OPENAI_MESSAGES[:-1], "tools": OPENAI_TOOLS},
            "response": {"model": "gpt", "choices": [{"index": 0, "message": OPENAI_MESSAGES[-1]}]},
            "metadata": {"score": 1},
        },
    ),
    "inputs and outputs": (
        "openai",
        {
            "inputs": {"messages": OPENAI_MESSAGES[:-1], "tools": json.dumps(OPENAI_TOOLS), "model": "gpt"},
            "outputs": {"message": OPENAI_MESSAGES[-1]},
            "feedback": "thumbs_up",
        },
    ),
    "streamed": (
        "openai",
        {
            "messages": OPENAI_MESSAGES[:-1],
            "functions": [FUNCTION],
            "model": "gpt",
            "response": [
                {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
                {"choices": [{"index": 0, "delta": {"content": "9."}}]},
                {"choices": [{"index": 0, "delta": {"content": "5"}}]},
                {"choices": []},
            ],
            "correct": "yes",
        },
    ),
    "anthropic": (
        "anthropic",
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": ANTHROPIC_MESSAGES,
            "tools": ANTHROPIC_TOOLS,
            "model": "gpt",
            "solved": True,
        },
    ),
    "anthropic request and response": (
        "anthropic",
        {
            "request": {"messages": ANTHROPIC_MESSAGES[:-1], "tools": ANTHROPIC_TOOLS},
            "response": {"model": "gpt", "role": "assistant", "content": [{"type": "text", "text": "9.5"}]},
            "solved": 1,
        },
    ),
    "items": (
        "responses",
        {"items": ITEMS, "instructions": "Be brief.", "tools": [FUNCTION], "model": "gpt", "solved": 1},
    ),
    "responses": (
        "responses",
        {
            "input": ITEMS[:-1],
            "output": ITEMS[-1:],
            "tools": [{"type": "function", **FUNCTION}],
            "model": "gpt",
            "solved": True,
        },
    ),
    "atif": ("atif", ATIF),
}


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def conversations(kind: str, source: str, **settings: Any) -> list[Conversation]:
    found = list(reader_of(kind, settings).read(source))
    assert all(isinstance(each, Conversation) for each in found), found
    return found


def skipped(kind: str, source: str, **settings: Any) -> list[Skipped]:
    return [each for each in reader_of(kind, settings).read(source) if isinstance(each, Skipped)]


def attempt(of: Conversation) -> Attempt:
    found = attempt_of(of)
    assert isinstance(found, Attempt), found
    return found


@pytest.mark.parametrize("form", RECORDS)
def test_an_attempt_is_the_same_from_every_source(form: str, tmp_path: Path) -> None:
    kind, record = RECORDS[form]
    source = write(tmp_path / "log.jsonl", record)
    assert kind_of(source) == kind
    [found] = conversations(kind, source)
    [expected] = conversations("openai", write(tmp_path / "other.jsonl", RECORDS["fine-tuning"][1]))
    assert found.tools == expected.tools and len(found.tools) == 1
    assert (found.model, found.solved) == ("gpt", 1.0)
    one, other = attempt(found), attempt(expected)
    assert one.keys() == other.keys()
    assert one.task_id == other.task_id
    assert [[seen.error for seen in step.observations] for step in one.steps] == [[None, "tool_error"], [], []]
    assert one.steps[0].action.thought == "I look."


@pytest.mark.parametrize("form", RECORDS)
def test_what_is_no_record_is_broken_and_the_next_one_follows(form: str, tmp_path: Path) -> None:
    kind, record = RECORDS[form]
    damaged = [{}, 3, [1], {"messages": 3}, {"messages": [3]}, {"items": [3]}, {"messages": [{"role": "x"}]}]
    path = tmp_path / "log.jsonl"
    write(path, *damaged, record)
    with path.open("ab") as file:
        file.write(b'{"messages": [\n\xff\n')
    found = skipped(kind, str(path))
    assert [each.where for each in found] == [f"{path}:{number}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
    assert all(each.is_broken for each in found)
    assert [each.reason for each in found[-2:]] == ["not JSON: cut off", "not UTF-8"]
    assert len([each for each in reader_of(kind, {}).read(str(path)) if isinstance(each, Conversation)]) == 1


def test_files_come_gzipped_as_documents_and_in_folders(tmp_path: Path) -> None:
    record = RECORDS["fine-tuning"][1]
    (tmp_path / "a.json").write_text(json.dumps([record, record], indent=2))
    (tmp_path / "b.json").write_text(json.dumps(record, indent=2))
    (tmp_path / "c.json").write_text(json.dumps([record]))
    (tmp_path / "d.json").write_text(json.dumps(OPENAI_MESSAGES))
    (tmp_path / "notes.txt").write_text("no record")
    (tmp_path / "inner").mkdir()
    with gzip.open(tmp_path / "inner" / "e.jsonl.gz", "wt") as file:
        file.write(json.dumps(record) + "\n\n" + json.dumps(record))
    found = conversations("openai", str(tmp_path))
    places = ["a.json[0]", "a.json[1]", "b.json", "c.json[0]", "d.json:1", "inner/e.jsonl.gz:1", "inner/e.jsonl.gz:3"]
    assert [each.where for each in found] == [str(tmp_path / place) for place in places]
    assert kind_of(str(tmp_path)) == "openai"


def test_a_damaged_gzip_file_is_named_behind_what_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    lines = "".join(json.dumps({**RECORDS["fine-tuning"][1], "n": n}) + "\n" for n in range(500))
    path.write_bytes(gzip.compress(lines.encode())[:-200])
    found = list(reader_of("openai", {}).read(str(path)))
    assert isinstance(found[-1], Skipped) and found[-1].is_broken
    assert found[-1].reason == "the gzip file is damaged from here on"
    assert all(isinstance(each, Conversation) for each in found[:-1])


@pytest.mark.parametrize("name", ["missing.jsonl", "empty"])
def test_a_source_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        list(reader_of("openai", {}).read(str(tmp_path / name)))


def test_a_source_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--from"):
        kind_of(write(tmp_path / "log.jsonl", {"a": 1}))
    assert set(BUILT_IN["traces"]) >= {"openai", "responses", "anthropic", "atif", "toolbench", "steptool"}


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("log.bin", b"\xff\xfe\n", "log.bin:1: not UTF-8"),
        ("log.csv", b"a,b\n1,2\n", "log.csv:1: not JSON"),
        ("log.jsonl", b'{"messages": [], "score": NaN}\n', "log.jsonl:1: not JSON: NaN, a name given twice"),
        ("log.jsonl", b"\n\n", "log.jsonl: holds no record"),
        ("log.json", b'[{"a": 1},\n{"b"', "log.json:2: not JSON"),
        ("log.json.gz", b"no gzip", "log.json.gz:1: the gzip file is damaged from here on"),
    ],
)
def test_what_is_no_json_at_all_is_named(name: str, content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=found):
        kind_of(str(tmp_path / name))


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log"])
def test_a_file_may_begin_with_a_byte_order_mark(name: str, tmp_path: Path) -> None:
    record = json.dumps(RECORDS["fine-tuning"][1])
    (tmp_path / name).write_text(f"{record}\r\n", encoding="utf-8-sig")
    assert len(conversations("openai", str(tmp_path / name))) == 1
    (tmp_path / "list.json").write_text(json.dumps([json.loads(record)] * 2, indent=1), encoding="utf-8-sig")
    assert len(conversations("openai", str(tmp_path / "list.json"))) == 2


def test_a_broken_document_in_a_folder_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"messages": [\n')
    (tmp_path / "b.json").write_text(json.dumps(RECORDS["fine-tuning"][1], indent=1))
    broken, found = reader_of("openai", {}).read(str(tmp_path))
    assert isinstance(broken, Skipped) and (broken.reason, broken.is_broken) == ("not JSON", True)
    assert isinstance(found, Conversation)


def test_settings_of_a_reader_are_checked() -> None:
    with pytest.raises(InputError, match=r"labels: .*\n.*are: label, group, expected"):
        reader_of("openai", {"labels": "x"})
    with pytest.raises(InputError, match="did you mean 'openai'"):
        reader_of("openia", {})


# Chat completions


def test_the_halves_of_a_batch_are_joined_in_either_order(tmp_path: Path) -> None:
    inputs = [
        {"custom_id": id, "method": "POST", "body": {"messages": OPENAI_MESSAGES[:2], "model": "gpt"}} for id in "abc"
    ]
    reply = {"choices": [{"message": {"role": "assistant", "content": "9.5"}}]}
    outputs = [{"custom_id": id, "response": {"status_code": 200, "body": reply}, "error": None} for id in "bad"]
    for name, records in (("1", [*inputs, *outputs]), ("2", [*outputs, *inputs])):
        source = write(tmp_path / f"{name}.jsonl", *records)
        assert kind_of(source) == "openai"
        found = list(reader_of("openai", {}).read(source))
        assert [attempt(each).answer for each in found if isinstance(each, Conversation)] == ["9.5", "9.5"]
        reasons = {each.reason for each in found if isinstance(each, Skipped)}
        assert reasons == {
            "half of a batch, whose response is not in the source",
            "half of a batch, whose request is not in the source",
        }


def test_every_choice_is_a_conversation_of_its_own(tmp_path: Path) -> None:
    choices = [{"message": {"role": "assistant", "content": text}} for text in ("9.5", "10")]
    source = write(tmp_path / "log.jsonl", {"messages": OPENAI_MESSAGES[:2], "choices": choices})
    assert [attempt(each).answer for each in conversations("openai", source)] == ["9.5", "10"]


def test_streamed_calls_are_joined(tmp_path: Path) -> None:
    deltas: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "find", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "look", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"title": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Dune"}'}}]},
        {"content": None},
    ]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    [found] = conversations(
        "openai", write(tmp_path / "log.jsonl", {"messages": OPENAI_MESSAGES[:2], "output": chunks})
    )
    assert found.messages[-1].calls == (
        MessageCall(id="1", name="find", arguments=DUNE),
        MessageCall(id="2", name="look", arguments="{}"),
    )


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [{"message": {"role": "assistant", "content": None, "refusal": "No."}}]},
        {"choices": [{"message": {"role": "assistant", "content": None, "audio": {"transcript": "No."}}}]},
        [{"choices": [{"delta": {"refusal": "N"}}]}, {"choices": [{"delta": {"refusal": "o."}}]}],
    ],
)
def test_a_refusal_and_what_was_spoken_are_the_text(response: Any, tmp_path: Path) -> None:
    record = {"request": {"messages": OPENAI_MESSAGES[:2]}, "response": response}
    [found] = conversations("openai", write(tmp_path / "log.jsonl", record))
    assert found.messages[-1].text == "No."


def test_the_functions_of_old_are_read(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "What does Dune cost?"},
        {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": DUNE}},
        {"role": "function", "name": "find", "content": "9.5"},
        {"role": "assistant", "content": "9.5", "reasoning_content": "There."},
    ]
    [found] = conversations("openai", write(tmp_path / "log.jsonl", {"messages": messages, "functions": [FUNCTION]}))
    done = attempt(found)
    assert done.steps[0].observations[0].text == "9.5"
    assert done.steps[1].action.thought == "There."
    assert done.tools == ("find",)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "a message holds parts that are not text",
        ),
        ({"messages": OPENAI_MESSAGES[:2], "response": {"error": {"code": 500}}}, "the response is an error"),
        ({"messages": OPENAI_MESSAGES[:2], "response": None, "error": {"code": 500}}, "the response is an error"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "run"}}]}]},
            "it calls a tool that takes a text instead of arguments",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_skipped_and_not_broken(record: Any, reason: str, tmp_path: Path) -> None:
    [found] = skipped("openai", write(tmp_path / "log.jsonl", record))
    assert (found.reason, found.is_broken) == (reason, False)


def test_labels_and_expectations_stand_where_settings_say(tmp_path: Path) -> None:
    beside = {"eval": {"ok": False, "gold": 9.5, "topic": "books"}, "solved": True}
    source = write(tmp_path / "log.jsonl", {"messages": OPENAI_MESSAGES, **beside})
    settings = {"label": "eval.ok", "expected": "eval.gold", "group": "eval.topic"}
    [found] = conversations("openai", source, **settings)
    assert (found.solved, found.evidence, found.group) == (0.0, "label eval.ok of the source", "books")
    assert found.check == AnswerCheck(kind="number", expected=9.5, strict=False)
    assert conversations("openai", source)[0].solved == 1.0


@pytest.mark.parametrize("label", [None, 5, -1, "perhaps", [], {}, "1"])
def test_what_is_no_label_is_unknown(label: Any, tmp_path: Path) -> None:
    [found] = conversations("openai", write(tmp_path / "log.jsonl", {"messages": OPENAI_MESSAGES, "score": label}))
    assert (found.solved, found.evidence) == (None, "")


# Responses


def test_a_response_that_continues_another_has_its_items_before_its_own(tmp_path: Path) -> None:
    records = [
        {"request": {"input": "What does Dune cost?"}, "response": {"id": "r1", "output": ITEMS[3:4]}},
        {
            "request": {"input": ITEMS[5:6], "previous_response_id": "r1"},
            "response": {"id": "r2", "output": ITEMS[-1:]},
        },
        {"request": {"input": "And?", "previous_response_id": "r0"}, "response": {"id": "r3", "output": ITEMS[-1:]}},
    ]
    source = write(tmp_path / "log.jsonl", *records)
    assert kind_of(source) == "responses"
    found = [each for each in reader_of("responses", {}).read(source) if isinstance(each, Conversation)]
    assert attempt(found[1]).query == "What does Dune cost?"
    assert attempt(found[1]).answer == "9.5"
    [lost] = skipped("responses", source)
    assert lost.reason == "it continues a response that does not stand before it in the source"


def test_an_item_of_another_kind_is_named(tmp_path: Path) -> None:
    [found] = skipped("responses", write(tmp_path / "l.jsonl", {"items": [*ITEMS, {"type": "web_search_call"}]}))
    assert (found.reason, found.is_broken) == ("it holds an item of another kind: web_search_call", False)


# Anthropic


def test_thinking_is_the_thought_and_an_empty_reply_a_reply(tmp_path: Path) -> None:
    messages = [
        ANTHROPIC_MESSAGES[0],
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "1", "name": "find", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]},
        ANTHROPIC_MESSAGES[-1],
    ]
    [found] = conversations("anthropic", write(tmp_path / "log.jsonl", {"messages": messages}))
    done = attempt(found)
    assert done.steps[0].action.thought == "Hm."
    assert done.steps[0].observations[0].text == ""


# ATIF


def test_copied_steps_are_left_out_and_sub_agents_are_conversations(tmp_path: Path) -> None:
    inner = {**ATIF, "trajectory_id": "inner", "extra": None}
    steps = [dict(step) for step in ATIF["steps"]]  # type: ignore[attr-defined]
    steps[0] = {"step_id": 1, "source": "user", "message": "Before.", "is_copied_context": True}
    source = write(tmp_path / "log.jsonl", {**ATIF, "steps": steps, "subagent_trajectories": [inner]})
    found = conversations("atif", source)
    assert [each.where for each in found] == [f"{source}:1", f"{source}:1, inner"]
    assert [each.solved for each in found] == [1.0, None]
    assert attempt(found[0]).keys() == attempt(found[1]).keys()


def test_an_observation_without_a_call_is_skipped(tmp_path: Path) -> None:
    steps = [
        {"step_id": 1, "source": "user", "message": "q"},
        {"step_id": 2, "source": "agent", "message": "ls", "observation": {"results": [{"content": "a.txt"}]}},
    ]
    [found] = skipped("atif", write(tmp_path / "log.jsonl", {**ATIF, "steps": steps}))
    assert (found.reason, found.is_broken) == ("an observation follows no call of a tool", False)


# ToolBench

FINISH = {"return_type": "give_answer", "final_answer": "9.5"}
GIVES_UP = {"return_type": "give_up_and_restart"}


def of_inference(ending: dict[str, Any]) -> dict[str, Any]:
    said = [
        {"role": "system", "content": "You are AutoGPT."},
        {"role": "user", "content": "\nWhat does Dune cost?\nBegin!\n"},
        {"role": "assistant", "content": "I look.", "function_call": {"name": "find", "arguments": DUNE}},
        {"role": "function", "name": "find", "content": "9.5"},
        {"role": "assistant", "content": "", "function_call": {"name": "Finish", "arguments": json.dumps(ending)}},
    ]
    functions = [{**FUNCTION, "parameters": {**SCHEMA, "optional": []}}, {"name": "Finish", "parameters": {}}]
    generated = {"function": functions, "train_messages": [said[:3], said], "final_answer": json.dumps(ending)}
    return {"win": True, "answer_generation": generated}


def of_evaluation(ending: dict[str, Any]) -> dict[str, Any]:
    made = {"name": "find", "arguments": DUNE, "response": "9.5"}
    chain: list[Any] = []
    for role, said in (
        ("tool", str({"name": "Finish", "arguments": json.dumps(ending), "response": ""})),
        ("tool", made),
        ("assistant", "I look."),
        ("user", "What does Dune cost?"),
        ("system", ""),
    ):
        chain = [{"role": role, "message": said, "next": chain}]
    answer = {"method": "gpt", "final_answer": json.dumps(ending), "answer_details": chain}
    return {"7": {"query": "What does Dune cost?", "available_tools": [FUNCTION], "answer": answer}}


def of_training(ending: dict[str, Any]) -> dict[str, Any]:
    apis = [{**FUNCTION, "parameters": {**SCHEMA, "optional": []}}, {"name": "Finish", "parameters": {}}]
    texts = [
        ("system", f"Specifically, you have access to the following APIs: {apis}"),
        ("user", "\nWhat does Dune cost?\nBegin!\n"),
        ("assistant", f"\nThought: I look.\nAction: find\nAction Input: {DUNE}"),
        ("function", "9.5"),
        ("assistant", f"\nThought: \nAction: Finish\nAction Input: {json.dumps(ending)}"),
    ]
    return {"id": "1", "conversations": [{"from": role, "value": text} for role, text in texts]}


@pytest.mark.parametrize("form", [of_inference, of_evaluation, of_training])
def test_the_forms_of_toolbench_are_one_attempt(form: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "log.jsonl", form(FINISH), form(GIVES_UP))
    assert kind_of(source) == "toolbench"
    found = [attempt(each) for each in conversations("toolbench", source)]
    assert [(each.stop_reason, each.answer) for each in found] == [
        (StopReason.finished, "9.5"),
        (StopReason.gave_up, None),
    ]
    for each in found:
        assert (each.query, each.tools, len(each.steps)) == ("What does Dune cost?", ("find",), 2)
        assert each.steps[0].action.calls[0].arguments == {"title": "Dune"}
        assert each.steps[0].observations[0].text == "9.5"
        assert each.steps[0].action.thought == "I look."


def test_judged_runs_need_their_queries(tmp_path: Path) -> None:
    ends = {"name": "Finish", "arguments": FINISH}
    run = {"query_id": "1", "steps": [ends], "return_type": "give_answer", "final_answer": "9.5", "solved": 0.5}
    source = write(tmp_path / "run.jsonl", run, {**run, "query_id": "2"}, {**run, "steps": []})
    assert kind_of(source) == "toolbench"
    with pytest.raises(InputError, match=r"--set queries="):
        list(reader_of("toolbench", {}).read(source))
    parameter = {"name": "title", "type": "STRING", "required": True}
    api = {"name": "find", "description": "", "category": "", "parameters": [parameter]}
    query = {"query_id": "1", "subset": "G1_tool", "query": "What?", "api_list": [api], "relevant_apis": []}
    with gzip.open(tmp_path / "queries.jsonl.gz", "wt") as file:
        file.write(json.dumps(query) + "\n")
    found, lost, unended = reader_of("toolbench", {}).read(source)
    assert isinstance(found, Conversation) and isinstance(lost, Skipped) and isinstance(unended, Conversation)
    assert (found.group, found.solved, attempt(found).answer) == ("G1_tool", 0.5, "9.5")
    assert unended.answer is None  # without a call of Finish nobody was given one
    assert lost.reason == "its query is not in the file of queries"


# Damaged records

NAMES = st.sampled_from(["role", "content", "type", "name", "id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab{[", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, item in inner for place in places(item, (*here, key)))]


def replaced(value: Any, place: tuple[Any, ...], by: Any) -> Any:
    if not place:
        return by
    key, *rest = place
    inner = replaced(value[key], tuple(rest), by)
    if isinstance(value, dict):
        return {**value, key: inner}
    return [inner if index == key else item for index, item in enumerate(value)]


BATCH = {
    "custom_id": "1",
    "body": {"messages": OPENAI_MESSAGES},
    "response": {"body": {"choices": [{"message": OPENAI_MESSAGES[-1]}]}},
}
DAMAGED: dict[str, tuple[str, Any]] = {
    **RECORDS,
    **{form.__name__: ("toolbench", form(FINISH)) for form in (of_inference, of_evaluation, of_training)},
    "batch": ("openai", BATCH),
}


@pytest.mark.parametrize("form", DAMAGED)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_with_anything_in_any_place_is_read_or_skipped(form: str, data: st.DataObject, tmp_path: Path) -> None:
    kind, record = DAMAGED[form]
    for _ in range(data.draw(st.integers(1, 2))):
        record = replaced(record, data.draw(st.sampled_from(places(record))), data.draw(JSON))
    source = write(tmp_path / "log.jsonl", record)
    for found in reader_of(kind, {}).read(source):
        assert isinstance(found, Conversation | Skipped)
        if isinstance(found, Conversation):
            done = attempt_of(Scrubber(b"k" * 32).conversation(found))
            assert isinstance(done, Skipped) or done.trajectory(0).steps
