"""What vLLM's server makes of a text, through the very class that the server calls; and that it reads as training does.

text ─┬─ formats.json_call ── action ──┐
      └─ serving.tool_parser ─ call ───┴─ the same, for 10^5 texts that were changed by chance
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest

from steptool.core.messages import GAVE_UP
from steptool.formats.json_call import JsonCall
from steptool.formats.react import React
from steptool.policies import tiny_model

pytest.importorskip("vllm")

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager

from steptool.serving.tool_parser import read, read_react, written_names

TOKENIZER = tiny_model.tokenizer()
CHAT = JsonCall(JsonCall.Config(), TOKENIZER)
PARSER = cast(Any, ParserManager.get_parser(tool_parser_name="json_call", enable_auto_tools=True))


def request(*names: str, **options: Any) -> ChatCompletionRequest:
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]
    return ChatCompletionRequest(
        model="ppo2", messages=[{"role": "user", "content": "?"}], **({"tools": tools} if tools else {}), **options
    )


def parsed(text: str, asked: ChatCompletionRequest) -> tuple[str | None, list[tuple[str, str]]]:
    """Content and calls, as the server finds them in a whole answer."""
    parser = PARSER(TOKENIZER, asked.tools)
    _, content, calls = parser.parse(text, parser.adjust_request(asked), enable_auto_tools=True)
    return content, [(call.name, call.arguments) for call in calls or []]


def streamed(pieces: Sequence[str], asked: ChatCompletionRequest) -> tuple[str | None, list[tuple[str, str]]]:
    """The same, put together from what a client that streams gets."""
    parser = PARSER(TOKENIZER, asked.tools)
    content, calls = "", []
    for number, piece in enumerate(pieces, start=1):
        delta = parser.parse_delta(piece, [], asked, prompt_token_ids=[1], finished=number == len(pieces))
        content += (delta.content or "") if delta else ""
        calls += [(call.function.name, call.function.arguments) for call in (delta.tool_calls if delta else [])]
    return content or None, calls


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ('find {"name": "tea"}', None, [("find", '{"name": "tea"}')]),
        ('I look it up.\nfind {"name": "tea"}\n', "I look it up.", [("find", '{"name": "tea"}')]),
        ('Finish {"answer": "7"}', "7", []),
        ('I know.\nFinish {"answer": [1, "é"]}', '[1, "é"]', []),
        ('Finish {"give_up": true}', GAVE_UP, []),
        ('Finish {"give_up": false}', 'Finish {"give_up": false}', []),
        ("It is 7.", "It is 7.", []),
        ('find {"a": 1, "a": 2}', 'find {"a": 1, "a": 2}', []),
        ('buy {"id": 3}', None, [("buy", '{"id": 3}')]),  # not offered: its caller says so, as a world does
    ],
)
def test_what_a_client_gets(text: str, content: str | None, calls: list[tuple[str, str]]) -> None:
    assert parsed(text, request("find")) == (content, calls)
    assert streamed(list(text), request("find")) == (content, calls)
    assert streamed([text], request("find")) == (content, calls)


def test_names_that_the_format_cannot_carry_come_back_as_the_client_offered_them() -> None:
    names = ["get user", "get_user", "größe/cm", "3d", "Finish"]
    assert written_names(names) == ["get_user_2", "get_user", "gr__e_cm", "_3d", "Finish_2"]
    for written, meant in zip(written_names(names), names, strict=True):
        assert parsed(f"{written} {{}}", request(*names)) == (None, [(meant, "{}")])


@pytest.mark.parametrize("options", [{}, {"names": ("find",), "tool_choice": "none"}])
def test_nothing_is_called_where_no_tool_is_offered(options: dict[str, Any]) -> None:
    asked = request(*options.pop("names", ()), **options)
    assert parsed("find {}", asked) == ("find {}", [])
    assert parsed('Finish {"answer": "7"}', asked) == ("7", [])


def test_a_required_call_is_read_as_any_other() -> None:
    """vLLM would constrain the model to a JSON list of calls otherwise."""
    asked = PARSER(TOKENIZER, None).adjust_request(request("find", tool_choice="required"))
    assert asked.structured_outputs is None
    assert parsed('find {"name": "tea"}', asked) == (None, [("find", '{"name": "tea"}')])


# The same reading as in training

SEEDS = (
    'find {"name": "tea"}',
    'Look at the shop first.\nmartly.info {"id": "pr1", "deep": {"a": [1, 2.5e3, null, true]}}',
    'Finish {"answer": "7"}',
    'Finish {"give_up": true}',
    'a-b.c {"x": -0.0, "é": "\\ud83d\\ude00", "y": 12345678901234567890}',
)
PIECES = (
    *('{"a": ', "}", "{", "[", "]", '"', "\\", "\n", "\r", "\t", " ", "\x0b", "\x85", "\u2028", "é", "１", "\x00"),
    *("NaN", "-Infinity", "1e999", "9" * 1001, "\\ud800", "Finish", '"answer": null', '{"answer": 1}', "{}" * 3),
    *("[" * 20, "_", ".", "-", "0", "<|im_end|>", "'", "<|im_start|>", ": ", ","),
)


def test_toolbenchs_words_are_read_by_a_parser_of_their_own() -> None:
    asked = request("find me")
    react = cast(Any, ParserManager.get_parser(tool_parser_name="react", enable_auto_tools=True))(
        TOKENIZER, asked.tools
    )
    found = [
        react.parse(text, react.adjust_request(asked), enable_auto_tools=True)[1:]
        for text in (REACT_SEEDS[0].replace("find", "find_me"), REACT_SEEDS[2], "Action: find_me")
    ]
    (thought, (call,)), *answers = found
    assert (thought, call.name, call.arguments) == ("Look.", "find me", '{"name": "tea"}')
    assert [(content, calls or []) for content, calls in answers] == [("7", []), ("Action: find_me", [])]


REACT_SEEDS = (
    'Thought: Look.\nAction: find\nAction Input: {"name": "tea"}',
    'Action: martly.info\nAction Input:\n{"id": "pr1", "deep": {"a": [1, 2.5e3, null, true]}}',
    'Action: Finish\nAction Input: {"return_type": "give_answer", "final_answer": "7"}',
    'So.\nAction: Finish\nAction Input: {"return_type": "give_up_and_restart"}',
)


def mutated(rng: random.Random, seeds: Sequence[str] = SEEDS) -> str:
    text = rng.choice(seeds)
    for _ in range(rng.randrange(4)):
        start = rng.randrange(len(text) + 1)
        end = start + rng.choice((0, 0, 1, 2, 10))
        text = text[:start] + rng.choice((*PIECES, "", text[:7])) + text[end:]
    return text


@pytest.mark.parametrize(
    ("format", "reading", "seeds"),
    [(JsonCall, read, SEEDS), (React, read_react, REACT_SEEDS)],
    ids=["json_call", "react"],
)
def test_it_reads_a_text_as_training_does(format: Any, reading: Any, seeds: Sequence[str]) -> None:
    rng, kinds = random.Random(17), set()
    for _ in range(50_000):
        text = mutated(rng, seeds)
        action = format.read(text)
        call = reading(text)
        kinds.add((action.unreadable or "call")[:12])
        if action.unreadable is not None:
            assert call is None, text
        else:
            assert call is not None, text
            assert (call.thought, call.name, call.arguments) == (
                action.thought,
                action.calls[0].name,
                action.calls[0].arguments,
            ), text
    assert len(kinds) > 4, "calls, and texts that are refused for several reasons"
