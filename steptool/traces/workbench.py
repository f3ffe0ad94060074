"""Recorded attempts of WorkBench as demonstrations: GPT-4's, unless other runs are named.

    demonstrations: {use: workbench, runs: [gpt-4_domains, gpt-4_all], keep: solved}

Their calls are made again in the world, which replies, and judges the attempt while its state is alive. Attempts at
held-out tasks are never read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from steptool.core.errors import InputError
from steptool.core.fields import Name, Outside, Settings
from steptool.core.storage import file_hash
from steptool.core.types import (
    FINISH,
    Action,
    Revision,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    content_hash,
)
from steptool.worlds.base import World
from steptool.worlds.workbench import pack
from steptool.worlds.workbench.pack import RecordedRun
from steptool.worlds.workbench.toolbox import as_call
from steptool.worlds.workbench.world import WorkBench

GPT_4 = ("gpt-4_domains", "gpt-4_all")


class WorkBenchRuns:
    name: ClassVar[str] = "workbench"

    class Config(Settings):
        path: Outside = ""
        """Folder of the pack; empty takes the environment variable STEPTOOL_WORKBENCH."""
        runs: Annotated[list[Name], Field(min_length=1, default_factory=lambda: list(GPT_4))]
        """Files of `runs/`, without their endings."""
        keep: Literal["solved", "all"] = "solved"
        """Attempts that the world judges solved, or all that end in an answer."""
        answer: str = ""
        """What every attempt answers at its end, such as `done`; empty keeps what was said. The verdict reads the
        databases, not the answer, and a small model learns a short one at once."""
        most_calls: Annotated[int, Field(ge=1, le=100)] = 20
        """An attempt of more calls is left out."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the runs. Raises InputError where one is missing."""
        return content_hash([file_hash(file) for file in _files(config)])

    def read(self, world: World, tasks: Mapping[str, Task], seed: int) -> Iterator[Trajectory]:
        """Attempts at training tasks, run by run, the same one once. Raises InputError where the world is another."""
        if not isinstance(world, WorkBench):
            raise InputError(
                f"shows attempts at WorkBench, and the world is {type(world).__name__}",
                where="params.yaml, demonstrations: {use: workbench}",
                fix="set world: {use: workbench}",
            )
        training = {task.id: task for task in world.tasks("train")}
        folder = pack.folder(self.config.path)
        seen: set[tuple[str, str]] = set()
        for name, file in zip(self.config.runs, _files(self.config), strict=True):
            policy = Revision(name=name, revision=file_hash(file))
            for run in pack.runs(folder, name):
                task = training.get(run.query_id)
                shown = None if task is None else self._attempt(world, task, run, policy)
                if shown is None:
                    continue
                mark = (shown.task_id, json.dumps([step.action.model_dump(mode="json") for step in shown.steps]))
                if mark not in seen:
                    seen.add(mark)
                    yield shown

    def _attempt(self, world: WorkBench, task: Task, run: RecordedRun, policy: Revision) -> Trajectory | None:
        """The attempt with the replies of this world, None where it is not to be shown."""
        calls = [as_call(step) for step in run.steps]
        is_whole = run.error is None and isinstance(run.answer, str) and run.answer.strip()
        if not is_whole or len(calls) > self.config.most_calls or any(task.tool(call.name) is None for call in calls):
            return None
        answer = self.config.answer or run.answer.strip()
        session = world.open(task, seed=0)
        steps = [Step(action=Action(calls=(call,)), observations=(session.reply(call),)) for call in calls]
        steps.append(Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"answer": answer}),))))
        outcome = session.outcome(answer)
        if self.config.keep == "solved" and outcome.solved != 1:
            return None
        return Trajectory.create(
            task_id=task.id,
            steps=tuple(steps),
            stop_reason=StopReason.finished,
            answer=answer,
            outcome=outcome,
            policy=policy,
            conditions=None,
        )


def _files(config: WorkBenchRuns.Config) -> list[Path]:
    """Raises InputError where one is missing."""
    folder = pack.folder(config.path)
    if missing := [name for name in config.runs if name not in pack.run_names(folder)]:
        raise InputError(
            f"no run {', '.join(missing)} in {folder / pack.RUNS}",
            where="params.yaml, demonstrations.runs",
            fix=f"name some of {', '.join(pack.run_names(folder))}",
        )
    return [folder / pack.RUNS / f"{name}.jsonl.gz" for name in config.runs]
