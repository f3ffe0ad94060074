"""Methods of the clipped surrogate that differ from `step_ppo` in the advantage: whole attempts, groups, the release.

`group`   task a   attempts of 3, 1, 2 steps and 8, 2, 5 tokens, verdicts 1, 0, 1
          task b   attempts of 2, 1 steps and 4, 5 tokens, verdicts 0, 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from steptool.core.errors import DataError, ParamsError, ValidationFailed
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.methods.clipped import ClippedMethod
from steptool.methods.gigpo import Gigpo
from steptool.methods.grpo import Grpo
from steptool.methods.ppo_final import PpoFinal
from steptool.methods.step_ppo import StepPpo
from steptool.methods.step_ppo_release import StepPpoRelease
from steptool.rewards.costs import final_rewards
from steptool.rewards.grounded import Grounded
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential
from steptool.training.batch import pack
from steptool.training.measure import Measurement
from steptool.training.model import PolicyWithValue
from steptool.training.trainer import LowerCache
from tests.training.jobs import data_of, fit

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]
SETTINGS = {"learning_rate": 1e-2, "epochs": 2, "minibatches": 2, "max_engine_kl": 1e6}
ADAPTER = {"lora_first_layer": 1, "lora_rank": 2, "lora_alpha": 4}


def made(cls: Any, **settings: Any) -> Any:
    return cls(cls.Config.model_validate({**SETTINGS, **ADAPTER, **settings}))


def credited(method: ClippedMethod, scored: Sequence[ScoredTrajectory], **options: Any) -> list[list[float]]:
    """One list of token advantages an attempt, in the order of the batch."""
    data = data_of(scored, **options)
    batch = pack(method.examples(data).episodes, 64)
    nobody: Any = None
    before = Measurement(*[torch.zeros(0)] * 4, None, None)
    found = method.credit(nobody, batch, before, torch.zeros(batch.tokens), data.reward.gamma)["advantages"]
    return [found[batch.tokens_of(index)].tolist() for index in range(len(batch.episodes))]


# All of them

METHODS = [StepPpo, PpoFinal, Grpo, Gigpo, StepPpoRelease]


@pytest.mark.parametrize("cls", METHODS)
def test_what_was_imported_or_sampled_greedily_has_no_ratio(
    cls: Any, make_scored: MakeScored, group: list[ScoredTrajectory]
) -> None:
    greedy = [make_scored([([1], [2])], attempt=n, solved=n, temperature=0) for n in range(2)]
    with pytest.raises(DataError, match="sampled at temperature 0"):
        made(cls).examples(data_of(greedy, [[1.0], [0.0]]))
    attempt = group[0].trajectory
    imported = type(attempt).create(**{**dict(attempt), "conditions": None})
    with pytest.raises(DataError, match="1 of 6 trajectories are imported"):
        made(cls).examples(data_of([*group, group[0].model_copy(update={"trajectory": imported})]))


@pytest.mark.parametrize("cls", METHODS)
def test_an_engine_that_sampled_from_another_policy_is_refused_by_the_name_of_the_setting(
    cls: Any, make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    method = made(cls, max_engine_kl=0.01)
    with pytest.raises(ValidationFailed, match=rf"methods\.{method.name}\.max_engine_kl = 0\.01"):
        fit(make_policy(method.config), method, group, [[1.0] * len(item.judgements) for item in group])


@pytest.mark.parametrize("cls", METHODS)
def test_it_makes_what_earned_more_likelier(cls: Any, make_policy: MakePolicy, make_scored: MakeScored) -> None:
    """One task, one choice of a first token: 5 is followed by success and a solved end, 6 by neither.

    For the release the last step earns nothing, so here the first does; verdicts agree.
    """
    scored = [
        make_scored([([1, 2], [5 + n % 2]), ([3], [7])], attempt=n, solved=1.0 - n % 2, logprob=-3.5) for n in range(4)
    ]
    rewards = [[0.5, 1.0] if n % 2 == 0 else [0.0, 0.0] for n in range(4)]
    method = made(cls, epochs=6, minibatches=1)
    policy = make_policy(method.config)
    before = policy.logprobs([[1, 2, 5], [1, 2, 6]])
    fit(policy, method, scored, rewards)
    after = policy.logprobs([[1, 2, 5], [1, 2, 6]])
    gained = [new[-1] - old[-1] for new, old in zip(after, before, strict=True)]
    assert gained[0] > gained[1] + 0.05


@pytest.mark.parametrize("cls", [PpoFinal, Grpo])
def test_without_any_verdict_it_refuses_by_name_and_without_some_it_leaves_these_out(
    cls: Any, make_scored: MakeScored, group: list[ScoredTrajectory]
) -> None:
    method, unjudged = made(cls), [make_scored([([1], [2])], task="c", attempt=n, solved=None) for n in range(2)]
    with pytest.raises(DataError, match=f"none of 2 trajectories has a verdict, and {method.name} learns") as refused:
        method.examples(data_of(unjudged))
    assert "`reward: {use: auto}`" in str(refused.value.fix)
    found = method.examples(data_of([*group, *unjudged]))
    assert (found.counts["trajectories"], found.counts["skipped_unjudged"], len(found.episodes)) == (7, 2, 5)


@pytest.mark.parametrize("cls", [PpoFinal, Grpo, Gigpo])
@pytest.mark.parametrize("solved", [0.0, 1.0])
def test_where_all_attempts_ended_alike_there_is_nothing_to_learn(
    cls: Any, make_scored: MakeScored, solved: float
) -> None:
    alike = [make_scored([([1], [2 + n])], attempt=n, solved=solved) for n in range(3)]
    with pytest.raises(DataError, match=r"no trajectory carries a signal|so (grpo|gigpo) has nothing"):
        made(cls).examples(data_of(alike))


@pytest.mark.parametrize("cls", [Grpo, Gigpo])
def test_a_task_whose_attempts_ended_alike_is_kept_beside_others_and_has_no_advantage(
    cls: Any, make_scored: MakeScored, group: list[ScoredTrajectory]
) -> None:
    alike = [make_scored([([1], [2 + n])], task="alike", attempt=n, solved=1) for n in range(2)]
    alone = make_scored([([1], [2])], task="alone", solved=1)
    broken = make_scored([([1], [2])], task="a", attempt=7, stop=StopReason.world_error)
    found = made(cls).examples(data_of([*group, *alike, alone, broken]))
    counted = {key: found.counts[key] for key in ("skipped_truncated", "skipped_alone", "alike")}
    assert counted == {"skipped_truncated": 1, "skipped_alone": 1, "alike": 2}
    assert len(found.episodes) == 7
    assert credited(made(cls), [*group, *alike])[-2:] == [[0], [0]]


# GRPO


def test_every_token_of_an_attempt_is_as_good_as_its_verdict_among_the_others(group: list[ScoredTrajectory]) -> None:
    """Task a: 1, 0, 1, mean 2/3, deviation 1/sqrt(3). Task b: 0, 1, mean 1/2, deviation 1/sqrt(2)."""
    good, bad, even = 1 / math.sqrt(3), -2 / math.sqrt(3), 1 / math.sqrt(2)
    expected = [[good] * 8, [bad] * 2, [good] * 5, [-even] * 4, [even] * 5]
    found = credited(made(Grpo), group)
    assert [len(own) for own in found] == [8, 2, 5, 4, 5]
    for own, wanted in zip(found, expected, strict=True):
        assert own == pytest.approx(wanted)
    plain = credited(made(Grpo, scale="none"), group)
    assert [own[0] for own in plain] == pytest.approx([1 / 3, -2 / 3, 1 / 3, -1 / 2, 1 / 2])


def test_an_attempt_counts_the_same_whatever_its_length_or_every_token_does(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    method = made(Grpo)
    batch = pack(method.examples(data_of(group)).episodes, 64)
    weights = method.weights(batch)
    assert [float(weights[batch.tokens_of(i)].sum()) for i in range(5)] == pytest.approx([1] * 5)
    assert made(Grpo, mean="token").weights(batch).tolist() == [1] * 24


def test_costs_are_taken_off_the_verdict_only_where_asked_for(group: list[ScoredTrajectory]) -> None:
    """Of task a, 3, 1 and 2 steps at .1: .7, -.1, .8, mean 7/15."""
    data = replace(data_of(group), reward=Paper(Paper.Config(alpha=0.5, step_cost=0.1)))
    earned = [[sum(e.rewards) for e in made(Grpo, costs=c).examples(data).episodes] for c in (True, False)]
    assert earned == [pytest.approx([0.7, -0.1, 0.8, -0.2, 0.9]), [1, 0, 1, 0, 1]]


# Only the last step rewarded


def test_the_last_step_alone_is_paid_the_verdict_less_all_costs(make_scored: MakeScored) -> None:
    """Two steps at .02, and .2 for the budget that ran out; whatever the form pays for calls does not count."""
    spent = make_scored([([1], [2]), ([3], [4])], stop=StopReason.call_budget)
    solved = make_scored([([1], [2]), ([3], [4])], solved=1)
    for form in (Paper(Paper.Config(alpha=0.5)), Potential(Potential.Config(alpha=0.5))):
        assert final_rewards(form, spent) == pytest.approx([0, -0.04 - 0.2])
        assert final_rewards(form, solved) == pytest.approx([0, 1 - 0.04])
    priced = Grounded(Grounded.Config(step_cost=0.1))
    assert final_rewards(priced, spent) == pytest.approx([0, -0.2])  # a form with no price on the budget
    assert final_rewards(priced, solved) == pytest.approx([0, 1 - 0.2])
    assert final_rewards(data_of([solved]).reward, solved) == [0, 1]  # a form without costs
    assert final_rewards(Paper(Paper.Config()), make_scored([], stop=StopReason.engine_error)) == []


def test_ppo_final_is_step_ppo_with_these_rewards(make_policy: MakePolicy, group: list[ScoredTrajectory]) -> None:
    """Bit for bit, on another form's data, whose rewards of calls it leaves aside."""
    trained = []
    rewards = [[0.0] * (len(item.judgements) - 1) + [item.solved or 0.0] for item in group]
    busy = [[0.5] * (len(own) - 1) + own[-1:] for own in rewards]
    for cls, earned in ((PpoFinal, busy), (StepPpo, rewards)):
        method = made(cls, lambda_step=1.0)
        policy = make_policy(method.config)
        fit(policy, method, group, earned)
        trained.append({name: p.detach().clone() for name, p in policy.trainable().items()})
    assert all(torch.equal(trained[0][name], tensor) for name, tensor in trained[1].items())
    assert PpoFinal.Config().lambda_step == 1


def test_ppo_final_may_discount_tokens_whatever_potential_the_form_has(group: list[ScoredTrajectory]) -> None:
    """It takes the form's costs alone, so no shaping is left that would have to cancel."""
    shaped = replace(data_of(group), reward=Potential(Potential.Config(alpha=0.2)))
    settings = {"gamma_token": 0.9, "baseline": "critic"}
    with pytest.raises(ParamsError, match=r"methods\.step_ppo\.gamma_token is 0\.9"):
        made(StepPpo, **settings).examples(shaped)
    assert len(made(PpoFinal, **settings).examples(shaped).episodes) == 5


# GiGPO


def test_a_step_is_compared_with_those_in_its_state_and_every_step_counts_the_same(
    make_scored: MakeScored,
) -> None:
    """Both calls of `make_scored` are the same with the same reply: all attempts are in {} first, then in {look}.

    gamma .5, not scaled; A calls once and solves, B answers at once and fails.
                 R      less mean    G at {}    less mean    G at {look}
    A            1      1/2          .5         .25          1, alone: 0
    B            0     -1/2          0         -.25
    """
    one = make_scored([([1], [5, 6]), ([2], [7])], attempt=0, solved=1)
    two = make_scored([([1], [8])], attempt=1, solved=0)
    method = made(Gigpo, scale="none")
    assert credited(method, [one, two], gamma=0.5) == [pytest.approx([0.75, 0.75, 0.5]), pytest.approx([-0.75])]
    batch = pack(method.examples(data_of([one, two])).episodes, 64)
    assert method.weights(batch).tolist() == [0.5, 0.5, 1, 1]


def test_without_weight_on_steps_gigpo_has_the_advantages_of_grpo(group: list[ScoredTrajectory]) -> None:
    ours, grpo = credited(made(Gigpo, step_weight=0.0), group), credited(made(Grpo), group)
    for own, wanted in zip(ours, grpo, strict=True):
        assert own == pytest.approx(wanted)


# The release


def test_the_release_learns_nothing_from_verdicts(group: list[ScoredTrajectory]) -> None:
    with pytest.raises(DataError, match="no step but the last of an attempt earns anything"):
        made(StepPpoRelease).examples(data_of(group))


def test_the_release_learns_the_same_whatever_the_verdicts_are(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    trained = []
    for verdict in (0.0, 1.0):
        method = made(StepPpoRelease)
        policy = make_policy(method.config)
        fit(policy, method, group, [[0.5] * (len(item.judgements) - 1) + [verdict] for item in group])
        trained.append({name: p.detach().clone() for name, p in policy.trainable().items()})
    assert all(torch.equal(trained[0][name], tensor) for name, tensor in trained[1].items())


def test_the_release_prefers_the_attempt_that_calls_most(make_scored: MakeScored, make_policy: MakePolicy) -> None:
    """Every call earns .5: attempts of 1, 2, 3 and 4 steps earn 0, .5, 1.5 and 3 in all, and none of them solved."""
    scored = [make_scored([([1], [5 + n]), *[([2], [9])] * n], attempt=n, solved=0) for n in range(4)]
    method = made(StepPpoRelease, kl_coef=0.0)
    data = data_of(scored, [[0.5] * (n + 1) for n in range(4)])
    batch = pack(method.examples(data).episodes, 64)
    policy = make_policy(method.config)
    advantages = method.prepare(policy, batch, LowerCache(policy), data)["advantages"]
    first = [float(advantages[batch.tokens_of(n)][0]) for n in range(4)]
    assert first == sorted(first)
    assert first[0] < 0 < first[3]
    assert fit(make_policy(method.config), method, scored, [[0.5] * (n + 1) for n in range(4)])["reward_mean"] == 1.25
