"""Geometry of the report's line charts: data in, SVG paths and ticks out. The template draws them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steptool.report.wording import number

WIDTH, HEIGHT = 330, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 36
CHARACTER = 6.5
"""Width of one, about, in the size that ticks are written in."""
TILTED, LONGEST = 52, 14
"""Height of slanted names, and how many characters of a name are shown."""


@dataclass(frozen=True)
class Series:
    """One line. `colour` is a CSS colour; `bounds` are (low, high) of each point, drawn as whiskers."""

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    bounds: Sequence[tuple[float, float]] = ()
    dots: bool = True
    connect: bool = True


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    says: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Drawn:
    label: str
    colour: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class LineChart:
    """A chart in pixels of its own view box, ready to be written down."""

    title: str
    note: str
    x_label: str
    series: tuple[Drawn, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero: float | None
    """Height of the line y = 0, where zero is inside the axis but not its end."""
    dividers: tuple[float, ...] = ()
    legend: bool = True
    tilted: bool = False
    """Whether the names below the axis are slanted, because they are too long."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = field(default=WIDTH - RIGHT)
    top: int = TOP
    bottom: int = field(default=HEIGHT - BOTTOM)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2, 2.5 or 5 times a power of ten) that enclose [low, high]."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    note: str = "",
    x_label: str = "",
    x_names: dict[float, str] | None = None,
    y_text: Callable[[float], str] | None = None,
    y_range: tuple[float, float] | None = None,
    dividers: Sequence[float] = (),
    legend: bool = True,
) -> LineChart | None:
    """Lay out a chart; None where no series has a finite point.

    y_text: how to write a y value; by default with the digits that tell its ticks apart.
    x_names: names for x positions (arms, rounds); without it the x axis has round numbers.
    y_range: least extent of the y axis; data beyond it still widens it.
    """
    kept = [_finite(each) for each in series]
    kept = [each for each in kept if each.points]
    if not kept:
        return None
    xs = [x for each in kept for x, _ in each.points] + list(x_names or ())
    ys = [y for each in kept for _, y in each.points] + [b for each in kept for pair in each.bounds for b in pair]
    ys += y_range or ()
    y_at = nice_ticks(min(ys), max(ys))
    y_text = y_text or _digits_of(y_at[1] - y_at[0])
    x_low, x_high = min(xs), max(xs)
    margin = 0.35 if x_names else 0.0
    x_low, x_high = x_low - margin, max(x_high + margin, x_low + 1e-9)
    across = _scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    up = _scale(y_at[0], y_at[-1], HEIGHT - BOTTOM, TOP)
    tilted = False
    if x_names:
        room = (WIDTH - LEFT - RIGHT) / len(x_names) / CHARACTER
        tilted = max(map(len, x_names.values())) > room
        x_ticks = [Tick(across(x), _cut(name) if tilted else name) for x, name in x_names.items()]
    else:
        inside = [x for x in nice_ticks(x_low, x_high) if x_low <= x <= x_high and float(x).is_integer()]
        x_ticks = [Tick(across(x), f"{x:.0f}") for x in inside]
    return LineChart(
        title=title,
        note=note,
        x_label=x_label,
        series=tuple(_draw(each, across, up, y_text, x_names) for each in kept),
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(Tick(up(y), y_text(y)) for y in y_at),
        zero=up(0) if y_at[0] < 0 < y_at[-1] else None,
        dividers=tuple(across(x) for x in dividers),
        legend=legend and len(kept) > 1,
        tilted=tilted,
        height=HEIGHT + (TILTED if tilted else 0),
    )


def _cut(name: str) -> str:
    """Beginning and end of a long name: related names differ at the end as often as at the beginning."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def _digits_of(step: float) -> Callable[[float], str]:
    digits = next((digits for digits in range(6) if math.isclose(round(step, digits), step)), 6)
    return lambda value: number(value, digits)


def _finite(series: Series) -> Series:
    keep = [index for index, (_, y) in enumerate(series.points) if math.isfinite(y)]
    return Series(
        series.label,
        series.colour,
        [series.points[index] for index in keep],
        [series.bounds[index] for index in keep] if series.bounds else (),
        series.dots,
        series.connect,
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def _draw(
    series: Series,
    across: Callable[[float], float],
    up: Callable[[float], float],
    y_text: Callable[[float], str],
    x_names: dict[float, str] | None,
) -> Drawn:
    places = [(across(x), up(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if series.connect and len(places) > 1 else ""
    dots = []
    if series.dots or len(places) == 1:
        for index, ((x, y), (value_x, value_y)) in enumerate(zip(places, series.points, strict=True)):
            name = (x_names or {}).get(value_x, f"{value_x:g}")
            says = f"{series.label}, {name}: {y_text(value_y)}"
            low = high = None
            if series.bounds:
                low, high = (up(bound) for bound in series.bounds[index])
                says += f" ({y_text(series.bounds[index][0])} to {y_text(series.bounds[index][1])})"
            dots.append(Dot(x, y, says, low, high))
    return Drawn(series.label, series.colour, path, tuple(dots))
