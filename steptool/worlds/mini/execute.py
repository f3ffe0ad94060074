"""Runs one API call against the store: arguments are checked, SQL parameters bound, replies are short JSON.

Whatever a caller sends, the reply is an observation; a call that cannot be served has `error` set to
missing_argument, invalid_argument, unknown_id or empty_result.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from steptool.core.types import Observation, content_hash
from steptool.worlds.mini.catalog import CATEGORIES
from steptool.worlds.mini.schema import MAX_TEXT, OPTIONS, Api, Category, Provider
from steptool.worlds.mini.store import CURRENCY_RATES, Store


class CallError(Exception):
    """A call that is answered with an error: its kind, and the text a client reads."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


def failure(kind: str, text: str) -> Observation:
    return Observation(text=compact({"error": text}), error=kind)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def execute(store: Store, provider: Provider, api: Api, arguments: dict[str, Any]) -> Observation:
    try:
        check_arguments(api, arguments)
        return Observation(text=compact(_reply(store, provider, api, arguments)))
    except CallError as error:
        return failure(error.kind, error.text)


def check_arguments(api: Api, arguments: dict[str, Any]) -> None:
    """Refuse arguments that break the schema, or that SQLite could not take. Raises CallError."""
    schema, validator = _schema(api)
    for name, value in arguments.items():
        # Before the validator, which would put a hostile value into its message.
        if not _is_plain(value):
            raise CallError("invalid_argument", f"{name[:MAX_TEXT]} is not a number or a short text")
    problems = {str(problem.validator): problem for problem in validator.iter_errors(arguments)}
    if "required" in problems:
        absent = next(name for name in schema["required"] if name not in arguments)
        raise CallError("missing_argument", f"missing argument: {absent}")
    if "additionalProperties" in problems:
        raise CallError("invalid_argument", f"unknown argument, use {', '.join(schema['properties'])}")
    for rule, problem in problems.items():
        allowed = problem.validator_value
        if rule == "type":
            raise CallError("invalid_argument", f"{problem.path[0]} must be {allowed}")
        if rule == "enum":
            raise CallError("invalid_argument", f"{problem.path[0]} must be {' or '.join(allowed)}")
        raise CallError("invalid_argument", f"{problem.path[0]} out of range")


@cache
def _schema(api: Api) -> tuple[dict[str, Any], Draft202012Validator]:
    schema = api.parameters()
    return schema, Draft202012Validator(schema)


def _is_plain(value: Any) -> bool:
    """A finite number of ordinary size, or a short text that can be encoded."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, (int, float)) and abs(value) <= 1e12


def _reply(store: Store, provider: Provider, api: Api, arguments: dict[str, Any]) -> Any:
    category = CATEGORIES[provider.category]
    key = str(arguments[api.key]).strip()
    if api.kind == "code":
        found = store.select("codes", ["code"], ("name", "=", key))
        if not found:
            raise CallError("empty_result", f"no such {api.key}")
        return found[0]
    if api.kind == "list":
        return _list(store, provider, category, api, key, arguments)
    row = _row(store, provider, category, api, key)
    if api.kind == "find":
        return {"id": row["id"]}
    if api.kind == "get":
        unit = arguments.get(api.option, OPTIONS[api.option][0]) if api.option else ""
        return {field: in_unit(row[field], field, unit) for field in api.fields}
    amount = arguments[api.count]
    if api.kind == "quote":
        return {"total": int(row["price"] * amount)}
    if api.kind == "convert":
        return {"result": converted(row["rate"], amount)}
    return {"code": confirmation(provider, api, row["id"], int(amount))}


def _list(store: Store, provider: Provider, category: Category, api: Api, key: str, arguments: dict[str, Any]) -> Any:
    code = store.select("codes", ["name"], ("code", "=", key))
    group = code[0]["name"] if code else key
    highest = arguments.get(api.limit, math.inf) if api.limit else math.inf
    found = store.select(
        category.name,
        ["id", category.key, "price"],
        ("provider", "=", provider.name),
        (category.group, "=", group),
        ("price", "<=", highest),
    )
    if not found:
        raise CallError("empty_result", f"no {category.noun} found")
    return [{field: row[field] for field in api.fields} for row in found]


def _row(store: Store, provider: Provider, category: Category, api: Api, key: str) -> dict[str, Any]:
    columns = ["id", *(field.name for field in category.fields)]
    column = "id" if api.by == "id" else category.key
    found = store.select(category.name, columns, ("provider", "=", provider.name), (column, "=", key))
    if found:
        return found[0]
    if api.by == "id":
        raise CallError("unknown_id", f"unknown {api.key}, find it first")
    raise CallError("empty_result", f"no such {category.noun}")


def in_unit(value: Any, field: str, unit: str) -> Any:
    """A price in dollars or euros, a temperature in Celsius or Fahrenheit; anything else unchanged."""
    if field == "price" and unit == "EUR":
        return round(value * CURRENCY_RATES[unit], 2)
    if field == "high" and unit == "F":
        return round(value * 9 / 5 + 32)
    return value


def converted(rate: float, dollars: float) -> float:
    return round(rate * dollars, 2)


def confirmation(provider: Provider, api: Api, item: str, count: int) -> str:
    """Code of an order (`KQ482`): the same order gets the same code, and nothing else tells it."""
    digest = int(content_hash([provider.name, api.name, item, count]), 16)
    letters = "".join(chr(ord("A") + digest // 26**place % 26) for place in (0, 1))
    return f"{letters}{100 + digest // 676 % 900}"
