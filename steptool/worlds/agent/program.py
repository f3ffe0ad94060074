"""What an agent is started as, and which files it consists of."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from steptool.core.errors import InputError
from steptool.core.storage import file_hash
from steptool.core.types import content_hash

QUERY = "{query}"
"""In a command: the place of the query, which is then one argument, whatever it holds."""
_MODULE = re.compile(r"(\w+)\.py")


def callable_name(text: str) -> str:
    """Raises ValueError for what is no `module:function`."""
    module, _, function = text.partition(":")
    if text and not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"write MODULE:FUNCTION, such as my_agent:run, got {text[:80]!r}")
    return text


def command_words(text: str) -> list[str]:
    """The words of a command as a shell reads them; nothing is expanded. Raises ValueError where a quote is open."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be read as a command: {error}") from error


def _module(name: str) -> str:
    """The module that `python -m` runs by this name; empty where that is none of the project's."""
    place = Path(*name.split("."))
    if place.with_suffix(".py").is_file():
        return name
    return f"{name}.__main__" if Path(place, "__main__.py").is_file() else ""


@dataclass(frozen=True)
class Program:
    """Either `command` or `callable` is given."""

    command: str = ""
    callable: str = ""
    answer: Literal["message", "output"] = "message"

    def __str__(self) -> str:
        return self.command or self.callable

    def argv(self, query: str) -> list[str]:
        """The command with the query in its place."""
        return [word.replace(QUERY, query) for word in command_words(self.command)]

    @property
    def reads_query(self) -> bool:
        """Whether the query comes on standard input."""
        return QUERY not in self.command

    @property
    def modules(self) -> list[str]:
        """The modules of the project that it begins with: they count with all that they import."""
        if self.callable:
            return [self.callable.partition(":")[0]]
        named = [name for option, name in pairwise(command_words(self.command)) if option == "-m"]
        scripts = [found[1] for word in self._files() if (found := _MODULE.fullmatch(word))]
        return [*filter(None, map(_module, named)), *scripts]

    def content(self, more: Sequence[str]) -> str:
        """Hash of the files that the command names, beside `modules`, and of those that match the patterns `more`.

        Raises InputError for a pattern that no file matches.
        """
        files = {Path(word) for word in self._files() if not _MODULE.fullmatch(word)}
        for pattern in more:
            found = [path for path in Path().glob(pattern) if path.is_file()]
            if not found:
                raise InputError(f"no file matches {pattern!r}", where="world.files", fix="mend it in params.yaml")
            files.update(found)
        return content_hash([[str(path), file_hash(path)] for path in sorted(files)])

    def _files(self) -> Iterator[str]:
        return (word for word in command_words(self.command) if Path(word).is_file())
