"""The Jinja macros that write what a model reads of its tools. `tool_text` says what their text looks like.

Jinja, since a server renders with the chat template of a format and nothing else: these macros are its beginning, and
the format's own prompts are written by them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steptool.core.types import FINISH
from steptool.formats.names import DIGITS, LETTERS, MOST_CHARACTERS, SIGNS

MAX_DEPTH = 8
"""Objects, arrays and references within each other that are written; what is deeper is `any`."""
MAX_PARTS = 2000
"""Parts of one tool's schema that are written: references to references can multiply without end."""
MAX_SENTENCE = 100
"""Characters of a first sentence where the budget is short; a longer one ends in `...`."""
MAX_WORDS = 40
"""Characters of a tool's description where the budget is shorter still."""
MAX_VALUES = 8
"""Values of an enum that are written where the budget is short."""

SHORTER = (
    f"descriptions of parameters are cut to their first sentence, and to {MAX_SENTENCE} characters",
    "descriptions of parameters are left out",
    f"descriptions of tools are cut to their first sentence, and to {MAX_SENTENCE} characters",
    f"of a list of values the first {MAX_VALUES} are written",
    "what optional objects consist of is left out",
    "what required objects consist of is left out",
    f"descriptions of tools are cut to {MAX_WORDS} characters",
    "descriptions of tools are left out",
    "optional parameters are left out",
)
"""What is shortened first, second, and so on, until the text of a task's tools fits its budget. Each step keeps those
before it. A text that never fits has all of them: no tool is left out."""

MACROS = (
    r"""
{%- macro one_line(text) -%}{{ text.split() | join(' ') if text is string else '' }}{%- endmacro -%}

{%- macro sentence(text, most=MAX_SENTENCE) -%}
  {%- set parts = one_line(text).replace('e.g. ', 'e.g.\u00a0').replace('i.e. ', 'i.e.\u00a0').split('. ') -%}
  {%- set first = parts[0].replace('\u00a0', ' ') ~ ('.' if parts | length > 1) -%}
  {{ first if first | length <= most else first[:most] ~ '...' }}
{%- endmacro -%}

{%- macro resolved(ref, root) -%}
  {%- set found = namespace(part=root if ref[:1] == '#' else none) -%}
  {%- for key in ref.split('/')[1:] -%}
    {%- set key = key.replace('~1', '/').replace('~0', '~') -%}
    {%- if found.part is mapping -%}
      {%- set found.part = found.part.get(key) -%}
    {%- elif found.part is sequence and found.part is not string and key.isdigit() -%}
      {%- set found.part = (found.part[(key | int):] | list + [none])[0] -%}
    {%- else -%}
      {%- set found.part = none -%}
    {%- endif -%}
  {%- endfor -%}
  {{ caller(found.part) }}
{%- endmacro -%}

{%- macro value(item) -%}
  {%- if item is string and item[:1].isalpha() and item not in ('true', 'false', 'null')
      and item.replace(' ', '').replace('_', '').replace('-', '').replace('.', '').isalnum() -%}
    {{ one_line(item) }}
  {%- else -%}
    {{ one_line(item | tojson) }}
  {%- endif -%}
{%- endmacro -%}

{%- macro about(schema, state, open) -%}
  {%- if schema is mapping and state.level < 2 -%}
    {%- set ref = schema.get('$ref') -%}
    {%- if schema.get('description') is string -%}
      {{ one_line(schema.get('description')) if state.level < 1 else sentence(schema.get('description')) }}
    {%- elif ref is string and ref not in open -%}
      {%- call(part) resolved(ref, state.root) -%}{{ about(part, state, open + [ref]) }}{%- endcall -%}
    {%- elif schema.get('items') is mapping and open | length < MAX_DEPTH -%}
      {{ about(schema.get('items'), state, open + ['']) }}
    {%- endif -%}
  {%- endif -%}
{%- endmacro -%}

{%- macro union(parts, state, open, sign) -%}
  {%- set found = namespace(kinds=[]) -%}
  {%- for part in parts -%}
    {%- set text = about(part, state, open) -%}
    {%- set kind = kind_of(part, state, open) ~ (' (' ~ text ~ ')' if text) -%}
    {%- if kind not in found.kinds -%}{%- set found.kinds = found.kinds + [kind] -%}{%- endif -%}
  {%- endfor -%}
  {{ found.kinds | join(sign) }}
{%- endmacro -%}

{%- macro kind_of(schema, state, open) -%}
  {%- set state.parts = state.parts + 1 -%}
  {%- if schema is not mapping or open | length > MAX_DEPTH or state.parts > MAX_PARTS -%}
    any
  {%- else -%}
    {%- set ref, enum = schema.get('$ref'), schema.get('enum') -%}
    {%- set either = schema.get('anyOf') or schema.get('oneOf') -%}
    {%- set every, type = schema.get('allOf'), schema.get('type') -%}
    {%- if ref is string -%}
      {%- call(part) resolved(ref, state.root) -%}
        {%- if ref in open or part is not mapping -%}
          {{ one_line(ref.split('/')[-1].replace('#', '')) or 'object' }}
        {%- else -%}
          {{ kind_of(part, state, open + [ref]) }}
        {%- endif -%}
      {%- endcall -%}
    {%- elif enum and enum is sequence and enum is not string and enum is not mapping -%}
      {%- set shown = enum if state.level < 4 else enum[:MAX_VALUES] -%}
      {%- for item in shown -%}{{ value(item) }}{{ '|' if not loop.last }}{%- endfor -%}
      {{ '|...' if shown | length < enum | length }}
    {%- elif 'const' in schema -%}
      {{ value(schema.get('const')) }}
    {%- elif either and either is sequence and either is not string and either is not mapping
        and not schema.get('properties') -%}
      {{ union(either, state, open + [''], '|') }}
    {%- elif every and every is sequence and every is not string and every is not mapping
        and not schema.get('properties') -%}
      {{ union(every, state, open + [''], ' & ') }}
    {%- elif type and type is sequence and type is not string and type is not mapping -%}
      {%- for one in type -%}
        {{ kind_of(dict(schema, **{'type': one | string}), state, open + ['']) }}{{ '|' if not loop.last }}
      {%- endfor -%}
    {%- elif type == 'array' or (not type and schema.get('items') is mapping) -%}
      {%- set each = schema.get('prefixItems') -%}
      {%- if each and each is sequence and each is not string and each is not mapping and state.level < 6 -%}
        [{{ union(each, state, open + [''], ', ') }}]
      {%- else -%}
        {%- set kind = kind_of(schema.get('items'), state, open + ['']) -%}
        {{ '(' ~ kind ~ ')' if '|' in kind or ' ' in kind and kind[:1] != '{' else kind }}[]
      {%- endif -%}
    {%- elif type == 'object' or (not type and schema.get('properties') is mapping) -%}
      {%- set parts = fields(schema, state, open + ['']) if state.inner -%}
      {%- if parts -%}
        { {{- parts -}} }
      {%- elif schema.get('additionalProperties') is mapping and state.inner -%}
        {*: {{ kind_of(schema.get('additionalProperties'), state, open + ['']) }}}
      {%- else -%}
        object
      {%- endif -%}
    {%- elif type is string -%}
      {{ one_line(type) or 'any' }}
      {%- if type == 'string' and schema.get('format') is string -%}<{{ one_line(schema.get('format')) }}>{%- endif -%}
    {%- else -%}
      any
    {%- endif -%}
    {{ '|null' if schema.get('nullable') is true }}
  {%- endif -%}
{%- endmacro -%}

{%- macro fields(schema, state, open, top=false, above=[]) -%}
  {%- set found = namespace(list=[], either=[]) -%}
  {%- if schema is mapping and open | length <= MAX_DEPTH and state.parts <= MAX_PARTS -%}
    {%- set named, required, every = schema.get('properties'), schema.get('required'), schema.get('allOf') -%}
    {%- set required = above + (required | list if required is sequence and required is not mapping else []) -%}
    {%- for name, part in (named if named is mapping else {}).items() -%}
      {%- set needed = name in required -%}
      {%- if needed or state.level < 9 -%}
        {%- if top -%}
          {%- set state.inner = state.level < (6 if needed else 5) -%}
        {%- endif -%}
        {%- set kind, text = kind_of(part, state, open), about(part, state, open) -%}
        {%- set default = part.get('default') if part is mapping -%}
        {%- set found.list = found.list + [one_line(name) ~ ('' if needed else '?')
            ~ (': ' ~ kind if kind != 'string')
            ~ (' = ' ~ one_line(default | tojson) if default is not none and default is not undefined
               and state.inner)
            ~ (' (' ~ text ~ ')' if text)] -%}
      {%- endif -%}
    {%- endfor -%}
    {%- set ref, either = schema.get('$ref'), schema.get('anyOf') or schema.get('oneOf') -%}
    {%- if ref is string and ref not in open -%}
      {%- set text -%}
        {%- call(target) resolved(ref, state.root) -%}
          {{ fields(target, state, open + [ref], top, required) }}
        {%- endcall -%}
      {%- endset -%}
      {%- set found.list = found.list + ([text] if text else []) -%}
    {%- endif -%}
    {%- for part in (every if every is sequence and every is not string and every is not mapping else []) -%}
      {%- set text = fields(part, state, open + [''], top, required) -%}
      {%- set found.list = found.list + ([text] if text else []) -%}
    {%- endfor -%}
    {%- for part in (either if either is sequence and either is not string and either is not mapping else []) -%}
      {%- set text = fields(part, state, open + [''], top, required) -%}
      {%- set found.either = found.either + ([text] if text and text not in found.either else []) -%}
    {%- endfor -%}
    {%- if found.either -%}
      {%- set found.list = found.list + ['(' ~ found.either | join(' | ') ~ ')'] -%}
    {%- endif -%}
  {%- endif -%}
  {{ found.list | join(', ') }}
{%- endmacro -%}

{%- macro written_names(tools) -%}
  {%- set found = namespace(names=[], taken=[FINISH]) -%}
  {%- for tool in tools -%}
    {%- set name = tool.function.name -%}
    {%- if carries(name) == 'yes' -%}{%- set found.taken = found.taken + [name] -%}{%- endif -%}
  {%- endfor -%}
  {%- for tool in tools -%}
    {%- set name = tool.function.name -%}
    {%- if carries(name) == 'yes' -%}
      {%- set found.names = found.names + [name] -%}
    {%- else -%}
      {%- set base = namespace(text='') -%}
      {%- for char in name -%}{%- set base.text = base.text ~ (char if char in CARRIED else '_') -%}{%- endfor -%}
      {%- if base.text[:1] not in FIRST or not base.text -%}{%- set base.text = '_' ~ base.text -%}{%- endif -%}
      {%- set base.text = base.text[:MOST_CHARACTERS] -%}
      {%- set base.free = base.text -%}
      {%- for number in range(2, found.taken | length + 2) -%}
        {%- if base.free in found.taken -%}
          {%- set end = '_' ~ number -%}
          {%- set base.free = base.text[:MOST_CHARACTERS - end | length] ~ end -%}
        {%- endif -%}
      {%- endfor -%}
      {%- set found.taken = found.taken + [base.free] -%}
      {%- set found.names = found.names + [base.free] -%}
    {%- endif -%}
  {%- endfor -%}
  {{ caller(found.names) }}
{%- endmacro -%}

{%- macro carries(name) -%}
  {%- set found = namespace(all=name[:1] in FIRST and name != FINISH and 0 < name | length <= MOST_CHARACTERS) -%}
  {%- for char in name -%}{%- if char not in CARRIED -%}{%- set found.all = false -%}{%- endif -%}{%- endfor -%}
  {{ 'yes' if found.all }}
{%- endmacro -%}

{%- macro written_name(tools, name) -%}
  {%- set found = namespace(name=name) -%}
  {%- call(names) written_names(tools) -%}
    {%- for tool in tools -%}
      {%- if tool.function.name == name -%}{%- set found.name = names[loop.index0] -%}{%- endif -%}
    {%- endfor -%}
  {%- endcall -%}
  {{ found.name }}
{%- endmacro -%}

{%- macro tool_line(tool, name, level) -%}
  {%- set schema, text = tool.function.parameters, tool.function.description -%}
  {%- set state = namespace(root=schema, level=level, parts=0, inner=true) -%}
  {%- set text = '' if level >= 8 else sentence(text, MAX_WORDS if level >= 7 else MAX_SENTENCE) if level >= 3
      else one_line(text) -%}
  {{ one_line(name) }}({{ fields(schema, state, ['#'], true) }}){{ ' - ' ~ text if text }}
{%- endmacro -%}

{%- macro tool_lines(tools, level) -%}
  {%- call(names) written_names(tools) -%}
    {%- for tool in tools -%}
      {{ tool_line(tool, names[loop.index0], level) }}{{ '\n' if not loop.last }}
    {%- endfor -%}
  {%- endcall -%}
{%- endmacro -%}

{%- macro fitting(tools, most) -%}
  {%- set found = namespace(text=none, level=0) -%}
  {%- for level in range(LAST_LEVEL + 1) -%}
    {%- if found.text is none or found.text | length > most -%}
      {%- set found.text, found.level = tool_lines(tools, level), level -%}
    {%- endif -%}
  {%- endfor -%}
  {{ caller(found.text, found.level) }}
{%- endmacro -%}
"""
).strip()
"""`fitting(tools, most)` calls its caller with the text of OpenAI's `tools` in at most `most` characters, and with how
many of `SHORTER` that took."""

CONSTANTS: Mapping[str, Any] = {
    "FINISH": FINISH,
    "FIRST": LETTERS,
    "CARRIED": LETTERS + DIGITS + SIGNS,
    "MOST_CHARACTERS": MOST_CHARACTERS,
    "MAX_DEPTH": MAX_DEPTH,
    "MAX_PARTS": MAX_PARTS,
    "MAX_VALUES": MAX_VALUES,
    "MAX_WORDS": MAX_WORDS,
    "MAX_SENTENCE": MAX_SENTENCE,
    "LAST_LEVEL": len(SHORTER),
}


def literal(value: Any) -> str:
    """A text or number as a template writes it: letters beyond ASCII are escaped as Python escapes them."""
    return ascii(value)


def macros() -> str:
    """`MACROS` behind the constants that they read, as the beginning of a template of its own."""
    return "".join(f"{{%- set {name} = {literal(value)} -%}}\n" for name, value in CONSTANTS.items()) + MACROS
