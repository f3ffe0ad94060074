"""Types of settings, with their ranges: what a plugin's `Config` and params.yaml are made of."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

MOST = 10_000_000
"""Most tasks, tokens or optimiser steps that a setting may ask for."""
LARGEST = 1e6
"""The largest weight or bound: more than is of any use, and far below where float32 overflows."""
OUTPUTS = ("data", "models", "metrics", "reports", ".steptool", ".dvc", ".git")
"""Folders that stages and tools write. A setting may name only what one of them makes there."""


class Settings(BaseModel):
    """A section of params.yaml. Unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Fraction = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Many = Annotated[int, Field(ge=1, le=10_000)]
"""Of things that are held in memory together, or of repetitions."""
Weight = Annotated[float, Field(ge=0, le=LARGEST)]
Bound = Annotated[float, Field(gt=0, le=LARGEST)]
Rate = Annotated[float, Field(gt=0, le=1)]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"holds a character that cannot be printed, got {text[:80]!r}")
    return text


def _without_outer_spaces(text: str) -> str:
    if text != text.strip():
        raise ValueError(f"begins or ends with a space, got {text[:80]!r}")
    return text


def _model_name(text: str) -> str:
    if not re.fullmatch(r"\w[\w .\-]*", text):
        raise ValueError(
            "a model's name begins with a letter, a digit or '_' and holds nothing but these, '.', '-' and spaces, "
            f"got {text[:80]!r}"
        )
    return text


Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
"""A path or an identifier."""
Name = Annotated[Text, Field(min_length=1, max_length=250), AfterValidator(_without_outer_spaces)]
"""A name that MLflow keeps; its databases hold 256 characters."""
ModelName = Annotated[Name, AfterValidator(_model_name)]
"""It stands in paths, in `models:/NAME@ALIAS` and in filters of MLflow, where `/`, `:`, `@`, `%` and quotes have a
meaning."""
Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""What a round, an arm, a method or a metric is called: it stands in names of stages, of folders, and in MLflow."""


def not_an_output(path: str) -> str:
    """Refuse what lies where stages write, by whatever path: through a link, or from the root of the disk."""
    place = os.path.relpath(os.path.realpath(path), os.path.realpath(os.curdir))
    if path and {PurePosixPath(name).parts[:1] for name in (place, os.path.normpath(path))} & {(n,) for n in OUTPUTS}:
        raise ValueError(
            f"{path[:80]!r} lies where stages write, and would be lost: keep it outside of {', '.join(OUTPUTS)}"
        )
    return path


Outside = Annotated[Text, AfterValidator(not_an_output)]
"""A path of something that the user keeps and a stage reads."""


def _read_duration(value: object) -> timedelta:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([smhd])", value, re.ASCII) if isinstance(value, str) else None
    try:
        if match:
            return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except (OverflowError, ValueError) as error:  # more seconds than there are, or not a number of them
        raise ValueError("is not a number of seconds that a clock counts") from error
    if isinstance(value, timedelta):
        return value
    raise ValueError(f"a duration is a number and its unit, such as 90s, 30m, 24h or 7d, got {repr(value)[:80]}")


def write_duration(value: timedelta) -> str:
    """`90s`, `30m` or `24h`: the largest of these units that gives a whole number."""
    seconds = value.total_seconds()
    unit = next((unit for unit in "hm" if seconds % _UNITS[unit] == 0), "s")
    return f"{seconds / _UNITS[unit]:.15g}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_read_duration), PlainSerializer(write_duration)]
"""`90s`, `30m`, `6h` or `1d`; a number is in seconds."""
