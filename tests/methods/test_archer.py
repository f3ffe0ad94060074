"""ArCHer: what the critic is given, what the actor does with what it says, several iterations, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steptool.core.errors import DataError, ValidationFailed
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.methods.archer import Archer, read
from steptool.training.batch import pack
from steptool.training.episode import Episode
from steptool.training.job import Job
from steptool.training.model import PolicyWithValue
from steptool.training.trainer import LowerCache
from tests.training.jobs import data_of, fit

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]
TINY = {"lora_first_layer": 1, "lora_rank": 2, "lora_alpha": 4, "max_engine_kl": 1e6}


def archer(**settings: object) -> Archer:
    few = {"learning_rate": 1e-2, "minibatches": 2, "critic_updates": 30, "critic_batch": 16}
    return Archer(Archer.Config.model_validate({**TINY, **few, **settings}))


def weights(policy: PolicyWithValue) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}


def test_the_critic_reads_states_before_their_actions_and_actions_at_their_last_token(
    make_policy: MakePolicy, make_scored: MakeScored
) -> None:
    """1 2 |3 4| 5 |6|      states at 2 and 5, behind the actions at 4 and 6; with 7 8 behind a fault, its end at 8"""
    policy = make_policy()
    whole = make_scored([([1, 2], [3, 4]), ([5], [6])], solved=1)
    cut = make_scored([([1, 2], [9]), ([7, 8], [])], attempt=1, stop=StopReason.engine_error)
    episodes = archer().examples(data_of([whole, cut], [[0.25, 1.0], [0.5, 0.0]])).episodes
    steps = read(policy, pack(episodes, 64))
    assert steps.at.tolist() == [0, 2, 4]
    assert steps.then.tolist() == [2, -1, 6]
    assert steps.rewards.tolist() == [0.25, 1.0, 0.5]

    def feature(*ids: int) -> Tensor:
        stream = Episode("", "", ids, 1, (0,), (0,), (0.0,), (0.0,), 1.0, truncated=False)
        return policy(pack([stream], 64).rows[0]).end_features[0]

    for place, ids in ((0, (1, 2)), (2, (1, 2, 3, 4, 5)), (4, (1, 2)), (6, (1, 2, 9, 7, 8))):
        torch.testing.assert_close(steps.states[place], feature(*ids), rtol=1e-4, atol=1e-5)
    for place, ids in enumerate(((1, 2, 3, 4), (1, 2, 3, 4, 5, 6), (1, 2, 9))):
        torch.testing.assert_close(steps.actions[place], feature(*ids), rtol=1e-4, atol=1e-5)


def bandit(make_scored: MakeScored) -> list[ScoredTrajectory]:
    """Ten attempts: the first action 3 is looked up before an answer that is right, 4 before one that is wrong."""
    return [
        make_scored([([1, 2], [3 + bad, 9]), ([5 + bad], [7])], attempt=attempt, solved=1.0 - bad)
        for attempt, bad in enumerate([0, 1] * 5)
    ]


def test_the_action_that_led_to_the_right_answer_becomes_likelier(
    make_policy: MakePolicy, make_scored: MakeScored
) -> None:
    policy, logged = make_policy(), []
    streams = [[1, 2, 3, 9], [1, 2, 4, 9]]

    def odds() -> float:
        good, bad = (sum(own[1:]) for own in policy.logprobs(streams))
        return good - bad

    before = odds()
    method = archer(critic_updates=300, critic_learning_rate=1e-2, iterations=3, minibatches=1, epochs=4, kl_coef=0)
    summary = fit(policy, method, bandit(make_scored), on_metrics=lambda step, metrics: logged.append((step, metrics)))
    assert odds() > before + 1
    assert summary["value_explained_variance"] > 0.3
    assert [step for step, _ in logged] == list(range(1, 13))
    first = logged[0][1]
    assert (first["ratio"], first["clip_fraction"]) == (pytest.approx(1), 0)


def test_advantages_are_what_the_action_is_worth_above_what_was_expected(
    make_policy: MakePolicy, make_scored: MakeScored
) -> None:
    """V of the first state is γ/2, Q of the two first actions γ and 0; behind them nothing is left to decide."""
    method = archer(critic_updates=3000, critic_learning_rate=1e-2)
    job = Job(Path(), Path(), data_of(bandit(make_scored), gamma=0.8), 1, "float32", 64)
    policy, batch = make_policy(), pack(method.examples(job.data).episodes, 64)
    measured = method.prepare(policy, batch, LowerCache(policy), job.data)
    measured |= method._learned(policy, batch, measured, measured["old_logprobs"], job)
    for index in range(10):
        sign = 1 - 2 * (index % 2)
        expected = torch.tensor([0.4 * sign, 0.4 * sign, 0.0])
        torch.testing.assert_close(measured["advantages"][batch.tokens_of(index)], expected, rtol=0, atol=0.06)


def test_a_later_critic_expects_what_the_policy_of_now_does(make_policy: MakePolicy, make_scored: MakeScored) -> None:
    """Once the good action is three times as likely as it was, and the bad one a third: V is γ (2/(2 + 1/3)), since no
    step counts more than twice."""
    method = archer(critic_updates=3000, critic_learning_rate=1e-2)
    job = Job(Path(), Path(), data_of(bandit(make_scored), gamma=0.8), 1, "float32", 64)
    policy, batch = make_policy(), pack(method.examples(job.data).episodes, 64)
    measured = method.prepare(policy, batch, LowerCache(policy), job.data)
    change = torch.zeros(batch.tokens)
    for index in range(10):
        change[batch.starts[index]] = (-1) ** index * torch.tensor(3.0).log()
    measured |= method._learned(policy, batch, measured, measured["old_logprobs"] + change, job)
    good, bad = (float(measured["advantages"][batch.starts[index]]) for index in (0, 1))
    value = 0.8 * 2 / (2 + 1 / 3)
    assert (good, bad) == (pytest.approx(0.8 - value, abs=0.08), pytest.approx(-value, abs=0.08))


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_a_training_that_was_killed_in_any_iteration_ends_with_the_same_bits(
    killed_at: int, make_policy: MakePolicy, group: list[ScoredTrajectory], tmp_path: Path
) -> None:
    def kill(step: int, metrics: dict[str, float]) -> None:
        if step == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_policy(), archer(), group, on_metrics=kill, checkpoint_dir=tmp_path)
    logged: list[int] = []
    resumed, undisturbed = make_policy(), make_policy()
    found = fit(resumed, archer(), group, on_metrics=lambda step, _: logged.append(step), checkpoint_dir=tmp_path)
    assert found == fit(undisturbed, archer(), group)
    assert logged == [1, 2, 3, 4]
    assert all(torch.equal(weights(resumed)[name], tensor) for name, tensor in weights(undisturbed).items())


def test_the_length_of_rows_does_not_change_what_is_learned(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    trained = []
    for row_tokens in (1, 512):
        policy = make_policy()
        fit(policy, archer(), group, row_tokens=row_tokens)
        trained.append(weights(policy))
    for name, tensor in trained[0].items():
        torch.testing.assert_close(tensor, trained[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_value_head_holds_what_the_critic_expects_in_the_end(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    policy = make_policy()
    fit(policy, archer(), group)
    assert all(parameter.any() for parameter in policy.value_head.parameters())


def test_where_all_rewards_are_equal_there_is_nothing_to_learn(make_scored: MakeScored) -> None:
    scored = [make_scored([([1], [token])], solved=1, attempt=token) for token in (2, 3)]
    with pytest.raises(DataError, match="no attempt earned more than another"):
        archer().examples(data_of(scored))
    with pytest.raises(DataError, match="no attempt earned more than another"):
        archer().examples(data_of([]))


def test_what_this_policy_did_not_sample_at_random_is_refused(
    make_policy: MakePolicy, make_scored: MakeScored, group: list[ScoredTrajectory]
) -> None:
    greedy = make_scored([([1], [2])], solved=1, temperature=0)
    with pytest.raises(DataError, match="sampled at temperature 0"):
        archer().examples(data_of([*group, greedy]))
    imported = greedy.model_copy(update={"trajectory": greedy.trajectory.model_copy(update={"conditions": None})})
    with pytest.raises(DataError, match="1 of 6 trajectories are imported"):
        archer().examples(data_of([*group, imported]))
    with pytest.raises(ValidationFailed, match=r"methods\.archer\.max_engine_kl = 0\.05"):
        fit(make_policy(), archer(max_engine_kl=0.05), group)
