"""Reads what a judge answered, strictly: one that cannot be used raises Unusable, which says why in a few words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steptool.core.storage import parse_json
from steptool.core.types import Frozen

VERDICTS = {"solved": 1.0, "unsure": 0.5, "unsolved": 0.0}
MOST_CONTRIBUTION, MOST_SCORE = 5, 10
MOST_REASON = 300
"""Characters of a reason that are kept."""
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)


class Unusable(Exception):
    """An answer without what was asked for."""


class StepVote(Frozen):
    success: float
    contribution: float
    reason: str


class Vote(Frozen):
    """What the judge says of one attempt, once; scores in [0, 1]."""

    steps: dict[int, StepVote]
    """By the number of the step."""
    verdict: float | None
    """None where there is no answer to judge."""
    reason: str = ""


class _Said(BaseModel):
    model_config = ConfigDict(strict=True)


class _Step(_Said):
    step: int
    reason: str = ""
    success: Annotated[int, Field(ge=0, le=1)]
    contribution: Annotated[int, Field(ge=0, le=MOST_CONTRIBUTION)]


class _Verdict(_Said):
    reason: str = ""
    verdict: Literal["solved", "unsure", "unsolved"]


class _Judged(_Said):
    steps: list[_Step]
    answer: _Verdict | None = None


class _Score(_Said):
    attempt: int
    reason: str = ""
    score: Annotated[int, Field(ge=0, le=MOST_SCORE)]


class _Ranked(_Said):
    attempts: list[_Score]


class _Preferred(_Said):
    reason: str = ""
    better: Literal["first", "second", "tie"]


Said = TypeVar("Said", bound=BaseModel)


def read_vote(text: str, steps: Sequence[int], has_answer: bool) -> Vote:
    """`steps`: those that were to be scored, in their order. Raises Unusable."""
    said = _read(text, _Judged)
    if sorted(each.step for each in said.steps) != list(steps):
        found, wanted = (", ".join(map(str, own[:20])) or "none" for own in ([each.step for each in said.steps], steps))
        raise Unusable(f"it scores the steps {found}, and asked for were {wanted}")
    if has_answer and said.answer is None:
        raise Unusable("it has no verdict on the answer")
    return Vote(
        steps={
            each.step: StepVote(
                success=float(each.success),
                contribution=each.contribution / MOST_CONTRIBUTION,
                reason=each.reason[:MOST_REASON],
            )
            for each in said.steps
        },
        verdict=VERDICTS[said.answer.verdict] if has_answer and said.answer else None,
        reason=said.answer.reason[:MOST_REASON] if has_answer and said.answer else "",
    )


def read_ranks(text: str, attempts: int) -> list[float]:
    """A score in [0, 1] of each, in the order in which they were shown. Raises Unusable."""
    said = sorted(_read(text, _Ranked).attempts, key=lambda one: one.attempt)
    if [each.attempt for each in said] != list(range(1, attempts + 1)):
        raise Unusable(f"it scores {len(said)} attempts, and {attempts} were asked for, from 1")
    return [each.score / MOST_SCORE for each in said]


def read_preference(text: str) -> int:
    """1 for the first, -1 for the second, 0 for a tie. Raises Unusable."""
    return {"first": 1, "second": -1, "tie": 0}[_read(text, _Preferred).better]


def _read(text: str, kind: type[Said]) -> Said:
    fenced = _FENCED.fullmatch(text)
    try:
        return kind.model_validate(parse_json(fenced[1] if fenced else text))
    except ValidationError as error:  # before ValueError, which it is
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:80]
        raise Unusable(f"{place}: {first['msg'][:120]}") from error
    except ValueError as error:
        raise Unusable(f"it is no JSON: {str(error)[:80]}") from error
