"""Mutated outputs through the parser of every format: no exception, and no call that the model did not write.

    python -m benchmarks.fuzz_formats [--count 1000000] [--seed 17]

An output is a rendered action in which one to four things were changed: tokens deleted, doubled, moved, replaced or
inserted (control tokens among them), two outputs spliced, one cut; or letters of its text. A call is invented where its
name, or a key or value of its arguments, does not stand in the text that was parsed.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from steptool.core.types import FINISH, Action, ToolCall
from steptool.formats.json_call import JsonCall
from steptool.formats.native import Native
from steptool.formats.react import React
from steptool.policies import tiny_model
from tests.formats.native_families import TOKENS, native_tokenizer

SHOWN = 5
"""Offenders that are printed of each format."""
WORDS = (
    *("Finish", "find_order", "ping", "answer", "give_up", "name", "arguments", "parameters", "return_type"),
    *("Action:", "Action Input:", "Thought:", "call:", "to=functions.ping", "commentary", "final", "analysis", "json"),
    *("<tool_call>", "</tool_call>", "<think>", '<|"|>', "{", "}", "[", "]", '"', "'", ":", ",", "\\", "\n", " "),
    *(
        "\\u0041",
        "\\ud800",
        "null",
        "true",
        "NaN",
        "1e999",
        "-0",
        "12",
        "9" * 5000,
        "{" * 50,
        "[" * 2000,
        "\x00",
        "é日",
    ),
)
"""What is inserted, as a whole."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ESCAPE = re.compile(r'\\(u[0-9a-fA-F]{4}|["\\/bfnrt])')


@dataclass
class Tally:
    """What came of the outputs of one format."""

    outcomes: Counter[str] = field(default_factory=Counter)
    offenders: list[str] = field(default_factory=list)
    seconds: float = 0.0


def formats() -> dict[str, tuple[Any, Any]]:
    """Every format, and each family of `native`, with its tokenizer, by name."""
    tiny = tiny_model.tokenizer()
    made: dict[str, tuple[Any, Any]] = {
        "json_call": (JsonCall(JsonCall.Config(), tiny), tiny),
        "react": (React(React.Config(), tiny), tiny),
    }
    for name in sorted(TOKENS):
        made[f"native {name}"] = (Native(Native.Config(), native_tokenizer(name)), native_tokenizer(name))
    return made


def actions() -> list[Action]:
    find = ToolCall(name="find_order", arguments={"id": "a-1", "deep": True, "tags": ["x", "é"], "at": {"lat": 1.5}})
    ping = ToolCall(name="ping", arguments={})
    return [
        Action(calls=(find,)),
        Action(thought="It asks for an order.", calls=(find,)),
        Action(calls=(ping,)),
        Action(calls=(find, ping)),
        Action(message="It is shipped."),
        Action(calls=(ToolCall(name=FINISH, arguments={"answer": "shipped"}),)),
        Action(calls=(ToolCall(name=FINISH, arguments={"give_up": True}),)),
    ]


def rendered(format: Any) -> list[tuple[int, ...]]:
    """The actions that a format can write."""
    written = []
    for action in actions():
        try:
            written.append(format.render(action))
        except ValueError:
            continue
    return written


def mutants(format: Any, tokenizer: Any, count: int, draw: random.Random) -> Iterator[list[int]]:
    seeds, size = rendered(format), len(tokenizer)
    control = sorted(tokenizer.added_tokens_decoder)
    words = [tokenizer.encode(word, add_special_tokens=False) for word in WORDS]

    def token() -> int:
        return draw.choice(control) if draw.random() < 0.4 else draw.randrange(size)

    for _ in range(count):
        ids = list(draw.choice(seeds))
        for _ in range(draw.randint(1, 4)):
            at, to = sorted((draw.randint(0, len(ids)), draw.randint(0, len(ids))))
            kind = draw.randrange(9)
            if kind == 0:
                del ids[at : min(to, at + 5)]
            elif kind == 1:
                ids[at:at] = ids[at:to]
            elif kind == 2:
                ids = ids[:at] + ids[to:] + ids[at:to]
            elif kind == 3:
                ids[at : at + 1] = [token()]
            elif kind == 4:
                ids[at:at] = [token() for _ in range(draw.randint(1, 3))]
            elif kind == 5:
                ids[at:at] = draw.choice(words)
            elif kind == 6:
                ids = ids[:at] + list(draw.choice(seeds))[draw.randrange(3) :]
            elif kind == 7:
                ids = ids[:to]
            else:
                ids = tokenizer.encode(_misspelled(tokenizer.decode(ids), draw), add_special_tokens=False)
        yield ids


def _misspelled(text: str, draw: random.Random) -> str:
    at = draw.randint(0, len(text))
    return text[:at] + draw.choice(["", '"', "}", "{", "\\", "\n", ",", "x", "<"]) + text[at + draw.randint(0, 2) :]


def invented(call: ToolCall, text: str) -> str | None:
    """What of a call does not stand in a text, or None."""
    plain = _ESCAPE.sub(_unescaped, text)
    numbers = {float(found) for found in _NUMBER.findall(text)}

    def stands(value: Any) -> bool:
        if isinstance(value, bool) or value is None:
            return json.dumps(value) in text
        if isinstance(value, str):
            return value in text or value in plain or json.dumps(value)[1:-1] in text
        return len(str(value)) > 300 or float(value) in numbers

    parts = [call.name, *_leaves(call.arguments)]
    if call.name == FINISH:  # react has other words for these
        parts = [part for part in parts if part not in ("answer", "give_up", True)]
    return next((repr(part)[:100] for part in parts if not stands(part)), None)


def _unescaped(found: re.Match[str]) -> str:
    short = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
    return chr(int(found[1][1:], 16)) if found[1][0] == "u" else short.get(found[1], found[1])


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def fuzz(format: Any, tokenizer: Any, count: int, seed: int) -> Tally:
    tally, started = Tally(), time.perf_counter()
    for ids in mutants(format, tokenizer, count, random.Random(seed)):
        problem = check(format.parse, tokenizer.decode, ids, tally.outcomes)
        if problem and len(tally.offenders) < SHOWN:
            tally.offenders.append(f"{problem} from {tokenizer.decode(ids)!r:.300}")
        tally.outcomes["offenders"] += problem is not None
    tally.seconds = time.perf_counter() - started
    return tally


def check(
    parse: Callable[[Sequence[int]], Action],
    decode: Callable[[Sequence[int]], str],
    ids: Sequence[int],
    seen: Counter[str],
) -> str | None:
    """What is wrong with how `ids` are read, or None. Counts in `seen` what they are read as."""
    try:
        action = parse(ids)
    except Exception as error:  # noqa: BLE001 - to find any is what this is for
        seen["exceptions"] += 1
        return f"{type(error).__name__}: {error}"
    seen["calls" if action.calls else "messages" if action.message is not None else "unreadable"] += 1
    if not action.calls:
        return None
    text = decode(ids)
    found = next((part for call in action.calls if (part := invented(call, text))), None)
    return found and f"a call with {found}, which is not written"


def main(
    count: Annotated[int, typer.Option(min=1, help="Outputs in all, shared among the formats.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Of the mutations.")] = 17,
) -> None:
    made, failed = formats(), False
    print(f"{'format':<18}{'outputs':>9}{'calls':>9}{'messages':>9}{'unreadable':>11}{'offenders':>10}{'µs each':>9}")
    for name, (format, tokenizer) in made.items():
        each = -(-count // len(made))
        tally = fuzz(format, tokenizer, each, seed)
        seen = tally.outcomes
        print(
            f"{name:<18}{each:>9,}{seen['calls']:>9,}{seen['messages']:>9,}{seen['unreadable']:>11,}"
            f"{seen['offenders']:>10,}{tally.seconds / each * 1e6:>9.0f}"
        )
        for offender in tally.offenders:
            print(f"  {offender}")
        failed = failed or bool(tally.offenders)
    sys.exit(failed)


if __name__ == "__main__":
    typer.run(main)
