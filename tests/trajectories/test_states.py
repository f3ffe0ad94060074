"""States of attempts: what was read decides, whatever the order, and the world's own word where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from steptool.core.types import Step
from steptool.testing import call, finish, message, step, trajectory, unreadable
from steptool.trajectories.states import states_of

TEA = step(call("find", name="tea"), {"id": 7})
PRICE = step(call("price", id=7), {"price": 3})
STOCK = step(call("stock", id=7), error="rate_limit")


def states(*steps: Step) -> tuple[str, ...]:
    return states_of(trajectory(*steps, finish("3")))


def test_independent_reads_in_any_order_lead_to_one_state() -> None:
    """A  find, price, stock, Finish        B  stock, find, price, Finish: alike before the first and the last."""
    one, two = states(TEA, PRICE, STOCK), states(STOCK, TEA, PRICE)
    assert (one[0], one[3]) == (two[0], two[3])
    assert len({*one, *two}) == 6
    assert one[2] == states(PRICE, TEA)[2]


@given(st.permutations([TEA, PRICE, STOCK]), st.integers(0, 3))
def test_what_was_read_counts_once_and_in_no_order(order: Sequence[Step], again: int) -> None:
    found = {states(*way)[-1] for way in permutations([TEA, PRICE, STOCK])}
    assert found == {states(*order, *order[:again])[-1]}


def test_another_reply_error_argument_or_tool_is_another_state() -> None:
    others = [
        step(call("find", name="tea"), {"id": 8}),
        step(call("find", name="tea"), error="rate_limit"),
        step(call("find", name="tea"), error="timeout"),
        step(call("find", name="Tea"), {"id": 7}),
        step(call("search", name="tea"), {"id": 7}),
        step(message("Which tea?"), "Green."),
        step(message("Which tea?"), "Black."),
        step(unreadable(), "Write a call."),
    ]
    found = [states(each)[1] for each in (TEA, *others)]
    assert len(set(found)) == len(found)
    assert states(TEA)[0] not in found


def test_arguments_are_compared_by_their_values_and_thoughts_are_not() -> None:
    one = step(call("find", name="tea", year=2), {"id": 7}, thought="Tea first.")
    two = step(call("find", year=2, name="tea"), {"id": 7})
    assert states(one) == states(two)


def test_calls_at_the_same_time_are_read_together() -> None:
    both = step([call("find", name="tea"), call("price", id=7)], [{"id": 7}, {"price": 3}])
    assert states(both)[1] == states(TEA, PRICE)[2]


def test_a_world_that_tells_its_state_splits_what_looks_alike() -> None:
    """Two carts after the same calls: one was full before."""

    def after(state: str | None) -> str:
        return states(TEA, PRICE.model_copy(update={"state": state}))[1]

    assert after("full") != after("empty")
    assert after("full") == after("full")
    assert after(None) == states(TEA)[1]


def test_a_state_is_written_only_where_there_is_one() -> None:
    assert "state" not in TEA.model_dump()
    kept = TEA.model_copy(update={"state": "full"})
    assert Step.model_validate_json(kept.model_dump_json()) == kept
    assert trajectory(TEA, finish("3")).id != trajectory(kept, finish("3")).id


def test_an_attempt_without_steps_has_no_state() -> None:
    assert states_of(trajectory()) == ()
