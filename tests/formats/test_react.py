"""ToolBench's text, read and written:

Thought: It asks for an order.                       thought
Action: find_order                                   name
Action Input: {"id": "a-1"}                          arguments
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steptool.core.types import Action, Task, ToolCall
from steptool.formats.base import Served, Shortens
from steptool.formats.episode import encode
from steptool.formats.react import INSTRUCTIONS, React
from steptool.formats.tool_text import openai_tools
from steptool.policies import tiny_model
from steptool.testing import call, finish, message, observation, step, tool
from steptool.testing import task as make_task
from tests.formats.test_json_call import JSON, NAMES, TEXT
from tests.formats.test_served_template import ARGUMENTS, TASKS, WORDS, messages_of, rendered, stream_of

TOKENIZER = tiny_model.tokenizer()
REACT = React(React.Config(), TOKENIZER)
FIND = call("find_order", id="a-1")
TASK = make_task("t1", "Where is order a-1?", tool("find_order", "Finds an order.", needs={"id": "string"}))


def test_a_demonstration_is_written_as_in_toolbench() -> None:
    ids, mask = encode(REACT, TASK, [step(FIND, "shipped", thought="Look it up."), finish("shipped")])
    assert TOKENIZER.decode(ids) == (
        f"<|im_start|>system\n{INSTRUCTIONS}\nfind_order(id) - Finds an order.<|im_end|>\n"
        "<|im_start|>user\nWhere is order a-1?<|im_end|>\n<|im_start|>assistant\n"
        'Thought: Look it up.\nAction: find_order\nAction Input: {"id": "a-1"}<|im_end|>\n'
        "<|im_start|>tool\nshipped<|im_end|>\n<|im_start|>assistant\n"
        'Action: Finish\nAction Input: {"return_type": "give_answer", "final_answer": "shipped"}<|im_end|>'
    )
    assert sum(mask) == sum(len(REACT.render(action)) for action in (Action(thought="Look it up.", calls=(FIND,)),
                                                                     finish("shipped").action))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "thought", "made"),
    [
        ('Thought: Look.\nAction: find_order\nAction Input: {"id": "a-1"}', "Look.", FIND),
        ('Action: find_order\nAction Input: {"id": "a-1"}', "", FIND),
        ('Look.\nAction:find_order\nAction Input:{"id": "a-1"}\n\n', "Look.", FIND),
        ('Thought:\nOne.\n\nTwo.\nAction: find_order \nAction Input:\n{\n"id": "a-1"\n}', "One.\n\nTwo.", FIND),
        ('Thought: Action: x\nAction: find_order\r\nAction Input: {"id": "a-1"}', "Action: x", FIND),
        (
            'Action: Finish\nAction Input: {"return_type": "give_answer", "final_answer": [1]}',
            "",
            call("Finish", answer=[1]),
        ),
        ('Action: Finish\nAction Input: {"return_type": "give_up_and_restart"}', "", call("Finish", give_up=True)),
    ],
)
def test_calls_are_read(text: str, thought: str, made: ToolCall) -> None:
    assert React.read(text) == Action(thought=thought, calls=(made,))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no line that begins with Action:"),
        ("It is shipped.", "no line that begins with Action:"),
        ("Action: find_order", "then Action Input: and its arguments"),
        ("Action: find order\nAction Input: {}", "and a function's name"),
        ("Action: find_order\nAction Input: a-1", "no JSON object after Action Input:"),
        ("Action: find_order\nAction Input: {'id': 1}", "arguments are not JSON"),
        ("Action: a\nAction Input: {}\nObservation: ok\nAction: b\nAction Input: {}", "arguments are not JSON: Extra"),
        ('Action: Finish\nAction Input: {"answer": "x"}', "Finish takes"),
        ('Action: Finish\nAction Input: {"return_type": "give_answer"}', "Finish takes"),
        ('Action: Finish\nAction Input: {"return_type": "give_answer", "final_answer": null}', "Finish takes"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, error: str) -> None:
    read = React.read(text)
    assert error in str(read.unreadable)
    assert read.thought == text.strip()


@given(thought=TEXT, name=NAMES, arguments=st.dictionaries(TEXT, JSON, max_size=3))
def test_what_is_rendered_is_read_back(thought: str, name: str, arguments: dict[str, Any]) -> None:
    made = Action(thought=thought, calls=(ToolCall(name=name, arguments=arguments),))
    assert REACT.parse(REACT.render(made)) == made.model_copy(update={"thought": thought.strip()})


def test_what_the_format_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="react can write an action of one call"):
        REACT.render(message("Hello."))
    with pytest.raises(ValueError, match="a line begins with Action:"):
        REACT.render(Action(thought="So:\nAction: x", calls=(FIND,)))
    with pytest.raises(ValueError, match="either an answer or give_up"):
        REACT.render(Action(calls=(call("Finish", answer=None),)))
    with pytest.raises(ValueError, match="react has one observation a turn"):
        REACT.reply([], [observation("a"), observation("b")], None)
    assert "Action Input:" in REACT.hint("no JSON object")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(task=TASKS, data=st.data())
def test_what_is_served_is_what_was_trained(task: Task, data: st.DataObject) -> None:
    names = st.sampled_from([tool.name for tool in task.tools] or ["none"])
    calls = st.builds(lambda name, arguments: ToolCall(name=name, arguments=arguments), names, ARGUMENTS)
    actions = st.builds(lambda thought, call: Action(thought=thought.strip(), calls=(call,)), WORDS, calls)
    turns = data.draw(st.lists(st.tuples(actions, WORDS), max_size=2))
    tools = openai_tools(task.tools) or None
    assert rendered(TOKENIZER, REACT.chat_template(), messages_of(task, turns), tools) == stream_of(REACT, task, turns)
    assert isinstance(REACT, Served)
    assert isinstance(REACT, Shortens)
    answer = {"role": "assistant", "content": "It is shipped."}
    ids = rendered(TOKENIZER, REACT.chat_template(), [{"role": "user", "content": task.query}, answer], tools)
    assert ids == stream_of(REACT, task, []) + list(REACT.render(finish("It is shipped.").action))
