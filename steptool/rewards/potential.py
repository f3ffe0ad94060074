"""Rewards as the difference of a potential, which does not change which policy is optimal.

With s_t the success of step t, T the last step, n = T + 1 steps:

    r_t = γ Φ(t+1) − Φ(t) − cost        r_T = solved + γ Φ(n) − Φ(T) − cost − budget
    Φ(t) = α Σ_{i<t} (s_i + u_i(t))     u_i(t) = max of s_j over the steps j, i < j < t, that use i

with Φ = 0 once the trajectory terminated. Shaping of this form cannot change which policy is optimal (Ng, Harada &
Russell 1999): its discounted sum is −Φ(0) = 0, whatever was done. This holds for the return. A lambda-return with
lambda below 1 uses Φ as a critic and has a critic's bias.

u_i(t) is the contribution of step i *as far as step t can see it*: a successful call before t took a value from its
reply. The judged contribution c_i would be wrong in its place. It is hindsight: whether step i contributed depends on
later actions. Then −Φ(t), a part of the return from t, would depend on the action at t, and an answer would cost α for
each result that it uses. (After two lookups with α = 0.25, giving up would be better than an answer that is right less
than half the time.) Ng's theorem needs a function of the state, and u_i(t) is one.
"""

from __future__ import annotations

from collections.abc import Sequence

from steptool.core.types import ScoredTrajectory
from steptool.rewards.costs import Weights, discounted, less_costs, verdict_of
from steptool.trajectories.links import step_links


class Potential:
    name = "potential"

    class Config(Weights): ...

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def gamma(self) -> float:
        return self.config.gamma

    @property
    def shapes(self) -> bool:
        return self.config.alpha > 0

    def rewards(self, scored: ScoredTrajectory) -> Sequence[float]:
        plain, phi = less_costs(scored, self.config, verdict_of(scored)), potentials(scored, self.config.alpha)
        steps = zip(plain, phi, phi[1:], strict=False)  # one potential more than there are steps
        return [reward + self.gamma * after - before for reward, before, after in steps]

    def expected_return(self, scored: ScoredTrajectory) -> float:
        """γ^T (solved − budget) − cost Σ γ^t, and + γ^n Φ(n) for a truncation."""
        return (
            discounted(scored, self.config, verdict_of(scored))
            + self.gamma ** len(scored.judgements) * potentials(scored, self.config.alpha)[-1]
        )


def potentials(scored: ScoredTrajectory, alpha: float) -> list[float]:
    """Φ(0) … Φ(n), n + 1 numbers for n steps; Φ(n) is 0 after an ending.

    A truncated trajectory (engine or world fault) keeps Φ(n) = Φ(n−1): nothing is paid back, because the value of the
    state after it is bootstrapped. Its last step has no success to add.
    """
    success = [judgement.success or 0.0 for judgement in scored.judgements]
    links = step_links(scored.trajectory)
    known = [0.0] * len(success)
    phi = [0.0]
    for step, score in enumerate(success[:-1]):
        for source in links[step]:
            known[source] = max(known[source], score)
        phi.append(alpha * (sum(success[: step + 1]) + sum(known)))
    if success:
        phi.append(0.0 if scored.trajectory.stop_reason.terminated else phi[-1])
    return phi
