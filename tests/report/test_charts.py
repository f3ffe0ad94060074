from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TILTED, TOP, WIDTH, Series, line_chart, nice_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 0.8, [0, 0.2, 0.4, 0.6, 0.8]),
        (-13, 22, [-20, -10, 0, 10, 20, 30]),
        (3, 3, [1, 2, 3, 4, 5]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_any_range_in_few_steps(low: float, extent: float) -> None:
    high = low + extent
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-6 * extent + 1e-6
    assert ticks[-1] >= high - 1e-6 * extent - 1e-6


def test_corners_of_the_data_land_on_the_corners_of_the_frame() -> None:
    chart = line_chart("t", [Series("s", "red", [(0, 0.0), (10, 1.0)])])
    assert chart is not None
    first, last = chart.series[0].dots
    assert (first.x, first.y) == (LEFT, HEIGHT - BOTTOM)
    assert (last.x, last.y) == (WIDTH - RIGHT, TOP)
    assert [tick.text for tick in chart.y_ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00"]


def test_nan_is_left_out_and_an_empty_chart_is_none() -> None:
    chart = line_chart("t", [Series("s", "red", [(0, 1.0), (1, math.nan), (2, 2.0)])])
    assert chart is not None
    assert len(chart.series[0].dots) == 2
    assert line_chart("t", [Series("s", "red", [(0, math.nan)])]) is None
    assert line_chart("t", []) is None


def test_a_single_point_is_a_dot() -> None:
    chart = line_chart("t", [Series("s", "red", [(1, 0.5)], dots=False)], x_names={1: "ppo"})
    assert chart is not None
    assert chart.series[0].path == ""
    assert len(chart.series[0].dots) == 1
    assert chart.x_ticks[0].text == "ppo"


def test_zero_line_only_where_the_data_cross_zero() -> None:
    crossing = line_chart("t", [Series("s", "red", [(0, -1.0), (1, 1.0)])])
    positive = line_chart("t", [Series("s", "red", [(0, 0.0), (1, 1.0)])])
    assert crossing is not None
    assert crossing.zero == pytest.approx((TOP + HEIGHT - BOTTOM) / 2)
    assert positive is not None
    assert positive.zero is None


def test_names_that_are_too_long_stand_aslant_and_keep_both_ends() -> None:
    """Seven names share 272 pixels, 6 characters each; "ppo1" fits, "a_long_name_of_1" is written aslant and cut."""
    for names, tilted, first in (("ppo", False, "ppo0"), ("a_long_name_of_", True, "a_long…me_of_0")):
        x_names = {float(index): f"{names}{index}" for index in range(7)}
        chart = line_chart("t", [Series("s", "red", [(x, 0.5) for x in x_names])], x_names=x_names)
        assert chart is not None
        assert chart.tilted == tilted
        assert chart.x_ticks[0].text == first
        assert chart.height == HEIGHT + (TILTED if tilted else 0)
