"""Advantages and loss together solve a small tool problem as dynamic programming does.

An agent with at most three steps chooses a tool token, and for `look` an argument token as well:

    look right    success, pays alpha - cost = 0        one more fact known
    look wrong    pays -cost = -0.1
    Finish        pays 1 if exactly one or more facts are known, else 0; ends
    (third look)  the budget is used up: ends unsolved

With gamma 0.99 the optimum is look right, Finish: 0.99. The release of the paper multiplies each score
by the steps remaining, so the final reward is never paid and longer trajectories earn more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch

from steptool.training.credit import Discounts, token_gae, whiten
from steptool.training.losses import Clip, policy_loss

GAMMA, ALPHA, COST, STEPS = 0.99, 0.1, 0.1, 3
LOOK, FINISH = 0, 1

Rewards = Callable[[Sequence[float]], list[float]]


def as_they_are(rewards: Sequence[float]) -> list[float]:
    return list(rewards)


def as_released(scores: Sequence[float]) -> list[float]:
    """score_i * (T - i - 1), and no cost a step."""
    paid = [score + COST if i < len(scores) - 1 else score for i, score in enumerate(scores)]
    return [score * (len(paid) - i - 1) for i, score in enumerate(paid)]


@cache
def optimum(step: int = 0, facts: int = 0) -> tuple[float, tuple[int, int]]:
    """Value and best (tool, argument) of a state, by backward induction."""
    options: dict[tuple[int, int], float] = {(FINISH, 0): float(facts > 0)}
    for argument in (0, 1):
        reward = argument * ALPHA - COST
        follows = 0.0 if step == STEPS - 1 else optimum(step + 1, min(facts + argument, 2))[0]
        options[LOOK, argument] = reward + GAMMA * follows
    best = max(options, key=lambda action: options[action])
    return options[best], best


Token = tuple[int, int, int]
"""Step, facts, and 0 for the tool's or 1 for the argument's token: the state that the token is chosen in."""


def sample(theta: torch.Tensor, generator: torch.Generator) -> tuple[list[Token], list[int], list[int], list[float]]:
    """States, chosen tokens, step ids and step rewards of one trajectory."""
    states: list[Token] = []
    chosen: list[int] = []
    step_ids: list[int] = []
    rewards: list[float] = []
    facts = 0

    def choose(step: int, kind: int) -> int:
        states.append((step, facts, kind))
        step_ids.append(step)
        chosen.append(int(torch.multinomial(theta[step, facts, kind].softmax(-1), 1, generator=generator)))
        return chosen[-1]

    for step in range(STEPS):
        if choose(step, 0) == FINISH:
            rewards.append(float(facts > 0))
            break
        argument = choose(step, 1)
        rewards.append(argument * ALPHA - COST)
        facts = min(facts + argument, 2)
    return states, chosen, step_ids, rewards


def train(paid: Rewards, rounds: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and values of every token state [step, facts, kind] after PPO."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(STEPS, 3, 2, 2, requires_grad=True)
    values = torch.zeros(STEPS, 3, 2)
    adam = torch.optim.Adam([theta], lr=0.08)
    discounts = Discounts(GAMMA, 0.95, 1.0, 1.0)
    for _ in range(rounds):
        with torch.no_grad():
            runs = [sample(theta, generator) for _ in range(32)]
        credit = [
            token_gae(paid(rewards), values[tuple(torch.tensor(states).T)], torch.tensor(ids), discounts)
            for states, _, ids, rewards in runs
        ]
        index = tuple(torch.tensor([state for run in runs for state in run[0]]).T)
        actions = torch.tensor([token for run in runs for token in run[1]])
        weights = torch.ones(len(actions))
        advantages = whiten(torch.cat([c.advantages for c in credit]).float(), weights)
        old = theta.detach().log_softmax(-1)[index][torch.arange(len(actions)), actions]
        for _epoch in range(2):
            new = theta.log_softmax(-1)[index][torch.arange(len(actions)), actions]
            loss, _ = policy_loss(new, old, advantages, weights, weights, len(actions), Clip())
            adam.zero_grad()
            loss.backward()
            adam.step()
        targets = torch.cat([c.targets for c in credit]).float()
        for target, *state in zip(targets.tolist(), *(part.tolist() for part in index), strict=True):
            values[tuple(state)] += 0.05 * (target - values[tuple(state)])
    return theta.detach(), values


def greedy(theta: torch.Tensor) -> list[tuple[int, int]]:
    path, facts = [], 0
    for step in range(STEPS):
        tool = int(theta[step, facts, 0].argmax())
        argument = int(theta[step, facts, 1].argmax()) if tool == LOOK else 0
        path.append((tool, argument))
        if tool == FINISH:
            break
        facts += argument
    return path


def test_dynamic_programming_looks_once_and_finishes() -> None:
    value, action = optimum()
    assert value == pytest.approx(0.99)
    assert action == (LOOK, 1)
    assert optimum(1, 1) == (1.0, (FINISH, 0))


def test_ppo_finds_the_dynamic_programming_optimum() -> None:
    theta, values = train(as_they_are)
    assert greedy(theta) == [optimum(0, 0)[1], optimum(1, 1)[1]]
    assert float(theta[0, 0, 1].softmax(-1)[1]) > 0.9
    assert float(values[0, 0, 0]) == pytest.approx(optimum()[0], abs=0.1)


def test_release_formula_learns_to_look_until_the_budget_is_gone() -> None:
    theta, _ = train(as_released)
    assert FINISH not in [tool for tool, _ in greedy(theta)]
