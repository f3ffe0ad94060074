"""Names that a format cannot write.

world's         written
get_user        get_user
get user        get_user_2      taken by the one above
größe/cm        gr__e_cm
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.core.types import FINISH, TOOL_NAME, Action, Task, Tool, ToolCall
from steptool.formats.json_call import JsonCall
from steptool.formats.names import MOST_CHARACTERS, OPENAI, TEXT, Spelling
from steptool.formats.tool_text import _module, openai_tools
from steptool.policies import tiny_model

NAMES = st.lists(
    st.text(alphabet="aZ_0.-/ é日", min_size=1, max_size=4)
    | st.sampled_from(["Finish", "Finish ", "a" * 200, "é" * 200, "a" * 199 + "é", "_" * 63 + "é"]),
    max_size=8,
    unique=True,
)


def offering(names: list[str]) -> Task:
    tools = tuple(Tool(name=name, description="", parameters={}) for name in names)
    return Task(id="t", group="g", query="q", tools=tools)


def test_names_are_written_as_near_as_they_can_be() -> None:
    names = ["get user", "get_user", "get/user", "größe/cm", "3d", ".x", "日本語", "a.b-c"]
    assert TEXT.written(names) == [
        *("get_user_2", "get_user", "get_user_3", "gr__e_cm", "_3d", "_.x", "___", "a.b-c"),
    ]
    assert OPENAI.written(["a.b", "3d", "x" * 70, "x" * 64]) == ["a_b", "3d", "x" * 62 + "_2", "x" * 64]


@pytest.mark.parametrize(("spelling", "pattern"), [(TEXT, TOOL_NAME), (OPENAI, "[a-zA-Z0-9_-]{1,64}")])
@given(names=NAMES)
def test_every_name_gets_one_of_its_own_that_can_be_written(spelling: Spelling, pattern: str, names: list[str]) -> None:
    written = spelling.written(names)
    assert len(set(written)) == len(names)
    assert all(re.fullmatch(pattern, name, re.ASCII) and len(name) <= spelling.most for name in written)
    assert not set(spelling.taken) & set(written)
    assert spelling.written(written) == written
    for name, spelled in zip(names, written, strict=True):
        assert spelled == name or not spelling.carries(name)


@given(names=NAMES)
def test_the_template_of_a_server_writes_the_same_names(names: list[str]) -> None:
    text = str(_module().tool_lines(openai_tools(offering(names).tools), 0))
    assert text.split("\n") == [f"{name}()" for name in TEXT.written(names)] or not names


CHAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())


@given(names=NAMES.filter(lambda names: FINISH not in names), data=st.data())
def test_a_call_of_any_tool_is_written_and_read_back(names: list[str], data: Any) -> None:
    task = offering(names)
    for name in names:
        action = Action(calls=(ToolCall(name=name, arguments={"a": 1}),))
        assert CHAT.parse(CHAT.render(action, task), task) == action


def test_a_name_that_no_tool_has_stays_for_the_world_to_refuse() -> None:
    task = offering(["get user"])
    ids = CHAT.render(Action(calls=(ToolCall(name="get_users", arguments={}),)))
    assert CHAT.parse(ids, task).calls[0].name == "get_users"
    assert MOST_CHARACTERS == 200
