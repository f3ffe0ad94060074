"""benchmarks/credit.py: half of the attempts at a task against the other half.

six attempts    token 10: solved solved solved      token 12: unsolved unsolved unsolved
a half of 3     2 of the one kind, 1 of the other: A = n / (n - 1) (mean of the way - mean of all)
                (.5, -1) against (1, -.5): products 1, squares 1.25 each
                3 and 0, in 2 of 20 halvings: they part nowhere
agreement       1 / 1.25 = .8
2 of the half   x = (1, -1), where the two part; against (1, -.5) or (.5, -1): products 1.5
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.credit import as_told, chosen, main
from benchmarks.variants import written_params
from steptool.checks.credit import Setting, episodes, halves, moments, outcomes
from steptool.core.errors import DataError, InputError
from steptool.core.storage import write_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.rewards.evidence import cosine

MakeScored = Callable[..., ScoredTrajectory]


@pytest.fixture
def setting() -> Setting:
    return chosen(written_params(), "reward.alpha=0,reward.step_cost=0,reward.budget_cost=0,lambda_step=1")


def attempts(make_scored: MakeScored, ways: str, task: str = "task") -> list[ScoredTrajectory]:
    """One attempt for each letter: s takes token 10 and solves the task, f takes 12 and fails."""
    return [
        make_scored([([1], [10 if way == "s" else 12])], task=task, attempt=n, solved=way == "s")
        for n, way in enumerate(ways)
    ]


def test_ways_that_decide_the_outcome_agree_between_halves(make_scored: MakeScored, setting: Setting) -> None:
    (six,) = episodes(attempts(make_scored, "sssfff"), setting).values()
    assert cosine(moments(six, outcomes(six, setting, 0), setting, most=3)) == pytest.approx(0.8)


def test_fewer_attempts_find_fewer_of_the_ways(make_scored: MakeScored, setting: Setting) -> None:
    """The first two of a half part in 12 of the 18 halvings: sxy 12 * 1.5, sxx 12 * 2, syy 18 * 1.25."""
    (six,) = episodes(attempts(make_scored, "sfsfsf"), setting).values()
    halvings = [half[:2] for half, rest in halves(6, np.random.default_rng(0)) if len({i % 2 for i in rest}) == 2]
    part = sum(len({index % 2 for index in pair}) == 2 for pair in halvings)
    expected = part * 1.5 / np.sqrt(part * 2 * 18 * 1.25)
    assert 0 < part < 18
    assert cosine(moments(six, outcomes(six, setting, 0), setting, most=2)) == pytest.approx(expected)


def test_rewards_that_foretell_the_opposite_are_negative(make_scored: MakeScored, setting: Setting) -> None:
    (six,) = episodes(attempts(make_scored, "sssfff"), setting).values()
    turned = [replace(item, rewards=tuple(-r for r in item.rewards)) for item in six]
    assert cosine(moments(turned, outcomes(six, setting, 0), setting, most=3)) == pytest.approx(-0.8)


def test_a_way_that_a_setting_holds_equal_counts_against_it(setting: Setting, make_scored: MakeScored) -> None:
    """Two tasks of two ways each; the setting is blind to the second: y = (1, -1, 1, -1), x = (1, -1, 0, 0)."""
    (seen,) = episodes(attempts(make_scored, "sfsf", "a"), setting).values()
    (unseen,) = episodes(attempts(make_scored, "sfsf", "b"), setting).values()
    blind = [replace(item, rewards=(0.0,)) for item in unseen]
    first = moments(seen, outcomes(seen, setting, 0), setting, most=2)
    second = moments(blind, outcomes(unseen, setting, 0), setting, most=2)
    assert cosine(first) == pytest.approx(1)
    assert cosine(first + second) == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(("merge", "expected"), [("tokens", 0.0), ("state", np.sqrt(0.5))])
def test_merged_states_tell_ways_apart_that_a_half_has_not_seen_part(
    setting: Setting, make_scored: MakeScored, merge: str, expected: float
) -> None:
    """All make the same call, in tokens 5 or 6, and then take 10 and solve or 12 and fail.

    one half      5 10, 6 12     after 5 nobody took 12; in the state 10 is +1, and 12 is -1, after 6
    the other     5 10, 5 12     y = (1, -1) after 5, so x = (1, 0)
    """
    ways = [(5, 10), (6, 12), (5, 10), (5, 12)]
    scored = [
        make_scored([([1], [first]), ([2], [last])], attempt=n, solved=last == 10)
        for n, (first, last) in enumerate(ways)
    ]
    merged = Setting(setting.reward, setting.comparison.model_copy(update={"merge": merge}))
    (bare,), (own,) = episodes(scored, setting).values(), episodes(scored, merged).values()
    halved = [(half, y) for half, y in outcomes(bare, setting, 0) if half == [0, 1]]
    assert len(halved) == 1
    assert cosine(moments(own, halved, merged, most=2)) == pytest.approx(expected)


@pytest.mark.parametrize(("count", "ways"), [(4, 6), (5, 10), (6, 20), (7, 20), (12, 20)])
def test_halves_are_equal_and_share_nothing(count: int, ways: int) -> None:
    found = halves(count, np.random.default_rng(1))
    assert len(found) == ways
    assert all(len(one) == len(other) == count // 2 and not set(one) & set(other) for one, other in found)


def test_where_nothing_varies_there_is_no_agreement() -> None:
    assert cosine(np.zeros(3)) == 0


@pytest.mark.parametrize(("ways", "said"), [("sff", "no task has four attempts"), ("ssss", "part nowhere")])
def test_samples_that_say_nothing_are_refused(make_scored: MakeScored, tmp_path: Path, ways: str, said: str) -> None:
    write_jsonl(tmp_path / "scored.jsonl.gz", attempts(make_scored, ways))
    with pytest.raises(DataError, match=said):
        main(tmp_path, ["reward.alpha=0"])


@pytest.mark.parametrize("wanted", ["baseline=attempts", "alpha=0", "reward.nonsense=1", "reward.alpha=["])
def test_settings_that_it_does_not_measure_are_refused(wanted: str) -> None:
    with pytest.raises(InputError):
        chosen(written_params(), wanted)


def test_a_project_with_a_critic_is_told_what_to_set() -> None:
    written = written_params()
    written["methods"]["step_ppo"]["baseline"] = "critic"
    with pytest.raises(InputError, match="a critic compares no attempts") as refused:
        chosen(written, "lambda_step=0.8")
    assert "baseline: branches" in str(refused.value.fix)


def test_the_outcome_is_the_yardstick_and_each_setting_gets_a_line(
    make_scored: MakeScored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = attempts(make_scored, "sssfff", "a") + attempts(make_scored, "sfsfsf", "b")
    write_jsonl(tmp_path / "scored.jsonl.gz", both)
    main(tmp_path, ["reward.step_cost=0.5,lambda_step=1"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "12 attempts at 2 tasks; verdicts: exact"
    assert [line.split(",")[0] for line in said[2:4]] == ["the outcome alone"] * 2
    assert said[3].split() == ["the", "outcome", "alone,", "3", "attempts", "0.800", "[0.800,", "0.800]"]
    assert said[4].split() == [
        *("reward.step_cost=0.5,lambda_step=1", "0.800", "[0.800,", "0.800]"),
        *("+0.000", "[+0.000,", "+0.000]"),
    ]


def test_settings_may_be_given_other_verdicts_than_the_true_ones(make_scored: MakeScored) -> None:
    two = attempts(make_scored, "sf")
    assert [each.solved for each in as_told(two, "exact", 0)] == [1, 0]
    assert [each.solved for each in as_told(two, "none", 0)] == [None, None]
    answered = [float(each.trajectory.answer is not None) for each in two]
    assert [each.solved for each in as_told(two, "answered", 0)] == answered
    assert [each.solved for each in as_told(two, "0.0", 0)] == [1, 0]
    with pytest.raises(InputError, match="maybe"):
        as_told(two, "maybe", 0)
    for beyond in ("nan", "30", "-0.1"):
        with pytest.raises(InputError, match="no verdict"):
            as_told(two, beyond, 0)


def test_one_attempt_is_compared_with_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one attempt is compared with none"):
        main(tmp_path, ["reward.alpha=0.1"], most=1)


def test_a_fitted_form_may_see_the_verdicts_of_tasks_that_are_not_measured_on(
    make_scored: MakeScored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = [each for task in range(30) for each in attempts(make_scored, "sfsfsf", f"t{task}")]
    write_jsonl(tmp_path / "scored.jsonl.gz", scored)
    main(tmp_path, ["reward.use=calibrated"], verdict="none", most=2, fit_on=20)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "60 attempts at 10 tasks; verdicts: none"
    assert [line.split()[0] for line in said[2:]] == ["the", "reward.use=calibrated"]
    with pytest.raises(DataError, match="no verdict"):
        main(tmp_path, ["reward.use=calibrated"], verdict="none")
