"""Which round is which, and what it samples: tasks, random numbers, settings."""

from __future__ import annotations

from steptool.config.places import DEMONSTRATIONS, PARAMS, TASKS
from steptool.config.settings import Params, RoundParams
from steptool.core.errors import ParamsError
from steptool.core.storage import read_jsonl
from steptool.core.types import Sampling, Task, Trajectory

ROUNDS_WANTED = "add one: rounds: {r1: {policy: models/sft, previous: models/sft}}"
ROUNDS_OF_A_DRAW = 97
"""More than anyone asks for; a prime, so that draws do not come back to the same tasks soon."""


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
