"""Results in words and in plain text: numbers, the verdict, the table that a terminal shows. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import takewhile

from steptool.core.types import SUBSETS
from steptool.evaluation.bootstrap import Estimate
from steptool.evaluation.compare import Comparison, Difference
from steptool.evaluation.metrics import ALL, Evaluation, Measure, Primary
from steptool.report.results import Results

MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
COLUMNS = 110
"""Widest line of the plain-text table."""

SPLITS = {"test": "held-out", "dev": "held-out"}
UNSEEN = {("mini", "test"): "unseen"}
"""World and split whose tasks ask about entities that training never saw."""
NEW_BY_NAME = frozenset({"mini"})
"""Worlds in which the second word of a ToolBench subset says what is new to the policy in its tasks. A recorded world
has groups of the same names, but splits all its requests in the same way."""
DOES: Mapping[Primary, str] = {"solved": "solves", "grounded": "gives grounded answers to"}
SHARE: Mapping[Primary, str] = {"solved": "tasks solved", "grounded": "grounded answers"}
NOT_RIGHT = "Whether these answers are right, nobody has judged."
LEVELS = {"G1": "one tool", "G2": "several tools of one category", "G3": "several tools of one collection"}


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
    counts += f" ({comparison.drawn})" if comparison.clusters else ""
    who = f"{comparison.candidate} against {comparison.baseline}"
    who += "" if comparison.measure == "solved" else f", {SHARE[comparison.measure]}"
    return f"{who}: {difference_text(comparison, 1)}; {counts}"


def verdict(results: Results) -> str:
    """The result in one sentence, and in another one what it does not say."""
    sentence = _verdict(results)
    return sentence if results.measure == "solved" else f"{sentence} {NOT_RIGHT}"


def _verdict(results: Results) -> str:
    chosen, measure = results.headline, results.measure
    if chosen is None:
        if not results.evaluations:
            return "Nothing has been evaluated."
        last = results.evaluations[-1]
        does = f"{last.name} {DOES[measure]} {percent(last.rate(measure))} of {_tasks(last, measure)}"
        return f"{does}; it is compared with nothing."
    candidate, baseline = results.evaluation(chosen.candidate), results.evaluation(chosen.baseline)
    sentence = (
        f"{candidate.name} {DOES[measure]} {percent(candidate.rate(measure))} of {_tasks(candidate, measure)}, "
        f"{baseline.name} {percent(baseline.rate(measure))}: {difference_text(chosen)}"
    )
    if chosen.significant:
        return sentence + "." if chosen.difference > 0 else sentence + ". It got worse."
    return sentence + ". That is no evidence of a difference."


def _tasks(evaluation: Evaluation, measure: Primary) -> str:
    split, count, known = evaluation.split, len(evaluation.solved), len(evaluation.values(measure))
    kind = UNSEEN.get((evaluation.conditions.world.name, split)) or SPLITS.get(split, split)
    text = f"{count} {kind} task{'s' if count != 1 else ''}"
    return text if known == count else f"the {known} of {text} that have a verdict"


def elsewhere_text(results: Results) -> str:
    """What else differs where a policy answers behind an endpoint, as a sentence; empty where none does."""
    names = [each.name for each in results.evaluations if each.conditions.is_endpoint]
    if not names:
        return ""
    answers, its = ("answers", "its") if len(names) == 1 else ("answer", "their")
    return (
        f"{' and '.join(names)} {answers} by messages at an endpoint: prompt, tokens and the length of an answer are "
        f"{its} own; tasks, tools and the most actions of an attempt are the same."
    )


def groups_text(evaluation: Evaluation) -> str:
    """What the names of the groups say, as a sentence; empty where they are not ToolBench's."""
    found = [group for group in SUBSETS if group in evaluation.metrics]
    levels = [level for level in LEVELS if any(group.startswith(level) for group in found)]
    if not levels:
        return ""
    parts = [f"{level} tasks need {LEVELS[level]}" for level in levels]
    new = "; the second word says what training never saw" if evaluation.conditions.world.name in NEW_BY_NAME else ""
    return ", ".join(parts) + new + "."


def measured(measure: Measure, estimate: Estimate) -> str:
    """The value of a metric: in percent where it is a rate."""
    return percent(estimate.value) if measure.is_rate else number(estimate.value, _digits(estimate))


def measured_interval(measure: Measure, estimate: Estimate) -> str:
    return interval(estimate, rate=measure.is_rate, digits=0 if measure.is_rate else _digits(estimate))


def _digits(estimate: Estimate) -> int:
    return 0 if estimate.value is not None and abs(estimate.value) >= 20 else 1


def text_table(results: Results) -> str:
    """The verdict; the rates that the arms are compared on, in percent; then the paired differences, the project's own
    metrics and how each arm was made. At most COLUMNS wide: the groups are left out where they do not fit.
    """
    sentence = _wrap(verdict(results))
    if not results.evaluations:
        return sentence
    lines = _table(results, [group for group in results.evaluations[0].metrics if group != ALL])
    if max(map(len, lines)) > COLUMNS:
        lines = _table(results, [])
    rule = "─" * max(map(len, lines))
    below = [comparison_text(each) for each in results.comparisons]
    for name, measure in results.own_measures.items():
        values = [f"{each.name} {measured(measure, each.metrics[ALL][name])}" for each in results.evaluations]
        below.append(f"{name} ({measure.describes}): {', '.join(values)}")
    below += [
        f"{each.name}: faults of the engine or the world ended {percent(each.broken, 1)} of its attempts, "
        f"which count as {'unsolved' if results.measure == 'solved' else 'not grounded'}"
        for each in results.evaluations
        if each.broken > 0
    ]
    below += [f"{each.name}: {results.arm(each.name).caption}" for each in results.evaluations]
    below += filter(None, [elsewhere_text(results)])
    return "\n".join([sentence, "", lines[0], rule, *lines[1:], rule, *map(_wrap, below)])


def _table(results: Results, groups: list[str]) -> list[str]:
    """The head and one line an arm, aligned."""
    level = f"{100 * results.evaluations[0].confidence:.0f}"
    over = "all" if results.measure == "solved" else results.measure
    other = _other_measure(results)
    rows = [["arm", *_short(groups), f"{over} [{level} %]", *other.values(), "finish", "calls", "tokens"]]
    for evaluation in results.evaluations:
        over_all = evaluation.metrics[ALL]
        estimate = over_all[results.metric]
        rows.append(
            [
                evaluation.name,
                *(_plain(evaluation.metrics[group][results.metric].value) for group in groups),
                f"{_plain(estimate.value)} [{interval(estimate, rate=True)}]",
                *(_plain(over_all[metric].value) for metric in other),
                _plain(over_all["finish_rate"].value),
                number(over_all["calls_per_task"].value),
                number(over_all["tokens_per_task"].value, 0),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _other_measure(results: Results) -> dict[str, str]:
    """Metric → head of the column that stands beside the primary measure; none where every task has a verdict."""
    if results.all_judged:
        return {}
    if results.measure == "solved":
        return {"grounded": "grounded"}
    most = max(each.verdicts for each in results.evaluations)
    return {"pass_rate": f"solved, of {most}"} if most else {}


def _wrap(text: str) -> str:
    # Not every terminal's font has the narrow space.
    return textwrap.fill(text, COLUMNS).replace(THIN, " ")


def _short(groups: Sequence[str]) -> list[str]:
    """G1_instruction → G1 ins, so that ten columns fit a terminal. What all of them begin with is left out: of
    multi_turn_base and multi_turn_miss_func, base and miss fun are left."""
    words = [group.split("_") for group in groups]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*(own[:-1] for own in words), strict=False))
    shared = len(list(alike)) if len(words) > 1 else 0
    heads = [(own[shared], "_".join(own[shared + 1 :])) for own in words]
    return [f"{head} {tail[:3]}" if tail else head[:8] for head, tail in heads]


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"
