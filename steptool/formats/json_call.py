"""One call a turn, as a name and a JSON object: the format that a small model learns in a few hundred examples.

A rollout is `prompt · action · observation · action · …`, where an action is what the model sampled:

    thought, any number of lines          optional
    name {"argument": value}              the call, on the last line
    <end of turn>                         the stop token, sampled too

Everything between the texts (turn markers, roles, the generation prompt) comes from the tokenizer's own
chat template, which is rendered once with sentinels in place of the texts and cut at them. Texts from
outside (queries, tool descriptions, tool output) never become control tokens: output holding `<|im_end|>` is
encoded as plain letters and cannot end a turn (`encoder`).
Nothing sampled is ever decoded and encoded again for training. A policy cannot send the user a message, nor call two
tools at once: it ends with `Finish`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from steptool.core.fields import Positive, Settings
from steptool.core.types import FINISH, TOOL_NAME, Action, Observation, Task, Tool, ToolCall
from steptool.formats.chat_template import read_template, unfit
from steptool.formats.encoder import Encoder
from steptool.formats.text import shorten, valid_text

INSTRUCTIONS = (
    f'Call one tool a turn: name {{"arg": value}}\nEnd with {FINISH} {{"answer": "..."}} or {{"give_up": true}}'
)
"""What every prompt begins with. A small model pays for each of its tokens in every task."""
MAX_ARGUMENT_DEPTH = 16
"""Deepest nesting of a call's arguments; deeper is a parse error, not a crash further down."""
MAX_DIGITS = 1000
"""Of an integer in the arguments; Python itself refuses to read or write one of more than 4300."""

_CALL = re.compile(rf"({TOOL_NAME})[ \t]*(.*)", re.ASCII)


class JsonCall:
    """`tokenizer` is a Hugging Face tokenizer with a chat template; it is only asked to encode and decode.

    Raises ModelError where the template is missing, does not end, or does not keep a conversation's prefix.
    """

    name: ClassVar[str] = "json_call"

    class Config(Settings):
        max_observation: Positive = 1024
        """Characters of an observation, as in ToolBench: what is longer is cut and ends in `...`."""

    def __init__(self, config: Config, tokenizer: Any) -> None:
        self.config = config
        self.max_observation = config.max_observation
        self._tokenizer = tokenizer
        self._template = template = read_template(tokenizer)
        self._encoder = Encoder(tokenizer, template.markers)
        before_system, before_query, before_action, before_observation, after_observation = template.markers
        self._prompt = self._encoder.chunk(before_system, before_query, before_action)
        self._observation = self._encoder.chunk(before_observation, after_observation)
        self._action = self._encoder.chunk(self._encoder.last_turn(before_action), "")
        self._before_action = self._encoder.encode(self._action, "")
        self.end_of_turn: int = self._read_end()
        ends = {self.end_of_turn, tokenizer.eos_token_id} - {None}
        self.stop_ids: tuple[int, ...] = tuple(sorted(ends))
        """Tokens at which sampling an action stops."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        """System message with the offered tools, the query, and the generation prompt."""
        system = "\n".join([INSTRUCTIONS, *map(describe_tool, task.tools)])
        template = self._template
        texts = template.system.trim(valid_text(system)), template.query.trim(valid_text(task.query))
        return tuple(self._encoder.encode(self._prompt, *texts))

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...]:
        """All tokens between an action and the next: rest of the turn, tool message, generation prompt.

        Where the action was cut short or stopped at another token than `end_of_turn`, the end of turn is added here,
        as context. Raises ValueError for a message, and for anything but one observation.
        """
        if message is not None or len(observations) != 1:
            raise ValueError(f"json_call has one observation a turn and no messages, got {len(observations)}")
        text = shorten(observations[0].text, self.max_observation)
        ids = self._encoder.encode(self._observation, self._template.observation.trim(text))
        ended = bool(action_ids) and action_ids[-1] == self.end_of_turn
        return tuple(ids[1 if ended else 0 :])

    def parse(self, ids: Sequence[int]) -> Action:
        """Read a sampled action. Never raises: what cannot be read is `unreadable`, and all of it the thought."""
        ids = list(ids)
        while ids and ids[-1] in self.stop_ids:
            ids.pop()
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        thought, _, line = text.strip().rpartition("\n")
        found = _read_call(line.strip())
        if isinstance(found, ToolCall):
            return Action(thought=thought.strip(), calls=(found,))
        return Action(thought=text.strip(), unreadable=found)

    def render(self, action: Action) -> tuple[int, ...]:
        """Ids of a demonstrated action, its end of turn included; `parse` gives it back.

        Raises ValueError for anything but one call.
        """
        if len(action.calls) != 1:
            raise ValueError("json_call can write an action of one call, and no other")
        call, thought = action.calls[0], action.thought.strip()
        line = f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}"
        return (*self._encode_text(f"{thought}\n{line}" if thought else line), self.end_of_turn)

    def hint(self, problem: str) -> str:
        return f'parse error: {problem}. Use: name {{"arg": value}}'

    def _encode_text(self, text: str) -> list[int]:
        """Ids of what the model writes behind the generation prompt."""
        text, lead = valid_text(text), self._before_action
        ids = self._encoder.encode(self._action, text)
        return ids[len(lead) :] if ids[: len(lead)] == lead else self._encoder.plain(text)

    def _read_end(self) -> int:
        first = self._encoder.encode(self._observation, "")[:1]
        if not first or first[0] not in self._tokenizer.all_special_ids:
            raise unfit(
                self._tokenizer,
                "its chat template does not end an assistant turn with a special token",
                "use an instruction-tuned model whose turns end with a token such as <|im_end|>",
            )
        return first[0]


def describe_tool(tool: Tool) -> str:
    """One line: `name(required: type, optional?: type) - description`. Text is the type where none is named.

    A schema of another shape than JSON Schema has is described as far as it goes.
    """
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    named = properties.items() if isinstance(properties, dict) else ()
    needed = required if isinstance(required, list) else ()
    arguments = ", ".join(
        _one_line(name) + ("" if name in needed else "?") + ("" if kind == "string" else f": {kind}")
        for name, kind in ((name, _describe_type(schema)) for name, schema in named)
    )
    call, description = f"{_one_line(tool.name)}({arguments})", _one_line(tool.description)
    return f"{call} - {description}" if description else call


def _describe_type(schema: Any) -> str:
    depth = 0
    while isinstance(schema, dict) and not schema.get("enum") and schema.get("type") == "array":
        schema, depth = schema.get("items", {}), depth + 1
    if depth > MAX_ARGUMENT_DEPTH or not isinstance(schema, dict):
        return "any" + "[]" * min(depth, MAX_ARGUMENT_DEPTH)
    kinds = schema.get("enum") or schema.get("type", "any")
    return _one_line("|".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds)) + "[]" * depth


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _read_call(line: str) -> ToolCall | str:
    """The call on a line, or what is wrong with it."""
    match = _CALL.fullmatch(line)
    if not match:
        return "no call on the last line"
    name, text = match.groups()
    if not text.startswith("{"):
        return f"no JSON object after {name[:64]}"
    try:
        arguments = json.loads(
            text,
            parse_int=_readable,
            parse_float=_finite,
            parse_constant=_refuse,
            object_pairs_hook=_without_duplicates,
        )
        json.dumps(arguments, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return f"arguments are not JSON: {error.msg} at character {error.pos}"
    except UnicodeEncodeError:
        return "arguments are not JSON: half of a surrogate pair"
    except RecursionError:
        return "arguments are nested too deeply"
    except ValueError as error:  # the refusals below
        return f"arguments are not JSON: {error}"
    if _depth(arguments) > MAX_ARGUMENT_DEPTH:
        return "arguments are nested too deeply"
    if name == FINISH and not _is_finish(arguments):
        return f'{FINISH} takes either "answer" or "give_up": true'
    return ToolCall(name=name, arguments=arguments)


def _is_finish(arguments: dict[str, Any]) -> bool:
    if set(arguments) == {"answer"}:
        return arguments["answer"] is not None
    return set(arguments) == {"give_up"} and arguments["give_up"] is True


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _readable(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is too large")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)[:32]!r} is given twice")
    return found


def _depth(value: Any) -> int:
    """Levels of objects and arrays, counted level by level so that the stack cannot overflow."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
