"""What became of calls: tools that hang or fail, calls that no tool can take, tools that prompts do not show whole."""

from __future__ import annotations

from collections.abc import Sequence

from steptool.checks.diagnosis.findings import Diagnosed, Name, Severity
from steptool.checks.diagnosis.round import Round, fine, graded

FEWEST_CALLS = 10
"""Of a tool, to be judged by its failures."""


def timeouts(of: Round) -> Diagnosed:
    """Tools that do not answer in time."""
    late = [tool for tool in of.tools if tool.timeouts]
    if not late:
        return fine(Name.timeouts, "every tool answered in time")
    worst = max(late, key=lambda tool: (tool.timeouts / tool.calls, tool.timeouts))
    share = worst.timeouts / worst.calls
    others = f"; so did {listed([tool.tool for tool in late if tool is not worst])}" if len(late) > 1 else ""
    return Diagnosed(
        name=Name.timeouts,
        severity=graded(share, warning=0.0, fault=0.1 if worst.timeouts > 2 else 1.0),
        says=f"{worst.tool} did not answer in time in {worst.timeouts} of {worst.calls} calls ({share:.0%}){others}",
        what_to_do=f"mend {worst.tool}, or raise sample.tool_timeout_s above what it takes",
        numbers={f"timeouts.{tool.tool}": tool.timeouts / tool.calls for tool in late},
    )


def tool_errors(of: Round) -> Diagnosed:
    """Tools that answer with errors, timeouts and malformed calls left out."""
    total, failed = sum(tool.calls for tool in of.tools), sum(tool.failed for tool in of.tools)
    share = failed / max(total, 1)
    numbers = {f"errors.{tool.tool}": tool.failed / tool.calls for tool in of.tools if tool.failed}
    often = [tool for tool in of.tools if tool.calls >= FEWEST_CALLS and tool.failed / tool.calls >= 0.8]
    if not often:
        return fine(Name.tool_errors, f"{share:.0%} of {total:,} calls came back with an error", numbers)
    worst = max(often, key=lambda tool: tool.failed)
    kind, count = next(iter(worst.errors.items()))
    return Diagnosed(
        name=Name.tool_errors,
        severity=graded(share, warning=0.0, fault=0.8),
        says=f"{worst.tool} failed in {worst.failed} of {worst.calls} calls, {count} times with {kind}",
        what_to_do=f"call it by hand (`steptool tools try {worst.tool}`) and mend it; or, where the calls are wrong, "
        "show right ones in the demonstrations",
        numbers=numbers,
    )


def malformed(of: Round) -> Diagnosed:
    """Actions that cannot be read, and calls that no tool can take."""
    actions = sum(len(each.steps) for each in of.trajectories)
    unread = sum(step.action.unreadable is not None for each in of.trajectories for step in each.steps)
    unread -= of.counts.cut_actions  # these are counted where budgets are
    unknown = sum(tool.not_offered for tool in of.tools)
    bad = sum(tool.bad_arguments for tool in of.tools)
    share = (unread + unknown + bad) / max(actions, 1)
    numbers = {"share": share, "unreadable": unread, "not_offered": unknown, "bad_arguments": bad}
    said = f"{unread} unreadable, {unknown} of tools that are not offered, {bad} with arguments that break the schema"
    if share < 0.1:
        return fine(Name.malformed, f"{share:.1%} of {actions:,} actions: {said}", numbers)
    learn = "show such calls in the demonstrations, and raise methods.sft.epochs"
    return Diagnosed(
        name=Name.malformed,
        severity=graded(share, warning=0.1, fault=0.5),
        says=f"{share:.0%} of {actions:,} actions are no calls that a tool can take: {said}",
        what_to_do=learn if unread < unknown + bad else f"{learn}; or set another format.use",
        numbers=numbers,
    )


def shortened(of: Round) -> Diagnosed:
    """What prompts do not show in full."""
    if not of.shortened:
        return fine(Name.shortened, "every prompt shows its tools in full")
    most = max(of.shortened.values())
    return Diagnosed(
        name=Name.shortened,
        severity=Severity.warning,
        says=f"in up to {most} prompts something was shortened, such as: {next(iter(of.shortened))}",
        what_to_do="raise format.tools_budget, or offer fewer tools with `tools` in the tasks",
        numbers={"lines": float(len(of.shortened)), "prompts": float(most)},
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
