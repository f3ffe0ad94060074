"""A diagnosis as a few aligned lines for a terminal: how the round went, then what is wrong, the worst first.

diagnosis of r2: 1 fault, 0 warnings
  attempts  360 (67% call_budget, 33% finished), 12% solved, 4.10 calls each (2.52 before)
  tasks     60: 0 solved by all attempts, 41 by none, 19 by some
  fault     a tool hangs: search did not answer in time in 40 of 120 calls (33%)
            → mend search, or raise sample.tool_timeout_s above what it takes
  fine      weights, faults, budgets, …
"""

from __future__ import annotations

from steptool.checks.diagnosis.findings import Diagnosis, Severity
from steptool.core.errors import printable


def lines_of(diagnosis: Diagnosis, name: str) -> list[str]:
    """Nothing in them can steer a terminal. `name`: of the round."""
    severities = [each.severity for each in diagnosis.findings]
    faults, warnings = severities.count(Severity.fault), severities.count(Severity.warning)
    lines = [f"diagnosis of {name}: {faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}"]
    lines += [_row("attempts", _attempts(diagnosis)), _row("tasks", _tasks(diagnosis))]
    for each in diagnosis.wrong:
        lines += [_row(each.severity.value, f"{each.title}: {each.says}"), _row("", f"→ {each.what_to_do}")]
    if diagnosis.quiet:
        lines.append(_row("fine", ", ".join(each.title for each in diagnosis.quiet)))
    return [printable(line) for line in lines]


def _row(label: str, text: str) -> str:
    return f"  {label:<8}  {text}"


def _attempts(diagnosis: Diagnosis) -> str:
    counts, before = diagnosis.counts, diagnosis.previous
    ended = ", ".join(f"{counts.share(ending):.0%} {ending}" for ending in counts.endings)
    solved = "no verdicts" if counts.solved is None else f"{counts.solved:.0%} solved"
    trend = f" ({before.calls:.2f} before)" if before else ""
    return f"{counts.attempts:,} ({ended}), {solved}, {counts.calls:.2f} calls each{trend}"


def _tasks(diagnosis: Diagnosis) -> str:
    tasks = diagnosis.tasks
    unknown = f", {tasks.unknown} without a verdict" if tasks.unknown else ""
    return (
        f"{tasks.tasks:,}: {tasks.all_solved} solved by all attempts, {tasks.none_solved} by none, "
        f"{tasks.some_solved} by some{unknown}"
    )
