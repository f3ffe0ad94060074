"""An attempt that is at hand, made once more: its calls go to the live world, and its steps are scored.

    demonstration    find {"title": "Dune"}   {"id": "b7"}      Finish {"answer": "9.99"}
    live                                      {"id": "b8"}      reply differs from the recorded one
    scores           success 1, contribution 1                  solved 0

The policy is the recording: it says what stands there, in the tokens of the format, whatever comes back. So a call that
the format cannot write, and an action that is longer than sample.max_step_tokens, show here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from steptool.annotators.base import Annotator
from steptool.core.errors import DataError
from steptool.core.plugins import NoSettings
from steptool.core.storage import parse_record, parse_text, read_jsonl, read_lines
from steptool.core.types import (
    FINISH,
    Action,
    Conditions,
    Judgement,
    Observation,
    Reference,
    Revision,
    Sampling,
    ScoredTrajectory,
    Task,
    ToolCall,
    Trajectory,
)
from steptool.engines.base import Generation, Request
from steptool.engines.fake import ScriptedEngine
from steptool.formats.base import Format
from steptool.rewards.base import Fits, RewardForm, rewards_of
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.traces.file import Demonstration
from steptool.worlds.base import World

HERE = Revision(name="replay", revision="0")
HINT = 'write lines such as {"task_id": "t1", "steps": [{"call": {"name": "find", "arguments": {}}}]}'


@dataclass(frozen=True)
class Recorded:
    """What is to be done, and what came back when it was done before, where that is known."""

    task_id: str
    source: str
    actions: tuple[Action, ...]
    observations: tuple[tuple[Observation, ...], ...]
    """Of each action; empty where none was recorded."""
    sampled: tuple[tuple[int, ...], ...] = ()
    """Tokens of each action, where they were sampled: what could not be read then is said again."""


@dataclass(frozen=True)
class Replayed:
    recorded: Recorded
    trajectory: Trajectory
    judgements: tuple[Judgement, ...]
    rewards: tuple[float, ...] | None
    """One a step, as the reward form of params.yaml has it; None where it must see a round first."""

    def differs(self, step: int) -> bool:
        """Whether the live world replied otherwise than was recorded."""
        before = self.recorded.observations[step]
        return bool(before) and before != self.trajectory.steps[step].observations

    @property
    def solved(self) -> float | None:
        return self.judgements[-1].solved if self.judgements else None


def recorded_in(path: Path, task_id: str | None = None) -> Recorded:
    """The first attempt of a file, or the first at task `task_id`.

    A file of attempts that a stage wrote (data/trajectories, data/scored), or lines as in a file of demonstrations,
    whose replies may be left out. Raises DataError where there is none, or it cannot be read.
    """
    found = next((each for each in _attempts(path) if task_id in (None, each.task_id)), None)
    if found is None:
        raise DataError(f"holds no attempt{f' at task {task_id}' if task_id else ''}", where=str(path), fix=HINT)
    return found


def _attempts(path: Path) -> Iterator[Recorded]:
    for number, line in enumerate(read_lines(path, missing=HINT, broken=HINT), start=1):
        where = f"{path}:{number}"
        value = parse_text(line, str(path), line=number, fix=HINT)
        kind = value.get("kind") if number == 1 and isinstance(value, dict) else None
        if kind == "Trajectory":
            yield from (recorded_of(each, f"{path}:{row}") for row, each in enumerate(read_jsonl(path, Trajectory), 2))
            return
        if kind == "ScoredTrajectory":
            scored = enumerate(read_jsonl(path, ScoredTrajectory), 2)
            yield from (recorded_of(each.trajectory, f"{path}:{row}") for row, each in scored)
            return
        given = parse_record(value, Demonstration, where=where, fix=HINT)
        yield Recorded(
            task_id=given.task_id,
            source=where,
            actions=tuple(step.as_step().action for step in given.steps),
            observations=tuple(step.as_step().observations for step in given.steps),
        )


def recorded_of(trajectory: Trajectory, source: str) -> Recorded:
    return Recorded(
        task_id=trajectory.task_id,
        source=source,
        actions=tuple(step.action for step in trajectory.steps),
        observations=tuple(step.observations for step in trajectory.steps),
        sampled=tuple(step.action_ids for step in trajectory.steps),
    )


def answer_to(task_id: str) -> Recorded:
    """An answer to a task, without any call."""
    answer = Action(calls=(ToolCall(name=FINISH, arguments={"answer": "nothing"}),))
    return Recorded(task_id, "an answer", (answer,), ((),))


async def replay(
    recorded: Recorded,
    task: Task,
    reference: Reference,
    world: World,
    format: Format,
    annotator: Annotator,
    form: RewardForm,
    sampling: Sampling,
    tool_timeout_s: float,
) -> Replayed:
    """Do in a fresh session what `recorded` did. It ends where the recording does, as if calls had run out there.

    Raises DataError for an action that the format cannot write.
    """
    engine = ScriptedEngine(_said(recorded, format, task))
    ends = sampling.model_copy(update={"max_calls": min(sampling.max_calls, len(recorded.actions))})
    (done,) = await Chain(NoSettings()).attempt(
        Attempt(
            task=task,
            open=partial(world.open, task, 0),
            act=partial(_act, engine, format, ends),
            format=format,
            conditions=Conditions(world=HERE, format=HERE, engine=HERE, dtype="float32", search=HERE, sampling=ends),
            policy=HERE,
            seed=0,
            number=0,
            tool_timeout_s=tool_timeout_s,
        )
    )
    judgements = tuple(await annotator.annotate(done, task, reference))
    scored = ScoredTrajectory(trajectory=done, judgements=judgements, annotator=HERE)
    rewards = None if isinstance(form, Fits) else tuple(rewards_of(form, [scored])[0])
    return Replayed(recorded, done, judgements, rewards)


async def _act(
    engine: ScriptedEngine, format: Format, sampling: Sampling, stream: Sequence[int], most: int, seed: int
) -> Generation:
    return await engine.generate(Request(stream, most, 0.0, 1.0, seed, format.stop_ids))


def _said(recorded: Recorded, format: Format, task: Task) -> list[tuple[int, ...]]:
    if recorded.sampled and all(recorded.sampled):
        return list(recorded.sampled)
    try:
        return [format.render(action, task) for action in recorded.actions]
    except ValueError as error:
        raise DataError(
            f"the format cannot write one of its actions: {error}",
            where=f"{recorded.source}, task {recorded.task_id}",
            fix="set another format.use in params.yaml, or mend the attempt",
        ) from error
