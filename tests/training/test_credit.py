"""Closed forms of the credit assignment.

A trajectory of three steps, its environment tokens (e) already gone from the tensors:

    stream    e e a a a | e e a a | e a
    token j       0 1 2       3 4     5
    step          0 0 0       1 1     2
    reward            r0        r1    r2
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steptool.training.credit import Discounts, step_gae, token_gae, whiten
from steptool.training.siblings import leave_one_out, returns_to_go, where_attempts_part

STEPS = torch.tensor([0, 0, 0, 1, 1, 2])
PLAIN = Discounts(1.0, 1.0, 1.0, 1.0)
numbers = st.floats(-3, 3, width=32)
fractions = st.floats(0, 1, width=32)


def close(a: Tensor, b: Tensor | list[float]) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), atol=1e-9, rtol=1e-9)


@st.composite
def trajectories(draw: st.DrawFn) -> tuple[list[float], Tensor, Tensor]:
    """Rewards [K], values [M], step ids [M]."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    ids = torch.tensor([k for k, n in enumerate(lengths) for _ in range(n)])
    rewards = draw(st.lists(numbers, min_size=len(lengths), max_size=len(lengths)))
    values = draw(st.lists(numbers, min_size=len(ids), max_size=len(ids)))
    return rewards, torch.tensor(values, dtype=torch.float64), ids


@pytest.mark.parametrize("estimate", [token_gae, step_gae])
def test_three_steps_paid_one_each_are_worth_3_2_1(estimate: object) -> None:
    """The release's (steps remaining - 1) multipliers would give 2, 1, 0."""
    advantages, targets = estimate([1.0, 1.0, 1.0], torch.zeros(6), STEPS, PLAIN)  # type: ignore[operator]
    close(advantages, [3, 3, 3, 2, 2, 1])
    close(targets, [3, 3, 3, 2, 2, 1])


def test_discount_and_trace_apply_between_steps_by_hand() -> None:
    """One token a step, gamma 0.5, lambda 0.5, V = (1, 2, 4), r = (0, 1, 3).

    delta_2 = 3 - 4             = -1        A_2 = -1
    delta_1 = 1 + 0.5 * 4 - 2   =  1        A_1 = 1 + 0.25 * -1      = 0.75
    delta_0 = 0 + 0.5 * 2 - 1   =  0        A_0 = 0 + 0.25 * 0.75    = 0.1875
    """
    credit = token_gae([0.0, 1.0, 3.0], torch.tensor([1.0, 2, 4]), torch.arange(3), Discounts(0.5, 0.5, 1, 1))
    close(credit.advantages, [0.1875, 0.75, -1])
    close(credit.targets, [1.1875, 2.75, 3])


def test_reward_lands_on_last_token_of_its_step() -> None:
    """gamma_token = 0 cuts every token off from what follows it inside its step."""
    credit = token_gae([5.0, 0.0, 7.0], torch.zeros(6), STEPS, Discounts(0.0, 0.0, 0.0, 0.0))
    close(credit.advantages, [0, 0, 5, 0, 0, 7])


def test_zero_reward_is_still_a_step() -> None:
    """r = (0, 0, 1), gamma_step = 0.5: two step ends discount the last reward, though they pay nothing."""
    credit = token_gae([0.0, 0.0, 1.0], torch.zeros(6), STEPS, Discounts(0.5, 1.0, 1.0, 1.0))
    close(credit.advantages, [0.25, 0.25, 0.25, 0.5, 0.5, 1])


@pytest.mark.parametrize("estimate", [token_gae, step_gae])
def test_truncation_bootstraps_and_an_ending_does_not(estimate: object) -> None:
    values, ids, discounts = torch.zeros(2), torch.tensor([0, 0]), Discounts(0.5, 1, 1, 1)
    close(estimate([1.0], values, ids, discounts).advantages, [1, 1])  # type: ignore[operator]
    close(estimate([1.0], values, ids, discounts, bootstrap=4.0).advantages, [3, 3])  # type: ignore[operator]


def test_kl_penalty_is_paid_by_its_token_and_passed_back() -> None:
    penalties = torch.tensor([0.0, 0.5, 0, 0, 0, 1.0])
    credit = token_gae([0.0, 0.0, 2.0], torch.zeros(6), STEPS, PLAIN, penalties=penalties)
    close(credit.advantages, [0.5, 0.5, 1, 1, 1, 1])
    by_step = step_gae([0.0, 0.0, 2.0], torch.zeros(6), STEPS, PLAIN, penalties=penalties)
    close(by_step.advantages, [0.5, 0.5, 0.5, 1, 1, 1])


@given(trajectories(), fractions)
def test_lambda_one_gives_discounted_return_minus_value(data: tuple[list[float], Tensor, Tensor], gamma: float) -> None:
    rewards, values, ids = data
    credit = token_gae(rewards, values, ids, Discounts(gamma, 1.0, 1.0, 1.0))
    returns = torch.tensor(returns_to_go(rewards, gamma), dtype=torch.float64)[ids]
    torch.testing.assert_close(credit.advantages, returns - values)
    torch.testing.assert_close(credit.targets, returns)


@given(trajectories(), fractions)
def test_lambda_zero_gives_the_one_step_error(data: tuple[list[float], Tensor, Tensor], gamma: float) -> None:
    rewards, values, ids = data
    credit = step_gae(rewards, values, ids, Discounts(gamma, 0.0, 1.0, 1.0))
    states = [float(values[ids == k][0]) for k in range(len(rewards))] + [0.0]
    deltas = [r + gamma * states[k + 1] - states[k] for k, r in enumerate(rewards)]
    torch.testing.assert_close(credit.advantages, torch.tensor(deltas, dtype=torch.float64)[ids])


@given(trajectories(), fractions, fractions, numbers)
def test_token_form_equals_step_form_for_constant_values_within_a_step(
    data: tuple[list[float], Tensor, Tensor], gamma: float, trace: float, bootstrap: float
) -> None:
    rewards, values, ids = data
    constant = torch.stack([values[ids == k][0] for k in ids.tolist()])
    discounts = Discounts(gamma, trace, 1.0, 1.0)
    a = token_gae(rewards, constant, ids, discounts, bootstrap=bootstrap)
    b = step_gae(rewards, constant, ids, discounts, bootstrap=bootstrap)
    torch.testing.assert_close(a.advantages, b.advantages)
    torch.testing.assert_close(a.targets, b.targets)


@pytest.mark.parametrize("ids", [[0, 0, 2], [0, 1, 0], [1, 1, 2], [0, 0, 1, 2]])
def test_step_without_tokens_is_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="step_ids run through"):
        token_gae([1.0, 1.0], torch.zeros(len(ids)), torch.tensor(ids), PLAIN)


def test_leave_one_out_compares_only_with_siblings_alive_at_the_step() -> None:
    """gamma 1.

            r          G            baseline of the others
    A    0, 0, 1    1, 1, 1    (0 + 2) / 2 = 1,  B ended: 2 of C alone = 2,  C ended too: C's deepest = 2
    B    0          0          (1 + 2) / 2 = 1.5
    C    0, 2       2, 2       (1 + 0) / 2 = .5, 1
    """
    advantages = leave_one_out([[0, 0, 1], [0], [0, 2]], gamma=1.0)
    assert advantages == [[0, -1, -1], [-1.5], [1.5, 1]]


def test_leave_one_out_is_unbiased_where_own_stopping_would_bias_it() -> None:
    """A bandit that stops (0) or continues (1) at step 0, and after continuing is paid 1; every step costs 0.2.

    Enumerate both attempts: E[sum_k A_k d log pi(a_k)] must be the exact gradient of the mean return,
    d/dp (1 - p) * 0 + p * (1 - 0.2) - 0.2 = 0.8. (One-parameter policy, p = P(continue).)
    """
    p, gradient = 0.3, 0.0
    rewards = {0: [-0.2], 1: [-0.2, 0.8]}
    score = {0: -1 / (1 - p), 1: 1 / p}
    chance = {0: 1 - p, 1: p}
    for own in (0, 1):
        for other in (0, 1):
            advantage = leave_one_out([rewards[own], rewards[other]], gamma=1.0)[0]
            gradient += chance[own] * chance[other] * advantage[0] * score[own]  # step 1 has no choice
    assert gradient == pytest.approx(0.8)


def test_credit_falls_on_the_token_where_attempts_part() -> None:
    """Four attempts write tokens at the histories r (root), a, b, c; a token leads where its letter says.

         tokens       return   at r: mean 1           at a: mean 1/3            then
    A    a b x        1        a: 4/3 (1/3 - 1)       b: 3/2 (1/2 - 1/3)        alike at b (x, x): 0
    B    a b x        0        the same               the same                  0
    C    a c y        0        the same               c: 3/2 (0 - 1/3)          alone at c: 0
    D    d z          3        d: 4/3 (3 - 1)                                   alone at d: 0
    """
    histories = [["r", "a", "b"], ["r", "a", "b"], ["r", "a", "c"], ["r", "d"]]
    tokens = [[1, 2, 9], [1, 2, 9], [1, 3, 8], [4, 7]]
    returns = [[1.0] * 3, [0.0] * 3, [0.0] * 3, [3.0] * 2]
    advantages = where_attempts_part(histories, tokens, returns)
    expected = [[-8 / 9, 1 / 4, 0], [-8 / 9, 1 / 4, 0], [-8 / 9, -1 / 2, 0], [8 / 3, 0]]
    for found, wanted in zip(advantages, expected, strict=True):
        assert found == pytest.approx(wanted)


def test_credit_where_attempts_part_is_the_policy_gradient_of_each_shared_history() -> None:
    """Stop at once (paid .5), or go on with chance p and then win (1) with chance q or lose (0).

    J = (1 - p) / 2 + p q, so dJ/dp = q - .5 and dJ/dq = p. All triples of attempts are enumerated. All share
    the root; the second history counts where at least one of the two others is there too: 1 - (1 - p)^2.
    """
    p, q = 0.4, 0.3
    outcomes: list[tuple[float, list[str], list[int], float, list[dict[str, float]]]] = [
        (1 - p, ["s"], [0], 0.5, [{"p": -1 / (1 - p)}]),
        (p * q, ["s", "on"], [1, 1], 1.0, [{"p": 1 / p}, {"q": 1 / q}]),
        (p * (1 - q), ["s", "on"], [1, 0], 0.0, [{"p": 1 / p}, {"q": -1 / (1 - q)}]),
    ]
    gradient = {"p": 0.0, "q": 0.0}
    for attempts in product(outcomes, repeat=3):
        chance = math.prod(attempt[0] for attempt in attempts)
        advantages = where_attempts_part(
            [a[1] for a in attempts], [a[2] for a in attempts], [[a[3]] * len(a[2]) for a in attempts]
        )[0]
        for advantage, score in zip(advantages, attempts[0][4], strict=True):
            for name, value in score.items():
                gradient[name] += chance * advantage * value
    assert gradient == pytest.approx({"p": q - 0.5, "q": p * (1 - (1 - p) ** 2)})


def test_few_visits_are_drawn_towards_the_mean_of_all() -> None:
    """Five attempts at one history, smoothed by 2 visits: mean of all .4, and n / (n - 1) = 5/4.

    token   returns      mean    drawn to .4                    advantage
    1       1            1       (1 + 2 * .4) / 3 = .6          5/4 * .2  =  .25
    2       1, 0, 0, 0   .25     (1 + 2 * .4) / 6 = .3          5/4 * -.1 = -.125
    """
    histories, tokens = [["r"]] * 5, [[1], [2], [2], [2], [2]]
    returns = [[1.0], [1.0], [0.0], [0.0], [0.0]]
    found = where_attempts_part(histories, tokens, returns, smoothing=2.0)
    assert found == [[pytest.approx(0.25)], *[[pytest.approx(-0.125)]] * 4]
    assert where_attempts_part(histories, tokens, returns)[0] == [pytest.approx(0.75)]


def test_every_visit_of_a_state_counts_but_not_against_the_same_attempt_alone() -> None:
    """A repeats 1 in the state s and then takes 2; B takes 2 at once; C is alone in t, twice.

              at s: returns of 1: .5, .6    of 2: .7, 0.2      n = 4, mean .5
    1         4/3 (.55 - .5) = .0667
    2         4/3 (.45 - .5) = -.0667
    """
    histories = [["s", "s", "s"], ["s"], ["t", "t"]]
    tokens, returns = [[1, 1, 2], [2], [1, 2]], [[0.5, 0.6, 0.7], [0.2], [1.0, 0.0]]
    one, two = pytest.approx(0.2 / 3), pytest.approx(-0.2 / 3)
    assert where_attempts_part(histories, tokens, returns) == [[one, one, two], [two], [0, 0]]


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=5), numbers), min_size=1, max_size=8))
def test_advantages_of_those_at_one_history_add_up_to_nothing(attempts: list[tuple[list[int], float]]) -> None:
    tokens = [path for path, _ in attempts]
    histories = [[tuple(path[:j]) for j in range(len(path))] for path in tokens]
    advantages = where_attempts_part(histories, tokens, [[value] * len(path) for path, value in attempts])
    at: dict[tuple[int, ...], list[float]] = {}
    taken: dict[tuple[int, ...], set[int]] = {}
    for path, own, mine in zip(histories, tokens, advantages, strict=True):
        for history, token, advantage in zip(path, own, mine, strict=True):
            at.setdefault(history, []).append(advantage)
            taken.setdefault(history, set()).add(token)
    for history, values in at.items():
        assert sum(values) == pytest.approx(0, abs=1e-6)
        assert len(taken[history]) > 1 or not any(values)


@pytest.mark.parametrize("attempts", [[[1.0]], [[1.0], []]])
def test_leave_one_out_needs_a_sibling(attempts: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="two attempts"):
        leave_one_out(attempts, 1.0)


@given(st.lists(numbers, min_size=2, max_size=20))
def test_whitened_advantages_have_mean_zero_and_unit_spread(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    weights = torch.ones_like(x)
    if x.std() < 1e-2:
        return
    white = whiten(x, weights)
    assert float(white.mean()) == pytest.approx(0, abs=1e-5)
    assert float(white.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_scaling_without_centring_leaves_nothing_at_nothing() -> None:
    x, weights = torch.tensor([0.0, 0, 2, -1]), torch.tensor([0.25, 0.25, 0.25, 1])
    assert whiten(x, weights, centre=False).tolist()[:2] == [0, 0]
    assert whiten(x, weights).tolist()[0] != 0


def test_whitening_by_steps_counts_a_long_step_once() -> None:
    """Steps worth 1 (three tokens) and -1 (one token): mean 0 by step, 0.5 by token."""
    x = torch.tensor([1.0, 1, 1, -1])
    close(whiten(x, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])).double().round(decimals=5), [1, 1, 1, -1])
    assert float(whiten(x, torch.ones(4))[3]) < -1.5
