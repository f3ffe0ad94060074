"""Two attempts that were read apart, and what they share after the pool has seen both.

attempt      prompt    conditions   verdict
a            1 2 3     one          1.0
b            1 2 3     one          0.0
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steptool.core.sharing import Pool
from steptool.core.types import ScoredTrajectory
from steptool.testing import call, finish, judgement, scored, step, trajectory

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def attempt(answer: str, solved: float) -> ScoredTrajectory:
    """As if it had been read from a file: nothing of it is an object of another."""
    first = step(call("find", name="a"), "{}", context_ids=(1000, 2000, 3000), action_ids=(4000,))
    made = trajectory(first, finish(answer), of="t")
    given = scored(made, judgement(success=1, contribution=0), judgement(solved=solved))
    return ScoredTrajectory.model_validate_json(given.model_dump_json())


def test_records_say_what_they_said_and_share_what_is_equal() -> None:
    plain, pool = [attempt("7", 1.0), attempt("8", 0.0)], Pool()
    a, b = [pool.shared(attempt("7", 1.0)), pool.shared(attempt("8", 0.0))]
    assert [a, b] == plain
    assert [each.model_dump_json() for each in (a, b)] == [each.model_dump_json() for each in plain]
    assert a.trajectory.conditions is b.trajectory.conditions
    assert a.trajectory.steps[0].context_ids is b.trajectory.steps[0].context_ids
    assert a.annotator is b.annotator
    assert a.trajectory.model_fields_set is b.trajectory.model_fields_set
    assert a.trajectory.answer != b.trajectory.answer


def test_a_changed_copy_leaves_the_others_as_they_are() -> None:
    pool = Pool()
    a, b = [pool.shared(attempt("7", 1.0)), pool.shared(attempt("7", 1.0))]
    before = b.model_dump_json()
    changed = a.trajectory.model_copy(update={"error": "gone"})
    assert changed.error == "gone"
    assert b.model_dump_json() == before
    assert b.trajectory.error is None


@given(st.lists(VALUES, max_size=4))
def test_values_of_different_types_are_never_taken_for_each_other(values: list[object]) -> None:
    """1, True and 1.0 are equal in Python, and not in a file."""
    pool = Pool()
    for value in (True, 1, 1.0, "1", *values):
        made = call("find", value=value)
        written = made.model_dump_json()
        assert pool.shared(made).model_dump_json() == written
