"""What every stage shares: where things lie, the tracked run around it, and its closing line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from steptool.errors import ParamsError
from steptool.params import Params, RoundParams
from steptool.registry.tracking import StageRun, Tracking
from steptool.storage import file_hash, manifest, output_folder, read_jsonl
from steptool.types import Sampling, Task, Trajectory

PARAMS = Path("params.yaml")
TASKS = Path("data/tasks")
DEMONSTRATIONS = TASKS / "demonstrations.jsonl"
TRAJECTORIES = Path("data/trajectories")
SCORED = Path("data/scored")
VALIDATED = Path("data/validated")
MODELS = Path("models")
BASE, SFT, RFT = MODELS / "base", MODELS / "sft", MODELS / "rft"
EVALUATION = Path("metrics/evaluation")
REPORT = Path("reports")
WORK = Path(".steptool")
"""State of this checkout: checkpoints, merged weights, what could not be logged yet. Never an output."""
MERGED = WORK / "merged"
ROUNDS_OF_A_DRAW = 97
"""More than anyone asks for; a prime, so that draws do not come back to the same tasks soon."""


@dataclass
class Stage:
    """A running stage: its temporary output folder and its tracked run."""

    out: Path
    run: StageRun
    determines: dict[str, Any]
    said: str = ""

    def says(self, line: str) -> None:
        """The one line printed at the end."""
        self.said = line


@contextmanager
def stage(
    name: str,
    out: Path,
    params: Params,
    *,
    uses: dict[str, Any],
    inputs: dict[str, Path],
    round: str | None = None,
    tracks_itself: bool = False,
) -> Iterator[Stage]:
    """Run one stage: tracked, its output folder `out` written atomically.

    `uses` are the params that determine the output, `inputs` the files and folders that it reads.
    `tracks_itself`: see `Tracking.stage`.
    """
    started = time.monotonic()
    used = {key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in uses.items()}
    label = f"{name} {round}" if round else name
    determines = manifest(label, used, inputs, params.seed)
    tracking = Tracking(None, params.tracking.experiment)
    with tracking.stage(name, round=round, params={"seed": params.seed, **used}, tracks_itself=tracks_itself) as run:
        with output_folder(out, determines) as folder:
            running = Stage(folder, run, determines)
            yield running
        for input_name, path in inputs.items():
            run.dataset(path, input_name, determines["inputs"][input_name])
        run.dataset(out, f"{label} output", file_hash(out), context="output")
    print(f"{label}: {running.said} -> {out} ({time.monotonic() - started:.0f} s)", flush=True)


def round_of(params: Params, key: str) -> tuple[int, RoundParams]:
    """Position (from 0) and settings of a round."""
    if key not in params.rounds:
        raise ParamsError(
            f"no round {key!r}; there are {', '.join(params.rounds) or 'none'}",
            where=str(PARAMS),
            fix=f"add it under `rounds`, or name one of them: steptool sample {next(iter(params.rounds), 'r1')}",
        )
    return list(params.rounds).index(key), params.rounds[key]


def last_round(params: Params) -> str:
    """Key of the round whose policy is evaluated against the others and registered."""
    if not params.rounds:
        fix = "add one: `git checkout params.yaml` has two"
        raise ParamsError("holds no `rounds`", where=str(PARAMS), fix=fix)
    return list(params.rounds)[-1]


def read_tasks(split: str) -> list[Task]:
    return read_jsonl(TASKS / f"{split}.jsonl", Task)


def draw_of_round(params: Params, index: int) -> int:
    """Number of round `index` (from 0) among those of all draws: it chooses the round's tasks and random numbers.

    It does not depend on how many rounds there are, so that another round leaves those before it as they are.
    """
    return params.sample.draw * ROUNDS_OF_A_DRAW + index


def tasks_of_round(params: Params, index: int) -> list[Task]:
    """Training tasks of round `index`: each round the next ones, those without a demonstration first."""
    shown = {demo.task_id for demo in read_jsonl(DEMONSTRATIONS, Trajectory)}
    tasks = sorted(read_tasks("train"), key=lambda task: task.id in shown)
    start = draw_of_round(params, index) * params.sample.tasks
    return [tasks[(start + offset) % len(tasks)] for offset in range(min(params.sample.tasks, len(tasks)))]


def sampling_of(params: Params) -> Sampling:
    wanted = params.sample
    return Sampling(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        max_calls=wanted.max_calls,
        max_step_tokens=wanted.max_step_tokens,
        max_tokens=wanted.max_tokens,
    )
