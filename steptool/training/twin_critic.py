"""A critic of whole actions, learned from recorded steps by temporal differences (ArCHer, arXiv 2402.19446).

    Q(s, a)  what is still to come after action a in state s, twice (Q1, Q2), because one alone overrates what it has
             rarely seen; the smaller one counts
    V(s)     what the policy may expect in s

Each is a `ValueHead` on features of a policy, those of a state or of what lies behind an action. One update:

    Q1, Q2   towards  r + γ V'(s')                0 for V' where the attempt ended
    V        towards  min(Q1', Q2')(s, a)         steps drawn by how likely the policy of now takes a, against then
    the targets V', Q1', Q2'  ←  (1 − polyak) of themselves + polyak of V, Q1, Q2

So a value passes from step to step through states, not along attempts: what one attempt lost behind a state does not
count against the action that led another there. Q1 and Q2 differ because they are updated on other draws of steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steptool.training.losses import value_loss
from steptool.training.model import ValueHead


@dataclass(frozen=True)
class Transitions:
    """K recorded steps among S states."""

    states: Tensor
    """[S, hidden] features, those behind a truncated attempt too."""
    actions: Tensor
    """[K, hidden] features behind each step's action."""
    rewards: Tensor
    """[K]."""
    at: Tensor
    """[K] index of the state that each was taken in."""
    then: Tensor
    """[K] index of the state that it led to; −1 where the attempt ended."""

    def to(self, device: torch.device) -> Transitions:
        return Transitions(*(part.to(device) for part in vars(self).values()))


class TwinCritic(nn.Module):
    def __init__(self, value: ValueHead) -> None:
        """Starts from `value`, which stays as it is: with V, and with Q that knows no action."""
        super().__init__()
        self.v, self.q1, self.q2 = (copy.deepcopy(value) for _ in range(3))
        self.v_target, self.q1_target, self.q2_target = (copy.deepcopy(value) for _ in range(3))
        for target in (self.v_target, self.q1_target, self.q2_target):
            target.requires_grad_(False)

    def learn(
        self,
        steps: Transitions,
        likelier: Tensor,
        *,
        gamma: float,
        polyak: float,
        updates: int,
        batch: int,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        """`updates` of all heads, each on `batch` steps drawn from `generator`, a CPU's.

        `likelier` [K] is how many times as likely the policy of now takes each step's action as the one that took it:
        V is the mean of Q over the actions of now.
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, lr=learning_rate)
        ones = torch.ones(batch, device=steps.rewards.device)
        for _ in range(updates):
            losses = []
            for q in (self.q1, self.q2):
                drawn = torch.randint(len(steps.rewards), (batch,), generator=generator).to(steps.at.device)
                losses.append(value_loss(q(steps.actions[drawn]), self._ahead(steps, drawn, gamma), ones, batch))
            drawn = torch.randint(len(steps.rewards), (batch,), generator=generator).to(steps.at.device)
            with torch.no_grad():
                found = torch.minimum(self.q1_target(steps.actions[drawn]), self.q2_target(steps.actions[drawn]))
            losses.append(value_loss(self.v(steps.states[steps.at[drawn]]), found, likelier[drawn], batch))
            adam.zero_grad()
            torch.stack(losses).sum().backward()
            adam.step()
            self._follow(polyak)

    @torch.no_grad()
    def advantages(self, steps: Transitions) -> Tensor:
        """[K] min(Q1, Q2)(s, a) − V(s) of each step."""
        return torch.minimum(self.q1(steps.actions), self.q2(steps.actions)) - self.v(steps.states[steps.at])

    @torch.no_grad()
    def _ahead(self, steps: Transitions, drawn: Tensor, gamma: float) -> Tensor:
        """r + γ V'(s')."""
        then = steps.then[drawn]
        behind = torch.where(then < 0, 0.0, self.v_target(steps.states[then.clamp(min=0)]))
        return steps.rewards[drawn] + gamma * behind

    @torch.no_grad()
    def _follow(self, polyak: float) -> None:
        for head, target in ((self.v, self.v_target), (self.q1, self.q1_target), (self.q2, self.q2_target)):
            for new, old in zip(head.parameters(), target.parameters(), strict=True):
                old.lerp_(new, polyak)
