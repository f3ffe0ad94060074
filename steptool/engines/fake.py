"""Engines without a model: they say what they are told to. For tests, and for a project that tries its world out.

engine: {use: "steptool.engines.fake:RulesEngine", rules: says.jsonl}

{"when": "<|im_start|>tool", "say": "Finish {\\"answer\\": \\"shipped\\"}"}      the first line whose text
{"when": "", "say": "find_order {\\"id\\": \\"a-1\\"}"}                          the prompt holds
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from steptool.core.errors import DataError
from steptool.core.fields import Outside, Settings
from steptool.core.storage import file_hash, parse_record, parse_text, read_lines
from steptool.core.types import Frozen
from steptool.engines.base import Generation, Request

LOGPROB = -0.5
"""Log-probability that they claim for every token."""


class ScriptedEngine:
    """Gives the actions of a script in turn, whoever asks; each is token ids, a Generation or an exception to raise.

    An action longer than `max_tokens` is cut there, as an engine does. Asked for more than the script holds, it raises
    IndexError. `asked` keeps the requests.
    """

    def __init__(self, script: Iterable[Sequence[int] | Generation | Exception]) -> None:
        self.script = list(script)
        self.asked: list[Request] = []

    async def generate(self, request: Request) -> Generation:
        await asyncio.sleep(0)  # others get their turn, as they do while an engine works
        turn = len(self.asked)
        self.asked.append(request)
        if turn >= len(self.script):
            raise IndexError(f"the script holds {len(self.script)} actions and was asked for one more")
        action = self.script[turn]
        if isinstance(action, Exception):
            raise action
        return action if isinstance(action, Generation) else spoken(action, request)

    def load(self, policy: Path) -> None:
        """Another policy says the same."""

    def close(self) -> None:
        """There is nothing to free."""


class AnsweringEngine:
    """Gives the action that `act` chooses for a prompt: for many rollouts at once."""

    def __init__(self, act: Callable[[tuple[int, ...]], Sequence[int]]) -> None:
        self.act = act

    async def generate(self, request: Request) -> Generation:
        await asyncio.sleep(0)
        return spoken(self.act(tuple(request.prompt_ids)), request)

    def load(self, policy: Path) -> None:
        """Another policy says the same."""

    def close(self) -> None:
        """There is nothing to free."""


class Rule(Frozen):
    when: str
    """A part of the prompt, as text with its control tokens."""
    say: str
    """The action, without the token that ends it."""


class RulesEngine:
    """Says what the first rule says whose `when` stands in the prompt. The rules are a file of JSON lines.

    Raises DataError for a file that cannot be read; a prompt that no rule fits is a LookupError.
    """

    class Config(Settings):
        rules: Outside

    def __init__(self, config: Config, policy: Path, **_: Any) -> None:
        self._rules = read_rules(Path(config.rules))
        self.load(policy)

    @staticmethod
    def content(config: Config) -> str:
        return file_hash(Path(config.rules))

    async def generate(self, request: Request) -> Generation:
        await asyncio.sleep(0)
        prompt = self._tokenizer.decode(list(request.prompt_ids), skip_special_tokens=False)
        says = next((rule.say for rule in self._rules if rule.when in prompt), None)
        if says is None:
            raise LookupError("no rule fits the prompt")
        ids = self._tokenizer.encode(says, add_special_tokens=False).ids
        return spoken([*ids, request.stop_ids[0]], request)

    def load(self, policy: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(policy / "tokenizer.json"))

    def close(self) -> None:
        """There is nothing to free."""


def read_rules(path: Path) -> list[Rule]:
    fix = 'give it lines such as {"when": "", "say": "ping {}"}'
    lines = enumerate(read_lines(path, missing=fix, broken=fix), start=1)
    rules = [
        parse_record(parse_text(line, str(path), line=number, fix=fix), Rule, where=f"{path}:{number}", fix=fix)
        for number, line in lines
        if line.strip()
    ]
    if not rules:
        raise DataError("holds no rule", where=str(path), fix=fix)
    return rules


def spoken(ids: Sequence[int], request: Request) -> Generation:
    """`ids` as an engine would have sampled them: cut at `max_tokens`, stopped where the last is a stop token."""
    kept = tuple(ids[: request.max_tokens])
    return Generation(kept, (LOGPROB,) * len(kept), stopped=bool(kept) and kept[-1] in request.stop_ids)
