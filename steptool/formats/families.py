"""The model families whose own tool-call format is spoken, and how each is read.

A row says how to know a family, and what its chat template leaves open: where a thought goes, how a turn ends, whether
several calls fit into one. The reading of four is done by the package `renderers`; Qwen2.5 and SmolLM, which it does
not know, write the calls of Qwen3 (SmolLM without tokens for its tags, so there they are found in the text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Reader: TypeAlias = Callable[[Sequence[int]], "Turn"]
Name = Literal["qwen3", "qwen2.5", "smollm", "llama-3", "gpt-oss", "gemma-4"]


@dataclass(frozen=True)
class Turn:
    """What a model wrote in one turn."""

    content: str
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    """Name and arguments of each, as written."""
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Family:
    name: Name
    tokens: tuple[str, ...]
    """Added tokens by which its tokenizers are known."""
    reader: Callable[[Any, Sequence[int], set[int]], Reader]
    """Makes a reader of sampled ids from a tokenizer, the ids of a generation prompt, and those that end a turn."""
    ends: tuple[str, ...]
    """Tokens that end a turn of the model; sampling stops at them."""
    tool_parser: str
    """What vLLM calls its parser."""
    thought: str = "content"
    """Key of an assistant's message that holds its reasoning, where the model reasons. `content`: a thought is the text
    before a call, and has no place beside a message. Empty: it has no place at all."""
    parallel: bool = True
    """Whether one turn can hold several calls."""
    thinks: bool = False
    """Whether its template has `enable_thinking`."""
    between: tuple[str, ...] = ()
    """Tokens that end a turn in the middle of a conversation where `ends` has another."""
    template: str | None = field(default=None, repr=False)
    """The template to use in place of the model's own, where that one has no tools."""


CHATML = r"""
{%- if messages[0].role == 'system' -%}
  {%- set system, rest = messages[0].content, messages[1:] -%}
{%- else -%}
  {%- set system, rest = '', messages -%}
{%- endif -%}
{%- if system or tools -%}
  {{- '<|im_start|>system\n' ~ system -}}
  {%- if tools -%}
    {{- ('\n\n' if system) ~ '# Tools\n\nYou may call one or more of these functions:\n<tools>\n' -}}
    {%- for tool in tools -%}{{- tool | tojson ~ '\n' -}}{%- endfor -%}
    {{- '</tools>\n\nTo call one, write its name and its arguments as JSON:\n'
        ~ '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>' -}}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in rest -%}
  {%- if message.role == 'tool' -%}
    {{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' -}}
    {{- '\n<tool_response>\n' ~ message.content ~ '\n</tool_response>' -}}
    {{- '<|im_end|>\n' if loop.last or loop.nextitem.role != 'tool' -}}
  {%- else -%}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ (message.content or '') -}}
    {%- for call in message.tool_calls or [] -%}
      {{- '\n' if not loop.first or message.content -}}
      {{- '<tool_call>\n{"name": "' ~ call.function.name ~ '", "arguments": ' -}}
      {{- (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) -}}
      {{- '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}}
""".strip()
"""SmolLM2's template has no tools. This one has those of Qwen2.5 in its place, their tags spelled in letters: a base
model stays as it is, and vLLM's `hermes` parser reads the calls."""

_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def _read_qwen3(tokenizer: Any, prompt: Sequence[int], stops: set[int]) -> Reader:
    from renderers.qwen3 import Qwen3Renderer

    renderer = Qwen3Renderer(tokenizer)
    return lambda ids: _turn(renderer.parse_response(list(ids), prompt_ids=list(prompt)))


def _read_qwen25(tokenizer: Any, prompt: Sequence[int], stops: set[int]) -> Reader:
    from renderers.parsing import parse_qwen3

    call, end = tokenizer.convert_tokens_to_ids(["<tool_call>", "</tool_call>"])
    return lambda ids: _turn(parse_qwen3(tokenizer, list(ids), stop_ids=stops, tool_call_id=call, tool_call_end_id=end))


def _read_text(tokenizer: Any, prompt: Sequence[int], stops: set[int]) -> Reader:
    def read(ids: Sequence[int]) -> Turn:
        end = len(ids)
        while end and ids[end - 1] in stops:
            end -= 1
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        content, calls = text.partition("<tool_call>")[0].strip(), []
        for found in _TAGGED.finditer(text):
            value = json.loads(found[1])
            if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
                return Turn(content, problem="a call has a name and arguments, and nothing else")
            calls.append((value["name"], value["arguments"]))
        if "<tool_call>" in _TAGGED.sub("", text):
            return Turn(content, problem="a call does not end")
        return Turn(content, calls=tuple(calls))

    return read


def _read_llama3(tokenizer: Any, prompt: Sequence[int], stops: set[int]) -> Reader:
    from renderers.parsing import parse_llama_3

    def read(ids: Sequence[int]) -> Turn:
        turn = _turn(parse_llama_3(tokenizer, list(ids), stop_ids=stops))
        if not turn.calls and turn.content.startswith(("{", "<|python_tag|>")):
            return Turn(turn.content, problem="it begins like a call, and is not one JSON object")
        return turn

    return read


def _read_gpt_oss(tokenizer: Any, prompt: Sequence[int], stops: set[int]) -> Reader:
    from renderers.parsing import parse_gpt_oss

    names = ("return", "call", "start", "end", "channel", "message", "constrain")
    ids_of = {f"{name}_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    lead = list(prompt)[_last(prompt, ids_of["start_id"]) :]
    return lambda ids: _turn(parse_gpt_oss(tokenizer, [*lead, *ids], **ids_of))


def _read_gemma4(tokenizer: Any, prompt: Sequence[int], stops: set[int]) -> Reader:
    from renderers.gemma4 import Gemma4Renderer

    renderer = Gemma4Renderer(tokenizer)
    return lambda ids: _turn(renderer.parse_response(list(ids), prompt_ids=list(prompt)))


def _last(ids: Sequence[int], id: int) -> int:
    return max(index for index, each in enumerate(ids) if each == id)


def _turn(parsed: Any) -> Turn:
    """A `ParsedResponse` of renderers."""
    broken = next((call for call in parsed.tool_calls if call.status != "ok"), None)
    problem = f"a call is broken: {broken.status.replace('_', ' ')}" if broken else ""
    if parsed.reasoning_complete is False:
        problem = "the reasoning does not end"
    calls = tuple((call.name, call.arguments) for call in parsed.tool_calls)
    return Turn(parsed.content, parsed.reasoning_content or "", calls, problem)


FAMILIES: tuple[Family, ...] = (
    Family(
        "gpt-oss",
        ("<|start|>", "<|channel|>", "<|message|>", "<|call|>", "<|return|>", "<|end|>", "<|constrain|>"),
        _read_gpt_oss,
        ends=("<|return|>", "<|call|>"),
        between=("<|end|>",),
        tool_parser="openai",
        thought="thinking",
        parallel=False,
    ),
    Family(
        "gemma-4",
        ("<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<|channel>", "<channel|>"),
        _read_gemma4,
        ends=("<turn|>", "<|tool_response>"),
        tool_parser="gemma4",
        thought="reasoning",
    ),
    Family(
        "llama-3",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        _read_llama3,
        ends=("<|eot_id|>", "<|eom_id|>"),
        tool_parser="llama3_json",
        thought="",
        parallel=False,
    ),
    Family(
        "qwen3",
        ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>"),
        _read_qwen3,
        ends=("<|im_end|>",),
        tool_parser="hermes",
        thought="reasoning_content",
        thinks=True,
    ),
    Family(
        "qwen2.5",
        ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"),
        _read_qwen25,
        ends=("<|im_end|>",),
        tool_parser="hermes",
    ),
    Family(
        "smollm",
        ("<|im_start|>", "<|im_end|>"),
        _read_text,
        ends=("<|im_end|>",),
        tool_parser="hermes",
        template=CHATML,
    ),
)
"""The first whose tokens a tokenizer has is its family."""
