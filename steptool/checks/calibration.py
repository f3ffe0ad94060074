"""What are the step rewards of these data worth? Measured before anything is trained on them.

    every score of a step   how it goes with the outcome within a task, by group, and what weight that gives it
    the project's setting   how well its advantages foretell the outcomes of other attempts, in attempts

The worth. The bare outcome foretells better the more attempts at a task there are, so a setting is worth as many
attempts as the bare outcome needs to foretell as well. Between and beyond the numbers that were measured, the square of
its agreement is taken to grow as that of a mean of n measurements with noise does, from nothing for one attempt, which
has no other to be compared with:

    agreement² = c (n − 1) / (n − 1 + k)          c such that it is right for all n = h attempts of a half, and k, of
                                                  those in GROWTHS, such that it is nearest to those of 2 to h − 1

    squares of the bare outcome .36 for n = 2, .64 for n = 3: k = 7, c = 2.88; a setting with .80 is worth 3.7 attempts

So the bare outcome of h attempts is worth exactly h. Worths are cut at 2 h.

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
from steptool.rewards.evidence import (
    ENOUGH,
    RESAMPLES,
    Evidence,
    Interval,
    Tally,
    evidence_of,
    interval_of,
    moments,
    tally,
)
from steptool.training.siblings import Comparison

MOST_ATTEMPTS = 1_200
"""Of whole tasks, that the worth is measured on: it takes a few seconds for these, and its interval is narrow."""
GROWTHS = (100.0, 50.0, 30.0, 20.0, 15.0, 10.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)
"""How many attempts it takes for half of what any number could foretell, but for one; the first is all but a line."""
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
            f"as well as {_written(hidden, 2 * half)} attempts with verdicts, of which a single one foretells nothing"
            if hidden.low > 1
            else "nothing for certain"
        )
        return (
            f"With the step rewards of this data ({self.form}), {half} attempts at a task foretell how others end as "
            f"well as {as_many} do by their verdicts alone, so the rewards are worth {_written(more, half)} attempts a "
            f"task{doubt}; with no verdict at all, they foretell {alone}"
        )

    def lines(self, name: str) -> list[str]:
        """For a terminal, which nothing in them can steer: a line a score, and the sentence. `name`: of the round."""
        shown = [each for each in self.scores if not each.costs]
        wide = max((len(each.name) for each in shown), default=0)
        told = [f"  {each.name:<{wide}}  {_told(each)}" for each in shown]
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
    verdicts = {(each.trajectory.task_id, each.solved) for each in judged}
    if len(verdicts) == len({task for task, _ in verdicts}):
        return None, "at no task do the verdicts differ"
    if comparison.baseline == "critic":  # which is not trained yet
        comparison = Comparison(lambda_step=comparison.lambda_step)
    try:
        form = fitted(form, scored)
        setting = Setting(form, comparison)
        bare = outcome_of(form)
        halved = Halved(judged, bare, resamples=RESAMPLES)
        if not halved.attempts:
            return None, f"no task has {LEAST_ATTEMPTS} attempts that ended by themselves"
        if not halved.tells:
            return None, "attempts at a task part nowhere with different ends"
        half = halved.half
        alone = [halved.agreement(bare, most) for most in range(2, half + 1)]
        found = halved.agreement(setting, half)
        hidden = halved.agreement(setting, half, [with_verdict(each, None) for each in judged])
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
    wanted = _squared(np.concatenate([[found.value], found.draws]))
    curve = _squared(np.array([np.concatenate([[each.value], each.draws]) for each in alone]))
    counts = _attempts_for(wanted, curve)
    return interval_of(float(counts[0]), counts[1:])


def _squared(agreement: Floats) -> Floats:
    """0 where it foretells the opposite."""
    return np.maximum(agreement, 0.0) ** 2


def _attempts_for(wanted: Floats, curve: Floats) -> Floats:
    """[R] squares of agreements of a setting, [h - 1, R] of the outcome of 2 to h attempts -> [R] in [1, 2 h]."""
    others, most = np.arange(1, len(curve) + 1), curve[-1]
    n, half = others[:, None], float(others[-1])
    shapes = np.array([(n / (n + k)) * ((half + k) / half) for k in GROWTHS])
    nearest = np.argmin(((shapes * most - curve) ** 2).sum(axis=1), axis=0)
    k = np.array(GROWTHS)[nearest]
    left = most * (half + k) / half - wanted
    found = np.divide(k * wanted, left, out=np.full_like(wanted, np.inf), where=left > 0)
    found = np.where(np.isclose(wanted, most, rtol=1e-9, atol=1e-12), half, found)
    return 1 + np.minimum(found, 2 * half + 1)


def with_verdict(scored: ScoredTrajectory, solved: float | None) -> ScoredTrajectory:
    """The same attempt with another verdict, or with none."""
    if not scored.judgements:
        return scored
    *steps, last = scored.judgements
    judged = last.model_copy(update={"scores": {**last.scores, "solved": solved}})
    return scored.model_copy(update={"judgements": (*steps, judged)})


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
        return f"{evidence.tasks} tasks tell how it goes with the outcome, and {ENOUGH} are the least"
    interval = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{interval} with the outcome within a task, calibrated weight {evidence.weight:.2f}"


def _written(found: Interval, most: float) -> str:
    """`0.3 [-0.1, 0.8]`; what was cut at `most` is at least so much."""
    return f"{_number(found.value, most)} [{_number(found.low, most)}, {_number(found.high, most)}]"


def _number(value: float, most: float) -> str:
    return f"{value + 0.0 if abs(value) >= 0.05 else 0.0:.1f}{' or more' if value >= most else ''}"
