"""The faults that users of such systems report most, each injected into real rollouts: the diagnosis names it first.

fault                       how it is injected                                 what follows from it
weights never arrived       ppo1 samples as sft did                            -
a tool hangs                its replies come after the timeout                 nothing is solved, no contrast
no contrast                 every attempt answers the same                     no advantage
stops calling               answers from memory                                nothing is solved, no contrast
truncated                   actions end after 6 tokens                         nothing is solved, no contrast
reward only from length     unsolved, and more calls or fewer earn more        -
"""

from __future__ import annotations

from typing import Any

import pytest

from steptool.checks.diagnosis.diagnose import diagnose
from steptool.checks.diagnosis.findings import Diagnosis, Name, Severity
from steptool.checks.diagnosis.text import lines_of
from steptool.core.types import ScoredTrajectory
from steptool.rewards.base import RewardForm
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential
from steptool.training.siblings import Comparison
from tests.checks.diagnosis.conftest import TASKS, Policy, judged, sampled

SIX = {Name.weights, Name.timeouts, Name.contrast, Name.no_calls, Name.budget, Name.length}
POTENTIAL, PAPER = Potential(Potential.Config()), Paper(Paper.Config())
LEARNED = {"name": "models/ppo1", "revision": "2", "logprob": -0.7}
"""A policy after training: other weights, other probabilities."""


def look(policy: Policy, before: list[ScoredTrajectory], *, form: RewardForm = POTENTIAL, **sampling: Any) -> Diagnosis:
    return diagnose(
        judged(sampled(policy, **sampling)),
        form,
        name="r2",
        tasks={task.id: task for task in TASKS},
        comparison=Comparison(),
        before=before,
    )


FAULTS: dict[str, tuple[Name, Policy, dict[str, Any]]] = {
    "the adapter was not loaded": (Name.weights, Policy(name="models/ppo1", revision="2"), {}),
    "training wrote the old files": (Name.weights, Policy(name="models/ppo1", revision="1"), {}),
    "a tool hangs": (Name.timeouts, Policy(**LEARNED), {"hangs_s": 30.0, "tool_timeout_s": 0.02}),
    "every attempt fails alike": (Name.contrast, Policy(**LEARNED, right=0.0), {}),
    "every attempt succeeds alike": (Name.contrast, Policy(**LEARNED, right=1.0), {}),
    "it stopped calling": (Name.no_calls, Policy(**LEARNED, right=0.0, calls=(0, 0)), {}),
    "actions are cut": (Name.budget, Policy(**LEARNED), {"max_step_tokens": 6}),
    "calls run out": (Name.budget, Policy(**LEARNED), {"max_calls": 1}),
    "shorter earns more": (Name.length, Policy(**LEARNED, right=0.0, calls=(1, 6)), {}),
    "longer earns more": (Name.length, Policy(**LEARNED, right=0.0, calls=(1, 6)), {"form": PAPER}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_named_first(before: list[ScoredTrajectory], fault: str) -> None:
    expected, policy, injected = FAULTS[fault]
    found = look(policy, before, **injected)
    worst = found.findings[0]
    assert (worst.name, worst.severity) == (expected, Severity.fault)
    assert worst.what_to_do
    assert next(line for line in lines_of(found, "r2") if worst.title in line).startswith("  fault")


@pytest.mark.parametrize(
    ("sampling", "setting"),
    [
        ({"max_step_tokens": 6}, "raise sample.max_step_tokens from 6 to 12"),
        ({"max_calls": 1}, "raise sample.max_calls from 1 to 2"),
        ({"max_tokens": 120}, "raise sample.max_tokens from 120 to 240"),
    ],
)
def test_the_budget_to_raise_is_the_one_that_cuts(
    before: list[ScoredTrajectory], sampling: dict[str, int], setting: str
) -> None:
    assert setting in look(Policy(**LEARNED), before, **sampling).of(Name.budget).what_to_do


def test_a_healthy_round_has_none_of_them(before: list[ScoredTrajectory]) -> None:
    found = look(Policy(**LEARNED, calls=(1, 2)), before)
    assert {each.name for each in found.wrong} == set()
    assert {each.name for each in found.quiet} >= SIX
    assert "0 faults, 0 warnings" in lines_of(found, "r2")[0]


def test_the_first_round_has_none_of_them(before: list[ScoredTrajectory]) -> None:
    found = diagnose(before, POTENTIAL, comparison=Comparison())
    assert found.wrong == ()
    assert found.previous is None


def test_two_rounds_of_one_policy_are_no_fault(before: list[ScoredTrajectory]) -> None:
    assert look(Policy(), before).of(Name.weights).severity is Severity.fine
