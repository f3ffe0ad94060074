"""A world of a project's own functions: what a policy sees of them, what their calls answer, which tasks go where."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import Observation, Outcome, ToolCall
from steptool.worlds.checks import check_tasks
from steptool.worlds.functions import FunctionsWorld
from tests.worlds.conftest import ASK, Make

SHOP = '''
"""A shop."""
import asyncio, dataclasses, enum, time
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any
from pydantic import BaseModel, Field

class Kind(enum.Enum):
    new = "new"
    used = "used"

class Line(BaseModel):
    title: str
    count: int = Field(default=1, ge=1)

@dataclasses.dataclass
class Book:
    title: str
    price: float
    since: date

def search(text: str, kind: Kind = Kind.new, limit: int | None = None) -> list[Book]:
    """Books whose title holds
    a text.

    The first ones only.

    Args:
        text: part of the
            title
        limit: how many at most
    """
    return [Book("Dune", 9.5, date(1965, 8, 1))]

async def order(lines: list[Line], *, day: date, schema: Annotated[str, Field(description="which one")] = "a") -> dict:
    """Order books.

    :param day: when it is to arrive
    """
    await asyncio.sleep(0)
    return {"books": sum(line.count for line in lines), "day": day}

def greet() -> str:
    """Say hello."""
    return "hello"

def _secret(x): ...
'''
HOSTILE = '''
"""Tools that misbehave."""
import asyncio, sqlite3, sys, threading, time
from typing import Any

def fails(text: str) -> str:
    """Fails."""
    raise LookupError(f"no book {text}")

def leaves() -> str:
    """Ends the process."""
    raise SystemExit(3)

async def leaves_later() -> str:
    """Ends the process, later."""
    await asyncio.sleep(0)
    sys.exit(4)

def interrupts() -> str:
    """Interrupts."""
    raise KeyboardInterrupt

def stops() -> str:
    """Stops."""
    raise StopIteration(1)

def odd() -> Any:
    """What JSON cannot hold."""
    return object()

def endless() -> Any:
    """Has no end."""
    while True:
        yield 1

def broken_text() -> str:
    """Half of a pair."""
    return "a\\ud800b"

def nothing() -> None:
    """None."""

def circle() -> Any:
    """Holds itself."""
    rows = []
    rows.append(rows)
    return rows

def sleeps(seconds: float) -> str:
    """Blocks."""
    time.sleep(seconds)
    return "awake"

def runs_a_loop() -> int:
    """Has an event loop of its own."""
    async def seven(): return 7
    return asyncio.run(seven())

class Quiet(Exception):
    def __str__(self): raise RuntimeError("no message")

def unprintable() -> str:
    """Fails without a message."""
    raise Quiet
'''
BASKET = '''
"""A basket."""
import sqlite3

class Basket:
    made = 0

    def __init__(self) -> None:
        Basket.made += 1
        self.rows = sqlite3.connect(":memory:")  # works in the thread that made it alone
        self.rows.execute("create table rows (title text)")

    def add(self, title: str) -> int:
        """Add a book; how many there are now."""
        self.rows.execute("insert into rows values (?)", (title,))
        return self.count()

    async def add_slowly(self, title: str) -> int:
        """Add a book, later."""
        return self.add(title)

    @staticmethod
    def price(title: str) -> float:
        """Price of a book."""
        return 9.5

    def count(self) -> int:
        """How many books there are."""
        return self.rows.execute("select count(*) from rows").fetchone()[0]

    def _secret(self, x): ...

def two_added(answer: str, calls: list, basket: Basket) -> bool:
    return basket.count() == 2 and [call.name for call in calls] == ["add", "add_slowly"] and calls[0].reply == "1"

def part(answer, calls, basket): return 0.25
def odd(answer, calls, basket): return "yes"
def fails(answer, calls, basket): raise ValueError("the check is wrong")
def takes_too_little(answer): return True
'''
UNWRITABLE = "PydanticSerializationError: "


def one_task(**fields: Any) -> list[dict[str, Any]]:
    """A task named `it`, for training, and one for the test."""
    return [{"id": "it", "query": "Well?", "split": "train", **fields}, {"query": "Other?", "split": "test"}]


def attempt(world: FunctionsWorld, *calls: ToolCall, answer: str | None = "a") -> tuple[list[Observation], Outcome]:
    async def run() -> tuple[list[Observation], Outcome]:
        session = world.open(world.tasks("train")[0], seed=0)
        assert await session.say("hello") is None
        replies = [await session.call(call) for call in calls]
        return replies, await session.close(answer)

    return asyncio.run(run())


def reply(world: FunctionsWorld, name: str, **arguments: Any) -> Observation:
    return attempt(world, ToolCall(name=name, arguments=arguments))[0][0]


def said(observation: Observation) -> str:
    return str(json.loads(observation.text)["error"])


# What a policy sees


def test_signature_and_docstring_become_a_schema(make: Make) -> None:
    search, order, greet = make(SHOP).tasks("train")[0].tools
    assert (search.name, search.description) == ("search", "Books whose title holds a text. The first ones only.")
    assert search.parameters == {
        "$defs": {"Kind": {"enum": ["new", "used"], "type": "string", "title": "Kind"}},
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "part of the title"},
            "kind": {"$ref": "#/$defs/Kind", "default": "new"},
            "limit": {
                "anyOf": [{"type": "integer"}, {"type": "null"}],
                "default": None,
                "description": "how many at most",
            },
        },
        "required": ["text"],
        "additionalProperties": False,
    }
    assert set(order.parameters["properties"]) == {"lines", "day", "schema"}
    assert order.parameters["required"] == ["lines", "day"]
    assert order.parameters["properties"]["day"] == {
        "type": "string",
        "format": "date",
        "description": "when it is to arrive",
    }
    assert order.parameters["properties"]["schema"]["description"] == "which one"
    assert greet.parameters == {"type": "object", "properties": {}, "additionalProperties": False}


WHOLE = """
import dataclasses, enum
from typing import Annotated, Literal, Optional
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

class Kind(enum.Enum):
    new = "new"
    used = "used"

class Address(BaseModel):
    street: str = Field(description="with its number", min_length=1)
    zip: str | None = None

class Customer(BaseModel):
    addresses: list[Address]

@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0

class Options(TypedDict, total=False):
    note: Annotated[str, Field(description="free text")]

class Tree(BaseModel):
    children: list["Tree"] = []

def f(
    a: Customer, b: Point, c: Options, d: Literal["x", 1], e: list[Kind], f: Optional[int] = None,
    g: int | list[str] = 3, h: dict[str, float] = {}, i: Tree | None = None, j: Annotated[int, Field(ge=1)] = 2,
) -> str:
    'Does.'
    return f"{a.addresses[0].street} {b.y} {c} {d} {e[0].name} {f} {g} {h} {i.children[0].children} {j}"
"""


def test_types_reach_the_schema_whole_and_come_back_from_it(make: Make) -> None:
    world = make(WHOLE)
    schema = world.tasks("train")[0].tools[0].parameters
    kinds, properties = schema["$defs"], schema["properties"]
    assert kinds["Customer"]["properties"]["addresses"] == {"items": {"$ref": "#/$defs/Address"}, "type": "array"}
    street = {"description": "with its number", "minLength": 1, "type": "string"}
    assert kinds["Address"]["properties"]["street"] == street
    assert kinds["Address"]["required"] == ["street"]
    assert kinds["Point"]["properties"] == {"x": {"type": "number"}, "y": {"type": "number", "default": 0.0}}
    assert kinds["Options"]["properties"]["note"] == {"type": "string", "description": "free text"}
    assert kinds["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert kinds["Kind"]["enum"] == ["new", "used"]
    assert properties["d"] == {"enum": ["x", 1]}
    assert properties["f"] == {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}
    strings = {"items": {"type": "string"}, "type": "array"}
    assert properties["g"] == {"anyOf": [{"type": "integer"}, strings], "default": 3}
    assert properties["h"] == {"additionalProperties": {"type": "number"}, "type": "object", "default": {}}
    assert properties["j"] == {"minimum": 1, "type": "integer", "default": 2}
    assert schema["required"] == ["a", "b", "c", "d", "e"]
    given = {
        "a": {"addresses": [{"street": "Main 1"}]},
        "b": {"x": 1},
        "c": {"note": "n"},
        "d": 1,
        "e": ["used"],
        "g": ["s"],
        "i": {"children": [{}]},
    }
    assert reply(world, "f", **given).text == "Main 1 0.0 {'note': 'n'} 1 used None ['s'] {} [] 2"
    wrong = reply(world, "f", **{**given, "a": {"addresses": [{"street": ""}]}})
    assert said(wrong) == "a.addresses.0.street: String should have at least 1 character"


@pytest.mark.parametrize(
    "docstring",
    [
        "Does it.\n\n    More.\n\n    Args:\n        x: one\n            line\n        y: two\n\n"
        "    Returns:\n        three",
        "Does it.\n\n    More.\n\n    :param x: one\n        line\n    :param str y: two\n    :returns: three",
        "Does it.\n\n    More.\n\n    Parameters\n    ----------\n    x : int\n        one\n        line\n"
        "    y : str, optional\n        two\n\n    Returns\n    -------\n    str\n        three",
    ],
    ids=["Google", "reST", "NumPy"],
)
def test_docstrings_of_three_kinds_are_read(make: Make, docstring: str) -> None:
    tool = make(f'def f(x: int, y: str = "a") -> str:\n    """{docstring}\n    """').tasks("train")[0].tools[0]
    assert tool.description == "Does it. More."
    properties = tool.parameters["properties"]
    assert [properties[name]["description"] for name in "xy"] == ["one line", "two"]


def test_prepare_takes_the_tasks(make: Make) -> None:
    world = make(SHOP)
    splits = {split: world.tasks(split) for split in ("train", "dev", "test")}
    references = {task.id: world.reference(task) for tasks in splits.values() for task in tasks}
    check_tasks(splits, references, "functions")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def f(x: int): return 1", "tools.py, function f: has no docstring"),
        ("def f(x):\n    'Does.'", "does not say what its argument x is"),
        ("def f(x: 'Nowhere'):\n    'Does.'", "has a type that cannot be read: name 'Nowhere' is not defined"),
        ("def f(*x: int):\n    'Does.'", "takes \\*x: int, but a call gives each argument by its name"),
        ("def f(x: int, /):\n    'Does.'", "takes x: int, but"),
        ("def f(x: object()):\n    'Does.'", "has a type that"),
        ("class A: ...\ndef f(x: A):\n    'Does.'", "has a type that JSON does not hold"),
        (
            "from typing import Callable\ndef f(x: Callable[[], int]):\n    'Does.'",
            "has a type that JSON does not hold",
        ),
        ("def f(**x: int):\n    'Does.'", "takes \\*\\*x: int, but a call gives each argument by its name"),
        (
            "def f():\n    'Does.'\ndef g():\n    'Does.'\nasync def f():\n    'Does.'",
            "tools.py:5: defines f here",
        ),
        ("x = 1", "has no public function"),
        ("def f(:", "tools: cannot be imported: SyntaxError"),
        ("raise SystemExit(2)", "tools: cannot be imported: SystemExit"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_named(make: Make, code: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as error:
        make(code)
    assert error.value.fix


# What calls answer


def test_arguments_arrive_as_the_signature_says_and_results_become_json(make: Make) -> None:
    world = make(SHOP)
    assert reply(world, "search", text="u", kind="used").text == '[{"title":"Dune","price":9.5,"since":"1965-08-01"}]'
    lines = [{"title": "Dune", "count": 2}, {"title": "Emma"}]
    answer = reply(world, "order", lines=lines, day="2026-05-01")
    assert json.loads(answer.text) == {"books": 3, "day": "2026-05-01"}
    assert answer.error is None
    assert reply(world, "greet").text == "hello"


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("search", {}, "text: Field required"),
        ("search", {"text": 5}, "text: Input should be a valid string"),
        ("search", {"text": "a", "limit": "3"}, "limit: Input should be a valid integer"),
        ("search", {"text": "a", "kind": "old"}, "kind: Input should be 'new' or 'used'"),
        ("search", {"text": "a", "size": 1}, "size: no such argument, use text, kind, limit"),
        ("greet", {"size": 1}, "size: no such argument, use none"),
        (
            "order",
            {"lines": [{"title": "a", "count": 0}], "day": "2026-05-01"},
            "lines.0.count: Input should be greater",
        ),
        ("order", {"lines": [], "day": "tomorrow"}, "day: Input should be a valid date"),
        ("search", {"text": "\ud800"}, "Invalid JSON"),
    ],
)
def test_wrong_arguments_are_an_observation(make: Make, name: str, arguments: dict[str, Any], what: str) -> None:
    answer = reply(make(SHOP), name, **arguments)
    assert answer.error == "invalid_argument"
    assert said(answer).startswith(what)


def test_only_offered_tools_can_be_called(make: Make) -> None:
    world = make(SHOP, one_task(tools=["greet"]))
    assert [tool.name for tool in world.tasks("train")[0].tools] == ["greet"]
    for name in ("search", "_secret", "nowhere", "__class__"):
        answer = reply(world, name)
        assert (answer.error, said(answer)) == ("unknown_tool", f"no tool {name}, use greet")


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("fails", {"text": "Emma"}, "LookupError: no book Emma"),
        ("leaves", {}, "SystemExit: 3"),
        ("leaves_later", {}, "SystemExit: 4"),
        ("interrupts", {}, "KeyboardInterrupt: "),
        ("stops", {}, "StopIteration: 1"),
        ("odd", {}, f"{UNWRITABLE}Unable to serialize unknown type: <class 'object'>"),
        ("endless", {}, "TypeError: a generator was returned, which JSON cannot hold; return a list"),
        (
            "circle",
            {},
            f"{UNWRITABLE}Error serializing to JSON: ValueError: Circular reference detected (id repeated)",
        ),
        ("unprintable", {}, "Quiet: (its message raises RuntimeError)"),
    ],
)
def test_what_goes_wrong_in_a_function_is_an_observation(
    make: Make, name: str, arguments: dict[str, Any], text: str
) -> None:
    calls = [ToolCall(name=name, arguments=arguments), ToolCall(name="runs_a_loop", arguments={})]
    (answer, after), outcome = attempt(make(HOSTILE), *calls)
    assert (answer.error, said(answer)) == ("tool_error", text)
    assert after.text == "7", "the attempt goes on"
    assert outcome.solved == 1


def test_odd_results_are_text(make: Make) -> None:
    world = make(HOSTILE)
    assert reply(world, "broken_text").text == "a?b"
    assert reply(world, "nothing").text == "null"


def test_a_function_that_blocks_holds_up_neither_the_loop_nor_what_follows(make: Make) -> None:
    world = make(HOSTILE)

    async def run() -> tuple[int, Observation, float]:
        session = world.open(world.tasks("train")[0], seed=0)
        slow = asyncio.create_task(session.call(ToolCall(name="sleeps", arguments={"seconds": 30})))
        turns = 0
        while turns < 10:
            await asyncio.sleep(0.01)
            turns += 1
        assert not slow.done()
        slow.cancel()  # as the rollout does after its timeout
        await asyncio.wait([slow])
        started = time.monotonic()
        after = await session.call(ToolCall(name="nothing", arguments={}))
        await session.close(None)
        return turns, after, time.monotonic() - started

    turns, after, seconds = asyncio.run(run())
    assert (turns, after.text) == (10, "null")
    assert seconds < 10


# State, and the verdict


def test_each_attempt_has_an_object_of_its_own_and_a_check_sees_it(make: Make) -> None:
    world = make(BASKET, one_task(check="two_added"), module="tools.py:Basket")
    assert [tool.name for tool in world.tasks("train")[0].tools] == ["add", "add_slowly", "price", "count"]
    calls = [ToolCall(name="add", arguments={"title": "a"}), ToolCall(name="add_slowly", arguments={"title": "b"})]
    for _ in range(2):
        replies, outcome = attempt(world, *calls)
        assert [answer.text for answer in replies] == ["1", "2"]
        assert outcome == Outcome(solved=1.0, evidence="as two_added says")
    assert attempt(world, *calls[:1])[1].solved == 0
    assert attempt(world)[1].solved == 0, "the check sees an object where nothing was called, too"
    assert attempt(world, *calls, answer=None)[1].solved == 0, "an absent answer is never right"
    assert sys.modules["tools"].Basket.made == 0, "objects are made in the processes of the attempts"


def states(world: FunctionsWorld, *calls: ToolCall) -> list[str | None]:
    """What the world calls its state, before the first call and after each."""

    async def run() -> list[str | None]:
        session = world.open(world.tasks("train")[0], seed=0)
        found = [session.state()]
        for call in calls:
            await session.call(call)
            found.append(session.state())
        await session.close(None)
        return found

    return asyncio.run(run())


def test_methods_of_an_object_change_the_state_in_their_order_and_functions_change_none(make: Make) -> None:
    one, two, unknown = (
        ToolCall(name="add", arguments={"title": "a"}),
        ToolCall(name="add", arguments={"title": "b"}),
        ToolCall(name="remove", arguments={}),
    )
    basket = make(BASKET, one_task(), module="tools.py:Basket")
    first, other = states(basket, one, two), states(basket, two, one)
    assert first[0] is other[0] is None
    assert first == states(basket, one, two)
    assert len({*first, *other}) == 5
    assert states(basket, unknown) == [None, None]
    stateless = make(SHOP, one_task())
    assert states(stateless, ToolCall(name="greet", arguments={})) == [None, None]


def test_calls_at_the_same_time_share_one_object(make: Make) -> None:
    world = make(BASKET, one_task(), module="tools.py:Basket")

    async def run() -> list[str]:
        session = world.open(world.tasks("train")[0], seed=0)
        add = ToolCall(name="add", arguments={"title": "a"})
        return [answer.text for answer in await asyncio.gather(session.call(add), session.call(add))]

    assert asyncio.run(run()) == ["1", "2"]


@pytest.mark.parametrize(
    ("check", "answer", "solved"),
    [
        ({"kind": "number", "expected": 9.5, "tolerance": 0.1}, "$9.45", 1.0),
        ({"kind": "number", "expected": 9.5, "tolerance": 0.1}, "9.7", 0.0),
        ({"kind": "set", "expected": ["a", "b"]}, "B, A", 1.0),
        ({"kind": "text", "expected": "Dune"}, "dune", 1.0),
        ({"kind": "text", "expected": "Dune"}, None, 0.0),
        ("part", "x", 0.25),
        ("part", None, 0.0),
        (None, "x", None),
        (None, None, None),
    ],
)
def test_verdicts(make: Make, check: Any, answer: str | None, solved: float | None) -> None:
    world = make(BASKET, one_task(check=check), module="tools.py:Basket")
    assert attempt(world, answer=answer)[1].solved == solved
    assert world.reference(world.tasks("train")[0]).can_be_checked == (check is not None)


@pytest.mark.parametrize(
    ("check", "what"),
    [("odd", "its check odd returned 'yes'"), ("fails", "its check fails raised ValueError: the check")],
)
def test_a_check_that_fails_is_the_worlds_fault(make: Make, check: str, what: str) -> None:
    with pytest.raises(WorldError, match=what):
        attempt(make(BASKET, one_task(check=check), module="tools.py:Basket"))


def test_an_object_that_cannot_be_made_is_the_worlds_fault(make: Make) -> None:
    code = "class A:\n    def __init__(self): exit('no database')\n    def f(self) -> int:\n        'Does.'"
    with pytest.raises(WorldError, match=r"A\(\) raised SystemExit: no database"):
        reply(make(code, one_task(), module="tools.py:A"), "f")


# Tasks


def test_columns_of_a_line(make: Make) -> None:
    world = make(SHOP, [*one_task(group="orders"), {"query": "Third?", "split": "dev"}])
    task = world.tasks("train")[0]
    assert (task.id, task.group, task.query) == ("it", "orders", "Well?")
    assert [(t.id, t.group) for t in world.tasks("test")] == [("2", "tasks")]
    assert [t.id for t in world.tasks("dev")] == ["3"]


def test_tasks_without_a_split_are_dealt_by_group_and_seed(make: Make) -> None:
    tasks = [{"query": f"{number}?", "group": "a" if number < 10 else "b"} for number in range(14)]
    dealt = {
        seed: {split: make(SHOP, tasks, seed).tasks(split) for split in ("train", "dev", "test")} for seed in (1, 1, 2)
    }
    for found in dealt.values():
        # Of ten: 3 for the test, 2 for dev. Of four: 1.2 and 0.8, rounded.
        assert [task.group for task in found["test"]] == ["a", "b", "a", "a"]
        assert [task.group for task in found["dev"]] == ["a", "b", "a"]
        assert [task.group for task in found["train"]] == ["a", "b", "a", "b", "a", "a", "a"]
        assert sorted(int(task.id) for split in found.values() for task in split) == list(range(1, 15))
    assert dealt[1] != dealt[2]
    assert {split: make(SHOP, tasks, 1).tasks(split) for split in dealt[1]} == dealt[1]


def test_a_task_that_is_added_moves_few_others(make: Make) -> None:
    tasks = [{"id": f"t{number}", "query": f"{number}?"} for number in range(100)]
    before = {task.id for task in make(SHOP, tasks).tasks("test")}
    after = {task.id for task in make(SHOP, [*tasks, {"id": "new", "query": "New?"}]).tasks("test")}
    assert len(before) == len(after) == 30
    assert len(before - after) <= 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"query": "a?"', "tasks.jsonl:2: not JSON"),
        ('{"id": "x"}', "tasks.jsonl:2: TaskLine x: query: Field required"),
        ('{"query": "a?", "toolz": []}', "tasks.jsonl:2: TaskLine: toolz: Extra inputs"),
        (
            '{"query": "a?", "tools": ["nowhere"]}',
            "tasks.jsonl:2: no tool is called 'nowhere'",
        ),
        ('{"query": "a?", "split": "exam"}', "tasks.jsonl:2: TaskLine: split"),
        ('{"query": "a?", "check": "nowhere"}', "tasks.jsonl:2: check: tools has no function 'nowhere'"),
        ('{"query": "a?", "check": {"kind": "number", "expected": "b"}}', "expects 'b', which is not a finite number"),
        ('{"query": "a?", "id": "1"}', "tasks.jsonl:2: another line has the id '1' too"),
    ],
)
def test_a_bad_line_is_named(make: Make, line: str, what: str) -> None:
    make(SHOP)
    Path("tasks.jsonl").write_text(f'{{"query": "First?"}}\n{line}\n')
    with pytest.raises(DataError, match=what) as error:
        FunctionsWorld(FunctionsWorld.Config(), 17)
    assert error.value.fix


def test_too_few_tasks_and_missing_files(make: Make) -> None:
    with pytest.raises(DataError, match="1 tasks leave none for test"):
        make(SHOP, ASK[:1])
    with pytest.raises(DataError, match="holds no task"):
        make(SHOP, [])
    Path("tasks.jsonl").unlink()
    for read in (
        lambda: FunctionsWorld(FunctionsWorld.Config(), 17),
        lambda: FunctionsWorld.content(FunctionsWorld.Config()),
    ):
        with pytest.raises(DataError, match="no such file"):
            read()
    Path("tasks.jsonl").write_text('{"query": "a?"}')
    with pytest.raises(InputError, match="no such file"):
        FunctionsWorld(FunctionsWorld.Config(module="nowhere.py"), 17)
    Path("json.py").write_text("def f() -> int:\n    'Does.'")
    with pytest.raises(InputError, match="Python knows another module json"):
        FunctionsWorld(FunctionsWorld.Config(module="json.py"), 17)


@pytest.mark.parametrize(
    "config",
    [{"module": "../tools.py"}, {"module": "tools"}, {"tasks": "data/t.jsonl"}, {"dev_share": 0.5, "test_share": 0.5}],
)
def test_bad_settings_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"module|tasks|dev_share"):
        FunctionsWorld.Config(**config)


def test_a_check_takes_answer_calls_and_state(make: Make) -> None:
    with pytest.raises(DataError, match="takes_too_little does not take answer, calls and state") as error:
        make(BASKET, one_task(check="takes_too_little"), module="tools.py:Basket")
    assert "def takes_too_little(answer: str, calls: list, state) -> bool:" in (error.value.fix or "")


def test_a_check_is_no_tool(make: Make) -> None:
    code = f"{SHOP}\ndef says_a(answer, calls, state): return answer == 'a' and state is None"
    world = make(code, one_task(check="says_a"))
    assert "says_a" not in [tool.name for tool in world.tasks("train")[0].tools]
    assert attempt(world)[1].solved == 1


def test_revision_follows_what_errors_say(make: Make) -> None:
    """The policy reads it: a message that names the way out is another tool."""
    code = 'def f():\n    """Find."""\n    raise LookupError("no such book{}")\n'
    revisions = {revision_of(make(code.format(more), ASK)).revision for more in ("", ", use search")}
    assert len(revisions) == 2


def test_revision_follows_code_and_tasks(make: Make) -> None:
    def revision(code: str, tasks: list[dict[str, Any]] = ASK) -> str:
        return revision_of(make(code, tasks)).revision

    first = revision(SHOP)
    assert revision(f"# A comment.\n{SHOP}") == first
    assert revision(SHOP.replace("9.5", "9.6")) != first
    assert revision(SHOP.replace("Books whose title", "All books whose title")) != first, "the policy reads docstrings"
    assert revision(SHOP, ASK[1:]) != first
