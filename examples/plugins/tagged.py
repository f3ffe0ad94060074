"""Another way to write calls: `<call toggle>{"room": "hall"}</call>`. Prompts and turns are those of json_call.

format: {use: 'tagged:Tagged'}
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from steptool.core.types import TOOL_NAME, Action, Observation, Task
from steptool.formats.json_call import JsonCall
from steptool.formats.names import TEXT, Names

CALL = re.compile(rf"<call ({TOOL_NAME})>(.*)</call>", re.ASCII | re.DOTALL)


class Tagged:
    name: ClassVar[str] = "tagged"
    Config = JsonCall.Config

    def __init__(self, config: JsonCall.Config, tokenizer: Any) -> None:
        self.config = config
        self._plain = JsonCall(config, tokenizer)
        self._tokenizer = tokenizer
        self.stop_ids = self._plain.stop_ids
        self.max_observation = self._plain.max_observation

    def prompt(self, task: Task) -> tuple[int, ...]:
        return self._plain.prompt(task)

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...] | None:
        return self._plain.reply(action_ids, observations, message)

    def parse(self, ids: Sequence[int], task: Task) -> Action:
        inner = [token for token in ids if token not in self.stop_ids]
        found = CALL.search(self._tokenizer.decode(inner, skip_special_tokens=False))
        if not found:
            return Action(unreadable="no <call …>…</call>")
        return self._plain.parse(self._encode(f"{found[1]} {found[2]}"), task)

    def render(self, action: Action, task: Task) -> tuple[int, ...]:
        call = Names.of(task.tools, TEXT).write(action).calls[0]
        written = f"<call {call.name}>{json.dumps(call.arguments, ensure_ascii=False)}</call>"
        return (*self._encode(written), self._plain.end_of_turn)

    def hint(self, problem: str) -> str:
        return f'{problem}. Use: <call name>{{"arg": value}}</call>'

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids
