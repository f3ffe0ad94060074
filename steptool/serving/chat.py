"""A policy on the project's world, in the terminal, step by step as it acts; sampled as `evaluate` samples.

martly: What is the weight of the Young watch?                  task mini-test-G1_tool-004, ppo2
  1  martly.find {"name": "Young watch"}
     {"id":"pr1721"}
  …
answers 7950                                                    3 calls, 41 tokens
step   action        success  contribution  solved
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from steptool.annotators.annotate import opened
from steptool.config.settings import Params
from steptool.core.errors import InputError, printable
from steptool.core.types import Judgement, Observation, Step, Task, Trajectory
from steptool.rollouts.branch import Branch
from steptool.rollouts.collect import Sampler, measured_sampling, open_sampler
from steptool.rollouts.loop import run
from steptool.serving.policy import Named
from steptool.worlds.base import SPLITS, World

MOST_SHOWN = 600
"""Characters of a reply."""


def chat(params: Params, policy: Named, *, text: str, task: str, console: Console | None = None) -> None:
    """Attempt the task with id `task`, or what `text` asks with its tools; without both, ask for one line after the
    other.

    Raises InputError for a task that does not exist, and where there is nothing to ask.
    """
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    world: World = params.world.build(params.seed)
    given = find_task(world, task)
    questions = iter([text or given.query]) if text or task else _asked(console)
    with open_sampler(params, policy.folder, seed=params.seed) as sampler:
        for question in questions:
            own = given if question == given.query else given.model_copy(update={"query": question})
            run(_attempt(params, sampler, own, policy.name, console, is_known=own is given))


def find_task(world: World, id: str) -> Task:
    """The task with this id; without one the first test task, for its tools."""
    for split in SPLITS[::-1]:
        for task in world.tasks(split):
            if id in ("", task.id):
                return task
    raise InputError(f"no task {id[:80]!r}", where="the world's tasks", fix="take an id of data/tasks/test.jsonl")


def _asked(console: Console) -> Iterator[str]:
    if not sys.stdin.isatty():
        raise InputError("nothing to ask", fix='give it a text, or --task: steptool chat "Where is order 7?"')
    while True:
        try:
            text = console.input("[bold]you[/bold]  ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if text:
            yield text


async def _attempt(
    params: Params, sampler: Sampler, task: Task, policy: str, console: Console, *, is_known: bool
) -> None:
    attempt = sampler.attempt(task, 0, sampler.conditions(measured_sampling(params)))
    tokens = len(attempt.format.prompt(task))
    console.print(_line(task.query, style="bold"))
    console.print(_line(f"{policy}, {_offer(task)}, a prompt of {tokens} tokens", style="dim"))
    async with Branch(attempt) as branch:
        ending = branch.begin()
        while ending is None:
            before = len(branch.steps)
            ending = await branch.act(before)
            for number, step in enumerate(branch.steps[before:], start=before + 1):
                _show(console, number, step)
        trajectory = await branch.end(ending)
    _show_end(console, trajectory, is_known=is_known)
    known = sampler.world.reference(task) if is_known else None
    if known is not None and trajectory.steps:
        with opened(params.annotate) as (annotator, _):
            console.print(scores(trajectory, await annotator.annotate(trajectory, task, known)))


def _offer(task: Task) -> str:
    names = [tool.name for tool in task.tools]
    return f"task {task.id}, tools {', '.join(names[:6])}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _show(console: Console, number: int, step: Step) -> None:
    action, lead = step.action, f"{number:3}  "
    for line in action.thought.splitlines():
        console.print(_line(f"{lead}{line}", style="dim"))
        lead = "     "
    if action.unreadable is not None:
        console.print(_line(f"{lead}cannot be read: {action.unreadable}", style="red"))
    elif action.message is not None:
        console.print(_line(f"{lead}{action.message}"))
    for call in action.calls:
        console.print(
            Text.assemble(
                lead,
                (printable(call.name), "bold cyan"),
                " ",
                printable(json.dumps(call.arguments, ensure_ascii=False)),
            )
        )
        lead = "     "
    for observation in step.observations:
        console.print(_line(f"     {_cut(observation)}", style="red" if observation.error else "green"))
    if step.reply is not None:
        console.print(_line(f"     {step.reply[:MOST_SHOWN]}", style="green"))


def _show_end(console: Console, trajectory: Trajectory, *, is_known: bool) -> None:
    said = f"answers {trajectory.answer}" if trajectory.answer is not None else f"ended: {trajectory.stop_reason.value}"
    tokens = sum(len(step.action_ids) for step in trajectory.steps)
    console.print(_line(said, style="bold"), _line(f"({len(trajectory.steps)} steps, {tokens} tokens)", style="dim"))
    if trajectory.error:
        console.print(_line(trajectory.error, style="red"))
    if is_known and trajectory.outcome.solved is not None:
        solved, evidence = trajectory.outcome.solved, trajectory.outcome.evidence
        verdict = "solved" if solved == 1 else "not solved" if solved == 0 else f"solved to {solved:.0%}"
        console.print(_line(verdict + (f": {evidence}" if evidence else ""), style="green" if solved == 1 else "red"))


def scores(trajectory: Trajectory, judged: Sequence[Judgement]) -> Table:
    """What the annotator gives every step."""
    names = list(dict.fromkeys(name for judgement in judged for name in judgement.scores))
    table = Table("step", "action", *names, "reason", box=None, header_style="dim", pad_edge=False)
    for number, (step, judgement) in enumerate(zip(trajectory.steps, judged, strict=True), start=1):
        done = ", ".join(call.name for call in step.action.calls) or (
            "message" if step.action.message else "unreadable"
        )
        values = [judgement.scores.get(name) for name in names]
        cells = ["" if value is None else f"{value:g}" for value in values]
        table.add_row(str(number), _line(done), *cells, _line(judgement.reason))
    return table


def _line(text: str, *, style: str = "") -> Text:
    """Text from outside: nothing in it moves the cursor or is markup."""
    return Text(printable(text), style=style)


def _cut(observation: Observation) -> str:
    text = observation.text
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} … ({len(text)} characters)"
