"""How long `annotate` and `validate` take for many trajectories, and in how much memory.

    python -m benchmarks.growth                                  100,000 copies of round r1 of the project here
    python -m benchmarks.growth 1000 10000 --project ../other --round r2

The round's tasks and attempts are copied under new names until there are enough, into a folder of their own, and the
two stages run there as commands. Peak memory is that of a command's process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from benchmarks import run
from steptool.config.places import DEMONSTRATIONS, PARAMS, REFERENCES, TASKS, TRAJECTORIES
from steptool.core.errors import InputError
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import Reference, Task, Trajectory

STAGES = ("annotate", "validate")


def main(
    counts: Annotated[
        list[int] | None, typer.Argument(help="Trajectories; 100,000 where none is given.", min=1)
    ] = None,
    project: Annotated[Path, typer.Option(help="Folder of a project that has sampled the round.")] = Path(),
    round: Annotated[str, typer.Option(help="Whose attempts are copied.")] = "r1",
) -> None:
    """Time both stages for each number of trajectories."""
    if not (project / TRAJECTORIES / round).is_dir():
        fix = "run `make run` first, or name a project that has, with --project"
        raise InputError(f"round {round} was not sampled", where=str(project.absolute()), fix=fix)
    for wanted in counts or [100_000]:
        with tempfile.TemporaryDirectory() as folder:
            grow(project, round, wanted, Path(folder))
            for stage in STAGES:
                seconds, peak = measure([sys.executable, "-m", "steptool.cli", stage, round], Path(folder))
                print(f"{stage} {wanted:,} trajectories: {seconds:.1f} s, {peak / 2**30:.2f} GiB", flush=True)


def grow(project: Path, round: str, wanted: int, into: Path) -> None:
    """Write a project folder with `wanted` attempts in its round `round`, copies of those of `project`."""
    attempts = read_jsonl(project / TRAJECTORIES / round / "trajectories.jsonl.gz", Trajectory)
    attempted = {attempt.task_id for attempt in attempts}
    tasks = [task for task in read_jsonl(project / TASKS / "train.jsonl", Task) if task.id in attempted]
    references = [one for one in read_jsonl(project / REFERENCES, Reference) if one.task_id in attempted]
    copies = -(-wanted // len(attempts))
    yaml = YAML()
    params = yaml.load(project / PARAMS)
    params["sample"]["tasks"] = copies * len(tasks)
    yaml.dump(params, into / PARAMS)
    write_jsonl(into / TASKS / "train.jsonl", renamed(tasks, "id", copies))
    write_jsonl(into / REFERENCES, renamed(references, "task_id", copies))
    write_jsonl(into / DEMONSTRATIONS, [])
    write_jsonl(into / TRAJECTORIES / round / "trajectories.jsonl.gz", islice(copied(attempts), wanted))


def renamed(records: Sequence[Any], name: str, copies: int) -> Iterator[Any]:
    for copy in range(copies):
        for record in records:
            yield record.model_copy(update={name: f"{getattr(record, name)}-{copy}"})


def copied(attempts: Sequence[Trajectory]) -> Iterator[Trajectory]:
    """Without end."""
    for copy in count():
        for attempt in attempts:
            yield Trajectory.create(**{**dict(attempt), "task_id": f"{attempt.task_id}-{copy}"})


def measure(command: Sequence[str], folder: Path) -> tuple[float, int]:
    """Seconds, and peak memory in bytes."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"`{' '.join(command)}` failed: {said[-2000:]}", where=str(folder), fix="mend that first")
    return time.monotonic() - started, used.ru_maxrss << 10


if __name__ == "__main__":
    run(main)
