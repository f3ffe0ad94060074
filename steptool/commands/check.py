"""`steptool check`: what a project would train on, before anything is trained. Nothing is written, but what the world
records of its tools' replies.

settings → tasks and tools → the prompt of one of them, as the model gets it → does an attempt fit into the budget?
         → an attempt replayed against the live world, with the scores of its steps → ready, or what to mend
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import quantiles

from rich.console import Console

from steptool.annotators.annotate import opened
from steptool.commands import show
from steptool.commands.readiness import (
    Lengths,
    Line,
    of_budget,
    of_demonstrations,
    of_rounds,
    of_tasks,
    of_verdicts,
    refused,
    unchecked,
)
from steptool.commands.replay import Recorded, Replayed, answer_to, recorded_in, recorded_of, replay
from steptool.config.arms import arms_of, check_methods
from steptool.config.places import PARAMS
from steptool.config.settings import Params, load_params
from steptool.core.errors import InputError, StepToolError
from steptool.core.types import Reference, Task, Trajectory
from steptool.formats.base import Format, Shortens
from steptool.formats.episode import encode
from steptool.policies.base_models import base_tokenizer
from steptool.rollouts.collect import sampling_of
from steptool.rollouts.loop import run
from steptool.traces.base import TraceSource
from steptool.worlds.base import SPLITS, World

MOST_PROMPTS = 2000
"""How many tasks are looked at for the longest prompt, and how many demonstrations for the longest action."""
READING_S = 15.0
"""How long demonstrations are read: the calls of those without replies are made."""
OK, TO_MEND = 0, 2


def check(task_id: str | None, attempt: Path | None, console: Console) -> int:
    """The exit status: 0 where the project is ready, 2 where something is to be mended.

    `task_id` is the task to show, `attempt` a file whose first attempt is replayed; the first demonstration, and its
    task, without them. Raises InputError where params.yaml, the world or the base model cannot be loaded.
    """
    params = load_params(PARAMS)
    arms = arms_of(params)
    check_methods(params)
    console.print(f"{PARAMS}: world {params.world.name}, base {params.model.base}, arms "
                  f"{', '.join(arm.name for arm in arms)}", markup=False, highlight=False)  # fmt: skip
    world: World = params.world.build(seed=params.seed)
    splits: dict[str, Sequence[Task]] = {split: world.tasks(split) for split in SPLITS}
    tasks = {task.id: task for found in splits.values() for task in found}
    references = {name: world.reference(task) for name, task in tasks.items()}
    show.tasks(console, splits, references)

    lines = of_tasks(params, splits, references)
    demonstrations: list[Trajectory] = []
    try:
        source: TraceSource = params.demonstrations.build()
        if costs := getattr(source, "costs", ""):
            lines.append(Line("note", f"the demonstrations are not looked at: `steptool prepare` {costs}"))
        else:
            demonstrations = list(_read_for(READING_S, source.read(world, tasks, params.seed)))
            lines += of_demonstrations(params, splits, demonstrations)
    except StepToolError as error:
        lines.append(refused(error))
    lines += of_rounds(params)

    recorded = _chosen(attempt, task_id, demonstrations)
    wanted = task_id or (recorded.task_id if recorded else next(iter(tasks), ""))
    if wanted not in tasks:
        where = recorded.source if recorded and not task_id else "--task"
        raise InputError(f"the world has no task {wanted[:80]!r}", where=where, fix=f"name one such as {_some(tasks)}")
    tokenizer = base_tokenizer(params.model.base)
    format: Format = params.format.build(tokenizer)
    shown_task = tasks[wanted]
    show.prompt(console, tokenizer, format.prompt(shown_task), shown_task, _shortened(format, shown_task))

    again = partial(_replayed, params=params, tasks=tasks, references=references, world=world, format=format)
    replayed: Replayed | None = None
    try:
        if recorded is not None:
            replayed = again(recorded)
            show.replay(console, replayed)
            lines += _of_replay(replayed)
        if nobody := unchecked(splits, references):
            lines.append(of_verdicts(params, nobody, again(answer_to(nobody[0].id)).solved))
    except StepToolError as error:
        lines.append(refused(error))
    shown = [*demonstrations[:MOST_PROMPTS], *([replayed.trajectory] if replayed else [])]
    lines += of_budget(_lengths(format, tasks, shown), sampling_of(params))
    show.lines(console, lines)
    return TO_MEND if any(line.mark == "mend" for line in lines) else OK


def _read_for(seconds: float, demonstrations: Iterable[Trajectory]) -> Iterator[Trajectory]:
    ends = time.monotonic() + seconds
    for each in demonstrations:
        yield each
        if time.monotonic() > ends:
            return


def _chosen(attempt: Path | None, task_id: str | None, demonstrations: Sequence[Trajectory]) -> Recorded | None:
    if attempt is not None:
        return recorded_in(attempt, task_id)
    wanted = [each for each in demonstrations if task_id in (None, each.task_id)]
    best = next((each for each in wanted if each.outcome.solved == 1), wanted[0] if wanted else None)
    return None if best is None else recorded_of(best, "the first demonstration")


def _replayed(
    recorded: Recorded,
    params: Params,
    tasks: Mapping[str, Task],
    references: Mapping[str, Reference],
    world: World,
    format: Format,
) -> Replayed:
    if recorded.task_id not in tasks:
        found = f"the world has no task {recorded.task_id[:80]!r}"
        raise InputError(found, where=recorded.source, fix=f"name one such as {_some(tasks)}")
    task, reference = tasks[recorded.task_id], references[recorded.task_id]
    form, sampling, limit_s = params.reward.build(), sampling_of(params), params.sample.tool_timeout_s
    with opened(params.annotate) as (annotator, _):
        return run(replay(recorded, task, reference, world, format, annotator, form, sampling, limit_s))


def _of_replay(replayed: Replayed) -> Iterator[Line]:
    done, source = replayed.trajectory, replayed.recorded.source
    if done.stop_reason.broken:
        yield Line("mend", f"{source}: the replay ended as {done.stop_reason.value}: {done.error}",
                   "mend that in the world, or raise sample.tool_timeout_s")  # fmt: skip
    others = [step for step in range(len(done.steps)) if replayed.differs(step)]
    if others:
        yield Line("note", f"{source}: the live world replies otherwise than was recorded in step {others[0]}",
                   "record it again, if the tools have changed")  # fmt: skip


def _lengths(format: Format, tasks: Mapping[str, Task], shown: Sequence[Trajectory]) -> Lengths:
    prompts = {name: len(format.prompt(task)) for name, task in islice(tasks.items(), MOST_PROMPTS)}
    longest = max(prompts, key=lambda name: prompts[name])
    actions, replies, attempts = [0], [], []
    for each in (each for each in shown if each.task_id in tasks):
        with suppress(ValueError):  # as below
            attempts.append(len(encode(format, tasks[each.task_id], each.steps)[0]))
        for step in each.steps:
            try:
                ids = format.render(step.action, tasks[each.task_id])
            except ValueError:  # what the format cannot write is named where it is replayed
                continue
            actions.append(len(ids))
            if step.is_answered:
                replies.append(len(format.reply(ids, step.observations, step.reply) or ()))
    steps = max((len(each.steps) for each in shown), default=0)
    return Lengths(prompts[longest], longest, _nine_of_ten(replies), max(actions), steps, _nine_of_ten(attempts))


def _nine_of_ten(lengths: Sequence[int]) -> int | None:
    """What nine of ten do not exceed; None where there is none."""
    return int(min(quantiles(lengths, n=10)[-1], max(lengths))) if len(lengths) > 1 else next(iter(lengths), None)


def _shortened(format: Format, task: Task) -> Sequence[str]:
    return format.shortened(task) if isinstance(format, Shortens) else ()


def _some(tasks: Mapping[str, Task]) -> str:
    return ", ".join(list(tasks)[:3])
