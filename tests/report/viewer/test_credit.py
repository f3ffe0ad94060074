"""Rewards and advantages of the two attempts of `tests.report.viewer.project`'s round, worked by hand:

                find        Finish      paper, alpha .5, gamma 1: .5 (success + contribution), then solved
first, solved   .75         1           returns 1.75, 1
second          .75         0           returns  .75, 0      success 1 and contribution .5 of every call
advantages      ±1          ±1          the other's return at the same step (baseline attempts)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from steptool.core.types import ScoredTrajectory
from steptool.report.viewer.credit import Credit, Credited
from tests.report.viewer import project
from tests.report.viewer.project import PARAMS, ROUND


def credited(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    params: str = PARAMS,
    *,
    source: str = "scored",
    attempts: list[ScoredTrajectory] = ROUND,
) -> Credited:
    monkeypatch.chdir(project.write(folder, params=params))
    return Credit.of_project().of(attempts, source, "r1")


def test_attempts_earn_what_the_settings_of_the_project_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = credited(tmp_path, monkeypatch)
    assert found.earned is not None
    first, second = found.earned
    assert (first.rewards, first.returns) == ((0.75, 1.0), (1.75, 1.0))
    assert (second.rewards, second.returns) == ((0.75, 0.0), (0.75, 0.0))
    assert first.advantages == ((1.0, 1.0, 1.0), (1.0, 1.0))
    assert second.advantages == ((-1.0, -1.0, -1.0), (-1.0, -1.0))
    assert found.notes == (
        "Rewards by paper, gamma 1.",
        "Advantages as ppo learns: baseline attempts, gamma · lambda 1, before whitening.",
    )


STEP_PPO = "method: step_ppo, from: sft, data: [r1], settings: {baseline: attempts, lambda_step: 1.0}"


@pytest.mark.parametrize(
    ("method", "own", "by"),
    [
        ("ppo_final", "baseline: attempts", (1.0, 1.0)),
        ("grpo", "", (0.5**0.5, 0.5**0.5)),
        ("grpo", "scale: none", (0.5, 0.5)),
        ("gigpo", "scale: none", (1.0, 0.5)),
        ("gigpo", "scale: none, step_weight: 0", (0.5, 0.5)),
    ],
)
def test_other_methods_that_compare_attempts_credit_by_their_own_rule(
    method: str, own: str, by: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts 1 and 0 have mean .5 and standard deviation sqrt .5, which a page tells without a model. The two
    begin in the same state, with returns of 1.75 and .75: half of the difference again. Then they have
    called otherwise."""
    arm = f"method: {method}, from: sft, data: [r1], settings: {{{own}}}"
    found = credited(tmp_path, monkeypatch, PARAMS.replace(STEP_PPO, arm))
    assert found.earned is not None
    first, second = found.earned
    assert first.rewards == (0.75, 1.0), "what steps earn is what the reward form says, whichever arm learns"
    assert first.advantages is not None and second.advantages is not None
    assert all(len(set(step)) == 1 for step in (*first.advantages, *second.advantages)), "the tokens of a step share it"
    assert [step[0] for step in first.advantages] == pytest.approx(by, abs=1e-6)
    assert [-step[0] for step in second.advantages] == pytest.approx(by, abs=1e-6)
    assert found.notes[1].startswith("Advantages as ppo learns: ")


def test_what_is_learned_at_the_end_alone_leaves_out_attempts_without_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = project.found(), project.answers("7")
    unjudged = [project.attempt(project.TASKS[0], *steps, solved=None, number=number) for number in (0, 1)]
    params = PARAMS.replace(STEP_PPO, "method: grpo, from: sft, data: [r1]")
    found = credited(tmp_path, monkeypatch, params, attempts=unjudged)
    assert found.notes[1] == "No advantages: ppo leaves these attempts out, as none has a verdict."


def test_with_branches_credit_lands_where_tokens_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sampled 10 11 12 and 20 21: nothing parts, though the attempts ended differently."""
    found = credited(tmp_path, monkeypatch, PARAMS.replace("attempts", "branches"))
    assert found.earned is not None
    assert all(value == 0 for each in found.earned for step in each.advantages or () for value in step)


@pytest.mark.parametrize(
    ("params", "source", "attempts", "said"),
    [
        (PARAMS, "evaluation", ROUND, ""),
        (PARAMS.replace("attempts", "critic"), "scored", ROUND, "ppo asks a critic"),
        (PARAMS.replace("attempts", "nobody"), "scored", ROUND, "ppo has settings that are not valid"),
        (PARAMS.replace("data: [r1]", "data: [demonstrations]"), "scored", ROUND, "no arm that compares attempts"),
        (PARAMS, "scored", ROUND[:1], "ppo leaves these attempts out, as only one came to an end"),
        (PARAMS, "scored", [ROUND[0], ROUND[0]], "ppo leaves these attempts out, as all earned the same"),
    ],
)
def test_where_there_are_no_advantages_it_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    params: str,
    source: str,
    attempts: list[ScoredTrajectory],
    said: str,
) -> None:
    found = credited(tmp_path, monkeypatch, params, source=source, attempts=attempts)
    assert found.earned is not None
    assert all(each.advantages is None for each in found.earned)
    assert [said in note for note in found.notes[1:]] == ([True] if said else [])


def test_settings_that_cannot_be_read_give_no_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = credited(tmp_path, monkeypatch, "sead: 17\n")
    assert found.earned is None and "sead" in found.notes[0]
    (tmp_path / "params.yaml").unlink()
    assert Credit.of_project().of(ROUND, "scored", "r1").notes == (
        "No rewards: no params.yaml says what a step earns.",
    )


def with_form(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, form: str) -> str:
    """params.yaml whose rewards are by the class Mine of a module with the source `form`."""
    (folder / f"{module}.py").write_text(form)
    monkeypatch.syspath_prepend(str(folder))
    shipped = "{use: paper, alpha: 0.5, step_cost: 0, budget_cost: 0, gamma: 1.0}"
    return PARAMS.replace(shipped, f"{{use: '{module}:Mine'}}")


def test_a_form_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = (
        "from steptool.core.fields import Settings\n"
        "class Mine:\n"
        "    class Config(Settings): how: str = 'raise'\n"
        "    gamma = 1.0\n"
        "    def __init__(self, config): self.config = config\n"
        "    def rewards(self, scored):\n"
        "        if self.config.how == 'raise': raise RuntimeError('no idea')\n"
        "        return [float(self.config.how)] * len(scored.judgements)\n"
    )
    own = with_form(tmp_path, monkeypatch, "my_viewed_form", form)
    found = credited(tmp_path, monkeypatch, own)
    assert found.earned is None and "RuntimeError: no idea" in found.notes[0]
    endless = own.replace("Mine'}", "Mine', how: 'inf'}")
    assert "not finite" in credited(tmp_path, monkeypatch, endless).notes[0]


def test_a_form_that_is_fitted_sees_the_whole_round_and_not_the_task_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pays every step the number of attempts that it saw; the round has more than the one that is shown."""
    form = (
        "from steptool.core.fields import Settings\n"
        "class Seen:\n"
        "    gamma = 1.0\n"
        "    def __init__(self, count): self.count = count\n"
        "    def rewards(self, scored): return [float(self.count)] * len(scored.judgements)\n"
        "class Mine(Seen):\n"
        "    class Config(Settings): ...\n"
        "    def __init__(self, config): self.count = -1\n"
        "    def fitted(self, scored): return Seen(len(scored))\n"
    )
    own = with_form(tmp_path, monkeypatch, "my_fitted_form", form)
    found = credited(tmp_path, monkeypatch, own, attempts=ROUND[:1])
    assert found.earned is not None
    assert set(found.earned[0].rewards) == {float(len(ROUND))}
    elsewhere = credited(tmp_path, monkeypatch, own, source="evaluation")
    assert elsewhere.earned is None
    assert "fitted to the attempts of a round" in elsewhere.notes[0]
