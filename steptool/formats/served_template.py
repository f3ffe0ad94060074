"""The chat template with which a server renders OpenAI messages as a format of ours does, token by token.

    system    instructions and tools, then the client's own system message, if any
    user      the query; a later one stands where an observation does
    assistant `content` is the thought before `tool_calls`; without calls it is what `Finish` answered
    tool      the observation

Exact for what a rollout can hold: one query, then actions and observations in turn. The rest is written as near to it
as it gets, since a client may send anything; the name of a control token in a text is spelled otherwise (`harmless`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from steptool.formats.chat_template import ChatTemplate, Slot
from steptool.formats.harmless import HARMLESS, control_names
from steptool.formats.tool_macros import literal, macros
from steptool.formats.tool_text import CHARACTERS_A_TOKEN, template_environment

TEXTS = r"""
{%- macro text_of(content) -%}
  {{ content if content is string else (content or []) | map(attribute='text') | join('\n') }}
{%- endmacro -%}

{%- macro arguments_of(call) -%}
  {{ call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
{%- endmacro -%}
""".strip()
"""What the macro of an action may call, beside those of the tools."""
BODY = r"""
{%- macro shortened(text) -%}
  {{ text if text | length <= MAX_OBSERVATION else text[:MAX_OBSERVATION] ~ '...' }}
{%- endmacro -%}

{%- set offered = tools if tools else [] -%}
{%- set state = namespace(system=INSTRUCTIONS, before=BEFORE_QUERY, next='', begun=false) -%}
{%- if offered -%}
  {%- call(text, level) fitting(offered, TOOLS_CHARACTERS) -%}
    {%- set state.system = state.system ~ '\n' ~ text -%}
  {%- endcall -%}
{%- endif -%}
{%- for message in messages if message.role in ('system', 'developer') -%}
  {%- set state.system = state.system ~ '\n' ~ text_of(message.content) -%}
{%- endfor -%}
{%- set state.system = harmless(state.system) -%}
{{- BEFORE_SYSTEM ~ TRIM_SYSTEM -}}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- state.next or state.before ~ BEFORE_ACTION -}}
    {{- harmless(action_of(message, offered)) -}}
    {%- set state.before, state.next = BEFORE_OBSERVATION, '' -%}
    {{- END_OF_TURN if loop.last -}}
  {%- elif message.role not in ('system', 'developer') -%}
    {%- set text = text_of(message.content) -%}
    {%- if not state.begun -%}
      {%- set text = harmless(text) -%}
      {{- BEFORE_QUERY ~ TRIM_QUERY -}}
      {%- set state.before, state.next = BEFORE_OBSERVATION, BEFORE_ACTION -%}
    {%- else -%}
      {%- set text = harmless(shortened(text)) -%}
      {{- BEFORE_OBSERVATION ~ TRIM_OBSERVATION -}}
      {%- set state.next = AFTER_OBSERVATION -%}
    {%- endif -%}
  {%- endif -%}
  {%- set state.begun = state.begun or message.role not in ('system', 'developer') -%}
{%- endfor -%}
{{- state.next if add_generation_prompt -}}
""".strip()


def served_template(
    template: ChatTemplate,
    control: Iterable[str],
    *,
    instructions: str,
    action_macro: str,
    end_of_turn: str,
    max_observation: int,
    tools_budget: int,
) -> str:
    """Jinja for `apply_chat_template`. `action_macro` defines `action_of(message, tools)`, an assistant's text.

    `template` are the markers of the model's own template, `control` the names of the control tokens that no message
    may become; `tools_budget` is in tokens, `max_observation` in
    characters.
    """
    names = ("BEFORE_SYSTEM", "BEFORE_QUERY", "BEFORE_ACTION", "BEFORE_OBSERVATION", "AFTER_OBSERVATION")
    constants: dict[str, Any] = dict(zip(names, template.markers, strict=True))
    constants |= {
        "INSTRUCTIONS": instructions,
        "END_OF_TURN": end_of_turn,
        "MAX_OBSERVATION": max_observation,
        "TOOLS_CHARACTERS": tools_budget * CHARACTERS_A_TOKEN,
    }
    body = BODY
    for name, text, slot in (
        ("TRIM_SYSTEM", "state.system", template.system),
        ("TRIM_QUERY", "text", template.query),
        ("TRIM_OBSERVATION", "text", template.observation),
    ):
        body = body.replace(name, _trimmed(text, slot))
    head = "".join(f"{{%- set {name} = {literal(value)} -%}}\n" for name, value in constants.items())
    return f"{_macros(action_macro)}\n{control_names(control)}\n{HARMLESS}\n{head}{body}"


def action_text(action_macro: str, message: dict[str, Any], tools: Sequence[dict[str, Any]]) -> str:
    """What the template writes of an assistant's message, without the markers around it."""
    return str(_module(action_macro).action_of(message, list(tools)))


@cache
def _module(action_macro: str) -> Any:
    return template_environment().from_string(_macros(action_macro)).module


def _macros(action_macro: str) -> str:
    return f"{macros()}\n{TEXTS}\n{action_macro.strip()}"


def _trimmed(expression: str, slot: Slot) -> str:
    return expression + (".lstrip()" if slot.left else "") + (".rstrip()" if slot.right else "")
