"""From judgements to one reward a step. Derived, never stored: re-weighting costs no re-annotation.

With s_t, c_t the success and contribution of step t, T the last step, n = T + 1 steps:

paper      r_t = α (s_t + c_t) − cost          r_T = solved − cost − budget
           (arXiv 2410.07745 has cost = budget = 0)

potential  r_t = γ Φ(t+1) − Φ(t) − cost        r_T = solved + γ Φ(n) − Φ(T) − cost − budget
           Φ(t) = α Σ_{i<t} (s_i + u_i(t))     u_i(t) = max of s_j over the steps j, i < j < t, that use i

           with Φ = 0 once the trajectory terminated. Shaping of this form cannot change which policy is
           optimal (Ng, Harada & Russell 1999): its discounted sum is −Φ(0) = 0, whatever was done. So for the
           return; a lambda-return below 1 uses Φ as a critic, and has a critic's bias.

u_i(t) is the contribution of step i *as far as step t can see it*: a successful call before t took a value
from its reply. The judged contribution c_i must not stand there. It is hindsight: whether step i
contributed depends on later actions, so −Φ(t), which the return from t holds, would depend on the action
at t, and answering would cost α for each result used. (Two lookups, α = 0.25: giving up would beat every
answer that is right less than half the time.) Ng's theorem needs a function of the state, and this is one.
"""

from __future__ import annotations

from steptool.config.settings import RewardParams
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.trajectories.links import argument_links, fresh_values

_OUT_OF_BUDGET = (StopReason.call_budget, StopReason.token_budget)


def step_rewards(scored: ScoredTrajectory, params: RewardParams, gamma: float) -> list[float]:
    """One reward a step. `gamma` is the discount between steps, the one that training uses (in [0, 1])."""
    judgements = scored.judgements
    if not judgements:
        return []
    last = len(judgements) - 1
    rewards = [-params.step_cost] * len(judgements)
    rewards[last] += scored.solved - _budget_cost(scored, params)
    if params.form == "paper":
        for step, judgement in enumerate(judgements[:last]):
            rewards[step] += params.alpha * ((judgement.success or 0.0) + (judgement.contribution or 0.0))
        return rewards
    phi = potentials(scored, params.alpha)
    return [reward + gamma * after - before for reward, before, after in zip(rewards, phi, phi[1:], strict=False)]


def potentials(scored: ScoredTrajectory, alpha: float) -> list[float]:
    """Φ(0) … Φ(n), n + 1 numbers for n steps; Φ(n) is 0 after an ending.

    A truncated trajectory (engine or world fault) keeps Φ(n) = Φ(n−1): nothing is paid back, for the value
    of the state behind it is bootstrapped, and its last step carries no success that could be added.
    """
    trajectory = scored.trajectory
    success = [judgement.success or 0.0 for judgement in scored.judgements]
    links = argument_links(trajectory, fresh_values(trajectory))
    known = [0.0] * len(success)
    phi = [0.0]
    for step, score in enumerate(success[:-1]):
        for source in links[step]:
            known[source] = max(known[source], score)
        phi.append(alpha * (sum(success[: step + 1]) + sum(known)))
    if success:
        phi.append(0.0 if trajectory.stop_reason.terminated else phi[-1])
    return phi


def expected_return(scored: ScoredTrajectory, params: RewardParams, gamma: float) -> float:
    """Σ γ^t r_t in closed form: what the discounted rewards of a trajectory must add up to.

    potential:  γ^T (solved − budget) − cost Σ γ^t, and + γ^n Φ(n) for a truncation;
    paper:      the same without Φ, and + α Σ γ^t (s_t + c_t).
    """
    n = len(scored.judgements)
    if not n:
        return 0.0
    total = gamma ** (n - 1) * (scored.solved - _budget_cost(scored, params))
    total -= params.step_cost * (n if gamma == 1 else (1 - gamma**n) / (1 - gamma))
    if params.form == "potential":
        return total + gamma**n * potentials(scored, params.alpha)[-1]
    return total + params.alpha * sum(
        gamma**t * ((judgement.success or 0.0) + (judgement.contribution or 0.0))
        for t, judgement in enumerate(scored.judgements[:-1])
    )


def _budget_cost(scored: ScoredTrajectory, params: RewardParams) -> float:
    return params.budget_cost if scored.trajectory.stop_reason in _OUT_OF_BUDGET else 0.0
