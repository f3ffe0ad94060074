"""A few of the mutated outputs of `python -m benchmarks.fuzz_formats`, and parsers that it must catch.

{"name": "find", …}  ── changed ──  parser ── an action, and no call but what stands there
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.fuzz_formats import check, formats, fuzz, invented
from steptool.core.types import Action, ToolCall
from steptool.formats.react import React
from steptool.policies import tiny_model
from steptool.testing import call

TOKENIZER = tiny_model.tokenizer()
FORMATS = formats()


@pytest.mark.parametrize("name", FORMATS)
def test_no_mutated_output_raises_or_becomes_a_call_that_nobody_wrote(name: str) -> None:
    tally = fuzz(*FORMATS[name], count=2500, seed=17)
    assert tally.offenders == []
    assert min(tally.outcomes["calls"], tally.outcomes["unreadable"]) > 50, "both are reached"


@pytest.mark.parametrize(
    ("made", "text", "missing"),
    [
        (call("find", id="a", n=[1, None, True]), 'find {"id": "a", "n": [1.0, null, true]}', None),
        (call("find", id='A"\n'), 'find {"id": "\\u0041\\"\\n"}', None),
        (call("Finish", answer="x"), 'Finish {"final_answer": "x"}', None),
        (call("find"), "fin", "'find'"),
        (call("find", id="b"), 'find {"id": "a"}', "'b'"),
        (call("find", key=1), 'find {"id": 1}', "'key'"),
        (call("find", id=12), 'find {"id": 1, "2"}', "12"),
        (call("find", id=True), 'find {"id": 1}', "True"),
        (call("Finish", answer="y"), 'Finish {"final_answer": "x"}', "'y'"),
    ],
)
def test_what_does_not_stand_in_the_text_is_invented(made: ToolCall, text: str, missing: str | None) -> None:
    assert invented(made, text) == missing


def parses_with_repair(ids: Sequence[int]) -> Action:
    """Closes what is open, as some servers do, and takes what it knows for what it cannot read."""
    action = React.read(TOKENIZER.decode(ids))
    return action if action.calls else Action(calls=(call("find_order", id="a-9"),))


def parses_and_raises(ids: Sequence[int]) -> Action:
    json.loads(TOKENIZER.decode(ids))
    raise AssertionError("mutated outputs are no JSON")


@pytest.mark.parametrize(
    ("parse", "says"), [(parses_with_repair, "which is not written"), (parses_and_raises, "Error:")]
)
def test_a_parser_that_invents_or_raises_is_caught(parse: Any, says: str) -> None:
    found = check(parse, TOKENIZER.decode, TOKENIZER.encode("Thought: a"), Counter())
    assert found is not None
    assert says in found
