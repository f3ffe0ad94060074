"""The HTML report: one self-contained page, no script, no network. Same data, same bytes.

Everything that came from a tool or a model is untrusted text: the template escapes it, and the page's
content security policy allows nothing but its own style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from steptool.core.types import ScoredTrajectory, Task
from steptool.evaluation.compare import Comparison, Difference
from steptool.evaluation.failures import Cause, failure_shares
from steptool.evaluation.metrics import ALL, ROLL_UPS
from steptool.report import wording
from steptool.report.charts import LineChart, Series, line_chart, nice_ticks
from steptool.report.examples import examples
from steptool.report.results import Results, title_of


class Round(BaseModel):
    """What the rollouts of one round looked like, before anything was trained on them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampled_from: str
    """The arm whose policy made them, or the base model."""
    solve_rate: float | None
    """Mean verdict of those that have one; None where none has."""
    call_success: float | None = None
    reward_by_step: tuple[float, ...] = ()
    """Mean reward of the k-th step, over the trajectories that have one."""


class Trained(BaseModel):
    """How the training of one arm went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: list[dict[str, float]]
    """One row of metrics for each optimiser step."""
    advantage_by_step: tuple[float, ...] = ()
    """Mean size of the advantage of the k-th step, before whitening; empty for a method without advantages."""


class ReportData(Results):
    judged: dict[str, list[ScoredTrajectory]] = Field(default_factory=dict)
    """Arm → its judged test trajectories."""
    trained: dict[str, Trained] = Field(default_factory=dict)
    """By arm; the ones that were trained here."""
    rounds: dict[str, Round] = Field(default_factory=dict)
    tasks: list[Task] = Field(default_factory=list)
    rewards: dict[str, list[float]] = Field(default_factory=dict)
    """Trajectory id → reward of each step."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """What made the report (seed, base model, settings); a value of several lines is folded away."""


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

HUES = ("var(--other)", "var(--teal)", "var(--plum)", "var(--rose)", "var(--brown)")
"""Colours of arms that are neither in the headline nor ancestors of its candidate."""
OPTIMISER: Mapping[str, tuple[str, str]] = {
    "loss": ("Loss", "what the optimiser lowers"),
    "token_accuracy": ("Token accuracy", "share of tokens that are the likeliest ones"),
    "explained_variance": ("Explained variance of the critic", "1: it knows the return; 0: no better than a mean"),
    "approx_kl": ("KL to the sampling policy", "nats a token"),
    "clip_fraction": ("Clip fraction", "share of tokens whose ratio left the trust region"),
    "grad_norm": ("Gradient norm", "before it is clipped"),
}
"""Names that methods give to what they log: those that are shown at once, with title and explanation."""
COUNTER = "step"
"""In a row of metrics, the number of the optimiser step."""


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
        measured=wording.measured,
        measured_interval=wording.measured_interval,
        title_of=title_of,
        groups_text=wording.groups_text,
    )
    return environment.get_template("page.html.jinja").render(_context(data))


def _context(data: ReportData) -> dict[str, Any]:
    by_name = {evaluation.name: evaluation for evaluation in data.evaluations}
    chosen = data.headline
    colour = _colours(data)
    text = {key: value for key, value in data.meta.items() if "\n" not in str(value)}
    last = data.evaluations[-1] if data.evaluations else None
    own = next((each for each in data.evaluations if not each.conditions.is_endpoint), last)
    return {
        "verdict": wording.verdict(data),
        "headline": chosen,
        "candidate": by_name[chosen.candidate] if chosen else last,
        "baseline": by_name[chosen.baseline] if chosen else None,
        "evaluations": data.evaluations,
        "comparisons": data.comparisons,
        "measure": data.measure,
        "metric": data.metric,
        "share": wording.SHARE[data.measure],
        "all_judged": data.all_judged,
        "figures": _figures(data),
        "captions": {name: data.arm(name).caption for name in by_name},
        "origins": {name: data.arm(name).origin for name in by_name},
        "limits": own.conditions.sampling if own else None,
        "measures": data.measures,
        "elsewhere": wording.elsewhere_text(data),
        "groups": list(last.metrics) if last else [],
        "roll_ups": {*ROLL_UPS, ALL},
        "colour": colour,
        "forest": _forest(chosen) if chosen else None,
        "in_table_order": _arm_charts(data, colour),
        "rounds": data.rounds,
        "sampled": _round_charts(data),
        **dict(zip(("training", "more_training"), _training_charts(data, colour), strict=True)),
        "causes": [cause for cause in Cause if cause is not Cause.unjudged or not data.all_judged],
        "failures": {
            name: failure_shares(by_name[name], judged) for name, judged in data.judged.items() if name in by_name
        },
        "examples": examples(chosen, by_name, data.judged, data.tasks, data.rewards) if chosen else [],
        "facts": text,
        "folded": {key: value for key, value in data.meta.items() if key not in text},
    }


def _figures(data: ReportData) -> list[tuple[str, str, bool]]:
    """Metrics at the top of the page: name, title, whether it is a rate."""
    first = ("grounded", "Grounded answers", True)
    if data.measure == "solved":
        judged = data.evaluations[-1].verdicts if data.evaluations else 0
        first = ("pass_rate", "Tasks solved" if data.all_judged else f"Solved, of {judged} with a verdict", True)
    answered = ("finish_rate", "Attempts with an answer", True)
    return [first, answered, ("call_success", "Calls that succeed", True), ("calls_per_task", "Actions a task", False)]


def _colours(data: ReportData) -> dict[str, str]:
    """CSS colour of each arm. The headline's baseline is grey; its candidate has the accent, and each ancestor less of
    it."""
    names = [*(arm.name for arm in data.arms), *(evaluation.name for evaluation in data.evaluations)]
    if not names:
        return {}
    baseline = data.headline.baseline if data.headline else None
    line = [name for name in data.line_of(data.headline.candidate if data.headline else names[-1]) if name != baseline]
    others = [name for name in dict.fromkeys(names) if name not in line and name != baseline]
    colours = {name: HUES[index % len(HUES)] for index, name in enumerate(others)} | _shades(line)
    return colours | ({baseline: "var(--baseline)"} if baseline else {})


def _shades(names: Sequence[str]) -> dict[str, str]:
    """From half of the accent to all of it."""
    last = max(len(names) - 1, 1)
    share = {name: 100 - 50 * (len(names) - 1 - index) / last for index, name in enumerate(names)}
    return {name: f"color-mix(in oklab, var(--accent) {part:.0f}%, var(--surface))" for name, part in share.items()}


def _forest(comparison: Comparison) -> Forest:
    groups = comparison.groups
    low = min(*(each.low for each in groups.values()), -0.01)
    high = max(*(each.high for each in groups.values()), 0.01)
    at = nice_ticks(100 * low, 100 * high, 5)

    def place(value: float) -> float:
        return round((value - at[0]) / (at[-1] - at[0]) * 100, 2)

    rows = tuple(
        Whisker(group, each, place(100 * each.low), place(100 * each.high), place(100 * each.difference))
        for group, each in groups.items()
    )
    whole = [value for value in at if round(value, 6).is_integer()]
    ticks = tuple((place(value), wording.points(value / 100, sign=True)) for value in whole)
    return Forest(rows, ticks, place(0))


def _arm_charts(data: ReportData, colour: Mapping[str, str]) -> list[LineChart]:
    """Rates of every arm, where there is more than one."""
    if len(data.evaluations) < 2:
        return []
    charts = [
        _arm_chart(data, colour, data.metric, _primary_title(data), "whiskers: interval over tasks"),
        _arm_chart(data, colour, "finish_rate", "Finish rate", "attempts that end with an answer"),
    ]
    return [chart for chart in charts if chart]


def _primary_title(data: ReportData) -> str:
    return "Pass rate on the evaluated tasks" if data.measure == "solved" else "Grounded answers"


def _arm_chart(data: ReportData, colour: Mapping[str, str], metric: str, title: str, note: str) -> LineChart | None:
    """One metric of every arm, in table order; a line leads to each from the arm that it started from."""
    names = {float(index): evaluation.name for index, evaluation in enumerate(data.evaluations)}
    dots: dict[str, tuple[Point, Point]] = {}
    for x, evaluation in zip(names, data.evaluations, strict=True):
        estimate = evaluation.metrics[ALL][metric]
        if estimate.value is not None and estimate.low is not None and estimate.high is not None:
            dots[evaluation.name] = (x, estimate.value), (estimate.low, estimate.high)
    starts = {name: data.arm(name).start for name in dots}
    lines = [
        Series("", colour[name], [dots[start][0], dots[name][0]], dots=False)
        for name, start in starts.items()
        if start in dots
    ]
    own = [Series(name, colour[name], [point], [bounds]) for name, (point, bounds) in dots.items()]
    # The axis starts at 0: a rate drawn on a cut axis makes small gains look large.
    return line_chart(
        title, [*lines, *own], note=note, x_names=names, y_text=wording.percent, y_range=(0, 0.5), legend=False
    )


def _round_charts(data: ReportData) -> list[LineChart]:
    """What was sampled for training, by round."""
    names = {float(index): name for index, name in enumerate(data.rounds)}
    places = list(zip(names, data.rounds.values(), strict=True))
    outcomes = line_chart(
        "What the rounds hold",
        [
            Series(
                "calls that succeed",
                "var(--good)",
                [(x, each.call_success) for x, each in places if each.call_success is not None],
            ),
            Series(
                "tasks solved",
                "var(--accent)",
                [(x, each.solve_rate) for x, each in places if each.solve_rate is not None],
            ),
        ],
        note="share of the attempts and of their calls",
        x_names=names,
        y_text=wording.percent,
        y_range=(0, 1),
    )
    shades = _shades(list(data.rounds))
    series = {name: _by_step(name, shades[name], each.reward_by_step) for name, each in data.rounds.items()}
    rewards = line_chart(
        "Reward by step", list(series.values()), note="mean over the round's trajectories", x_label="step"
    )
    return [chart for chart in (outcomes, rewards) if chart]


def _by_step(label: str, colour: str, values: Sequence[float]) -> Series:
    return Series(label, colour, [(float(index), value) for index, value in enumerate(values, start=1)])


def _training_charts(data: ReportData, colour: Mapping[str, str]) -> tuple[list[LineChart], list[LineChart]]:
    """What each method logged: the figures to look at first, and the others. A method that logs none of OPTIMISER has
    all of its own among the first.
    """
    methods: dict[str, dict[str, Trained]] = {}
    for name, trained in data.trained.items():
        methods.setdefault(data.arm(name).method or name, {})[name] = trained
    first: list[LineChart | None] = []
    others: list[LineChart | None] = []
    for method, arms in methods.items():
        logged = dict.fromkeys(key for arm in arms.values() for row in arm.steps for key in row if key != COUNTER)
        known = [key for key in OPTIMISER if key in logged] or list(logged)
        first += [_optimiser_chart(method, key, arms, colour) for key in known]
        first.append(_advantage_chart(method, arms, colour))
        others += [_optimiser_chart(method, key, arms, colour) for key in logged if key not in known]
    return [chart for chart in first if chart], [chart for chart in others if chart]


def _optimiser_chart(method: str, key: str, arms: Mapping[str, Trained], colour: Mapping[str, str]) -> LineChart | None:
    """One figure of every optimiser step, the arms one after another along one axis."""
    title, note = OPTIMISER.get(key, (key.replace("_", " ").capitalize(), ""))
    series, dividers, start = [], [], 0
    for name, arm in arms.items():
        values = [(float(start + index), row[key]) for index, row in enumerate(arm.steps) if key in row]
        series.append(Series(name, colour[name], values, dots=False))
        start += len(arm.steps)
        dividers.append(start - 0.5)
    note = f"{method}: {note}" if note else method
    return line_chart(title, series, note=note, x_label="optimiser step", dividers=dividers[:-1])


def _advantage_chart(method: str, arms: Mapping[str, Trained], colour: Mapping[str, str]) -> LineChart | None:
    series = [_by_step(name, colour[name], arm.advantage_by_step) for name, arm in arms.items()]
    return line_chart("Advantage by step", series, note=f"{method}: mean size a token", x_label="step")
