"""The grid of regimes: a scripted policy of known values, and how well a credit agrees with them.

i    0        1            answered           chance of right .5, of each mistake the rest
V    .25      .5           1                  two actions are left at i = 0: both must be right
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import regime, scripted
from benchmarks.credits import CREDITS, Credit, advantages, agreement
from benchmarks.regime import Cell, Drawn, known, table
from benchmarks.scripted import EARLY, GIVE_UP, MISREAD, RIGHT, STRAY, Scripted, skill_for
from steptool.core.errors import InputError
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.training.episode import episode
from steptool.worlds.mini import MiniWorld

SHORT = MiniWorld(MiniWorld.Config(train_tasks=24, dev_tasks=1, test_tasks=1), 17)
LONG = MiniWorld(MiniWorld.Config(train_tasks=6, dev_tasks=1, test_tasks=1, calls=8), 17)


def one_call(most_calls: int) -> Scripted:
    case = next(case for case in SHORT.cases("train") if len(case.solution()) == 1)
    return Scripted(SHORT, case, most_calls, 0)


def half_right(policy: Scripted, mistake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chances = np.zeros((2, scripted.MOST_CONFUSED + 1, 6))
    chances[..., RIGHT] = chances[..., mistake] = 0.5
    monkeypatch.setattr(policy, "chances", lambda skill: chances)


@pytest.mark.parametrize(
    ("calls", "mistake", "at_first", "q_right", "q_wrong"),
    [
        (2, STRAY, 0.25, 0.5, 0.0),  # both right
        (3, STRAY, 0.5, 0.75, 0.25),  # at most one of three wrong: (1 + 3) / 8
        (3, GIVE_UP, 0.25, 0.5, 0.0),  # what ends the attempt is not made good by more calls
        (3, EARLY, 0.25, 0.5, 0.0),
        (3, MISREAD, 0.25, 0.5, 0.0),  # it goes on, and its answer will be wrong; the answer itself cannot be misread
        (1, STRAY, 0.0, 0.0, 0.0),
    ],
)
def test_values_of_one_call_and_an_answer(
    calls: int, mistake: int, at_first: float, q_right: float, q_wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = one_call(calls)
    half_right(policy, mistake, monkeypatch)
    v, q = policy.values(0.0)
    assert v[0, 0, 0] == at_first
    assert q[0, 0, 0, RIGHT] == q_right
    assert q[0, 0, 0, mistake] == q_wrong


def test_attempts_are_solved_as_often_as_their_value_says() -> None:
    for world in (SHORT, LONG):
        policies = [Scripted(world, case, 11, 3) for case in world.cases("train")[:6]]
        skill = skill_for(policies, 0.5)
        expected = [policy.values(skill)[0][0, 0, 0] for policy in policies]
        assert np.mean(expected) == pytest.approx(0.5, abs=1e-3)
        attempts = [policy.attempts(skill, 60, 4) for policy in policies]
        solved = [[each.trajectory.outcome.solved or 0.0 for each in own] for own in attempts]
        assert np.mean(solved) == pytest.approx(0.5, abs=0.07)  # 360 attempts: a standard error is at most .026
        for own in attempts:
            for each in own:  # the advantages on the way from V(0) to the end add up to what came of it
                came = each.trajectory.outcome.solved
                assert came == pytest.approx(sum(each.worth) + expected[attempts.index(own)])


def test_an_attempt_is_made_in_the_real_session_and_is_one_that_training_reads() -> None:
    policy = Scripted(LONG, LONG.cases("train")[0], 10, 3)
    stops = set()
    for each in policy.attempts(1.5, 60, 4):
        trajectory = each.trajectory
        session = LONG.open(policy.case.task, 0)
        for step in trajectory.steps:
            if not step.is_finish:
                assert step.observations == (session.reply(step.action.calls[0]),)
        assert trajectory.outcome == session.outcome(trajectory.answer)
        assert len(each.worth) == len(trajectory.steps) <= 10
        scored = ScoredTrajectory.model_construct(trajectory=trajectory, judgements=(), annotator=trajectory.policy)
        found = episode(scored, [0.0] * len(each.worth))
        assert found is not None
        assert not found.truncated
        assert len(found.targets) == len(each.worth)
        stops.add(trajectory.stop_reason)
    assert stops == {StopReason.finished, StopReason.gave_up, StopReason.call_budget}


def test_a_repeated_call_is_none_that_the_solution_makes_next() -> None:
    for world in (SHORT, LONG):
        for case in world.cases("train"):
            policy, solution = Scripted(world, case, 10, 3), case.solution()
            for made, (right, repeat, stray, misread, wrong, _) in enumerate(policy._actions[:-1]):
                assert right
                assert misread
                assert stray
                assert right.calls == misread.calls == (solution[made],)
                assert right != misread
                assert repeat is None or repeat.calls != (solution[made],)
                assert stray.calls[0] not in solution
                assert wrong is None or world.open(case.task, 0).outcome(wrong.answer).solved == 0.0


def test_who_has_misread_something_goes_on_and_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Scripted(LONG, LONG.cases("train")[0], 10, 3)
    always = np.zeros((8, scripted.MOST_CONFUSED + 1, 6))
    always[:3, :, RIGHT] = always[3, :, MISREAD] = always[4:, :, RIGHT] = 1.0
    monkeypatch.setattr(policy, "chances", lambda skill: always)
    (made,) = policy.attempts(0.0, 1, 0)
    assert [step.action.calls[0] for step in made.trajectory.steps[:-1]] == policy.case.solution()
    assert [bool(step.action.thought) for step in made.trajectory.steps] == [index == 3 for index in range(8)]
    assert made.trajectory.stop_reason is StopReason.finished
    assert made.trajectory.outcome.solved == 0.0
    assert made.worth == (0.0,) * 8  # as it always misreads, nothing is ever worth anything


def drawn() -> Drawn:
    regime.drawn.cache_clear()
    return regime.drawn(8, 3, (17,))


def test_what_training_knows_of_an_attempt() -> None:
    attempts = [each.trajectory for each in drawn().attempts]
    wrong = dict.fromkeys(regime.WRONG, 0)
    for attempt in attempts:
        finished = attempt.stop_reason is StopReason.finished
        assert known(attempt, "exact") == attempt
        assert known(attempt, "none").outcome.solved is None
        assert known(attempt, "answered").outcome.solved == float(finished)
        flipped = [known(attempt, verdict).outcome.solved != attempt.outcome.solved for verdict in regime.WRONG]
        assert flipped == sorted(flipped)  # what is misjudged stays so at a higher share
        assert finished or not any(flipped)
        for verdict, is_flipped in zip(regime.WRONG, flipped, strict=True):
            wrong[verdict] += is_flipped
    assert 0 < wrong["30% wrong"] < len(attempts) / 2


def test_credits_are_those_of_the_methods() -> None:
    """Returns 1, 0, 0, 1: mean .5, deviation 1 / sqrt 3. An attempt without siblings is compared with other tasks."""

    def attempt(*rewards: float) -> Any:
        steps = range(len(rewards))
        return SimpleNamespace(rewards=rewards, states=list(steps), step_ids=steps)

    group = [attempt(0.0, 1.0), attempt(0.0), attempt(0.0, 0.0), attempt(1.0)]
    (found,) = advantages([group], Credit.of("grpo", CREDITS["grpo"]))
    score = 0.5 * 3**0.5
    assert [len(own) for own in found] == [2, 1, 2, 1]
    assert [own[0] for own in found] == pytest.approx([score, -score, -score, score])
    assert found[0][0] == found[0][1]
    bare = Credit.of("gigpo", "gigpo:reward.alpha=0,reward.gamma=1.0,scale=none")
    (found,) = advantages([group], bare)
    assert found == [[1.0, 1.0], [-1.0], [-1.0, -1.0], [1.0]]  # .5 of the whole, and .5 among the steps in each state
    plain = Credit.of("branches", "step_ppo:reward.alpha=0,reward.gamma=1.0,lambda_step=1")
    alone = advantages([[item] for item in group], plain)
    assert alone == [[[0.5, 0.5]], [[-0.5]], [[-0.5, -0.5]], [[0.5]]]  # of step 0: (1 + 0 + 0 + 1) / 4


@pytest.mark.parametrize("setting", ["rft:epochs=1", "step_ppo:baseline=critic", "archer"])
def test_a_credit_that_needs_a_model_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match="needs a model"):
        Credit.of("mine", setting)


def test_a_cell_knows_the_code_and_the_defaults_of_the_form_that_it_was_made_with() -> None:
    credit = Credit.of("mine", "step_ppo:reward.use=grounded")
    assert credit.module == "steptool.rewards.grounded"
    name, method, settings, reward = credit.made_by
    assert (name, method, settings["baseline"], reward["use"]) == ("mine", "step_ppo", "branches", "grounded")
    assert reward["step_cost"] == credit.form.config.step_cost  # type: ignore[attr-defined]


def test_agreement_is_a_cosine() -> None:
    assert agreement(np.array([[2.0, 1.0, 4.0], [0.0, 0.0, 4.0], [-3.0, 9.0, 1.0]])).tolist() == [1.0, 0.0, -1.0]


def test_outcomes_of_many_attempts_agree_better_than_those_of_few() -> None:
    credits = [Credit.of(name, CREDITS[name]) for name in ("grpo", "branches")]
    found = {(cell.credit, cell.attempts): cell.agreement for cell in regime.cells(8, "exact", credits, 6, (17, 18))}
    assert (found["branches", 8] or 0) > (found["branches", 2] or 0) > 0.1
    assert (found["branches", 8] or 0) > (found["grpo", 8] or 0)


def test_the_table_shows_what_beats_outcomes() -> None:
    def cell(credit: str, value: float | None, low: float | None, high: float | None) -> Cell:
        return Cell(8, "none", 2, credit, 6, value, 0.0, 1.0, low, high)

    found = [
        cell("branches", 0.1, None, None),
        cell("a", 0.3, 0.1, 0.3),
        cell("b", -0.05, -0.2, -0.1),
        cell("c", None, None, None),
    ]
    (row,) = [line for line in table(found, ["branches", "a", "b", "c"]) if line.startswith("| none | 2 ")]
    assert row == "| none | 2 | .10 | **.30** | ~~-.05~~ | refused |"


def test_cells_that_are_there_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(regime, "CREDITS", {name: CREDITS[name] for name in ("grpo", "branches")})
    monkeypatch.setattr(regime, "RESAMPLES", 20)
    run = {"horizon": [3, 8], "verdict": ["exact", "none"], "tasks": 2, "seeds": 1, "out": tmp_path}
    regime.main(**run)  # type: ignore[arg-type]
    first = capsys.readouterr().out
    assert first.count("| exact | 8 |") == first.count("| none | 1 |") == 2
    assert len((tmp_path / "regime.csv").read_text().splitlines()) == 1 + 2 * 2 * 4 * 2
    made: list[tuple[int, str]] = []
    cells = regime.cells

    def counted(horizon: int, verdict: str, *rest: Any) -> list[Cell]:
        made.append((horizon, verdict))
        return cells(horizon, verdict, *rest)

    monkeypatch.setattr(regime, "cells", counted)
    (tmp_path / "8-none.json").unlink()
    regime.main(**run)  # type: ignore[arg-type]
    assert made == [(8, "none")]
    assert capsys.readouterr().out == first
    regime.main(**{**run, "tasks": 3})  # type: ignore[arg-type]
    assert len(made) == 1 + 4


def test_a_cell_that_is_not_in_the_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use one of"):
        regime.main(horizon=[5], out=tmp_path)
    with pytest.raises(InputError, match="name=method:settings"):
        regime.main(horizon=[3], credit=["mine"], out=tmp_path)
