"""Checks of a world's tasks and demonstrations, made before anything is sampled.

Pure functions over what a world returned. Each problem is one line that begins with the split and the task; they come
together in one DataError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, SchemaResource

from steptool.core.errors import DataError
from steptool.core.storage import parse_json
from steptool.core.types import FINISH, Reference, Task, Tool, ToolCall, Trajectory

TOTALS = ("all", "I1", "I2", "I3")
"""What tables call all tasks, and ToolBench's instruction groups; no group may be called so."""
MAX_NAME = 200
"""Characters of an id, a group or a tool's name."""
MAX_TEXT = 100_000
"""Characters of a question, or of what describes a tool."""
MAX_REFERENCES = 24
"""In a tool's parameters. References to references multiply; this many make fewer than 10,000 parts."""
MEND_DEMONSTRATIONS = (
    "mend these demonstrations, or leave them out: `steptool tasks list --split train` shows what may be demonstrated, "
    'and a line of tasks.jsonl with "split": "train" is never held out'
)
MAX_PROBLEMS = 5
"""How many are listed."""
PROBES: tuple[Any, ...] = (None, "a", 0, [0], {"a": 0})
"""A value of each type: a broken schema shows where it is first applied."""

Splits = Mapping[str, Sequence[Task]]


def check_tasks(splits: Splits, references: Mapping[str, Reference], world: str) -> None:
    """Refuse tasks that cannot be shown to a policy, or that would be counted wrongly. Raises DataError.

    `splits` holds the tasks by split, `references` what is known of each by its id, `world` names the world that they
    come from.
    """
    fix = "mend these tasks in the world, or leave them out of it"
    _refuse(_task_problems(splits, references), where=f"world {world}", fix=fix)


def check_demonstrations(demonstrations: Sequence[Trajectory], splits: Splits, where: str) -> None:
    """Refuse demonstrations that do not show how to do a training task. Raises DataError."""
    problems = _demonstration_problems(demonstrations, splits)
    _refuse(problems, where=where, fix=MEND_DEMONSTRATIONS)


def _refuse(problems: Iterator[str], *, where: str, fix: str) -> None:
    found = list(problems)
    if not found:
        return
    more = [f"and {len(found) - MAX_PROBLEMS} problems more"] if len(found) > MAX_PROBLEMS else []
    raise DataError("; ".join([*found[:MAX_PROBLEMS], *more]), where=where, fix=fix)


def _task_problems(splits: Splits, references: Mapping[str, Reference]) -> Iterator[str]:
    ids: dict[str, str] = {}
    asked: dict[str, tuple[str, str]] = {}
    for split, tasks in splits.items():
        for task in tasks:
            who = f"{split} task {_short(task.id)}"
            yield from (f"{who}: {problem}" for problem in problems_of(task, references.get(task.id)))
            if task.id in ids:
                yield f"{who}: {ids[task.id]} has a task of this id too"
            ids.setdefault(task.id, split)
            question = " ".join(task.query.casefold().split())
            other_split, other = asked.setdefault(question, (split, task.id))
            if other_split != split:
                yield f"{who}: asks what {other_split} task {_short(other)} asks; only one split may hold it"


def problems_of(task: Task, reference: Reference | None) -> Iterator[str]:
    """What is wrong with one task and what is known of it, whatever the others are."""
    if reference is None or reference.task_id != task.id:
        yield "has no reference of its own"
        return
    try:
        stored = [task.model_dump(), reference.model_dump()]
        parse_json(json.dumps(stored, ensure_ascii=False, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:  # NaN, half of a surrogate pair, a value of Python
        yield f"cannot be stored as JSON: {str(error)[:200]}"
        return
    for what, name in (("id", task.id), ("group", task.group)):
        if not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            yield f"its {what} '{_short(name)}' is not a printable text of 1 to {MAX_NAME} characters"
    if task.group in TOTALS:
        yield f"its group {task.group} has the name of a total in tables; give it another"
    if not task.query.strip():
        yield "asks nothing"
    if len(task.query) > MAX_TEXT:
        yield f"its question has {len(task.query):,} characters, more than {MAX_TEXT:,}"
    if not task.tools:
        yield "offers no tools"
    names = [tool.name for tool in task.tools]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"offers {names.count(name)} tools of the name '{_short(name)}'"
    for name in reference.relevant_tools:
        if name not in names:
            yield f"its relevant tool '{_short(name)}' is not offered"
    for tool in task.tools:
        if problem := _tool_problem(tool):
            yield f"tool '{_short(tool.name)}' {problem}"


def _tool_problem(tool: Tool) -> str | None:
    if tool.name.strip().casefold() == FINISH.casefold():
        return f"has the name that ends an attempt, {FINISH}"
    if not tool.name.strip() or not tool.name.isprintable() or len(tool.name) > MAX_NAME:
        return f"cannot be called: its name is not a printable text of 1 to {MAX_NAME} characters"
    parameters = json.dumps(tool.parameters, sort_keys=True)
    if len(parameters) + len(tool.description) > MAX_TEXT:
        return f"is described by more than {MAX_TEXT:,} characters"
    if parameters.count('"$ref"') + parameters.count('"$dynamicRef"') > MAX_REFERENCES:
        return f"has parameters with more than {MAX_REFERENCES} references"
    return schema_problem(parameters)


@lru_cache(maxsize=4096)
def schema_problem(parameters: str) -> str | None:
    """Why these are not the parameters of a tool, or None."""
    schema = json.loads(parameters)
    try:
        Draft202012Validator.check_schema(schema)
        if problem := _signature_problem(schema):
            return problem
        validator = Draft202012Validator(schema, registry=Registry())  # an empty registry: a $ref is never fetched
        for part in _parts(DRAFT202012.create_resource(schema)):
            for value in PROBES:
                next(validator.descend(value, part), None)
    except SchemaError as error:
        return f"has parameters that are no JSON schema: {str(error.message)[:200]}"
    except Unresolvable as error:
        return f"has parameters with a $ref that leads nowhere: {str(error)[:100]}"
    except RecursionError:
        return "has parameters that refer to themselves without end"
    return None


def _signature_problem(schema: dict[str, Any]) -> str | None:
    """What keeps the parameters from being shown to a policy as `name(argument: type)`."""
    if schema.get("type", "object") != "object":
        return f"takes {str(schema['type'])[:50]!r} where arguments are an object"
    properties = schema.get("properties", {})
    elsewhere = {"$ref", "allOf", "anyOf", "oneOf"} & set(schema)
    for name in schema.get("required", []):
        if name not in properties and not elsewhere:
            return f"requires the argument '{_short(name)}', which its schema does not describe"
    for name, part in properties.items():
        while isinstance(part, dict) and part.get("type") == "array" and "enum" not in part:
            part = part.get("items", {})
        if not isinstance(part, dict):
            return f"does not say what its argument '{_short(name)}' is"
    return None


def _parts(resource: SchemaResource) -> Iterator[Any]:
    """A schema and all the schemas within it."""
    yield resource.contents
    for part in resource.subresources():
        yield from _parts(part)


def _demonstration_problems(demonstrations: Sequence[Trajectory], splits: Splits) -> Iterator[str]:
    tasks = {task.id: (split, task) for split, of_split in splits.items() for task in of_split}
    for number, demonstration in enumerate(demonstrations, start=1):
        who = f"demonstration {number}"
        split, task = tasks.get(demonstration.task_id, ("", None))
        if task is None:
            yield f"{who} is of task {_short(demonstration.task_id)}, which the world does not have"
        elif split != "train":
            yield f"{who} is of {split} task {_short(task.id)}: it would show what is held out"
        else:
            offered = {tool.name for tool in task.tools}
            yield from (f"{who}, of task {_short(task.id)}: {p}" for p in _step_problems(demonstration, offered))


def _step_problems(demonstration: Trajectory, offered: set[str]) -> Iterator[str]:
    last = demonstration.steps[-1] if demonstration.steps else None
    if last is None or not (last.is_finish or (last.action.message is not None and last.reply is None)):
        yield f"its last step is neither {FINISH} nor a message that nobody answers"
    for index, step in enumerate(demonstration.steps):
        if step.action.unreadable is not None:
            yield f"step {index} cannot be read"
        for call in step.action.calls:
            if call.name == FINISH and not _ends_an_attempt(call):
                yield f'step {index}: {FINISH} takes either "answer" or "give_up": true'
            elif call.name != FINISH and call.name not in offered:
                yield f"step {index} calls '{_short(call.name)}', which the task does not offer"


def _ends_an_attempt(call: ToolCall) -> bool:
    """Has this `Finish` the arguments that the prompt asks for?"""
    arguments = call.arguments
    if set(arguments) == {"answer"}:
        return arguments["answer"] is not None
    return set(arguments) == {"give_up"} and arguments["give_up"] is True


def _short(text: str) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 80 else f"{text[:80]}..."
