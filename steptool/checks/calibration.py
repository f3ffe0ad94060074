"""What are the step rewards of these data worth? Measured before anything is trained on them.

    every score of a step   how it goes with the outcome within a task, by group, and what weight that gives it
    the project's setting   how well its advantages foretell the outcomes of other attempts, in attempts

The worth. The bare outcome foretells better the more attempts at a task there are, so a setting is worth as many
attempts as the bare outcome needs to foretell as well:

    agreement², by attempts   1: 0      2: .14      3: .25         a setting of 3 attempts with .28
    each more attempt         .14       .11         (.11)          is as good as 3 + .03 / .11 = 3.3 attempts

One attempt alone has no other to be compared with, so it foretells nothing. The square is what grows about evenly with
the attempts; beyond the most that were measured it is taken to grow as it did last, which it will not quite: a worth
there is a little too small. It is cut at twice the attempts.

Measured a second time with all verdicts hidden from the reward form: what its calls alone foretell.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from steptool.checks.credit import LEAST_ATTEMPTS, Agreement, Halved, Setting, outcome_of
from steptool.core.errors import DataError, printable
from steptool.core.types import Frozen, ScoredTrajectory
from steptool.rewards.base import RewardForm, fitted
from steptool.rewards.evidence import EDGES, ENOUGH, RESAMPLES, Evidence, Interval, Tally, evidence_of, moments, tally
from steptool.training.siblings import Baseline, Comparison

MOST_ATTEMPTS = 1_200
"""Of whole tasks, that the worth is measured on: it takes a few seconds for these, and its interval is narrow."""
Floats = NDArray[np.float64]


class Worth(Frozen):
    """What a setting foretells, in attempts at a task."""

    tasks: int
    half: int
    """Attempts of a half: what was measured with."""
    outcome: tuple[Interval, ...]
    """Agreement of the bare outcome of 2, 3, … attempts, up to half."""
    setting: Interval
    """Agreement of the setting, of half of the attempts."""
    as_many: Interval
    """Attempts of which the bare outcome foretells as much as the setting does of half."""
    hidden: Interval
    """The same without any verdict."""

    @property
    def more(self) -> Interval:
        """Attempts a task that the step rewards are worth."""
        return Interval(**{name: value - self.half for name, value in self.as_many.model_dump().items()})


class Calibration(Frozen):
    scores: tuple[Evidence, ...]
    groups: dict[str, tuple[Evidence, ...]]
    """By group of tasks; empty where there is but one."""
    form: str
    worth: Worth | None
    why: str = ""
    """Why there is no worth; empty where there is one."""

    @property
    def says(self) -> str:
        """In one sentence, what the step rewards of these data are worth."""
        if self.worth is None:
            return f"What the step rewards of this data are worth cannot be said: {self.why}"
        worth, more, hidden = self.worth, self.worth.more, self.worth.hidden
        doubt = "" if more.low > 0 or more.high < 0 else ", which cannot be told from 0"
        as_many, half = _number(worth.as_many.value, 2 * worth.half), worth.half
        alone = (
            f"they foretell them as {_written(hidden, 2 * half)} attempts with verdicts do"
            if hidden.low > 1
            else "they foretell nothing for certain"
        )
        return (
            f"The step rewards of this data ({self.form}) are worth {_written(more, half)} attempts a task{doubt}: "
            f"{half} attempts with them foretell the outcomes of others as {as_many} attempts without them do; with no "
            f"verdict at all, {alone}"
        )

    def lines(self, name: str) -> list[str]:
        """For a terminal, which nothing in them can steer: a line a score, and the sentence. `name`: of the round."""
        told = [f"  {_told(each)}" for each in self.scores if not each.costs]
        return [printable(line) for line in (f"calibration of {name}", *told, f"  {self.says}.")]


def calibrate(
    scored: Sequence[ScoredTrajectory],
    form: RewardForm,
    *,
    name: str = "the reward form",
    groups: Mapping[str, str] | None = None,
    comparison: Comparison | None = None,
) -> Calibration:
    """Measure the scores of `scored`, and the rewards that `form` gives for it, compared as `comparison` says.

    `groups`: the id of a task to its group.
    """
    tallies = [each for each in map(tally, scored) if each is not None]
    by_group: dict[str, list[Tally]] = defaultdict(list)
    for each in tallies:
        by_group[(groups or {}).get(each.task, "")].append(each)
    of_groups = {group: evidence_of(moments(own)) for group, own in sorted(by_group.items())}
    worth, why = worth_of(scored, form, comparison or Comparison())
    return Calibration(
        scores=evidence_of(moments(tallies)),
        groups=of_groups if len(of_groups) > 1 else {},
        form=name,
        worth=worth,
        why=why,
    )


def worth_of(scored: Sequence[ScoredTrajectory], form: RewardForm, comparison: Comparison) -> tuple[Worth | None, str]:
    """What the rewards are worth, or why that cannot be said."""
    judged = _some_tasks(scored)
    if not judged:
        return None, f"no task has {LEAST_ATTEMPTS} attempts with a verdict"
    baseline: Baseline = "attempts" if comparison.baseline == "attempts" else "branches"
    try:
        form = fitted(form, scored)
        setting = Setting(form, form.gamma * comparison.lambda_step, baseline)
        bare = outcome_of(form)
        halved = Halved(judged, bare, resamples=RESAMPLES)
        if not halved.attempts:
            return None, f"no task has {LEAST_ATTEMPTS} attempts that ended by themselves"
        if not halved.tells:
            return None, "attempts at a task part nowhere with different ends"
        half = halved.half
        alone = [halved.agreement(bare, most) for most in range(2, half + 1)]
        found = halved.agreement(setting, half)
        hidden = halved.agreement(setting, half, [without_verdict(each) for each in judged])
    except DataError as error:
        return None, error.found
    return (
        Worth(
            tasks=len(halved.attempts),
            half=half,
            outcome=tuple(each.interval for each in alone),
            setting=found.interval,
            as_many=in_attempts(found, alone),
            hidden=in_attempts(hidden, alone),
        ),
        "",
    )


def in_attempts(found: Agreement, alone: Sequence[Agreement]) -> Interval:
    """Attempts of which the bare outcome agrees as well; `alone` are its agreements with 2, 3, … attempts."""
    own = np.concatenate([[found.value], found.draws])
    curve = np.array([np.concatenate([[each.value], each.draws]) for each in alone])
    counts = np.array([_attempts_for(*each) for each in zip(own, curve.T, strict=True)])
    low, high = np.percentile(counts[1:], EDGES)
    return Interval(value=float(counts[0]), low=float(low), high=float(high))


def _attempts_for(value: float, curve: Floats) -> float:
    """Where the square of `value` lies on that of the curve, which begins with 0 at 1 attempt."""
    wanted = max(value, 0.0) ** 2
    known = np.maximum.accumulate(np.concatenate([[0.0], np.maximum(curve, 0.0) ** 2]))
    half = len(known)
    if wanted <= known[-1]:
        return float(np.interp(wanted, known, np.arange(1, half + 1)))
    last = known[-1] - known[-2]
    return float(min(2.0 * half, half + (wanted - known[-1]) / last)) if last > 0 else 2.0 * half


def without_verdict(scored: ScoredTrajectory) -> ScoredTrajectory:
    """The same attempt, judged by one who cannot tell whether it solved the task."""
    if not scored.judgements:
        return scored
    *steps, last = scored.judgements
    hidden = last.model_copy(update={"scores": {**last.scores, "solved": None}})
    return scored.model_copy(update={"judgements": (*steps, hidden)})


def _some_tasks(scored: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    """The attempts at tasks of which every attempt that ended by itself has a verdict, up to MOST_ATTEMPTS. Which tasks
    depends on their ids alone."""
    by_task: dict[str, list[ScoredTrajectory]] = defaultdict(list)
    for each in scored:
        if each.trajectory.stop_reason.terminated:
            by_task[each.trajectory.task_id].append(each)
    kept: list[ScoredTrajectory] = []
    for task in sorted(by_task, key=lambda task: hashlib.sha256(task.encode()).digest()):
        attempts = by_task[task]
        if len(attempts) < LEAST_ATTEMPTS or any(each.solved is None for each in attempts):
            continue
        if len(kept) + len(attempts) > MOST_ATTEMPTS and kept:
            break
        kept += attempts
    return kept


def _told(evidence: Evidence) -> str:
    found = evidence.correlation
    if found is None:
        return f"{evidence.name}  {evidence.tasks} tasks tell how it goes with the outcome, and {ENOUGH} are the least"
    interval = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{evidence.name}  {interval} with the outcome within a task, calibrated weight {evidence.weight:.2f}"


def _written(found: Interval, most: float) -> str:
    """`0.3 [-0.1, 0.8]`; what was cut at `most` is at least so much."""
    return f"{_number(found.value, most)} [{_number(found.low, most)}, {_number(found.high, most)}]"


def _number(value: float, most: float) -> str:
    return f"{value + 0.0 if abs(value) >= 0.05 else 0.0:.1f}{' or more' if value >= most else ''}"
