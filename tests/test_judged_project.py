"""A project whose tasks have no check, judged: by an endpoint first, then without one.

rules        no verdict: rewards by the calls alone, and grounded answers to compare
judge        a scripted endpoint gives every attempt a verdict: rewards by it, and a pass rate
local_judge  the same without any endpoint
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from steptool.annotators.judge_script import completion, scripted_answer
from tests.endpoints.fake import Fake, fake
from tests.test_unchecked import Project, project  # noqa: F401  a fixture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Fake]:
    with fake(lambda request: completion(scripted_answer(request))) as served:
        yield served


def test_verdicts_of_a_judge_are_the_outcome_where_the_world_has_none(project: Project, endpoint: Fake) -> None:  # noqa: F811
    relaxed = {"min_solve_rate": 0.0, "max_solve_rate": 1.0, "min_return_spread": 0.0, "max_drift": 1.0}
    project.set(validate={**relaxed, "min_per_group": 0})
    project.set(annotate={"use": "judge", "url": endpoint.url, "model": "scripted"})
    project.steptool("graph")
    said = project.steptool("run")
    assert "8 trajectories, 100.0% solved; the judge:" in said
    assert "8 trajectories, 8 rewarded by their outcome" in said
    asked = len(endpoint.requests)
    assert asked > 0
    summary = project.read("metrics/evaluation/summary.json")
    assert summary["ppo"]["pass_rate"] == 1
    assert project.read("metrics/evaluation/comparisons.json")[0]["measure"] == "solved"

    annotate = {"use": "judge", "url": endpoint.url, "model": "scripted", "concurrency": 2, "ceiling_tokens": 10**9}
    project.set(annotate=annotate)
    project.steptool("run")
    assert len(endpoint.requests) == asked, "settings of speed and money ask nothing again"

    project.set(annotate={"use": "local_judge"})
    said = project.steptool("run")
    assert "8 rewarded by their outcome" in said or "solved" in said
    assert project.read("metrics/evaluation/summary.json")["ppo"]["tasks_with_verdict"] > 0
    assert len(endpoint.requests) == asked
