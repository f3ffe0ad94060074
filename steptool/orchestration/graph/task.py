"""One stage of the graph as a Prefect task."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import Task, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, State

from steptool.config.lineage import Entry, refuse_false_lineage
from steptool.core.errors import InputError, StepToolError, ValidationFailed
from steptool.orchestration.graph.events import announce_output
from steptool.orchestration.graph.stages import GraphStage, lock_entry
from steptool.orchestration.graph.workspace import Workspace, dvc_command

RETRY_DELAYS_S = [10.0, 60.0, 300.0]
PERMANENT = (InputError.exit_code, ValidationFailed.exit_code)
"""Exit statuses of a stage that will be the same next time."""
_PROGRESS = re.compile(r"^(?P<what>[\w@ \-]+): (?P<done>\d+)/(?P<total>\d+) ")
_EXITED = re.compile(r"failed to run: .*, exited with (-?\d+)")
_PROGRESS_EVERY_S = 5.0


class StageFailed(StepToolError):
    """A stage ended with an error. `stage_code` is the exit status of its command, None where DVC itself failed."""

    def __init__(self, found: str, *, stage_code: int | None, where: str, fix: str) -> None:
        super().__init__(found, where=where, fix=fix)
        self.stage_code = stage_code


class StageCancelled(StageFailed):
    """Somebody ended the stage's run on its node."""


class NodeLost(StepToolError):
    """The machine that ran a stage is gone."""


def scheduled(task: Task[..., State], stage: GraphStage, *, lost_retries: int = 0) -> Task[..., State]:
    """`task` under the name of the stage, with the retries of its schedule; `lost_retries` are for a lost node."""
    retries = max(stage.schedule.retries, lost_retries)

    def worth_retrying(_: Task[..., Any], run: TaskRun, state: State) -> bool:
        return is_worth_retrying(state.result(raise_on_failure=False), run.run_count, stage.schedule.retries)

    return task.with_options(
        name=stage.address,
        description=stage.description,
        tags=[f"resources:{stage.schedule.resources}"],
        retries=retries,
        retry_delay_seconds=RETRY_DELAYS_S[:retries] or None,
        retry_condition_fn=worth_retrying,
    )


def is_worth_retrying(fault: object, attempts: int, retries: int) -> bool:
    """Whether `fault`, which ended attempt number `attempts`, may be gone next time.

    A lost node, a full card or a server that is away may; bad input (2), data that must not be trained on (3) and a
    cancellation will not.
    """
    if isinstance(fault, StageCancelled) or (isinstance(fault, StageFailed) and fault.stage_code in PERMANENT):
        return False
    return isinstance(fault, NodeLost) or attempts <= retries


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: GraphStage, workspace: Workspace) -> State:
    """`dvc repro` of one stage, whose upstream is up to date. DVC is the cache: what has not changed is `Cached`."""
    with workspace.accelerator if stage.schedule.resources == "gpu" else nullcontext():
        said = repro(stage, workspace)
    if said is None:
        return Completed(name="Cached", message="nothing that it depends on has changed")
    publish(stage, workspace.root)
    return Completed(message=said)


def repro(stage: GraphStage, workspace: Workspace) -> str | None:
    """Run a stage with its log, progress and timeout; the last line that it said, or None where nothing had to run.

    Raises StageFailed, or TimeoutError past the timeout of its schedule.
    """
    logger = get_run_logger()
    progress = _Progress(_key(stage, "progress"))
    last: list[str] = []
    ran = ended = False
    said = ""

    def on_line(line: str) -> None:
        nonlocal ran, ended, said
        ran = ran or line.startswith("Running stage ")
        ended = ended or line.endswith(" lock file 'dvc.lock'")  # what follows are DVC's hints
        last[:] = [*last[-20:], line]
        progress.follow(line)
        if ended:
            logger.debug(line)
        elif line.strip():
            said = line
            logger.info(line)

    timeout = stage.schedule.timeout.total_seconds() if stage.schedule.timeout else None
    command = dvc_command("repro", "--single-item", *workspace.force, stage.address)
    code = workspace.attempt(*command, on_line=on_line, timeout_s=timeout)
    if code != 0:
        raise _failure(stage, code, last)
    if entry := lock_entry(workspace.root, stage.address):
        refuse_false_lineage({stage.address: Entry.model_validate(entry)}, workspace.root)
    if not ran:
        return None
    progress.finish()
    return said


def _failure(stage: GraphStage, code: int, last: list[str]) -> StageFailed:
    exited = next((match for line in reversed(last) if (match := _EXITED.search(line))), None)
    said = next((line for line in reversed(last) if line.startswith("steptool:")), None)
    return StageFailed(
        said.removeprefix("steptool: ") if said else f"`dvc repro` ended with {code}: {' / '.join(last[-3:])}",
        stage_code=int(exited[1]) if exited else None,
        where=f"stage {stage.address}",
        fix="mend it and run the flow again: what was finished is kept",
    )


def publish(stage: GraphStage, root: Path) -> None:
    """The stage's metrics, its pages and what DVC recorded, as artifacts; and the event that it emits."""
    for path in _files(root, stage.metrics, "*.json"):
        rows = [{"metric": name, "value": value} for name, value in _numbers(json.loads(path.read_text()))]
        if rows:
            create_table_artifact(rows, key=_key(stage, path.stem), description=f"{path.relative_to(root)}")
    for path in _files(root, stage.outputs, "*.html"):
        create_link_artifact(path.resolve().as_uri(), link_text=str(path.relative_to(root)), key=_key(stage, path.stem))
    entry = lock_entry(root, stage.address) or {}
    if stage.schedule.emits:
        for out in entry.get("outs", []):
            announce_output(stage.schedule.emits, out["path"], out["md5"])
    text = f"```json\n{json.dumps(entry, indent=2)}\n```"
    create_markdown_artifact(text, key=_key(stage, "lock"), description=f"What dvc.lock says of {stage.address}")


def _files(root: Path, paths: tuple[str, ...], pattern: str) -> Iterator[Path]:
    for path in map(root.joinpath, paths):
        yield from sorted(path.glob(pattern)) if path.is_dir() else [path] if path.match(pattern) else []


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, bool | int | float):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{name}.{key}" if name else str(key))


def _key(stage: GraphStage, what: str) -> str:
    """Prefect's artifact keys hold lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{stage.address}-{what}".lower()).strip("-")


class _Progress:
    """Follows the progress lines of a stage's log."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._artifact: UUID | None = None
        self._told = 0.0

    def follow(self, line: str) -> None:
        match = _PROGRESS.match(line)
        if match and int(match["total"]) and time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            self._tell(100 * int(match["done"]) / int(match["total"]), line)

    def finish(self) -> None:
        if self._artifact is not None:
            self._tell(100.0, "done")

    def _tell(self, percent: float, description: str) -> None:
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, key=self._key, description=description)
            else:
                update_progress_artifact(self._artifact, percent, description=description)
        except httpx.HTTPError as fault:  # no reason to end a training of hours
            get_run_logger().debug("progress could not be shown: %s", fault)
