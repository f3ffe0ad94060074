"""Jinja that keeps a client's texts from becoming control tokens on a server.

A server writes a conversation as one text and then encodes it, so a control token's name in a message would be that
token. In training such a name is plain letters (`encoder`). All that a template can do is to spell it otherwise: with a
space behind its first letter.

    the client sends    Where is <|im_end|>?
    the model reads     Where is < |im_end|>?
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from steptool.formats.chat_template import TODAY
from steptool.formats.tool_macros import literal

HARMLESS = r"""
{%- macro harmless(text) -%}
  {%- set found = namespace(text=text) -%}
  {%- for name in CONTROL + CONTROL -%}
    {%- set found.text = found.text.replace(name, name[0] ~ ' ' ~ name[1:]) -%}
  {%- endfor -%}
  {{- found.text -}}
{%- endmacro -%}
""".strip()
"""Twice, since a name that overlaps itself is found only once in a pass."""
AROUND = r"""
{%- macro harmless_within(value) -%}
  {%- set made = namespace(value=value) -%}
  {%- if value is string -%}
    {%- set made.value = harmless(value) -%}
  {%- elif value is mapping -%}
    {%- set made.value = {} -%}
    {%- for key, item in value.items() -%}
      {%- call(part) harmless_within(item) -%}
        {%- set made.value = dict(made.value, **{harmless(key): part}) -%}
      {%- endcall -%}
    {%- endfor -%}
  {%- elif value is iterable -%}
    {%- set made.value = [] -%}
    {%- for item in value -%}
      {%- call(part) harmless_within(item) -%}{%- set made.value = made.value + [part] -%}{%- endcall -%}
    {%- endfor -%}
  {%- endif -%}
  {{- caller(made.value) -}}
{%- endmacro -%}

{%- macro strftime_now(format) -%}
  {%- set made = namespace(text=format) -%}
  {%- for sign, text in DATE.items() -%}{%- set made.text = made.text.replace(sign, text) -%}{%- endfor -%}
  {{- made.text -}}
{%- endmacro -%}
{%- set date_string = strftime_now('%d %b %Y') -%}

{%- set served = namespace(messages=[], begun=false) -%}
{%- for message in messages -%}
  {%- set text = message.content -%}
  {%- set cut = message.role == 'tool' or (message.role == 'user' and served.begun) -%}
  {%- if cut and text is string and text | length > MAX_OBSERVATION -%}
    {%- set message = dict(message, content=text[:MAX_OBSERVATION] ~ '...') -%}
  {%- endif -%}
  {%- set served.begun = served.begun or message.role not in ('system', 'developer') -%}
  {%- call(made) harmless_within(message) -%}{%- set served.messages = served.messages + [made] -%}{%- endcall -%}
{%- endfor -%}
{%- set messages = served.messages -%}
{%- if tools -%}
  {%- call(made) harmless_within(tools) -%}{%- set served.tools = made -%}{%- endcall -%}
  {%- set tools = served.tools -%}
{%- endif -%}
""".strip()
"""Before a model's own template: what it reads of messages and tools, and which day it is."""


def control_names(names: Iterable[str]) -> str:
    """The line that `HARMLESS` reads. A single letter stays what it is: no other spelling would say the same."""
    listed = ", ".join(literal(name) for name in sorted({name for name in names if len(name) > 1}))
    return f"{{%- set CONTROL = [{listed}] -%}}"


def around(template: str, names: Iterable[str], *, max_observation: int, thinking: bool | None = None) -> str:
    """A model's own chat template, so that a server shows the model what `native` shows it.

    No text of a client becomes one of the control tokens `names`, replies are cut after `max_observation` characters,
    the date is `chat_template.TODAY`, and where `thinking` is no None it stands, whatever a client asks for.
    """
    constants = [control_names(names), f"{{%- set MAX_OBSERVATION = {max_observation} -%}}"]
    constants.append(f"{{%- set DATE = {_date(TODAY)!r} -%}}")
    if thinking is not None:
        constants.append(f"{{%- set enable_thinking = {str(thinking).lower()} -%}}")
    return "\n".join([*constants, HARMLESS, AROUND]) + "{{- '' }}" + template


def _date(day: datetime) -> dict[str, str]:
    return {sign: day.strftime(sign) for sign in ("%Y", "%y", "%m", "%d", "%B", "%b", "%A", "%a", "%H", "%M", "%S")}
