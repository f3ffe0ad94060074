"""Results in words and in plain text: labels, numbers, the verdict, the table that a terminal shows. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from steptool.core.types import SUBSETS
from steptool.evaluation.bootstrap import Estimate
from steptool.evaluation.compare import Comparison, Difference
from steptool.evaluation.metrics import ALL, Evaluation

MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
COLUMNS = 110
"""Widest line of the plain-text table."""

SPLITS = {"test": "held-out", "dev": "held-out"}
UNSEEN = {("mini", "test"): "unseen"}
"""World and split whose tasks ask for what training never saw."""
NEW_BY_NAME = frozenset({"mini"})
"""Worlds in which the second word of a ToolBench subset says what its tasks have that training never saw. A recorded
world has subsets of the same names, but deals all its requests out alike."""
LEVELS = {"G1": "one tool", "G2": "several tools of one category", "G3": "several tools of one collection"}


def label(name: str) -> str:
    """Name of a policy as tables show it: r3 → PPO round 3."""
    if match := re.fullmatch(r"r(\d+)", name):
        return f"PPO round {match[1]}"
    return _arm(name)


def short_label(name: str) -> str:
    """The same for a chart's axis: r3 stays r3."""
    return name if re.fullmatch(r"r\d+", name) else _arm(name)


def _arm(name: str) -> str:
    return name.upper() if name in ("sft", "rft", "eto", "ppo") else name


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}{THIN}%"


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def points(value: float, digits: int = 0, *, sign: bool = False) -> str:
    """A difference of two rates in percentage points; a rounded zero has no sign."""
    text = f"{abs(100 * value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def interval(estimate: Estimate, *, rate: bool, digits: int = 0) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    scale = 100 if rate else 1
    return f"{scale * estimate.low:.{digits}f}–{scale * estimate.high:.{digits}f}"


def p_number(p_value: float) -> str:
    return f"<{THIN}0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def difference_text(difference: Difference, digits: int = 0) -> str:
    low, high = points(difference.low, digits), points(difference.high, digits)
    p_value = p_number(difference.p_value)
    relation = "p " if p_value.startswith("<") else f"p ={THIN}"
    return f"{points(difference.difference, digits, sign=True)} points [{low}, {high}], {relation}{p_value}"


def comparison_text(comparison: Comparison) -> str:
    """One comparison as a line of its own."""
    counts = f"{comparison.won} won, {comparison.lost} lost, {comparison.tied} tied"
    who = f"{label(comparison.candidate)} against {label(comparison.baseline)}"
    return f"{who}: {difference_text(comparison, 1)}; {counts}"


def headline(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> Comparison | None:
    """The comparison that the report is about: the last round's against the first policy of the table.

    Without rounds the last policy's; without a comparison against the first policy, whatever there is.
    """
    order = [evaluation.name for evaluation in evaluations]
    known = [each for each in comparisons if each.candidate in order and each.baseline in order]
    known = [each for each in known if each.baseline == order[0]] or known
    known = [each for each in known if re.fullmatch(r"r\d+", each.candidate)] or known
    return max(known, key=lambda each: order.index(each.candidate), default=None)


def verdict(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The result in one sentence."""
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    chosen = headline(evaluations, comparisons)
    if chosen is None:
        if not evaluations:
            return "Nothing has been evaluated."
        last = evaluations[-1]
        return f"{label(last.name)} solves {percent(last.pass_rate)} of {_tasks(last)}; it is compared with nothing."
    candidate, baseline = by_name[chosen.candidate], by_name[chosen.baseline]
    who = "Step-grained PPO" if re.fullmatch(r"r\d+", candidate.name) else label(candidate.name)
    sentence = (
        f"{who} solves {percent(candidate.pass_rate)} of {_tasks(candidate)}, {label(baseline.name)} "
        f"{percent(baseline.pass_rate)}: {difference_text(chosen)}"
    )
    if chosen.significant:
        return sentence + "." if chosen.difference > 0 else sentence + ". It got worse."
    return sentence + ". That is no evidence of a difference."


def _tasks(evaluation: Evaluation) -> str:
    split = evaluation.budget.split
    kind = UNSEEN.get((evaluation.budget.world.name, split)) or SPLITS.get(split, split)
    return f"{len(evaluation.solved)} {kind} tasks"


def groups_text(evaluation: Evaluation) -> str:
    """What the names of the subsets say, as a sentence; empty where they are not ToolBench's."""
    found = [subset for subset in SUBSETS if subset in evaluation.subsets]
    levels = [level for level in LEVELS if any(subset.startswith(level) for subset in found)]
    if not levels:
        return ""
    parts = [f"{level} tasks need {LEVELS[level]}" for level in levels]
    new = "; the second word says what training never saw" if evaluation.budget.world.name in NEW_BY_NAME else ""
    return ", ".join(parts) + new + "."


def text_table(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """Pass rates in percent with the verdict above and the paired differences below, COLUMNS wide at most
    for the six subsets and the three roll-ups."""
    sentence = _wrap(verdict(evaluations, comparisons))
    if not evaluations:
        return sentence
    groups = [group for group in evaluations[0].metrics if group != ALL]
    short = {group: _short(group) for group in groups}
    level = f"{100 * evaluations[0].confidence:.0f}"
    rows = [["policy", *short.values(), f"all [{level} %]", "finish", "calls", "tokens"]]
    for evaluation in evaluations:
        over_all = evaluation.metrics[ALL]
        cells = [_plain(evaluation.metrics[group]["pass_rate"].value) for group in groups]
        estimate = over_all["pass_rate"]
        rows.append(
            [
                label(evaluation.name)[:16],
                *cells,
                f"{_plain(estimate.value)} [{interval(estimate, rate=True)}]",
                _plain(over_all["finish_rate"].value),
                number(over_all["calls_per_task"].value),
                number(over_all["tokens_per_task"].value, 0),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "─" * max(map(len, lines))
    differences = [_wrap(comparison_text(each)) for each in comparisons]
    lost = [
        _wrap(
            f"{label(each.name)}: faults of the engine or the world ended {percent(each.broken, 1)} of its attempts, "
            "which count as unsolved"
        )
        for each in evaluations
        if each.broken > 0
    ]
    return "\n".join([sentence, "", lines[0], rule, *lines[1:], rule, *differences, *lost])


def _wrap(text: str) -> str:
    # Not every terminal's font has the narrow space.
    return textwrap.fill(text, COLUMNS).replace(THIN, " ")


def _short(group: str) -> str:
    """G1_instruction → G1 ins, so that ten columns fit a terminal."""
    head, _, tail = group.partition("_")
    return f"{head} {tail[:3]}" if tail else head[:8]


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"
