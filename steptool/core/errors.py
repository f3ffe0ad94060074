"""Every error that a user can meet, each with what was found, where, and what to type next.

    StepToolError            exit 1   something went wrong
    ├── InputError           exit 2   the user's input is wrong; nothing was written
    │   ├── ParamsError               params.yaml or a profile (also a ValueError)
    │   ├── DataError                 a data file: missing, truncated, breaks an invariant (also a ValueError)
    │   ├── ModelError                a model folder or hub id cannot be used
    │   └── NotComparable             two evaluations that must not be compared
    ├── ValidationFailed     exit 3   the data is well-formed but must not be trained on
    ├── WorldError           exit 1   a world (tool environment) broke; a trajectory ends as `world_error`
    ├── TrackingError        exit 1   MLflow cannot be reached or refuses
    └── StorageError         exit 1   an output could not be written: disk full, no permission (also an OSError)

A bad rollout is not in this list: it is a trajectory with a stop reason.
To add an error: subclass the nearest one, give it an exit code only if scripts must tell it apart.
"""

from __future__ import annotations

from collections.abc import Callable


def printable(text: str) -> str:
    """`text` with its control characters as escapes: what a file holds must not move a terminal's cursor."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class StepToolError(Exception):
    """Base of all errors raised on purpose. `fix` is the next thing to type or change."""

    exit_code = 1

    def __init__(self, found: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.found, self.where, self.fix = printable(found), where and printable(where), fix
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.where}: {self.found}" if self.where else self.found
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class InputError(StepToolError):
    exit_code = 2


class ParamsError(InputError, ValueError):
    """A bad value or an unknown key in params.yaml; all problems of a file come in one error."""


class DataError(InputError, ValueError):
    """A data file is missing, truncated, of another schema version, or breaks an invariant."""


class ModelError(InputError):
    """A model folder lacks a part (weights, tokenizer, value head) or does not fit its adapter."""


class NotComparable(InputError):
    """Two evaluations differ in conditions, annotator or tasks, so their difference means nothing."""


class ValidationFailed(StepToolError):
    exit_code = 3


class WorldError(StepToolError):
    """The world itself failed, as opposed to a tool that answers with an error."""


class TrackingError(StepToolError):
    """The tracking server cannot be reached or refuses; what the stage wrote is kept."""


class StorageError(StepToolError, OSError):
    """An output could not be written whole; the previous one is still in place."""


LONGEST_REASON, LONGEST_FAULT = 300, 1000
"""Characters that `reason` and `describe` keep of a message."""


def reason(error: BaseException) -> str:
    """What an exception of a library says, as part of a sentence; its kind where it says nothing."""
    return in_short(str(error)) or type(error).__name__


def in_short(text: str) -> str:
    """One line of it, cut."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."


def describe(fault: BaseException, hide: Callable[[str], str] = str) -> str:
    """Kind and message of an exception of other people's code, such as a world's: one line of printable text.

    Never raises, whatever the exception does when it is asked for its message. `hide` takes secrets out of it.
    """
    try:
        message = hide(str(fault))
    except KeyboardInterrupt:
        raise
    except BaseException as another:  # noqa: BLE001 - whatever its `__str__` does
        message = f"(its message raises {type(another).__name__})"
    cut = message if len(message) <= LONGEST_FAULT else message[:LONGEST_FAULT] + "..."
    valid = "".join((type(fault).__name__, ": ", cut)).encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else " " for character in valid)
