"""The HTML report: one self-contained page, no script, no network. Same data, same bytes.

Everything that came from a tool or a model is untrusted text: the template escapes it, and the page's
content security policy allows nothing but its own style.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict

from steptool.core.types import ScoredTrajectory, Task
from steptool.evaluation.compare import Comparison, Difference
from steptool.evaluation.failures import Cause, failure_shares
from steptool.evaluation.metrics import ALL, ROLL_UPS, Evaluation
from steptool.report import wording
from steptool.report.charts import LineChart, Series, line_chart, nice_ticks
from steptool.report.examples import examples
from steptool.report.wording import text_table

__all__ = ["ReportData", "RoundStats", "render_report", "text_table"]


class RoundStats(BaseModel):
    """What one round's own rollouts looked like, before it trained on them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    solve_rate: float
    call_success: float | None = None
    reward_by_step: tuple[float, ...] = ()
    """Mean reward of the k-th step, over the trajectories that have one."""
    advantage_by_step: tuple[float, ...] = ()
    """Mean advantage of the k-th step, before whitening."""


class ReportData(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluations: list[Evaluation]
    """In the order of the tables: the baseline, the rounds, other arms."""
    comparisons: list[Comparison]
    judged: dict[str, list[ScoredTrajectory]] = {}
    """Policy name → its judged test trajectories."""
    training: dict[str, list[dict[str, float]]] = {}
    """Round → one row of metrics for each optimiser step."""
    round_stats: dict[str, RoundStats] = {}
    tasks: list[Task] = []
    rewards: dict[str, list[float]] = {}
    """Trajectory id → reward of each step."""
    meta: dict[str, Any] = {}
    """What made the report (seed, revisions, code version); a value of several lines is folded away."""


@dataclass(frozen=True)
class Whisker:
    """One row of the forest plot; low, high and middle in percent of the plot's width."""

    group: str
    difference: Difference
    low: float
    high: float
    middle: float


@dataclass(frozen=True)
class Forest:
    rows: tuple[Whisker, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float


Point = tuple[float, float]

OPTIMISER_CHARTS: Sequence[tuple[str, str, str]] = (
    ("explained_variance", "Explained variance of the critic", "1: it knows the return; 0: no better than a mean"),
    ("approx_kl", "KL to the sampling policy", "nats a token"),
    ("clip_fraction", "Clip fraction", "share of tokens whose ratio left the trust region"),
    ("grad_norm", "Gradient norm", "before it is clipped"),
)


def render_report(data: ReportData) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("steptool.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        percent=wording.percent,
        number=wording.number,
        points=wording.points,
        interval=wording.interval,
        p_number=wording.p_number,
        label=wording.label,
        groups_text=wording.groups_text,
    )
    return environment.get_template("page.html.jinja").render(_context(data))


def _context(data: ReportData) -> dict[str, Any]:
    by_name = {evaluation.name: evaluation for evaluation in data.evaluations}
    chosen = wording.headline(data.evaluations, data.comparisons)
    baseline = chosen.baseline if chosen else (data.evaluations[0].name if data.evaluations else "")
    colour = _colours([*by_name, *(name for name in data.round_stats if name not in by_name)], baseline)
    text = {key: value for key, value in data.meta.items() if "\n" not in str(value)}
    return {
        "verdict": wording.verdict(data.evaluations, data.comparisons),
        "headline": chosen,
        "candidate": by_name[chosen.candidate] if chosen else None,
        "baseline": by_name.get(baseline),
        "evaluations": data.evaluations,
        "comparisons": {each.candidate: each for each in data.comparisons if each.baseline == baseline},
        "others": [wording.comparison_text(each) for each in data.comparisons if each.baseline != baseline],
        "budget": data.evaluations[0].budget if data.evaluations else None,
        "groups": list(data.evaluations[0].metrics) if data.evaluations else [],
        "roll_ups": {*ROLL_UPS, ALL},
        "colour": colour,
        "forest": _forest(chosen) if chosen else None,
        "learning": _learning_charts(data, colour),
        "optimiser": _optimiser_charts(data, colour),
        "by_step": _step_charts(data, colour),
        "causes": list(Cause),
        "failures": {
            name: failure_shares(by_name[name], judged) for name, judged in data.judged.items() if name in by_name
        },
        "examples": examples(chosen, by_name, data.judged, data.tasks, data.rewards) if chosen else [],
        "facts": text,
        "folded": {key: value for key, value in data.meta.items() if key not in text},
    }


def _colours(names: Sequence[str], baseline: str) -> dict[str, str]:
    """CSS colour of each policy: the baseline grey, rounds ever more of the accent, other arms a second hue."""
    rounds = [name for name in names if re.fullmatch(r"r\d+", name)]
    colours = dict.fromkeys(names, "var(--other)") | {baseline: "var(--baseline)"}
    for index, name in enumerate(rounds, start=1):
        share = 100 if len(rounds) == 1 else 50 + 50 * (index - 1) / (len(rounds) - 1)
        colours[name] = f"color-mix(in oklab, var(--accent) {share:.0f}%, var(--surface))"
    return colours


def _forest(comparison: Comparison) -> Forest:
    groups = comparison.groups
    low = min(min(each.low for each in groups.values()), 0)
    high = max(max(each.high for each in groups.values()), 0)
    at = nice_ticks(100 * low, 100 * high, 5)

    def place(value: float) -> float:
        return round((value - at[0]) / (at[-1] - at[0]) * 100, 2)

    rows = tuple(
        Whisker(group, each, place(100 * each.low), place(100 * each.high), place(100 * each.difference))
        for group, each in groups.items()
    )
    ticks = tuple((place(value), wording.points(value / 100, sign=True)) for value in at)
    return Forest(rows, ticks, place(0))


def _learning_charts(data: ReportData, colour: Mapping[str, str]) -> list[LineChart]:
    charts = [
        _policy_chart(data, colour, "pass_rate", "Pass rate on the evaluated tasks", "whiskers: interval over tasks")
    ]
    if data.round_stats:
        stats = list(data.round_stats.items())
        names = {float(index): name for index, (name, _) in enumerate(stats)}
        solve = [(float(index), each.solve_rate) for index, (_, each) in enumerate(stats)]
        success = [
            (float(index), each.call_success) for index, (_, each) in enumerate(stats) if each.call_success is not None
        ]
        charts.append(
            line_chart(
                "In training, by round",
                [
                    Series("calls that succeed", "var(--good)", success),
                    Series("tasks solved", "var(--accent)", solve),
                ],
                note="on each round's own rollouts",
                x_names=names,
                y_text=wording.percent,
                y_range=(0, 1),
            )
        )
    charts.append(_policy_chart(data, colour, "finish_rate", "Finish rate", "attempts that end with an answer"))
    return [chart for chart in charts if chart]


def _policy_chart(data: ReportData, colour: Mapping[str, str], metric: str, title: str, note: str) -> LineChart | None:
    """One metric of every policy, in table order; the line joins what was trained one after another."""
    names = {float(index): wording.short_label(evaluation.name) for index, evaluation in enumerate(data.evaluations)}
    chain: list[tuple[str, Point, Point]] = []
    single: list[tuple[str, Point, Point]] = []
    for x, evaluation in zip(names, data.evaluations, strict=True):
        estimate = evaluation.metrics[ALL][metric]
        if estimate.value is None or estimate.low is None or estimate.high is None:
            continue
        row = (evaluation.name, (x, estimate.value), (estimate.low, estimate.high))
        chained = x == 0 or re.fullmatch(r"r\d+", evaluation.name)
        (chain if chained else single).append(row)
    path = Series("", "var(--accent)", [point for _, point, _ in chain], dots=False)
    own = [Series(wording.label(name), colour[name], [point], [bounds]) for name, point, bounds in chain + single]
    # The axis starts at 0: a rate drawn on a cut axis makes small gains look large.
    return line_chart(
        title,
        [path, *own] if len(chain) > 1 else own,
        note=note,
        x_names=names,
        y_text=wording.percent,
        y_range=(0, 0.5),
        legend=False,
    )


def _optimiser_charts(data: ReportData, colour: Mapping[str, str]) -> list[LineChart]:
    """Metrics of every optimiser step, the rounds one after another along one axis."""
    dividers, start = [], 0
    for rows in data.training.values():
        start += len(rows)
        dividers.append(start - 0.5)
    charts = []
    for key, title, note in OPTIMISER_CHARTS:
        series, start = [], 0
        for name, rows in data.training.items():
            values = [(float(start + index), row[key]) for index, row in enumerate(rows) if key in row]
            series.append(Series(wording.label(name), colour.get(name, "var(--accent)"), values, dots=False))
            start += len(rows)
        charts.append(line_chart(title, series, note=note, x_label="optimiser step", dividers=dividers[:-1]))
    return [chart for chart in charts if chart]


def _step_charts(data: ReportData, colour: Mapping[str, str]) -> list[LineChart]:
    charts = []
    for key, title, note in (
        ("reward_by_step", "Reward by step", "mean over the round's trajectories"),
        ("advantage_by_step", "Advantage by step", "mean size a token: how much is decided there"),
    ):
        series = [
            Series(
                wording.label(name),
                colour.get(name, "var(--accent)"),
                [(float(index), value) for index, value in enumerate(getattr(stats, key), start=1)],
            )
            for name, stats in data.round_stats.items()
        ]
        charts.append(line_chart(title, series, note=note, x_label="step"))
    return [chart for chart in charts if chart]
