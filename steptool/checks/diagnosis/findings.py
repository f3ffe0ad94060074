"""What a diagnosis consists of: findings, each with its numbers and what to do about it, and the counts behind them.

A finding says what is wrong with a round, or in one quiet line that nothing is. docs/diagnosis.md explains each.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from steptool.core.types import Frozen


class Severity(StrEnum):
    fault = "fault"
    """To train on this round would be a waste, or teach the wrong thing."""
    warning = "warning"
    """It costs a part of what the round could teach."""
    fine = "fine"


class Name(StrEnum):
    """What is looked at. Of findings that are equally severe the first is the cause: what comes later often follows
    from it."""

    weights = "weights"
    broken = "broken"
    timeouts = "timeouts"
    budget = "budget"
    rewritten = "rewritten"
    no_calls = "no_calls"
    malformed = "malformed"
    tool_errors = "tool_errors"
    endings = "endings"
    length = "length"
    contrast = "contrast"
    advantage = "advantage"
    engine = "engine"
    calls = "calls"
    verdicts = "verdicts"
    shortened = "shortened"


TITLES: Mapping[Name, tuple[str, str]] = {
    Name.weights: ("weights", "weights never arrived"),
    Name.broken: ("faults", "faults of the engine or the world"),
    Name.timeouts: ("timeouts", "a tool hangs"),
    Name.budget: ("budgets", "truncated by a budget"),
    Name.rewritten: ("histories", "rewritten histories"),
    Name.no_calls: ("use of tools", "answers without any call"),
    Name.malformed: ("form of calls", "malformed calls"),
    Name.tool_errors: ("tool errors", "a tool keeps failing"),
    Name.endings: ("endings", "attempts give up"),
    Name.length: ("length", "reward only from length"),
    Name.contrast: ("contrast", "no contrast within tasks"),
    Name.advantage: ("advantage", "hardly any advantage"),
    Name.engine: ("engine", "engine and policy differ"),
    Name.calls: ("calls a task", "calls a task leapt"),
    Name.verdicts: ("verdicts", "nothing has a verdict"),
    Name.shortened: ("prompts", "shortened in prompts"),
}
"""What is looked at, and what is said where it is not fine."""


class Diagnosed(Frozen):
    """One finding about a round."""

    name: Name
    severity: Severity
    says: str
    """What was found, with its numbers, in one line."""
    what_to_do: str = ""
    """In one line that names the setting to change; empty where all is fine."""
    numbers: dict[str, float] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        return TITLES[self.name][self.severity is not Severity.fine]


class ToolCounts(Frozen):
    """The calls of one tool in a round."""

    tool: str
    calls: int
    timeouts: int = 0
    not_offered: int = 0
    """Calls in attempts at tasks that do not offer it."""
    bad_arguments: int = 0
    """Calls with arguments that break its schema."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Other failures by their kind, the most frequent first."""

    @property
    def failed(self) -> int:
        """Calls that the tool itself answered with an error."""
        return sum(self.errors.values())

    @property
    def malformed(self) -> int:
        return self.not_offered + self.bad_arguments


class RoundCounts(Frozen):
    """A round in numbers that can be held against those of the round before."""

    policy: str
    """That it was sampled from."""
    attempts: int
    endings: dict[str, int]
    """Stop reason → attempts."""
    solved: float | None
    """Mean of the verdicts, in [0, 1]; None without any."""
    without_verdict: int
    calls: float
    """Tool calls an attempt, `Finish` not counted."""
    tokens: float
    """Sampled tokens an attempt."""
    without_call: int
    """Attempts that answered or gave up and had called no tool."""
    cut_actions: int
    """Actions that ran into max_step_tokens and could not be read."""
    attempts_cut: int
    """Attempts that ran out of calls or tokens, or hold such an action."""

    def share(self, *endings: str) -> float:
        """Of the attempts: those that ended in one of these ways, in [0, 1]."""
        return sum(self.endings.get(ending, 0) for ending in endings) / max(self.attempts, 1)


class TaskCounts(Frozen):
    """The tasks of a round by what their attempts came to."""

    tasks: int
    all_solved: int
    none_solved: int
    some_solved: int
    unknown: int
    """Without any verdict."""
    compared: int
    """With two attempts or more."""
    alike: int
    """Of these: those whose attempts have the same return, so that none is better than another."""


class Diagnosis(Frozen):
    """Findings, the worst first, and the counts that the page draws."""

    findings: tuple[Diagnosed, ...]
    counts: RoundCounts
    previous: RoundCounts | None
    tasks: TaskCounts
    tools: tuple[ToolCounts, ...]
    """The tool with most failures first."""
    shortened: dict[str, int]
    """What was shortened in prompts, a line each, and in how many of them."""

    def of(self, name: Name) -> Diagnosed:
        return next(finding for finding in self.findings if finding.name is name)

    @property
    def wrong(self) -> tuple[Diagnosed, ...]:
        """What is not fine, the worst first."""
        return tuple(finding for finding in self.findings if finding.severity is not Severity.fine)

    @property
    def quiet(self) -> tuple[Diagnosed, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.fine)
