"""What a world may be refused for.

split   task   question          tools        answer
train   t1     Where is t1?      find, look   Oslo
dev     t2     Where is t2?      find, look   Oslo
test    t3     Where is t3?      find, look   Oslo

Each row of a table below changes one thing in this world.
"""

from __future__ import annotations

import asyncio
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steptool.annotators.rules import Rules
from steptool.core.errors import DataError
from steptool.core.types import FINISH, Action, AnswerCheck, Reference, Task, Tool, ToolCall, Trajectory
from steptool.formats.json_call import JsonCall
from steptool.formats.tool_text import describe_tool
from steptool.policies import tiny_model
from steptool.testing import call, finish, message, step, trajectory, unreadable
from steptool.worlds.answers import is_correct
from steptool.worlds.base import SPLITS
from steptool.worlds.checks import check_demonstrations, check_tasks
from steptool.worlds.mini import MiniWorld

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def tool(name: str = "find", **parameters: Any) -> Tool:
    return Tool(name=name, description="", parameters=parameters or SCHEMA)


def task(name: str = "t1", **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "id": name,
        "group": "G1_tool",
        "query": f"Where is {name}?",
        "tools": (tool(), tool("look")),
    }
    return Task(**{**fields, **changes})


def world(**changes: Any) -> dict[str, list[Task]]:
    """The world above with one training task changed."""
    return {"train": [task(**changes)], "dev": [task("t2")], "test": [task("t3")]}


def known(splits: dict[str, list[Task]], **changes: Any) -> dict[str, Reference]:
    """What is known of each task: its answer."""
    fields: dict[str, Any] = {"answer_check": AnswerCheck(kind="text", expected="Oslo"), **changes}
    tasks = [task for found in splits.values() for task in found]
    return {task.id: Reference(**{"task_id": task.id, **fields}) for task in tasks}


def check(splits: dict[str, list[Task]]) -> None:
    check_tasks(splits, known(splits), "ours")


def refusal(splits: dict[str, list[Task]], references: dict[str, Reference] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        check_tasks(splits, known(splits) if references is None else references, "ours")
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 2
    assert str(caught.value).startswith("world ours: ")
    return str(caught.value)


def test_the_worlds_here_pass() -> None:
    check(world())
    mini = MiniWorld(MiniWorld.Config(train_tasks=60, dev_tasks=24, test_tasks=24), seed=17)
    splits = {split: mini.tasks(split) for split in SPLITS}
    check_tasks(splits, {task.id: mini.reference(task) for found in splits.values() for task in found}, "mini")
    check_demonstrations(mini.demonstrations(40, 0.25, 17), splits, "world mini")


# Expected values against their kind


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *(("number", value) for value in ("Oslo", "3", None, True, [3], {}, math.nan, math.inf, -math.inf, 10**400)),
        *(("text", value) for value in (3, None, True, ["a"], "", "  ", " .\"' ", "x" * 501, {"a": 1})),
        *(("set", value) for value in ("A, B", 3, None, [], [1, 2], ["A", None], ["A", " "], ["A", "a "], {"A": 1})),
        ("set", ["x" * 100] * 6),
        ("set", [str(number) for number in range(200)]),
    ],
)
def test_a_check_that_no_answer_can_meet_is_refused(kind: Any, expected: Any) -> None:
    with pytest.raises(ValidationError, match="expects "):
        AnswerCheck(kind=kind, expected=expected)


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf, 1e999])
def test_a_tolerance_is_a_finite_number(tolerance: float) -> None:
    with pytest.raises(ValidationError):
        AnswerCheck(kind="number", expected=3, tolerance=tolerance)


@pytest.mark.parametrize("kind", ["text", "set", "judge"])
def test_only_numbers_have_a_tolerance(kind: Any) -> None:
    with pytest.raises(ValidationError, match="no tolerance"):
        AnswerCheck(kind=kind, expected=["a"] if kind == "set" else "a", tolerance=0.5)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("x" * 600),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(["text", "number", "set", "judge"]), ANYTHING, st.floats(0, 10) | st.just(0.0), st.text())
def test_a_check_that_is_accepted_accepts_its_own_answer_and_never_raises(
    kind: Any, expected: Any, tolerance: float, other: str
) -> None:
    try:
        check = AnswerCheck(kind=kind, expected=expected, tolerance=tolerance)
    except ValidationError:
        return
    if kind == "judge":
        return
    written = json.dumps(expected) if kind == "set" else str(expected)
    if kind == "number":
        written = f"{Decimal(repr(expected)):f}"
    assert is_correct(check, written)
    assert is_correct(check, other) in (True, False)


# Tasks


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tools": ()}, "train task t1: offers no tools"),
        ({"query": " \n"}, "asks nothing"),
        ({"tools": (tool(), tool())}, "offers 2 tools of the name 'find'"),
        ({"name": ""}, "its id '' is not a printable text"),
        ({"name": "a\nb"}, "is not a printable text"),
        ({"name": "\x1b[2J"}, "is not a printable text"),
        ({"name": "x" * 300}, "is not a printable text"),
        ({"group": "\x07"}, "its group"),
        ({"query": "x" * 100_001}, "its question has 100,001 characters"),
        ({"query": "half \ud800"}, "cannot be stored as JSON"),
    ],
)
def test_a_task_that_nobody_could_do_is_named(changes: dict[str, Any], says: str) -> None:
    assert says in refusal(world(**changes))
    assert "\x1b" not in refusal(world(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"relevant_tools": ("gone",)}, "train task t1: its relevant tool 'gone' is not offered"),
        ({"answer_check": AnswerCheck(kind="judge", expected=math.nan)}, "train task t1: cannot be stored as JSON"),
        ({"answer_check": AnswerCheck(kind="judge", expected={1, 2})}, "train task t1: cannot be stored as JSON"),
        ({"goal": "half \ud800"}, "train task t1: cannot be stored as JSON"),
        ({"task_id": "t2"}, "train task t1: has no reference of its own"),
    ],
)
def test_what_is_known_of_a_task_fits_it(changes: dict[str, Any], says: str) -> None:
    only = {"train": [task()]}
    assert says in refusal(only, {"t1": Reference(**{"task_id": "t1", **changes})})


def test_a_task_of_which_nothing_is_known_is_named() -> None:
    assert "test task t3: has no reference of its own" in refusal(world(), known({"train": [task(), task("t2")]}))


def test_ids_are_given_once_in_all_splits() -> None:
    again = {"train": [task("t1"), task("t1", query="Other?")], "dev": [], "test": []}
    assert "train task t1: train has a task of this id too" in refusal(again)
    across = {"train": [task("t1")], "dev": [], "test": [task("t1", query="Other?")]}
    assert "test task t1: train has a task of this id too" in refusal(across)


@pytest.mark.parametrize("query", ["Where is it?", "  where  IS it?\n"])
def test_a_question_stands_in_one_split_only(query: str) -> None:
    first = task("t1", query="Where is it?")
    found = refusal({"train": [first], "dev": [], "test": [task("t2", query=query)]})
    assert "test task t2: asks what train task t1 asks" in found
    check({"train": [first, task("t2", query=query)], "dev": [], "test": []})


def test_a_long_list_of_problems_is_cut() -> None:
    found = refusal({"train": [task(f"t{number}", tools=()) for number in range(9)], "dev": [], "test": []})
    assert found.count("offers no tools") == 5
    assert "and 4 problems more" in found


# Tools


@pytest.fixture(scope="module")
def chat() -> JsonCall:
    return JsonCall(JsonCall.Config(), tiny_model.tokenizer())


NAMES = ["", " ", "a\nb", "\u2028", "\x1b[2J", FINISH, "Finish ", "finish", "x" * 201]


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_that_cannot_be_called_is_refused(name: str) -> None:
    assert "tool " in refusal(world(tools=(tool(name), tool("find"))))


PRINTABLE = ["3d_search", " find", "find it", "gr\u00fc\u00dfe", "-x", ".x", "a/b", "a{", "find\u0661", 'a"b', "find()"]


@given(
    st.lists(
        st.text(alphabet=st.sampled_from("aZ_09.- é/{\n"), max_size=6) | st.sampled_from([*NAMES, *PRINTABLE]),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_name_that_is_accepted_can_be_called_beside_the_others(chat: JsonCall, names: list[str]) -> None:
    offering = task(tools=tuple(map(tool, names)))
    try:
        check({"train": [offering]})
    except DataError:
        assert any(not name.strip() or not name.isprintable() or name in NAMES for name in names)
        return
    for name in names:
        action = Action(calls=(ToolCall(name=name, arguments={"name": "x"}),))
        assert chat.parse(chat.render(action, offering), offering) == action


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(250):
    DEEP = {"type": "array", "items": DEEP}
LAUGHS = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 9} for n in range(9)} | {"9": {"type": "string"}}
"""Nine levels of nine references each: 387,420,489 parts."""
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"type": "STRING"}, "no JSON schema"),
    ({"type": "object", "properties": {"a": {"type": "STRING"}}}, "no JSON schema"),
    ({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "Number"}}}}, "no JSON schema"),
    ({"type": "object", "properties": []}, "no JSON schema"),
    ({"type": "object", "properties": {"a": 3}}, "no JSON schema"),
    ({"type": "object", "required": "name"}, "no JSON schema"),
    ({"type": "object", "required": ["a", "a"], "properties": {"a": {}}}, "no JSON schema"),
    ({"type": "object", "properties": {"a": {"minLength": -1}}}, "no JSON schema"),
    ({"type": "object", "properties": {"a": {"enum": "x"}}}, "no JSON schema"),
    ({"type": "array"}, "where arguments are an object"),
    ({"type": ["object", "null"]}, "where arguments are an object"),
    ({"type": "object", "required": ["ghost"]}, "requires the argument 'ghost'"),
    ({"type": "object", "properties": {"a": True}}, "does not say what its argument 'a' is"),
    ({"type": "object", "properties": {"a": {"type": "array", "items": False}}}, "does not say what"),
    ({"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}, "leads nowhere"),
    ({"type": "object", "properties": {"a": {"$ref": "http://example.org/schema"}}}, "leads nowhere"),
    ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "leads nowhere"),
    ({"type": "object", "allOf": [{"$ref": "#"}]}, "refer to themselves"),
    ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "refer to themselves"),
    ({"type": "object", "properties": {"a": {"pattern": "("}}}, "is not a 'regex'"),
    ({"type": "object", "patternProperties": {"(": {}}}, "is not a 'regex'"),
    ({"type": "object", "description": "x" * 100_000}, "described by more than"),
    ({"type": "object", "properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": LAUGHS}, "more than 24 references"),
    ({"type": "object", "properties": {"a": DEEP}}, "cannot be stored as JSON"),
    ({"type": "object", "properties": {"a": {"maximum": math.inf}}}, "cannot be stored as JSON"),
    ({"type": "object", "properties": {"a": {"default": 10**5000}}}, "cannot be stored as JSON"),
    ({"type": "object", "properties": {"\ud800": {}}}, "cannot be stored as JSON"),
]


@pytest.mark.parametrize(("parameters", "says"), BROKEN, ids=range(len(BROKEN)))
def test_a_tool_with_broken_parameters_is_refused(parameters: dict[str, Any], says: str) -> None:
    found = refusal(world(tools=(Tool(name="find", description="", parameters=parameters),)))
    assert "train task t1: " in found
    assert says in found


def test_an_argument_may_be_described_by_another_part_of_the_schema() -> None:
    parts = {"type": "object", "allOf": [{"properties": {"a": {"type": "string"}}}], "required": ["a"]}
    check({"train": [task(tools=(tool(**parts),))]})
    assert describe_tool(tool(**parts)) == "find(a)"


PARTS = st.recursive(
    st.sampled_from([True, 3, "x", None, {"type": "string"}, {"type": "STRING"}, {"$ref": "#"}, {"enum": [1]}, {}]),
    lambda inner: st.dictionaries(
        st.sampled_from(["type", "properties", "items", "required", "a", "anyOf", "$ref", "enum", "pattern", "not"]),
        inner | st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        max_size=3,
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["type", "properties", "required", "$defs", "allOf"]), PARTS, max_size=3), ANYTHING
)
def test_a_schema_that_is_accepted_is_shown_and_annotated(parameters: dict[str, Any], value: Any) -> None:
    """What check_tasks accepts, the prompt can show, and the annotator can hold against any arguments."""
    offered = Tool(name="find", description="", parameters=parameters)
    asked = task(tools=(offered,))
    try:
        check({"train": [asked]})
    except DataError:
        return
    assert describe_tool(offered).startswith("find(")
    made = trajectory(step(call("find", a=value, b=1), {}), finish("Oslo"), of=asked, solved=1.0)
    judgements = asyncio.run(Rules(Rules.Config()).annotate(made, asked, Reference(task_id=asked.id)))
    assert len(judgements) == 2


# Demonstrations


LOOK = step(call("look", name="t1"), "Oslo")
END = finish("Oslo")


def test_a_demonstration_of_a_training_task_is_accepted() -> None:
    asks, several = step(message("Where?"), "Here."), step([call("look", name="t1"), call("find", name="t1")], [1, 2])
    for steps in ((LOOK, END), (END,), (asks, END), (several, END), (LOOK, step(message("Oslo")))):
        check_demonstrations([trajectory(*steps)], world(), "here")


NO_END = "its last step is neither Finish nor a message that nobody answers"


@pytest.mark.parametrize(
    ("demonstration", "says"),
    [
        (trajectory(END, of="gone"), "demonstration 2 is of task gone, which the world does not have"),
        (trajectory(END, of="t2"), "demonstration 2 is of dev task t2: it would show what is held out"),
        (trajectory(END, of="t3"), "demonstration 2 is of test task t3: it would show what is held out"),
        (trajectory(), NO_END),
        (trajectory(LOOK), NO_END),
        (trajectory(LOOK, step(message("Where?"), "Here.")), NO_END),
        (trajectory(step(call("rm"), "gone"), END), "step 0 calls 'rm', which the task does not offer"),
        (trajectory(step([call("find", name="t1"), call("rm")], [1, 2]), END), "step 0 calls 'rm', which the task"),
        (trajectory(step(unreadable(), "?"), END), "step 0 cannot be read"),
        (
            trajectory(step(call(FINISH, reply="Oslo")), answer="Oslo"),
            'step 0: Finish takes either "answer" or "give_up": true',
        ),
    ],
)
def test_a_demonstration_that_shows_no_training_task_is_named(demonstration: Trajectory, says: str) -> None:
    with pytest.raises(DataError) as caught:
        check_demonstrations([trajectory(END), demonstration], world(), "given.jsonl")
    assert says in str(caught.value)
    assert str(caught.value).startswith("given.jsonl: ")
