"""What an import tells its user, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from steptool.traces.report import Judged, Report
from steptool.traces.scrub import DROPPED, EMAILS, PHONES, SECRETS

_MOST_NAMES = 5
_ONE = {EMAILS: "e-mail address", PHONES: "phone number", SECRETS: "key or password", DROPPED: "dropped field"}


def lines(folder: Path, report: Report) -> list[str]:
    """`folder`: that it wrote."""
    head = (
        f"{folder}: {_count(report.kept, 'attempt')} at {_count(report.tasks, 'task')}, {_count(report.tools, 'tool')}"
    )
    return [f"{head} (--from {report.kind})", *(f"  {title:<12}{text}" for title, text in _facts(report))]


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    if report.earlier:
        yield "before", f"{_count(report.earlier, 'attempt')} of them"
    yield "models", _counted(report.models)
    yield "endings", _counted(report.stop_reasons)
    checks = f"; {_count(report.tasks_with_a_check, 'task')} with a check" if report.tasks_with_a_check else ""
    yield "labels", _counted(report.labels) + checks
    if report.contradictions:
        yield "", f"{report.contradictions:,} taken as unknown, as their copies have different ones"
    if report.copies or report.beginnings:
        yield "merged", f"{_count(report.copies, 'copy', 'copies')}, {_count(report.beginnings, 'beginning')} of others"
    for reason, places in report.skipped.items():
        yield (
            "left out",
            f"{places.count:,}: {reason} ({', '.join(places.first)}{', …' * (places.count > len(places.first))})",
        )
    if report.system_messages:
        said = _count(report.system_messages, "message")
        yield "left out", f"{said} of the system; --with-system puts them before the query"
    if report.inferred_tools:
        yield "tools", f"known from their calls alone: {_named(report.inferred_tools)}"
    if report.varied_tools:
        yield "tools", f"described in several ways, the commonest is kept: {_named(report.varied_tools)}"
    found = (_count(count, _ONE.get(what, what), what) for what, count in report.scrubbed.items())
    yield "scrubbed", ", ".join(found) or "nothing was found"
    if report.never_found:
        yield "not found", f"nothing to read there: {', '.join(report.never_found)}"
    yield from _judgement(report.judged)


def _judgement(judged: Judged) -> Iterator[tuple[str, str]]:
    if judged.succeeded is None or judged.contributed is None:
        return
    of = f"of {_count(judged.steps, 'call')} in {_count(judged.trajectories, 'attempt')}"
    yield "by rules", f"{of} {judged.succeeded:.0%} succeed; contribution {judged.contributed:.2f}"
    if judged.succeeded_by_label:
        each = (f"{share:.0%} in those {label}" for label, share in judged.succeeded_by_label.items())
        yield "", f"calls succeed: {', '.join(each)}"
    if judged.faults:
        yield "", f"they fail by: {_counted(judged.faults)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _counted(counts: Mapping[str, int]) -> str:
    shown = list(counts.items())[:_MOST_NAMES]
    rest = sum(counts.values()) - sum(count for _, count in shown)
    return ", ".join([*(f"{name} {count:,}" for name, count in shown), *([f"others {rest:,}"] if rest else [])])


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
