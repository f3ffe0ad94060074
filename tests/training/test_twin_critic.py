"""The critic of whole actions finds the values of a small problem that dynamic programming gives.

state 0    action 0 → reward .2, state 1    action 1 → reward .5, end
state 1    action 2 → reward 1, end         action 3 → reward 0, end
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steptool.training.model import ValueHead
from steptool.training.twin_critic import Transitions, TwinCritic

GAMMA = 0.9
#        state, action, reward, next state
A, B, C, D = (0, 0, 0.2, 1), (0, 1, 0.5, -1), (1, 2, 1.0, -1), (1, 3, 0.0, -1)


def transitions(*steps: tuple[int, int, float, int]) -> Transitions:
    at, action, reward, then = (torch.tensor(column) for column in zip(*steps, strict=True))
    things = torch.eye(8)
    return Transitions(things[:2], things[2:][action], reward, at, then)


def learned(steps: Transitions, likelier: Tensor | None = None, *, seed: int = 0, updates: int = 4000) -> TwinCritic:
    critic = TwinCritic(ValueHead(8))
    learn(critic, steps, likelier, seed=seed, polyak=0.1, updates=updates, batch=64, learning_rate=5e-3)
    return critic


def learn(
    critic: TwinCritic,
    steps: Transitions,
    likelier: Tensor | None = None,
    *,
    seed: int = 0,
    polyak: float,
    updates: int,
    batch: int,
    learning_rate: float,
) -> None:
    critic.learn(
        steps,
        torch.ones(len(steps.rewards)) if likelier is None else likelier,
        gamma=GAMMA,
        polyak=polyak,
        updates=updates,
        batch=batch,
        learning_rate=learning_rate,
        generator=torch.Generator().manual_seed(seed),
    )


def values(critic: TwinCritic, steps: Transitions) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        q = torch.minimum(critic.q1(steps.actions), critic.q2(steps.actions))
        return q.tolist(), critic.v(steps.states).tolist()


def test_values_are_those_of_dynamic_programming() -> None:
    """V(1) = 1/2; Q(0, 0) = .2 + .9 · 1/2 = .65; V(0) = (.65 + .5) / 2."""
    steps = transitions(A, B, C, D)
    q, v = values(critic := learned(steps), steps)
    assert q == pytest.approx([0.65, 0.5, 1.0, 0.0], abs=0.03)
    assert v == pytest.approx([0.575, 0.5], abs=0.06)
    expected = torch.tensor(q) - torch.tensor(v)[steps.at]
    torch.testing.assert_close(critic.advantages(steps), expected)


def test_an_action_is_not_blamed_for_what_another_attempt_lost_behind_it() -> None:
    """Two attempts at A went on with D, one with C: each A is worth .2 + .9 · V(1) with V(1) = 1/3, whatever it got."""
    steps = transitions(A, D, A, D, A, C)
    q, _ = values(learned(steps), steps)
    assert [q[0], q[2], q[4]] == pytest.approx([0.2 + 0.9 / 3] * 3, abs=0.05)


def test_the_value_of_a_state_is_that_of_the_policy_of_now() -> None:
    """The policy takes action 2 three times as often as action 3: V(1) = 3/4."""
    steps = transitions(A, B, C, D)
    q, v = values(learned(steps, torch.tensor([1.0, 1.0, 1.5, 0.5])), steps)
    assert v[1] == pytest.approx(0.75, abs=0.06)
    assert q[0] == pytest.approx(0.2 + 0.9 * 0.75, abs=0.06)


def test_a_state_behind_a_truncated_attempt_is_worth_what_its_like_is_worth() -> None:
    q, _ = values(learned(steps := transitions(A, C)), steps)
    assert q == pytest.approx([0.2 + 0.9, 1.0], abs=0.06)


def test_the_same_draws_give_the_same_bits_and_others_do_not() -> None:
    steps = transitions(A, B, C, D)
    first, again, other = (learned(steps, seed=seed, updates=20).advantages(steps) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_head_that_it_starts_from_stays_as_it_is_and_the_twins_part() -> None:
    head = ValueHead(8)
    critic = TwinCritic(head)
    learn(critic, transitions(A, B, C, D), polyak=0.5, updates=5, batch=4, learning_rate=1e-2)
    assert not any(parameter.any() for parameter in head.parameters())
    assert not torch.equal(critic.q1.linear.weight, critic.q2.linear.weight)


def test_a_target_goes_the_share_polyak_of_the_way() -> None:
    """One step of Adam moves every weight with a gradient by the learning rate; the target goes a quarter of it."""
    critic = TwinCritic(ValueHead(8))
    learn(critic, transitions(B), polyak=0.25, updates=1, batch=2, learning_rate=0.01)
    assert float(critic.q1.linear.bias.detach()) == pytest.approx(0.01, rel=1e-4)
    assert float(critic.q1_target.linear.bias) == pytest.approx(0.0025, rel=1e-4)
