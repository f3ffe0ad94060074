"""What vLLM's server makes of text in StepTool's own formats. It needs vLLM alone: an exported model is served without
StepTool, too.

    vllm serve FOLDER --enable-auto-tool-choice --tool-parser-plugin FOLDER/tool_parser.py --tool-call-parser json_call

`json_call` reads this, `react` the same in ToolBench's words:

    the model writes                              the client gets
    I look it up.\\nfind {"name": "tea"}           content "I look it up.", a call of find, finish_reason tool_calls
    Finish {"answer": "7"}                        content "7", finish_reason stop
    Finish {"give_up": true}                      content GAVE_UP
    anything else                                 itself as content

The reading is that of `steptool.formats`, refusals included; a test compares the two. Only the end of a text tells
whether its last line is a call, so a client that streams gets it whole.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.renderers.chat_utils import make_tool_call_id
from vllm.tool_parsers.abstract_tool_parser import ToolParser, ToolParserManager

FINISH = "Finish"
GAVE_UP = "I cannot answer this."
MAX_DEPTH, MAX_DIGITS, MAX_NAME = 16, 1000, 200
FIRST, CARRIED = string.ascii_letters + "_", string.ascii_letters + "_" + string.digits + ".-"
"""What a name begins with, and what it consists of."""

_CALL = re.compile(r"([A-Za-z_][\w.\-]*)[ \t]*(.*)", re.ASCII)
_ACTION = re.compile(r"^Action:", re.MULTILINE)
_ACTION_INPUT = re.compile(r"Action:[ \t]*([A-Za-z_][\w.\-]*)[ \t]*\r?\nAction Input:\s*(.*)", re.ASCII | re.DOTALL)


class Call(NamedTuple):
    thought: str
    name: str
    arguments: dict[str, Any]
    text: str
    """The arguments as the model wrote them."""


def read(text: str) -> Call | None:
    """The call on the last line of a text; None where there is none that can be read."""
    thought, _, line = text.strip().rpartition("\n")
    match = _CALL.fullmatch(line.strip())
    if not match:
        return None
    name, written = match.groups()
    arguments = read_arguments(written)
    if arguments is None or (name == FINISH and not ends_attempt(arguments)):
        return None
    return Call(thought.strip(), name, arguments, written)


def read_react(text: str) -> Call | None:
    """The call behind `Action:` and `Action Input:`, the arguments of `Finish` as they are elsewhere; None without."""
    text = text.strip()
    start = _ACTION.search(text)
    match = start and _ACTION_INPUT.fullmatch(text[start.start() :])
    arguments = match and read_arguments(match[2])
    if start is None or match is None or arguments is None:
        return None
    if match[1] == FINISH and (arguments := react_ending(arguments)) is None:
        return None
    return Call(text[: start.start()].strip().removeprefix("Thought:").strip(), match[1], arguments, match[2])


def react_ending(arguments: dict[str, Any]) -> dict[str, Any] | None:
    kind, answer = arguments.get("return_type"), arguments.get("final_answer")
    if kind == "give_answer" and answer is not None and set(arguments) == {"return_type", "final_answer"}:
        return {"answer": answer}
    gives_up = kind == "give_up_and_restart" and set(arguments) <= {"return_type", "final_answer"}
    return {"give_up": True} if gives_up else None


def read_arguments(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; None for anything that a world would not be given."""
    if not text.startswith("{"):
        return None
    try:
        arguments: dict[str, Any] = json.loads(
            text,
            parse_int=_readable,
            parse_float=_finite,
            parse_constant=_refuse,
            object_pairs_hook=_without_duplicates,
        )
        json.dumps(arguments, ensure_ascii=False).encode()  # refuses half of a surrogate pair
    except (ValueError, RecursionError):
        return None
    return arguments if _depth(arguments) <= MAX_DEPTH else None


def ends_attempt(arguments: dict[str, Any]) -> bool:
    if set(arguments) == {"answer"}:
        return arguments["answer"] is not None
    return set(arguments) == {"give_up"} and arguments["give_up"] is True


def answer_of(arguments: dict[str, Any]) -> str:
    """What `Finish` says to the user."""
    answer = arguments.get("answer", GAVE_UP)
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def written_names(names: Sequence[str]) -> list[str]:
    """How the model reads and writes the names of the tools: those that the format cannot carry are spelled otherwise.
    The chat template spells them in the same way."""
    taken = {FINISH, *filter(_carried, names)}
    written = []
    for name in names:
        spelled = name if _carried(name) else _free(name, taken)
        taken.add(spelled)
        written.append(spelled)
    return written


def _carried(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name[0] in FIRST and set(name) <= set(CARRIED) and name != FINISH


def _free(name: str, taken: set[str]) -> str:
    base = "".join(char if char in CARRIED else "_" for char in name)
    base = (base if base[:1] and base[0] in FIRST else "_" + base)[:MAX_NAME]
    free, number = base, 2
    while free in taken:
        end = f"_{number}"
        free, number = base[: MAX_NAME - len(end)] + end, number + 1
    return free


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _readable(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text[:32])
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


class JsonCallParser(ToolParser):
    """`json_call`: one call on the last line, as a name and a JSON object."""

    read = staticmethod(read)

    supports_required_and_named = False
    """Else vLLM would make the model write a JSON list of calls, which it has never seen."""
    engine_based_streaming = True
    """Else vLLM would show `Finish {…}` as it is written, and end a stream without asking for what is held back."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._held = ""
        self._request: Any = None

    def adjust_request(self, request: Any) -> Any:
        """A control token inside of an action makes it unreadable, here as in training: it must be in the text."""
        request.skip_special_tokens = False
        return request

    def extract_tool_calls(self, model_output: str, request: Any) -> ExtractedToolCallInformation:
        call = self.read(model_output)
        if call is not None and call.name == FINISH:
            return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=answer_of(call.arguments))
        if call is None or not request.tools or request.tool_choice == "none":
            return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)
        offered = [tool.function.name for tool in request.tools]
        meant = dict(zip(written_names(offered), offered, strict=True))
        made = FunctionCall(name=meant.get(call.name, call.name), arguments=call.text)
        return ExtractedToolCallInformation(
            tools_called=True, tool_calls=[ToolCall(function=made)], content=call.thought or None
        )

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: Any,
    ) -> DeltaMessage | None:
        self._held += delta_text
        self._request = request
        return None

    def finish_streaming(self) -> DeltaMessage | None:
        """All that was held back. vLLM asks for it at the end of a stream."""
        if self._request is None:
            return None
        found = self.extract_tool_calls(self._held, self._request)
        calls = [
            DeltaToolCall(
                index=index,
                id=make_tool_call_id(),
                type="function",
                function=DeltaFunctionCall(name=call.function.name, arguments=call.function.arguments),
            )
            for index, call in enumerate(found.tool_calls)
        ]
        return DeltaMessage(content=found.content, tool_calls=calls)


class ReactParser(JsonCallParser):
    """`react`: a call as ToolBench's Action and Action Input."""

    read = staticmethod(read_react)


ToolParserManager.register_module("json_call", module=JsonCallParser)
ToolParserManager.register_module("react", module=ReactParser)
