"""Names of tools that a format cannot write, mapped to names that it can, and back.

    a task offers                  "get user"    "get_user"    "größe/cm"    "3d"
    the model reads and writes     get_user_2    get_user      gr__e_cm      _3d

Within a task each tool has a name of its own, the same each time: one that can be written stays as it is, any other
letter becomes `_`, and a name that is taken gets a number. Actions hold the world's names always.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from steptool.core.types import FINISH, Action, Tool, ToolCall

LETTERS, DIGITS, SIGNS = string.ascii_letters + "_", string.digits, ".-"
MOST_CHARACTERS = 200
"""Of a name that a text format writes. A world's own names are no longer."""


@dataclass(frozen=True)
class Spelling:
    """Which names a format can write."""

    first: str = LETTERS
    """What a name may begin with."""
    carried: str = LETTERS + DIGITS + SIGNS
    """What it may consist of."""
    most: int = MOST_CHARACTERS
    """Its characters, at most."""
    taken: tuple[str, ...] = (FINISH,)
    """Names that mean something else."""

    def carries(self, name: str) -> bool:
        return (
            0 < len(name) <= self.most
            and name[0] in self.first
            and set(name) <= set(self.carried)
            and name not in self.taken
        )

    def written(self, names: Sequence[str]) -> list[str]:
        """How each of `names` is written: all different, none of them `taken`."""
        taken = {*self.taken, *filter(self.carries, names)}
        written = []
        for name in names:
            spelled = name if self.carries(name) else self._free(name, taken)
            taken.add(spelled)
            written.append(spelled)
        return written

    def _free(self, name: str, taken: set[str]) -> str:
        base = "".join(char if char in self.carried else "_" for char in name)
        base = (base if base[:1] and base[0] in self.first else "_" + base)[: self.most]
        free, number = base, 2
        while free in taken:
            end = f"_{number}"
            free, number = base[: self.most - len(end)] + end, number + 1
        return free


TEXT = Spelling()
"""Formats in which a name is followed by its arguments in plain text."""
OPENAI = Spelling(first=LETTERS + DIGITS + "-", carried=LETTERS + DIGITS + "-", most=64, taken=())
"""What OpenAI's API and the chat templates of model families take: ^[a-zA-Z0-9_-]{1,64}$."""


@dataclass(frozen=True)
class Names:
    """The tools of a task by both of their names."""

    written: dict[str, str]
    """World's name → the format's."""
    meant: dict[str, str] = field(default_factory=dict)
    """The format's → the world's."""

    @classmethod
    def of(cls, tools: Sequence[Tool], spelling: Spelling) -> Names:
        names = [tool.name for tool in tools]
        written = spelling.written(names)
        return cls(dict(zip(names, written, strict=True)), dict(zip(written, names, strict=True)))

    def read(self, action: Action) -> Action:
        """An action as the model wrote it, with the world's names. A name of no tool stays, for the world to refuse."""
        return _renamed(action, self.meant)

    def write(self, action: Action) -> Action:
        """An action with the names that the model reads and writes."""
        return _renamed(action, self.written)


def _renamed(action: Action, names: dict[str, str]) -> Action:
    if all(names.get(call.name, call.name) == call.name for call in action.calls):
        return action
    calls = tuple(ToolCall(name=names.get(call.name, call.name), arguments=call.arguments) for call in action.calls)
    return action.model_copy(update={"calls": calls})
