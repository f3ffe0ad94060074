"""Recorded runs, made again with the tools of this package: which replies and verdicts differ.

python -m steptool.worlds.workbench.replay FOLDER [RUN ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError, StepToolError, printable
from steptool.worlds.base import SPLITS
from steptool.worlds.workbench import pack
from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.pack import Call, RecordedRun, Request
from steptool.worlds.workbench.toolbox import after, as_call, execute, offered
from steptool.worlds.workbench.tools.base import Refused
from steptool.worlds.workbench.world import WorkBench


@dataclass
class Replay:
    """A recorded run against this world."""

    name: str
    attempts: int = 0
    verdicts: list[str] = field(default_factory=list)
    """Ids of requests where the recorded verdict and ours differ."""
    calls: int = 0
    replies: list[str] = field(default_factory=list)
    """A line for each reply that differs."""


def solved(office: Office, request: Request, run: RecordedRun) -> bool:
    """Whether a recorded attempt leaves the office as the true calls do. A run that broke never does."""
    calls: Sequence[Call] = run.steps if run.executed_calls is None else run.executed_calls
    left = after(office, map(as_call, calls))
    return run.error is None and not left.differs(after(office, map(as_call, request.calls)))


def solved_by_nothing(path: Path) -> dict[str, str]:
    """Of the tasks of each split, as the world has them by default, how many an attempt without any call solves."""
    world = WorkBench(WorkBench.Config(path=str(path)), seed=0)
    found: dict[str, str] = {}
    for split in SPLITS:
        tasks = world.tasks(split)
        found[split] = f"{sum(world.open(task, seed=0).outcome('').solved == 1 for task in tasks)} of {len(tasks)}"
    return found


def replay(path: Path, name: str) -> Replay:
    office, requests = pack.office(path), {request.id: request for request in pack.requests(path)}
    found = Replay(name)
    for run in pack.runs(path, name):
        request = requests.get(run.query_id)
        if request is None:
            found_in = str(path / pack.RUNS / f"{name}.jsonl.gz")
            raise DataError(f"attempts {run.query_id[:80]!r}, which is no request", where=found_in, fix=pack.RESTORE)
        found.attempts += 1
        if solved(office, request, run) != run.correct:
            found.verdicts.append(run.query_id)
        found.calls += len(run.steps)
        found.replies += _other_replies(office, run, None if name.endswith("_all") else request.toolkits)
    return found


def _other_replies(office: Office, run: RecordedRun, domains: Sequence[str] | None) -> Iterator[str]:
    state, tools = office.copy(), [tool.name for tool in offered(domains)]
    for number, step in enumerate(run.steps):
        try:
            reply = execute(state, step.name, as_call(step).arguments, tools)
        except Refused as refusal:
            reply = str(refusal)
        if not _same(reply, step.reply):
            call = f"{step.name} {json.dumps(step.arguments)}"
            yield f"{run.query_id} step {number}: {call[:200]}: {_short(reply)} against {_short(step.reply)}"


def _same(reply: Any, recorded: Any) -> bool:
    """Floats may differ in their last digits: sums are rounded in another order."""
    if isinstance(reply, dict) and isinstance(recorded, dict):
        return reply.keys() == recorded.keys() and all(_same(reply[key], recorded[key]) for key in reply)
    if isinstance(reply, list) and isinstance(recorded, list):
        return len(reply) == len(recorded) and all(map(_same, reply, recorded))
    if isinstance(reply, float) and isinstance(recorded, (int, float)):
        return abs(reply - recorded) <= 1e-9 * max(1.0, abs(recorded))
    return bool(reply == recorded)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:160]}... ({len(text)} characters)"


def main(arguments: Sequence[str]) -> None:
    path = pack.folder(arguments[0] if arguments else "")
    print("solved without a call:", ", ".join(f"{split} {count}" for split, count in solved_by_nothing(path).items()))
    for name in arguments[1:] or pack.run_names(path):
        found = replay(path, name)
        print(
            f"{name}: {len(found.verdicts)} of {found.attempts} verdicts and "
            f"{len(found.replies)} of {found.calls} replies differ"
        )
        print(
            *(f"  verdict {request}" for request in found.verdicts), *(f"  {line}" for line in found.replies), sep="\n"
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StepToolError as error:
        print(f"steptool: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
