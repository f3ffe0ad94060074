"""Whether a project can be trained, before anything is: one line for each thing that was looked at.

ok      all is well
note    it works, and may not be what was meant
mend    it does not work, or the data gate would refuse what comes of it; with what to change
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from steptool.config.arms import comparison_of
from steptool.config.settings import DEMONSTRATIONS, Params
from steptool.core.errors import StepToolError
from steptool.core.types import Reference, Sampling, Task, Trajectory
from steptool.rewards.base import needs_verdict
from steptool.worlds.checks import check_demonstrations, check_tasks

Splits = Mapping[str, Sequence[Task]]


@dataclass(frozen=True)
class Line:
    mark: Literal["ok", "note", "mend"]
    says: str
    fix: str = ""
    """What to change; empty where nothing is wrong."""


def of_tasks(params: Params, splits: Splits, references: Mapping[str, Reference]) -> list[Line]:
    """Tasks: may they be shown, and are there enough?"""
    lines = []
    try:
        check_tasks(splits, references, params.world.name)
        lines.append(Line("ok", "every task can be shown to a policy"))
    except StepToolError as error:
        lines.append(refused(error))
    train, wanted = len(splits["train"]), params.sample.tasks
    rounds = sum(not each.traces for each in params.rounds.values())
    if not splits[params.evaluate.split]:
        fix = f"give some tasks `split: {params.evaluate.split}`, or set evaluate.split to another"
        lines.append(Line("mend", f"no {params.evaluate.split} tasks: nothing would be measured", fix))
    if rounds and wanted > train:
        fix = f"set sample.tasks to {train} or fewer, or write more tasks"
        lines.append(Line("mend", f"a round wants {wanted} training tasks, there are {train}", fix))
    elif wanted * rounds > train:
        says = f"{rounds} rounds of {wanted} tasks want {wanted * rounds}, there are {train}: later rounds repeat some"
        lines.append(Line("note", says, "write more tasks, or lower sample.tasks"))
    return lines


def unchecked(splits: Splits, references: Mapping[str, Reference]) -> list[Task]:
    """Training tasks of which the world cannot tell whether they are solved."""
    return [task for task in splits["train"] if not references[task.id].can_be_checked]


def of_verdicts(params: Params, tasks: Sequence[Task], solved: float | None) -> Line:
    """`tasks` have no check; `solved` is what the annotator made of an answer to the first."""
    says = f"{len(tasks)} training tasks have no check (first {tasks[0].id})"
    if solved is not None:
        return Line("ok", f"{says}; the annotator judges them")
    if needs_verdict(params.reward.build()):
        fix = "set reward.use: auto, which learns from their calls alone; or give them a `check`"
        return Line("mend", f"{says}, nor a judge: the data gate refuses such attempts", fix)
    return Line("note", f"{says}, nor a judge: their calls alone earn", "give them a `check`")


def of_demonstrations(params: Params, splits: Splits, demonstrations: Sequence[Trajectory]) -> list[Line]:
    """Does an arm that learns from demonstrations find some, and are they of training tasks?"""
    if not demonstrations:
        shown = [name for name, arm in params.arms.items() if DEMONSTRATIONS in arm.data]
        fix = "set demonstrations.path to a file of some, or start the arms that follow from base"
        says = "learns from demonstrations, and there are none"
        return [Line("mend", f"arm {name} {says}", fix) for name in shown[:1]]
    try:
        check_demonstrations(demonstrations, splits, f"demonstrations: {params.demonstrations.name}")
    except StepToolError as error:
        return [refused(error)]
    return [Line("ok", f"{len(demonstrations)} demonstrations were read, all of training tasks")]


def of_rounds(params: Params) -> list[Line]:
    """Is there something to compare an attempt with?"""
    lines = []
    sampled = [name for name, each in params.rounds.items() if not each.traces]
    alone = [name for name in sampled if _compares(params, name)] if params.sample.attempts == 1 else []
    if alone:
        says = f"round {alone[0]} has one attempt at each task, so there is no contrast: nothing to compare it with"
        lines.append(Line("mend", says, "set sample.attempts to 4 or more, or baseline: critic under methods"))
    if not params.rounds:
        lines.append(Line("note", "no rounds: nothing is sampled", "add one, such as rounds: {r1: {from: sft}}"))
    return lines


def _compares(params: Params, round: str) -> bool:
    found = comparison_of(params, round)
    return found is not None and found.get("baseline") != "critic"


@dataclass(frozen=True)
class Lengths:
    """In tokens."""

    prompt: int
    """The longest prompt."""
    of_task: str
    """Whose prompt that is."""
    observation: int | None
    """What comes between two actions, markers included: as long as nine of ten; None where none is known."""
    action: int
    """The longest demonstrated action; 0 without any."""
    steps: int
    """Steps of the longest demonstration; 0 without any."""
    attempt: int | None
    """A whole demonstration, prompt and replies included: as long as nine of ten; None without any."""


def of_budget(lengths: Lengths, sampling: Sampling) -> list[Line]:
    """Do an attempt's calls fit into sample.max_tokens?"""
    lines = []
    if 0 < sampling.max_step_tokens < lengths.action:
        says = (
            f"a demonstrated action has {lengths.action} tokens, sample.max_step_tokens is {sampling.max_step_tokens}"
        )
        lines.append(Line("mend", f"{says}: it would be cut and unreadable",
                          f"set sample.max_step_tokens to {lengths.action} or more"))  # fmt: skip
    if 0 < sampling.max_calls < lengths.steps:
        says = f"a demonstration takes {lengths.steps} steps, sample.max_calls is {sampling.max_calls}"
        lines.append(Line("mend", says, f"set sample.max_calls to {lengths.steps} or more"))
    seen = lengths.observation or 0
    step = sampling.max_step_tokens + seen
    room = sampling.max_tokens - lengths.prompt
    fit = max(0, (room + seen) // step)  # nothing follows the last action
    wanted = lengths.prompt + sampling.max_calls * step - seen
    said = (
        f"{min(fit, sampling.max_calls)} of {sampling.max_calls} calls fit into sample.max_tokens: "
        f"{sampling.max_tokens}; the longest prompt has {lengths.prompt} (task {lengths.of_task}), "
        f"an action up to {sampling.max_step_tokens}, a reply {seen or 'an unknown number'}"
    )
    if fit >= sampling.max_calls:
        lines.append(Line("ok", said))
    else:
        if lengths.attempt is not None:
            said += f"; nine of ten demonstrations have up to {lengths.attempt} in all"
        # What is demonstrated tells more than the worst case of each part, which no attempt may ever see together.
        mark: Literal["note", "mend"] = "mend" if fit < 1 or (lengths.attempt or 0) > sampling.max_tokens else "note"
        fix = f"set sample.max_tokens to {max(wanted, lengths.attempt or 0)}"
        if room < 1:
            fix += ", or offer fewer tools in the tasks"
        elif fit >= max(lengths.steps, 1):  # else a demonstration would have too few calls
            fix += f", or lower sample.max_calls to {fit}"
        lines.append(Line(mark, said, fix))
    return lines


def refused(error: StepToolError) -> Line:
    """What the pipeline would end with."""
    return Line("mend", f"{error.where}: {error.found}" if error.where else error.found, error.fix or "")
