"""What is wrong with a round, and what to do about it: pure rules over its attempts and those of the round before.

    scored attempts ─┬─ counts ──────── endings, calls, tools, tasks ─┐
                     ├─ signal ──────── contrast, length, advantage ──┼─ a finding each, the worst first
                     └─ likelihoods ─── engine, weights ──────────────┘

The gate (`steptool.checks.gate`) says whether data may be trained on. A diagnosis says why a training on it will teach
little, and stops nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from steptool.checks.diagnosis import attempts, credit, policies, tools
from steptool.checks.diagnosis.findings import Diagnosed, Diagnosis, Name, Severity
from steptool.checks.diagnosis.round import Round
from steptool.core.types import ScoredTrajectory, Task
from steptool.policies.asked import Asked
from steptool.rewards.base import RewardForm, rewards_of
from steptool.training.compared import Compared, paid

RULES: tuple[Callable[[Round], Diagnosed], ...] = (
    *(policies.weights, policies.engine),
    *(tools.timeouts, tools.tool_errors, tools.malformed, tools.shortened),
    *(attempts.broken, attempts.budget, attempts.rewritten, attempts.no_calls, attempts.endings, attempts.calls),
    *(attempts.verdicts, credit.length, credit.contrast, credit.advantage),
)


def diagnose(
    scored: Sequence[ScoredTrajectory],
    form: RewardForm,
    *,
    name: str = "the round",
    tasks: Mapping[str, Task] | None = None,
    comparison: Compared | None = None,
    before: Sequence[ScoredTrajectory] = (),
    asked: Asked | None = None,
    shortened: Mapping[str, int] | None = None,
) -> Diagnosis:
    """Look at a round with the rewards that `form` gives; see `Round` for the rest."""
    earned = zip(scored, rewards_of(form, scored), strict=True)
    usable = [(item, own) for item, own in earned if _is_usable(item, own)]
    learned = [(item, own if comparison is None else paid(comparison, form, item, own)) for item, own in usable]
    looked_at = Round(
        name=name,
        scored=[item for item, _ in usable],
        rewards=[own for _, own in usable],
        gamma=form.gamma,
        tasks=tasks or {},
        comparison=comparison,
        credited=[(item, own) for item, own in learned if own is not None],
        before=before,
        asked=asked,
        shortened=shortened or {},
    )
    found = [rule(looked_at) for rule in RULES]
    worst, causes = list(Severity), list(Name)
    return Diagnosis(
        findings=tuple(sorted(found, key=lambda each: (worst.index(each.severity), causes.index(each.name)))),
        counts=looked_at.counts,
        previous=looked_at.previous,
        tasks=looked_at.by_task,
        tools=looked_at.tools,
        shortened=dict(looked_at.shortened),
    )


def _is_usable(item: ScoredTrajectory, rewards: Sequence[float]) -> bool:
    return len(rewards) == len(item.judgements) and all(map(math.isfinite, rewards))
