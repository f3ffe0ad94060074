"""The released code's arithmetic, against a walk over all tokens that is written as it is described."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steptool.training.credit import Discounts, token_gae
from steptool.training.release import release_gae, release_rewards, release_whiten


def test_a_step_is_paid_once_for_every_step_that_follows_and_the_last_not_at_all() -> None:
    """Three steps of 1 earn 2, 1, 0: T (T - 1) / 2 for T calls and whatever verdict."""
    assert release_rewards([1, 1, 1]) == [2, 1, 0]
    assert release_rewards([0, 0, 1]) == release_rewards([0, 0, 0])
    assert [sum(release_rewards([1.0] * steps)) for steps in (1, 2, 3, 4)] == [0, 1, 3, 6]


def walked(rho: Tensor, values: Tensor, own: Tensor, gamma: float, lambda_: float) -> Tensor:
    """GAE over every token of the stream from the first sampled one on; what is not own has value and reward 0."""
    values, rho, following = values * own, rho * own, 0.0
    found = torch.zeros(len(rho), dtype=torch.float64)
    for t in reversed(range(len(rho))):
        after = float(values[t + 1]) if t + 1 < len(rho) else 0.0
        following = float(rho[t]) + gamma * after - float(values[t]) + gamma * lambda_ * following
        found[t] = following
    return found


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_skipping_the_tokens_of_the_environment_gives_what_walking_them_gives(
    shape: list[tuple[int, int]], seed: int, gamma: float, lambda_: float
) -> None:
    """shape: per step, how many tokens are sampled, and how many of the environment follow."""
    generator = torch.Generator().manual_seed(seed)
    own, step_ids, predict = [], [], []
    for step, (tokens, replied) in enumerate(shape):
        for _ in range(tokens):
            predict.append(len(own))
            step_ids.append(step)
            own.append(1.0)
        own += [0.0] * replied
    everywhere = torch.randn(2, len(own), generator=generator, dtype=torch.float64)
    rewards = torch.randn(len(shape), generator=generator).double().tolist()
    rho = -everywhere[1]
    for step, reward in enumerate(rewards):
        rho[max(at for at, of in zip(predict, step_ids, strict=True) if of == step)] += reward
    at = torch.tensor(predict)
    found = release_gae(
        rewards, everywhere[0][at], step_ids, predict, gamma=gamma, lambda_=lambda_, penalties=everywhere[1][at]
    )
    expected = walked(rho, everywhere[0], torch.tensor(own, dtype=torch.float64), gamma, lambda_)[at]
    torch.testing.assert_close(found.advantages, expected)
    torch.testing.assert_close(found.targets, expected + everywhere[0][at])


def test_a_reply_of_200_tokens_makes_every_step_a_bandit_of_its_own() -> None:
    """V .5 everywhere, two steps of a token; paid 1 at the end. With gamma .99 and lambda .95

    released   A_1 = 1 - .5 = .5    A_0 = -.5 + (.9405)^200 (.99 * .5 + .9405 * .5) = -.5 + 4.7e-6 * .965
    correct    A_1 = .5             A_0 = .99 * .5 - .5 + .9405 * .5 = .465
    """
    values, options = torch.full((2,), 0.5), {"gamma": 0.99, "lambda_": 0.95}
    released = release_gae([0, 1], values, [0, 1], [0, 201], penalties=torch.zeros(2), **options)
    assert released.advantages.tolist() == pytest.approx([-0.5 + 0.9405**200 * 0.96525, 0.5])
    correct = token_gae([0, 1], values, torch.tensor([0, 1]), Discounts(0.99, 0.95, 0.99, 0.95))
    assert correct.advantages.tolist() == pytest.approx([0.46525, 0.5])


def test_without_tokens_of_the_environment_it_is_gae_over_tokens() -> None:
    generator = torch.Generator().manual_seed(1)
    values, penalties = torch.randn(2, 5, generator=generator).double()
    rewards, step_ids = [0.3, -1.0], [0, 0, 1, 1, 1]
    found = release_gae(rewards, values, step_ids, range(5), gamma=0.9, lambda_=0.8, penalties=penalties)
    expected = token_gae(rewards, values, torch.tensor(step_ids), Discounts(0.9, 0.8, 0.9, 0.8), penalties=penalties)
    torch.testing.assert_close(found.advantages, expected.advantages)


def test_whitening_divides_by_the_spread_of_a_sample() -> None:
    """1, 2, 3: mean 2 and variance 1 of a sample."""
    assert release_whiten(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1, 0, 1])
