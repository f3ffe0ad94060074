"""What `steptool check` prints. Text from outside is shown as it is, and cannot steer a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steptool.commands.readiness import Line
from steptool.commands.replay import Replayed
from steptool.core.errors import printable
from steptool.core.types import Observation, Reference, Step, Task

STYLES = {"ok": "green", "note": "yellow", "mend": "bold red"}
MOST_REPLY = 300
"""Characters of a reply in the table of a replay."""


def tasks(console: Console, splits: Mapping[str, Sequence[Task]], references: Mapping[str, Reference]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("split", "tasks", "groups", "tools", "without a check"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, found in splits.items():
        offered = {tool.name for task in found for tool in task.tools}
        unchecked = sum(not references[task.id].can_be_checked for task in found)
        groups = {task.group for task in found}
        table.add_row(split, f"{len(found):,}", str(len(groups)), str(len(offered)), f"{unchecked:,}")
    console.print(table)


def prompt(console: Console, tokenizer: Any, ids: Sequence[int], task: Task, shortened: Sequence[str]) -> None:
    """Exactly what the model gets: `ids` by a Hugging Face tokenizer, control tokens in colour."""
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    text = Text()
    for is_control, group in groupby(ids, key=lambda token: token in control):
        part = tokenizer.decode(list(group), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text.append(printable(part), style="bold magenta" if is_control else "")
    console.rule(Text(printable(f"prompt of task {task.id}: {len(ids)} tokens")), align="left", style="dim")
    console.print(text, soft_wrap=True, end="")
    console.rule(style="dim")
    for line in shortened:
        console.print(Text(printable(f"shortened: {line}"), style="yellow"))


def replay(console: Console, of: Replayed) -> None:
    """One row a step: what was done, what came back now, and what it earns."""
    done = of.trajectory
    title = printable(f"{of.recorded.source}, replayed on task {done.task_id}: {done.stop_reason.value}")
    console.rule(Text(title), align="left", style="dim")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("step", "action", "reply", "success", "contribution", "solved", "reward", "why"):
        is_number = name in ("success", "contribution", "solved", "reward")
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    rewards = of.rewards or [None] * len(done.steps)
    for number, (step, judged, reward) in enumerate(zip(done.steps, of.judgements, rewards, strict=True)):
        reply = Text(_replies(step.observations) or printable(step.reply or ""))
        if of.differs(number):
            reply.append(f"\nrecorded: {_replies(of.recorded.observations[number])}", style="yellow")
        scores = [_score(judged.scores.get(name)) for name in ("success", "contribution", "solved")]
        why = Text(printable(judged.reason))
        table.add_row(
            str(number), Text(_action(step)), reply, *scores, "–" if reward is None else f"{reward:+.3f}", why
        )
    console.print(table)


def lines(console: Console, found: Sequence[Line]) -> None:
    """The verdict, what is to be mended last, where it is read first."""
    order = ["ok", "note", "mend"]
    for line in sorted(found, key=lambda each: order.index(each.mark)):
        said = Text(f"{line.mark:<5} ", style=STYLES[line.mark])
        said.append(printable(line.says), style="default")
        if line.mark != "ok" and line.fix:
            said.append(f"\n      → {printable(line.fix)}", style="default")
        console.print(said, soft_wrap=True)
    wrong = sum(line.mark == "mend" for line in found)
    if wrong:
        console.print(Text(f"not ready: {wrong} thing{'s' * (wrong != 1)} to mend", style="bold red"))
    else:
        console.print(Text("ready: `steptool run`", style="bold green"))


def _action(step: Step) -> str:
    action = step.action
    if action.unreadable is not None:
        return printable(f"not read: {action.unreadable}")
    if action.message is not None:
        return printable(action.message)
    called = (f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in action.calls)
    return printable("\n".join(called))


def _replies(observations: Sequence[Observation]) -> str:
    said = (f"{each.text[:MOST_REPLY]}{' (' + each.error + ')' if each.error else ''}" for each in observations)
    return printable("\n".join(said))


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
