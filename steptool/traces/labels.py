"""What a record says beside its messages: whether the attempt was right, its group, the answer that is expected.

    {"messages": […], "solved": true}                     label 1
    {"messages": […], "metadata": {"score": 0.5}}         label 0.5
    {"messages": […], "feedback": "thumbs_down"}          label 0
    {"messages": […], "expected": "9.5"}                  what a check of the task expects

Other fields are named by settings: `--set label=evaluation.correct`, a path of names with dots between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from steptool.core.fields import Settings, Text
from steptool.core.types import AnswerCheck

_LABELS = ("solved", "correct", "is_correct", "success", "score", "feedback")
_EXPECTED = ("expected", "expected_answer", "expected_response", "reference_answer")
_GROUPS = ("group",)
_BESIDE = ("metadata", "extra")
"""Objects of a record in which these stand, too."""
_GOOD = {"true", "yes", "correct", "pass", "passed", "up", "thumbs_up", "thumbs up", "positive", "good", "like", "👍"}
_BAD = {
    *("false", "no", "incorrect", "wrong", "fail", "failed", "down", "thumbs_down", "thumbs down", "negative"),
    *("bad", "dislike", "👎"),
}


class RecordSettings(Settings):
    """Settings of the readers of files."""

    label: Text = ""
    """Path to what says whether the attempt was right: true or false, a number from 0 to 1, or a word for one."""
    group: Text = ""
    """Path to a tag that tables shall be split by."""
    expected: Text = ""
    """Path to the answer that is expected: a text, a number, or a list of texts."""


class Labels(NamedTuple):
    solved: float | None = None
    evidence: str = ""
    group: str = ""
    check: AnswerCheck | None = None


def labels_of(record: Mapping[str, Any], settings: RecordSettings) -> Labels:
    """What cannot be read as such is no label."""
    place, value = _found(record, settings.label, _LABELS, lambda value: solved_of(value) is not None)
    group = _found(record, settings.group, _GROUPS, lambda value: isinstance(value, str))[1]
    expected = _found(record, settings.expected, _EXPECTED, lambda value: check_of(value) is not None)[1]
    solved = solved_of(value)
    return Labels(
        solved=solved,
        evidence="" if solved is None else f"label {place} of the source",
        group=str(group) if isinstance(group, str | int) else "",
        check=check_of(expected),
    )


def solved_of(value: Any) -> float | None:
    """From 0 to 1, None for what does not say."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value) if 0 <= value <= 1 else None
    if isinstance(value, str):
        word = value.strip().casefold()
        return 1.0 if word in _GOOD else 0.0 if word in _BAD else None
    return None


def check_of(value: Any) -> AnswerCheck | None:
    """Of an answer that is expected; prose may say it. None where it is none that can be checked."""
    if value is None or isinstance(value, bool):
        return None
    kind = "number" if isinstance(value, int | float) else "set" if isinstance(value, list) else "text"
    try:
        return AnswerCheck.model_validate({"kind": kind, "expected": value, "strict": False})
    except ValidationError:
        return None


def at(value: Any, path: str) -> Any:
    """What stands at `a.b.c` of nested objects, None where nothing does."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _found(record: Mapping[str, Any], path: str, usual: tuple[str, ...], fits: Any) -> tuple[str, Any]:
    """Name and value: at the path, where one is set, else at the first usual name whose value fits."""
    if path:
        return path, at(record, path)
    names = [*usual, *(f"{beside}.{name}" for beside in _BESIDE for name in usual)]
    return next(((name, value) for name in names if fits(value := at(record, name))), ("", None))
