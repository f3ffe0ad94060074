"""Rewards by grounding.

query: what does Dune cost?    answer share 0.6, next_call 0.5, cost 0.02

step            0 find        1 get(id)          2 Finish 9.99
                -> id         -> price
uses            nothing       find's id          get's price
builds          0             1                  1
paid            0             0.4 · 0.5 = 0.2    0.4 · 0.25 = 0.1, and 0.6 for a grounded answer
reward          -0.02         0.18               0.68
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool import testing
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.rewards.base import Chooses, HasClosedForm, forms_of, needs_verdict, rewards_of
from steptool.rewards.grounded import Grounded, Paid
from steptool.testing import call, finish, give_up, judgement, step
from steptool.training.siblings import returns_to_go
from tests.rewards.conftest import annotated, make_task, make_trajectory

FORM = Grounded(Grounded.Config(alpha=0.5, answer=0.6, next_call=0.5, step_cost=0.02))
QUERY = "What does Dune cost?"
FIND = ("find", {"name": "Dune"}, {"id": "bk417"})
GET = ("get", {"id": "bk417"}, {"price": 9.99, "stock": 3})
OTHER = ("find", {"name": "Emma"}, {"id": "bk500"})


def rewards(*calls: tuple[str | None, dict[str, Any], Any], form: Any = FORM, solved: float | None = None,
            **ending: Any) -> list[float]:  # fmt: skip
    scored = annotated(make_trajectory(*calls, **ending), make_task(QUERY), solved)
    return list(form.choose([scored]).rewards(scored))


def test_a_step_is_paid_for_what_it_builds_on_and_the_answer_for_standing_on_it() -> None:
    assert rewards(FIND, GET, answer="9.99") == pytest.approx([-0.02, 0.18, 0.68])


def test_a_verdict_counts_and_the_grounding_beside_it() -> None:
    """w = 0.5 / 1.5 of the grounding, 1 − w of the verdict."""
    assert rewards(FIND, GET, answer="9.99", solved=1.0) == pytest.approx(
        [-0.02, 0.2 / 3 - 0.02, 2 / 3 + 0.7 / 3 - 0.02]
    )
    assert rewards(FIND, GET, answer="9.99", solved=0.0) == pytest.approx([-0.02, 0.2 / 3 - 0.02, 0.7 / 3 - 0.02])


def test_what_nobody_used_is_not_paid() -> None:
    assert rewards(FIND, OTHER, stop=StopReason.gave_up) == pytest.approx([-0.02] * 3)
    assert rewards(FIND, OTHER, FIND, answer="no idea") == pytest.approx([-0.02] * 4)


def test_a_repeated_call_is_paid_nothing_and_pays_for_nothing() -> None:
    assert rewards(FIND, GET, GET, GET, answer="9.99") == pytest.approx([-0.02, 0.18, -0.02, -0.02, 0.68])


def test_an_answer_with_a_value_of_every_reply_is_paid_as_one_with_the_last() -> None:
    assert rewards(FIND, GET, answer="bk417, 9.99") == rewards(FIND, GET, answer="9.99")


def test_each_part_of_a_task_builds() -> None:
    again = ("get", {"id": "bk500"}, {"price": 12.5})
    assert rewards(FIND, GET, OTHER, again, answer="12.5") == pytest.approx([-0.02, 0.18, -0.02, 0.08, 0.63])


def test_a_failed_call_that_said_how_to_go_on_is_a_link_and_not_counted() -> None:
    moved = ("get", {"id": "bk417"}, "!id moved, use bk418")
    again = ("get", {"id": "bk418"}, {"price": 9.99})
    assert rewards(FIND, moved, again, answer="9.99") == pytest.approx([-0.02, 0.18, -0.02, 0.68])


def test_an_answer_in_words_of_the_query_stands_on_what_was_looked_up_about_them() -> None:
    scored = annotated(
        make_trajectory(FIND, ("find", {"name": "Emma"}, {"id": "bk500"}), answer="Emma"),
        make_task("Which is cheaper, Dune or Emma?"),
        None,
    )
    assert FORM.rewards(scored) == pytest.approx([-0.02, -0.02, 0.78])
    guessed = annotated(make_trajectory(answer="Emma"), make_task("Which is cheaper, Dune or Emma?"), None)
    assert FORM.rewards(guessed) == pytest.approx([-0.02])


def test_independent_reads_may_come_in_any_order() -> None:
    first, second = rewards(FIND, OTHER, GET, answer="9.99"), rewards(OTHER, FIND, GET, answer="9.99")
    assert first == second == pytest.approx([-0.02, -0.02, 0.18, 0.68])


def test_attempts_that_are_compared_have_one_form_where_one_has_no_verdict() -> None:
    task, attempt = make_task(QUERY), make_trajectory(FIND, GET, answer="9.99")
    known, unknown = annotated(attempt, task, 0.0), annotated(attempt, task, None)
    first, second = rewards_of(FORM, [known, unknown])
    assert first == second == pytest.approx([-0.02, 0.18, 0.68])
    assert isinstance(FORM, Chooses) and not needs_verdict(FORM)


def test_an_annotator_without_these_scores_is_read_by_contribution() -> None:
    lookup = step(call("find", name="Dune"), {"id": "bk417"})
    scored = testing.scored(
        testing.trajectory(lookup, lookup, finish("bk417")),
        judgement(success=1, contribution=1),
        judgement(success=1, contribution=0),
        judgement(solved=None),
    )
    assert FORM.rewards(scored) == pytest.approx([0.18, -0.02, 0.58])


# For any judgements


def attempt_of(builds: Sequence[bool], grounded: bool, solved: float | None, answers: bool) -> ScoredTrajectory:
    """Calls and an ending; builds[-1] is of the ending."""
    lookups = [step(call("find", name=f"{index}"), {"id": index}) for index in range(len(builds) - 1)]
    made = testing.trajectory(*lookups, finish("x") if answers else give_up(), solved=solved)
    steps = [judgement(success=1, contribution=0, builds=float(one)) for one in builds[:-1]]
    return testing.scored(made, *steps, judgement(solved=solved, grounded=float(grounded), builds=float(builds[-1])))


FORMS = st.builds(
    Grounded.Config,
    alpha=st.floats(0, 10),
    answer=st.floats(0, 1),
    next_call=st.floats(0, 1),
    step_cost=st.floats(0, 1),
    gamma=st.floats(0, 1),
).map(Grounded)
ATTEMPTS = st.builds(
    attempt_of,
    st.lists(st.booleans(), min_size=1, max_size=9),
    st.booleans(),
    st.none() | st.floats(0, 1),
    st.booleans(),
)


def paid(form: Grounded, scored: ScoredTrajectory) -> Callable[[ScoredTrajectory], Sequence[float]]:
    return form.choose([scored]).rewards


@given(FORMS, ATTEMPTS)
def test_an_attempt_is_paid_at_most_1_and_never_less_than_nothing(form: Grounded, scored: ScoredTrajectory) -> None:
    pays = [reward + form.config.step_cost for reward in form.rewards(scored)]
    assert all(pay >= -1e-9 for pay in pays)
    assert math.fsum(pays) <= 1 + 1e-9


@given(FORMS, ATTEMPTS, st.integers(0, 8), st.floats(0, 0.999))
def test_a_step_that_is_paid_nothing_never_raises_a_return(
    form: Grounded, scored: ScoredTrajectory, place: int, decay: float
) -> None:
    """Wherever it is put in, and whatever the discount: so neither a repeat nor a delay earns."""
    steps, judgements = list(scored.trajectory.steps), list(scored.judgements)
    place = min(place, len(steps) - 1)
    idle = step(call("find", name="again"), {"id": 0})
    later = testing.trajectory(*steps[:place], idle, *steps[place:], solved=scored.solved)
    nothing = judgement(success=1, contribution=0, builds=0.0)
    put_off = testing.scored(later, *judgements[:place], nothing, *judgements[place:])
    before, after = (returns_to_go(form.rewards(each), decay)[: place + 1] for each in (scored, put_off))
    assert all(late <= early + 1e-9 for early, late in zip(before, after, strict=True))


@given(FORMS, ATTEMPTS)
def test_the_closed_form_is_the_discounted_sum(form: Grounded, scored: ScoredTrajectory) -> None:
    (own,) = forms_of(form, [scored])
    assert isinstance(own, Paid) and isinstance(own, HasClosedForm)
    assert own.expected_return(scored) == pytest.approx(returns_to_go(own.rewards(scored), form.gamma)[0])


def test_an_attempt_that_a_fault_ended_before_its_first_step_is_paid_nothing() -> None:
    broken = testing.scored(testing.trajectory(stop=StopReason.engine_error))
    (own,) = forms_of(FORM, [broken])
    assert list(own.rewards(broken)) == []
    assert isinstance(own, HasClosedForm) and own.expected_return(broken) == 0.0
