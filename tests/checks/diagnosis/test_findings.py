"""Every finding that the six faults do not bring about, each from attempts made by hand, and what its numbers are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from steptool.checks.diagnosis.diagnose import RULES, diagnose
from steptool.checks.diagnosis.findings import TITLES, Diagnosed, Diagnosis, Name, Severity
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.policies.asked import Asked
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential
from steptool.testing import (
    call,
    conditions,
    finish,
    give_up,
    judgement,
    scored,
    step,
    task,
    tool,
    trajectory,
    unreadable,
)
from steptool.training.siblings import Comparison

ROOT = Path(__file__).parents[3]
TOKENS = {"context_ids": (1, 2), "action_ids": (7, 8, 9)}
TASKS = {f"t{n}": task(f"t{n}", "?", tool("find", needs={"id": "string"})) for n in range(4)}


def attempt(number: int, of: int, *, solved: float | None, steps: Any = None, **fields: Any) -> ScoredTrajectory:
    """A lookup and an answer, whose tokens depend on the number of the attempt; or `steps`."""
    own = {**TOKENS, "action_ids": (7, 8, 9 + number)}
    steps = steps or [step(call("find", id="a"), "{}", **own), finish("x", **own)]
    return scored(trajectory(*steps, of=f"t{of}", attempt=number, solved=solved, **fields))


def healthy() -> list[ScoredTrajectory]:
    return [attempt(number, of, solved=float(number % 2)) for of in range(4) for number in range(4)]


def look(found: list[ScoredTrajectory], **options: Any) -> Diagnosis:
    return diagnose(found, Potential(Potential.Config()), tasks=TASKS, comparison=Comparison(), **options)


def with_steps(*steps: Any, every: int = 1, **fields: Any) -> list[ScoredTrajectory]:
    """A healthy round in which every so many attempts consist of these steps."""
    return [
        attempt(each.trajectory.attempt, int(each.trajectory.task_id[1:]), solved=0.0, steps=list(steps), **fields)
        if index % every == 0
        else each
        for index, each in enumerate(healthy())
    ]


def test_there_is_a_rule_for_every_name_and_a_title() -> None:
    assert [each.name for each in sorted(look(healthy()).findings, key=lambda each: list(Name).index(each.name))] == [
        *Name
    ]
    assert len(RULES) == len(Name) == len(TITLES)


def test_a_healthy_round_is_fine() -> None:
    found = look(healthy())
    assert found.wrong == ()
    assert (found.tasks.some_solved, found.tasks.all_solved, found.tasks.none_solved) == (4, 0, 0)
    assert found.counts.calls == 1
    assert found.of(Name.length).numbers["verdict"] == pytest.approx(1.0)


LOOKUP = step(call("find", id="a"), "{}", **TOKENS)
CASES: dict[str, tuple[list[ScoredTrajectory], Name, Severity, str, str]] = {
    # attempts, and what is found: its name, how severe, what is said, what to do
    "faults": (
        with_steps(LOOKUP, every=4, stop=StopReason.world_error, error="KeyError: 'x'"),
        Name.broken, Severity.fault, "4 of 16 attempts were ended by a fault, 4 of them by KeyError: 'x'", "task t0",
    ),
    "one timeout": (
        with_steps(step(call("find", id="a"), error="timeout", **TOKENS), finish("x", **TOKENS), every=16),
        Name.timeouts, Severity.warning, "find did not answer in time in 1 of 16 calls (6%)", "sample.tool_timeout_s",
    ),
    "rewritten": (
        with_steps(LOOKUP, every=4, stop=StopReason.rewritten),
        Name.rewritten, Severity.warning, "25% of the attempts", "only append",
    ),
    "unreadable": (
        with_steps(step(unreadable(), "hint", **TOKENS), finish("x", **TOKENS), every=2),
        Name.malformed, Severity.warning, "8 unreadable, 0 of tools that are not offered", "format.use",
    ),
    "unknown tool": (
        with_steps(step(call("seek"), "no", error="unknown_tool", **TOKENS), finish("x", **TOKENS), every=2),
        Name.malformed, Severity.warning, "8 of tools that are not offered", "methods.sft.epochs",
    ),
    "bad arguments": (
        with_steps(step(call("find", id=3), "no", error="arguments", **TOKENS), finish("x", **TOKENS), every=2),
        Name.malformed, Severity.warning, "8 with arguments that break the schema", "methods.sft.epochs",
    ),
    "a tool that fails": (
        with_steps(step(call("find", id="a"), error="closed", **TOKENS), finish("x", **TOKENS)),
        Name.tool_errors, Severity.fault, "find failed in 16 of 16 calls, 16 times with closed", "tools try find",
    ),
    "giving up": (
        with_steps(LOOKUP, give_up(**TOKENS)),
        Name.endings, Severity.fault, "100% of the attempts give up", "methods.sft.epochs",
    ),
    "one attempt each": (
        [attempt(0, of, solved=float(of % 2)) for of in range(4)],
        Name.contrast, Severity.fault, "every task was attempted once", "set sample.attempts to 4 or more",
    ),
    "the same tokens": (
        [attempt(0, of, solved=1.0) for of in range(4) for _ in range(3)],
        Name.contrast, Severity.fault, "0 of 4 tasks", "raise sample.temperature above 1",
    ),
    "cut probabilities": (
        [attempt(n, of, solved=float(n % 2), conditions=conditions(top_p=0.9)) for of in range(4) for n in range(4)],
        Name.engine, Severity.warning, "top_p 0.9", "sample.top_p: 1.0",
    ),
    "other weights halfway": (
        [attempt(n, of, solved=float(n % 2), steps=[
            step(call("find", id="a"), "{}", **TOKENS, logprobs=-0.5 - n % 2),
            finish("x", context_ids=(1,), action_ids=(7, 8, 9 + n), logprobs=-0.5)])
         for of in range(4) for n in range(4)],
        Name.engine, Severity.fault, "other weights", "sample again",
    ),
    "no verdicts": (
        [attempt(n, of, solved=None) for of in range(4) for n in range(4)],
        Name.verdicts, Severity.warning, "none of 16 attempts has a verdict", "`check`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_found(case: str) -> None:
    attempts, name, severity, says, fix = CASES[case]
    found = look(attempts).of(name)
    assert found.severity is severity
    assert says in found.says
    assert fix in found.what_to_do


def test_calls_are_held_against_the_previous_round() -> None:
    more = with_steps(LOOKUP, LOOKUP, LOOKUP, finish("x", **TOKENS))
    found = look(more, before=healthy()).of(Name.calls)
    assert (found.severity, found.says) == (Severity.warning, "3.00 calls an attempt, 1.00 in the previous round")
    assert "reward.step_cost" in found.what_to_do


def test_a_policy_that_calls_less_from_round_to_round_is_told_to_be_held() -> None:
    found = look(with_steps(finish("x", **TOKENS), every=3, policy="models/ppo1"), before=healthy()).of(Name.no_calls)
    assert found.severity is Severity.fault
    assert "38% of the attempts answer or give up without a single call, 0% in the previous round" in found.says
    assert "arms.ppo1.settings.learning_rate" in found.what_to_do


def test_what_prompts_leave_out_is_shown() -> None:
    found = look(healthy(), shortened={"find: the description": 3}).of(Name.shortened)
    assert (found.severity, found.numbers) == (Severity.warning, {"lines": 1.0, "prompts": 3.0})
    assert "find: the description" in found.says


def test_a_training_that_moved_nothing_shows_without_a_round_before() -> None:
    moved, still = (Asked(tokens=64, difference=0.1, moved=by) for by in (0.6, 0.001))
    assert "its training moved 0.6 nats" in look(healthy(), asked=moved).of(Name.weights).says
    assert "0.1 nats from the trainer at the canary's 64 tokens" in look(healthy(), asked=moved).of(Name.engine).says
    found = look(healthy(), asked=still)
    assert (found.findings[0].name, found.findings[0].severity) == (Name.weights, Severity.fault)
    assert "arms.policy.settings.learning_rate" in found.findings[0].what_to_do


def test_where_no_arm_compares_attempts_alike_tasks_are_fine() -> None:
    alike = [attempt(n, of, solved=float(of % 2)) for of in range(4) for n in range(4)]
    for comparison in (None, Comparison(baseline="critic")):
        found = diagnose(alike, Potential(Potential.Config()), comparison=comparison)
        assert found.of(Name.contrast).severity is Severity.fine
        assert "no arm" in found.of(Name.advantage).says
    assert look(alike).of(Name.contrast).severity is Severity.fault


def test_rewards_that_are_no_numbers_are_left_to_the_gate() -> None:
    class Broken(Paper):
        def rewards(self, scored: ScoredTrajectory) -> list[float]:
            return [float("nan")] * len(scored.judgements)

    found = diagnose(healthy(), Broken(Paper.Config()), comparison=Comparison())
    assert found.counts.attempts == 0
    assert all(each.severity in Severity for each in found.findings)


def test_attempts_that_were_not_sampled_have_no_advantage() -> None:
    shown = [scored(trajectory(step(call("find", id="a"), "{}"), finish("x"), of="t0", attempt=n, conditions=None,
                               solved=float(n)), judgement(success=1, contribution=1), judgement(solved=n))
             for n in range(2)]  # fmt: skip
    assert "not computed" in look(shown).of(Name.advantage).says


def test_every_finding_stands_in_the_docs() -> None:
    page = (ROOT / "docs/diagnosis.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [name.value for name in Name]


def test_every_setting_that_is_named_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """sample.x, reward.x, validate.x and so on, wherever a finding says what to do."""
    from steptool.config.settings import SampleParams, ValidateParams
    from steptool.methods.sft import Sft

    known = {
        "sample": set(SampleParams.model_fields),
        "validate": set(ValidateParams.model_fields),
        "reward": {*Potential.Config.model_fields, "use"},
        "methods.sft": set(Sft.Config.model_fields),
        "format": {"use", "tools_budget"},
        "model": {"dtype"},
    }
    sources = (ROOT / "steptool/checks/diagnosis").glob("*.py")
    text = "\n".join(source.read_text() for source in sources)
    named = re.findall(r"\b(sample|validate|reward|methods\.sft|format|model)\.([a-z_]+)\b", text)
    assert len(named) > 15
    assert [f"{section}.{key}" for section, key in named if key not in known[section]] == []


def test_a_finding_that_is_fine_asks_for_nothing() -> None:
    def asks(each: Diagnosed) -> bool:
        return bool(each.what_to_do)

    for attempts, *_ in CASES.values():
        for each in look(attempts).findings:
            assert asks(each) == (each.severity is not Severity.fine), each
