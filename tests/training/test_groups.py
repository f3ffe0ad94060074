"""Credit relative to a group, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.training.groups import group_in_group, relative

numbers = st.floats(-10, 10)


def test_a_group_is_centred_and_divided_by_its_spread() -> None:
    """1, 1, 0: mean 2/3; 1/3, 1/3, -2/3, whose squares add up to 2/3; sqrt(2/3 / 2) = 1/sqrt(3)."""
    assert relative([1, 1, 0], scaled=True) == pytest.approx([1 / math.sqrt(3), 1 / math.sqrt(3), -2 / math.sqrt(3)])
    assert relative([1, 1, 0], scaled=False) == pytest.approx([1 / 3, 1 / 3, -2 / 3])


@pytest.mark.parametrize("scaled", [True, False])
def test_a_group_that_is_all_alike_has_no_advantages(scaled: bool) -> None:
    assert relative([0.1] * 3, scaled=scaled) == [0, 0, 0]
    assert relative([5.0], scaled=scaled) == [0]


@given(st.lists(numbers, min_size=2, max_size=8), numbers, st.floats(0.1, 10))
def test_a_scaled_group_does_not_depend_on_the_unit_of_the_reward(
    values: list[float], shift: float, unit: float
) -> None:
    if max(values) - min(values) < 0.1:
        return
    moved = relative([shift + unit * value for value in values], scaled=True)
    assert moved == pytest.approx(relative(values, scaled=True), abs=1e-6)
    assert sum(moved) == pytest.approx(0, abs=1e-6)


def test_steps_are_compared_within_their_state_and_attempts_as_a_whole() -> None:
    """gamma .5, w 2, not scaled. Two attempts: A visits s, t, u and is paid 1 at the end; B visits s, u and is paid 0.

               R   less mean      G at s        G at t    G at u
    A          1    1/2           .25           .5        1
    B          0   -1/2           0             -         0
    A_t        A  1/2 + 2 (.125), 1/2 + 0, 1/2 + 2 (.5)          B  -1/2 - 2 (.125), -1/2 - 2 (.5)
    """
    found = group_in_group([[0, 0, 1], [0, 0]], [["s", "t", "u"], ["s", "u"]], gamma=0.5, step_weight=2, scaled=False)
    assert found == [pytest.approx([0.75, 0.5, 1.5]), pytest.approx([-0.75, -1.5])]


def test_without_weight_on_steps_it_is_the_comparison_of_attempts() -> None:
    rewards, states = [[0.0, 1.0], [0.5], [0.0]], [["s", "t"], ["s"], ["s"]]
    found = group_in_group(rewards, states, gamma=0.9, step_weight=0, scaled=True)
    whole = relative([1.0, 0.5, 0.0], scaled=True)
    assert found == [[whole[0]] * 2, [whole[1]], [whole[2]]]


def test_scaled_states_weigh_the_same_however_little_their_returns_differ() -> None:
    """Two attempts that earn the same in all: each state of two visits gives +-1/sqrt(2), as far as returns differ."""
    found = group_in_group([[0.0, 1.0], [1.0]], [["s", "t"], ["s"]], gamma=0.99, step_weight=1, scaled=True)
    one = 1 / math.sqrt(2)
    assert found == [pytest.approx([-one, 0]), pytest.approx([one])]
