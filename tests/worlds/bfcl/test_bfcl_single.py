"""The single-turn categories of BFCL, on the data of the installed package.

    attempt                                        solved
    the calls that a task accepts                  all tasks, in any order
    a call too many, a wrong name, nothing         none
    irrelevance: no call / a call                  yes / no;  relevance: the other way around

Of altered calls the benchmark's own `ast_checker` says the same. Its module imports every client that it knows for one
setting, whether names are written with "_" for ".", which stands in for that module here.
"""

import asyncio
import json
import random
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from steptool.core.errors import DataError
from steptool.core.storage import parse_record
from steptool.core.types import Outcome, ToolCall
from steptool.worlds.base import Session
from steptool.worlds.bfcl import BfclWorld, package
from steptool.worlds.bfcl.answers import Language, problem_of
from steptool.worlds.bfcl.cases import Cases
from steptool.worlds.bfcl.records import FunctionRow
from steptool.worlds.bfcl.single import SingleCase
from steptool.worlds.bfcl.world import MULTI_TURN, Category
from steptool.worlds.checks import check_tasks

pytest.importorskip("bfcl_eval", reason=f"needs the benchmark's package: {package.INSTALL}")

SINGLE = [category for category in get_args(Category) if category not in MULTI_TURN]
NOT_TO_BE_SOLVED = {
    *("live_multiple_862-181-3", "live_multiple_964-207-0"),
    *("live_simple_106-63-0", "live_simple_112-68-0"),
}
"""The first two demand a parameter that the function does not have, the others one of which no value is accepted."""
SOME = ["simple_python", "simple_java", "parallel_multiple", "irrelevance", "live_relevance"]


@pytest.fixture(scope="module")
def world() -> BfclWorld:
    return BfclWorld(BfclWorld.Config.model_validate({"categories": SOME}), seed=17)


@pytest.fixture(scope="module")
def whole() -> BfclWorld:
    return BfclWorld(BfclWorld.Config.model_validate({"categories": SINGLE}), seed=17)


def cases(world: BfclWorld) -> Iterator[SingleCase]:
    for task in world.tasks("test"):
        case = world.case(task)
        assert isinstance(case, SingleCase)
        yield case


def first(values: Any) -> Any:
    """Of accepted values one that is not the mark of what may be left out; a few stand in no list."""
    return next((value for value in values if value != ""), "") if isinstance(values, list) else values


def example(accepted: Any) -> Any:
    """The first value of what is accepted; dictionaries hold lists of accepted values again."""
    if isinstance(accepted, dict):
        given = {key: first(values) for key, values in accepted.items()}
        return {key: example(value) for key, value in given.items() if value != ""}
    return [example(each) for each in accepted] if isinstance(accepted, list) else accepted


def text(value: Any, language: str, kind: str) -> Any:
    """A value as Java or JavaScript write it."""
    if language == "python" or kind in ("any",) or isinstance(value, str):
        return value if kind != "String" or language == "python" else f'"{value}"'
    written = json.dumps(value)
    if isinstance(value, list) and language == "java":
        items = ", ".join(json.dumps(item) for item in value)
        return f"new ArrayList<>(Arrays.asList({items}))" if kind == "ArrayList" else f"new Object[]{{{items}}}"
    return f"{written}L" if kind == "long" else written


def solution(case: SingleCase) -> list[ToolCall]:
    calls = []
    for wanted in case.accepted or ():
        ((name, parameters),) = wanted.items()
        function = next(each for each in case.functions if each.name == name).parameters
        described, required = function["properties"], function["required"]
        arguments = {
            key: text(example(first(values)), case.language, described[key]["type"])
            for key, values in parameters.items()
            if key in described and (first(values) != "" or key in required)
        }
        calls.append(ToolCall(name=name, arguments=arguments))
    return calls


async def ended(session: Session, calls: list[ToolCall], answer: str | None = "Done.") -> Outcome:
    for call in calls:
        await session.call(call)
    assert await session.say("") is None
    return await session.close(answer)


def solved(world: BfclWorld, case: SingleCase, calls: list[ToolCall], answer: str | None = "Done.") -> float | None:
    return asyncio.run(ended(world.open(case.task, 0), calls, answer)).solved


def test_what_a_task_accepts_passes_in_any_order_and_nothing_else_does(world: BfclWorld) -> None:
    for case in cases(world):
        if case.accepted is None or case.language != "python":
            continue
        calls = solution(case)
        assert problem_of(calls[::-1], case.accepted, case.functions, case.language) == "", case.task.id
        assert problem_of([*calls, calls[0]], case.accepted, case.functions, case.language) != ""
        assert problem_of([], case.accepted, case.functions, case.language) != ""
        other = [calls[0].model_copy(update={"name": "other"}), *calls[1:]]
        assert problem_of(other, case.accepted, case.functions, case.language) != ""


def test_a_call_of_nothing_is_right_where_no_function_helps_and_wrong_where_one_does(world: BfclWorld) -> None:
    by_group = {case.task.group: case for case in cases(world)}
    for group, nothing in (("irrelevance", 1), ("live_relevance", 0)):
        case = by_group[group]
        call = ToolCall(name=case.task.tools[0].name, arguments={})
        assert (solved(world, case, []), solved(world, case, [call])) == (nothing, 1 - nothing)
        assert solved(world, case, [] if nothing else [call], answer=None) == 0


def test_a_verdict_names_what_is_wrong_and_the_reference_what_is_accepted(world: BfclWorld) -> None:
    case = next(case for case in cases(world) if case.task.id == "simple_python_0")

    def evidence(**arguments: Any) -> str:
        call = ToolCall(name="calculate_triangle_area", arguments=arguments)
        return asyncio.run(ended(world.open(case.task, 0), [call])).evidence

    assert evidence(base=10, height=5) == evidence(base=10, height=5, unit=" Units") == "the calls made"
    assert evidence(base=10) == "height is required"
    assert evidence(base=10, height="5") == "height is another"
    assert evidence(base=10, height=5.0) == evidence(base=10, height=6) == "height is another"
    assert evidence(base=10, height=5, color="red") == "color is not expected"
    assert world.reference(case.task).relevant_tools == ("calculate_triangle_area",)
    assert case.task.tools[0].parameters["properties"]["base"]["type"] == "integer"


def test_a_value_of_java_is_a_text_in_its_syntax(world: BfclWorld) -> None:
    case = next(case for case in cases(world) if case.task.id == "simple_java_1")
    arguments = {"object": "Customers", "useShortName": "true", "params": '{"limit": "50", "schemaFilter": "public"}'}
    assert {each["type"] for each in case.task.tools[0].parameters["properties"].values()} == {"string"}
    call = ToolCall(name=case.task.tools[0].name, arguments={**arguments, "useShortName": True})
    assert problem_of([call], case.accepted or (), case.functions, "java") == "useShortName is another"


@pytest.mark.slow
def test_every_category_makes_tasks_that_a_project_accepts(whole: BfclWorld) -> None:
    tasks = whole.tasks("test")
    assert Counter(task.group for task in tasks) == {
        "simple_python": 400,
        "simple_java": 100,
        "simple_javascript": 50,
        "multiple": 200,
        "parallel": 200,
        "parallel_multiple": 200,
        "irrelevance": 240,
        "live_simple": 258,
        "live_multiple": 1050,
        "live_parallel": 16,
        "live_parallel_multiple": 24,
        "live_irrelevance": 880,
        "live_relevance": 16,
    }
    check_tasks({"test": tasks}, {task.id: whole.reference(task) for task in tasks}, "bfcl")


@pytest.mark.parametrize("value", [[1], ["x"], [None], [[1]]])
def test_items_that_are_no_dictionaries_are_not_accepted(value: Any) -> None:
    listed = {"type": "array", "items": {"type": "dict"}}
    parameters = {"type": "dict", "properties": {"rows": listed}, "required": []}
    function = FunctionRow(name="put", description="", parameters=parameters)
    call = ToolCall(name="put", arguments={"rows": value})
    assert problem_of([call], [{"put": {"rows": [[{"a": [1]}], ""]}}], [function], "python") == "rows is another"


@pytest.mark.parametrize(("language", "kind"), [("java", "integer"), ("java", "Queue"), ("javascript", "integer")])
def test_a_value_that_the_benchmark_cannot_read_is_not_accepted(language: Language, kind: str) -> None:
    parameters = {"type": "dict", "properties": {"n": {"type": kind}}, "required": []}
    function = FunctionRow(name="put", description="", parameters=parameters)
    call = ToolCall(name="put", arguments={"n": "9" * 5000})
    assert problem_of([call], [{"put": {"n": [1]}}], [function], language) == "n is another"


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "dict", "required": []},
        {"type": "dict", "properties": {}},
        {"type": "dict", "properties": {"a": 1}, "required": []},
        {"type": "dict", "properties": {"a": {"type": "array", "items": {}}}, "required": []},
    ],
)
def test_a_function_that_is_not_described_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="FunctionRow: parameters: "):
        parse_record({"name": "f", "description": "", "parameters": parameters}, FunctionRow, where="a:1", fix="mend")


@pytest.mark.parametrize(
    ("category", "described", "says"),
    [
        ("simple_python", {"type": "uuid"}, "book: nights is of the type 'uuid', which is none of string, integer"),
        ("simple_python", {"type": "array", "items": {"type": "uuid"}}, "book: nights is of the type 'uuid'"),
        ("simple_python", {"type": "array"}, "book: nights is of the type array, and its items have none"),
        ("simple_java", {"type": "string"}, "book: nights is of the type 'string', which is none of byte, short"),
    ],
)
def test_a_type_that_the_benchmark_does_not_have_is_named(
    category: str, described: dict[str, Any], says: str, tmp_path: Path
) -> None:
    parameters = {"type": "dict", "properties": {"nights": described}, "required": []}
    function = {"name": "book", "description": "Books.", "parameters": parameters}
    task = {"id": "t1", "question": [[{"role": "user", "content": "Book it."}]], "function": [function]}
    answer = {"id": "t1", "ground_truth": [{"book": {"nights": [2]}}]}
    (tmp_path / "possible_answer").mkdir()
    package.task_file(tmp_path, category).write_text(json.dumps(task))
    package.answer_file(tmp_path, category).write_text(json.dumps(answer))
    with pytest.raises(DataError, match=rf"BFCL_v4_{category}\.json: task t1: function {says}"):
        list(Cases(tmp_path, "message").of(category))


def altered(call: ToolCall, rng: random.Random) -> ToolCall:
    """A call with one thing changed, or none."""
    arguments = dict(call.arguments)
    if not arguments:
        return ToolCall(name=call.name, arguments={"more": 1})
    key = rng.choice(sorted(arguments))
    value = arguments[key]
    others = [value, None, str(value), 1, 1.0, True, "", [], {}, [value], {"a": value}, "x"]
    if isinstance(value, str):
        others += [value.upper(), f"{value} .", f'"{value}"', f"'{value}'", value + "x"]
    if isinstance(value, list):
        others += [value[::-1], value[1:], [str(item) for item in value], [*value, *value]]
    if isinstance(value, dict):
        others += [dict(list(value.items())[1:]), {**value, "more": 1}, {key: str(item) for key, item in value.items()}]
    if isinstance(value, int | float):
        others += [float(value), int(value), value + 1, -value]
    match rng.randrange(4):
        case 0:
            del arguments[key]
        case 1:
            arguments["more"] = 1
        case _:
            arguments[key] = rng.choice(others)
    return ToolCall(name=call.name, arguments=arguments)


@pytest.mark.slow
def test_the_benchmarks_own_checker_says_the_same_of_altered_calls(
    whole: BfclWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = types.ModuleType("bfcl_eval.constants.model_config")
    setting.MODEL_CONFIG_MAPPING = {"m": types.SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, setting.__name__, setting)
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    rng, seen, unsolved = random.Random(17), Counter[tuple[str, bool]](), set()
    for case in cases(whole):
        if case.accepted is None:
            continue
        described = [function.model_dump() for function in case.functions]
        for number in range(12):
            calls = [altered(call, rng) if number else call for call in solution(case)]
            said = [{call.name: call.arguments} for call in calls]
            language = Language(case.language)
            try:
                theirs = ast_checker(described, said, list(case.accepted), language, case.task.group, "m")["valid"]
            except (TypeError, AttributeError, KeyError, IndexError, ValueError):  # it breaks at such a value
                theirs = False
            ours = problem_of(calls, case.accepted, case.functions, case.language) == ""
            assert ours == theirs, (case.task.id, said, case.accepted)
            seen[case.task.group, ours] += 1
            if not number and not ours and case.language == "python":
                unsolved.add(case.task.id)
    assert unsolved == NOT_TO_BE_SOLVED
    groups = {case.task.group for case in cases(whole) if case.accepted is not None}
    assert {(group, verdict) for group in groups for verdict in (True, False)} <= set(seen)
