"""The stage graph of `dvc.yaml` and its state in `dvc.lock`, through DVC's API. Nothing else imports DVC.

How a stage is scheduled stands in its own `meta`:

    meta: {resources: gpu, retries: 2, timeout: 6h, emits: steptool.data.new}
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import dumps_yaml, load_yaml
from pydantic import ConfigDict, Field, ValidationError

from steptool.config.lineage import check_state, read_yaml
from steptool.core.errors import ParamsError
from steptool.core.fields import Duration
from steptool.core.storage import write_bytes
from steptool.core.types import Frozen

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
_READING = Lock()
"""DVC's validator of dvc.yaml is one object, which refuses good files to threads that use it at once."""


class Schedule(Frozen):
    """The `meta` of a stage."""

    model_config = ConfigDict(extra="forbid")

    resources: Literal["cpu", "gpu"] = "cpu"
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    timeout: Duration | None = None
    emits: str | None = None
    """Name of the event that says that its outputs are new; see `steptool.orchestration.graph.events`."""


class GraphStage(Frozen):
    """One stage of the graph, such as `train-ppo1`."""

    address: str
    upstream: tuple[str, ...]
    """Addresses of the stages whose outputs it reads."""
    schedule: Schedule
    description: str
    inputs: tuple[str, ...]
    """What it reads that DVC keeps, as paths from the root: outputs of other stages, or what is inside one; data
    that was added with `dvc add`."""
    sources: tuple[str, ...]
    """What it reads that Git keeps."""
    folders: tuple[str, ...]
    """Its dependencies that are folders around outputs of other stages: it reads all that lies there."""
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]
    """Those of the outputs that are metrics, and the metrics that dvc.yaml names inside them."""


def read_graph(root: Path, targets: Sequence[str] = ()) -> list[GraphStage]:
    """The stages of `root`/dvc.yaml, each after its upstream: all, or `targets` and what they need.

    A target is a name in dvc.yaml, or a verb (`train` is `train-sft`, `train-ppo1`, …).
    Raises ParamsError where dvc.yaml cannot be read, a `meta` is not a schedule, or a target does not exist.
    """
    where = str(root / PIPELINE)
    check_state(root)
    try:
        with _READING, Repo(str(root)) as repo:
            graph = repo.index.graph
            stages = {stage.name: stage for stage in graph if stage.path_in_repo == PIPELINE}
            made = {Path(os.path.relpath(out.fs_path, root)) for stage in graph for out in stage.outs}
            upstream = {
                name: sorted(up.name for up in graph.successors(stage) if up.path_in_repo == PIPELINE)
                for name, stage in stages.items()
            }
        metrics = load_yaml(str(root / PIPELINE)).get("metrics", [])
    except DvcException as fault:
        raise ParamsError(str(fault), where=where, fix="`dvc stage list` shows what DVC reads") from fault
    wanted = _closure(upstream, _named(stages, targets, where)) if targets else set(stages)
    order = TopologicalSorter(upstream).static_order()
    shown = [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in metrics]
    return [_stage(root, stages[name], upstream[name], made, shown) for name in order if name in wanted]


def _named(stages: dict[str, Any], targets: Sequence[str], where: str) -> set[str]:
    found: set[str] = set()
    for target in targets:
        matching = {name for name in stages if name == target or name.startswith((f"{target}-", f"{target}@"))}
        if not matching:
            raise ParamsError(f"no stage {target!r}", where=where, fix=f"name one of {', '.join(sorted(stages))}")
        found |= matching
    return found


def _closure(upstream: dict[str, list[str]], wanted: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += upstream[name]
    return found


def _stage(root: Path, stage: Any, upstream: list[str], made: set[Path], shown: list[Path]) -> GraphStage:
    def inside(item: Any) -> str:
        return os.path.relpath(item.fs_path, root)

    read = [Path(inside(dep)) for dep in stage.deps]
    within = {path: [out for out in made if path in out.parents] for path in read}
    inputs = {path for path in read if any(path == out or out in path.parents for out in made)}

    try:
        schedule = Schedule.model_validate(stage.meta or {})
    except ValidationError as fault:
        raise ParamsError(
            f"meta of stage {stage.name}: {fault.errors()[0]['msg']} ({'.'.join(map(str, fault.errors()[0]['loc']))})",
            where=str(root / PIPELINE),
            fix="give resources (cpu or gpu), retries (a count), timeout (90s, 30m, 6h or 1d), emits (an event)",
        ) from fault
    return GraphStage(
        address=stage.name,
        upstream=tuple(upstream),
        schedule=schedule,
        description=stage.desc or "",
        inputs=tuple(map(str, sorted(inputs.union(*within.values())))),
        sources=tuple(str(path) for path in read if path not in inputs and not within[path]),
        folders=tuple(str(path) for path, outs in within.items() if outs),
        outputs=tuple(inside(out) for out in stage.outs),
        metrics=(
            *(inside(out) for out in stage.outs if out.metric),
            *(str(path) for path in shown if any(Path(inside(out)) in path.parents for out in stage.outs)),
        ),
    )


def lock_text(root: Path) -> str:
    """dvc.lock as it lies there, empty where there is none; under DVC's own lock, as DVC rewrites it in place."""
    path = root / LOCK
    repo = Repo(str(root), _wait_for_lock=True)
    with repo, repo.lock:
        return path.read_text() if path.exists() else ""


def lock_entry(root: Path, address: str) -> dict[str, Any] | None:
    """What dvc.lock says of a stage: its command, and the hashes of dependencies, params and outputs."""
    repo = Repo(str(root), _wait_for_lock=True)
    with repo, repo.lock:
        document = read_yaml(root / LOCK) or {}
    entry: dict[str, Any] | None = document.get("stages", {}).get(address)
    return entry


def has_remote(root: Path) -> bool:
    """Whether `dvc push` knows where to."""
    with Repo(str(root)) as repo:
        return bool(repo.config["core"].get("remote"))


def merge_lock_entry(root: Path, address: str, entry: dict[str, Any]) -> None:
    """Put a stage's entry, made in another clone, into dvc.lock.

    Under DVC's own lock, which excludes its command line too, and all at once: DVC rewrites the file in place.
    """
    path = root / LOCK
    repo = Repo(str(root), _wait_for_lock=True)
    with repo, repo.lock:
        document = read_yaml(path) or {}
        document.setdefault("schema", "2.0")
        document.setdefault("stages", {})[address] = entry
        write_bytes(path, dumps_yaml(document).encode())
