"""What every stage shares: where things lie, the tracked run around it, and its closing line."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from steptool.config.lineage import AGAIN, Reading
from steptool.config.places import DEMONSTRATIONS, PARAMS, TASKS
from steptool.config.settings import Params, RoundParams, load_params
from steptool.core.errors import ParamsError, StepToolError, StorageError
from steptool.core.storage import file_hash, manifest, output_folder, read_jsonl
from steptool.core.types import Sampling, Task, Trajectory
from steptool.tracking.run import StageRun, Tracking

ROUNDS_WANTED = "add one: rounds: {r1: {policy: models/sft, previous: models/sft}}"
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
    external: Mapping[Path, Callable[[], str | None]] | None = None,
    round: str | None = None,
    tracks_itself: bool = False,
) -> Iterator[Stage]:
    """Run one stage: tracked, its output folder `out` written atomically.

    `uses` are the params that determine the output, `inputs` the files and folders that it reads. `external` says
    what it reads from outside of the repository; see `Reading`.
    `tracks_itself`: see `Tracking.stage`.
    Raises StepToolError, with nothing written, where something of this changed while the block ran.
    """
    started = time.monotonic()
    used = {key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in uses.items()}
    label = f"{name} {round}" if round else name
    determines = manifest(label, used, inputs, params.seed)
    digests = {path: determines["inputs"][key] for key, path in inputs.items()}
    reading = Reading(name, round, digests, external or {})
    if PARAMS.exists() and load_params(PARAMS) != params:
        raise StepToolError(f"{PARAMS} changed while the stage began", where=f"stage {label}", fix=AGAIN)
    determines |= {"external": reading.external, "settings": reading.settings}
    tracking, set_to = Tracking(None, params.tracking.experiment), {"seed": params.seed, **used}
    with _permitted(out), tracking.stage(name, round=round, params=set_to, tracks_itself=tracks_itself) as run:
        with output_folder(out, determines) as folder:
            running = Stage(folder, run, determines)
            yield running
            reading.check()
        for input_name, path in inputs.items():
            run.dataset(path, input_name, determines["inputs"][input_name])
        run.dataset(out, f"{label} output", file_hash(out), context="output")
    reading.check()
    print(f"{label}: {running.said} -> {out} ({time.monotonic() - started:.0f} s)", flush=True)


@contextmanager
def _permitted(out: Path) -> Iterator[None]:
    """Turn the refusal of a checkout that may not be written to into a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        fix = "mend the permissions, or work in a copy of this folder that you may write to; no output was lost"
        raise StorageError(error.strerror or "no permission", where=str(error.filename or out), fix=fix) from error


def round_of(params: Params, key: str) -> tuple[int, RoundParams]:
    """Number (from 0) and settings of a round.

    The number is the one in its name, so that rounds which come or go leave the others as they are.
    """
    if key not in params.rounds:
        raise ParamsError(
            f"no round {key!r}; there are {', '.join(params.rounds) or 'none'}",
            where=str(PARAMS),
            fix="name one of these, or add it under `rounds`" if params.rounds else ROUNDS_WANTED,
        )
    return int(key.removeprefix("r")) - 1, params.rounds[key]


def last_round(params: Params) -> str:
    """Key of the round whose policy is evaluated against the others and registered."""
    if not params.rounds:
        raise ParamsError("holds no `rounds`", where=str(PARAMS), fix=ROUNDS_WANTED)
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
