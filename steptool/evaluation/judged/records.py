"""One line of a file of judged runs, and one of the requests that they answer. Pure.

{"query_id": "588", "subset": "G1_instruction", "return_type": "give_answer", "final_answer": "…",
 "steps": [{"name": "search_for_x", "arguments": "{}", "response": "…"}, …, {"name": "Finish", …}],
 "judgements": ["Solved", "Unsure", "Solved"]}

ended                                          return_type            verdicts count
answered: `Finish` is among its steps          give_answer            1, ½, 0 as they say
gave up                                        give_up_and_restart    0, whatever they say
out of calls, or `Finish` could not be read    any other              0, whatever they say
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from steptool.core.types import FINISH
from steptool.evaluation.metrics import ALL, ROLL_UPS

Verdict = Literal["Solved", "Unsure", "Unsolved"]
WORTH: dict[Verdict, float] = {"Solved": 1.0, "Unsure": 0.5, "Unsolved": 0.0}
ANSWERED, GAVE_UP = "give_answer", "give_up_and_restart"
"""The `return_type` of an attempt that gave an answer by `Finish`, and of one that gave up by it."""

Id = Annotated[str, Field(min_length=1, max_length=200)]


def _written(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


Written = Annotated[str, BeforeValidator(_written)]
"""A text; JSON of what is none, and empty for null. Only judges read it, so no value makes a line unusable."""


class _Line(BaseModel):
    """What others wrote may hold more than is read here."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Call(_Line):
    name: str
    """As the model wrote it, which may be anything."""
    resolved: str | None = None
    """The function's whole name, where the model wrote only its tail and the environment took it."""
    arguments: Written = ""
    """JSON, as the model wrote it."""
    response: Any = ""
    error: Written = ""
    """Empty or `none` where the call worked."""

    @property
    def function(self) -> str:
        return self.resolved or self.name


class JudgedRun(_Line):
    """One attempt at one request, with the verdicts on it."""

    query_id: Id
    subset: Id
    steps: list[Call] = Field(max_length=10_000)
    """Its calls, `Finish` included."""
    return_type: str | None
    final_answer: Written = ""
    judgements: list[Verdict] = Field(max_length=1_000)
    """One a pass of the judge. An attempt without an answer needs none: it is unsolved."""
    solved: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """The verdicts' mean as the file has it. It is computed anew; where it differs, that is said."""

    @model_validator(mode="after")
    def _is_judged(self) -> Self:
        if self.finished and not self.judgements:
            raise ValueError("gave an answer, and has no judgements")
        if self.subset in (ALL, *ROLL_UPS):
            raise ValueError(f"its subset is called {self.subset}, as a mean over several subsets is")
        return self

    @property
    def finished(self) -> bool:
        """It gave an answer: `Finish` was called, and not to give up."""
        return self.return_type == ANSWERED and any(step.name == FINISH for step in self.steps)

    @property
    def calls(self) -> int:
        return len(self.steps)

    def values(self, passes: int) -> tuple[float, ...]:
        """What each of `passes` verdicts is worth; 0 without an answer."""
        return tuple(WORTH[each] for each in self.judgements) if self.finished else (0.0,) * passes


class RelevantApi(_Line):
    name: str


class Request(_Line):
    """One line of queries.jsonl: which functions a request needs."""

    query_id: Id
    relevant_apis: list[RelevantApi] = Field(max_length=1_000)

    @property
    def relevant(self) -> frozenset[str]:
        return frozenset(each.name for each in self.relevant_apis)


@dataclass(frozen=True)
class RunFile:
    """The attempts of one policy."""

    name: str
    """Of the file, without its endings."""
    runs: dict[str, JudgedRun]
    """By the request's id, in the file's order."""
    passes: int
    """Verdicts of each attempt that has an answer."""

    @property
    def method(self) -> str:
        """`toolllama_sft` of `toolllama_sft_cot`."""
        return self.name.rpartition("_")[0] or self.name

    @property
    def search(self) -> str:
        """`cot` of it; empty where the name has one part."""
        head, _, tail = self.name.rpartition("_")
        return tail if head else ""


def subset_of(files: Sequence[RunFile]) -> dict[str, str]:
    """Request → subset, of every request that any of the files has: the fixed list that all are measured on."""
    return {id: run.subset for file in files for id, run in file.runs.items()}
