"""The stage graph inside of a flow run: each stage a task, in dependency order, independent ones at the same time.

Runs in one workspace wait for each other. When the flow ends, by a cancellation or a fault too, so do its stages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger
from prefect.futures import PrefectFuture, wait
from prefect.states import State

from steptool.config.lineage import check_state, write_graph
from steptool.config.places import PARAMS
from steptool.config.settings import Params, load_params, next_draw
from steptool.core.storage import write_bytes
from steptool.orchestration.graph.stages import GraphStage, read_graph
from steptool.orchestration.graph.task import run_stage, scheduled
from steptool.orchestration.graph.workspace import alone, open_workspace
from steptool.orchestration.machines.remote import LOST_RETRIES, run_remote_stage
from steptool.stages.outcome import log_outcome
from steptool.tracking.run import Tracking


def run_graph(targets: Sequence[str], gpu: str | None, *, again: bool, fresh: bool) -> list[State]:
    """Bring `targets`, or everything where there are none, up to date in the working directory; the stages' states.
    dvc.yaml is written from params.yaml first, and after everything the model is registered.

    targets: stages of dvc.yaml; what they need runs first. gpu: the deployment of `run_requested_stage` that stages
    with `resources: gpu` go to, such as `stage/gpu`; they run here where it is not given.
    again: run every stage, changed or not. fresh: sample new trajectories; `sample.draw` in params.yaml is raised.
    """
    root = Path.cwd()
    check_state(root)
    with alone(root):
        if fresh:
            write_bytes(root / PARAMS, next_draw(root / PARAMS).encode())
        params = load_params(root / PARAMS)
        if params.arms:  # without any, every stage is the project's own, and there is nothing to register
            get_run_logger().info(write_graph())
        stages = read_graph(root, targets)
        return _run(root, params, stages, gpu, again=again, registers=bool(params.arms) and not targets)


def _run(
    root: Path, params: Params, stages: list[GraphStage], gpu: str | None, *, again: bool, registers: bool
) -> list[State]:
    tracking = Tracking(None, params.tracking.experiment)
    with tracking.pipeline(params.model_dump()) as run, open_workspace(root, run.run_id, again=again) as workspace:
        futures: dict[str, PrefectFuture[State]] = {}
        for stage in stages:
            upstream = [futures[address] for address in stage.upstream]
            if gpu and stage.schedule.resources == "gpu":
                remote = scheduled(run_remote_stage, stage, lost_retries=LOST_RETRIES)
                futures[stage.address] = remote.submit(stage, workspace, gpu, wait_for=upstream)
            else:
                futures[stage.address] = scheduled(run_stage, stage).submit(stage, workspace, wait_for=upstream)
        wait(list(futures.values()))
        states = [future.state for future in futures.values()]
        if not all(state.is_completed() for state in states):
            run.status = "KILLED" if any(state.is_cancelled() for state in states) else "FAILED"
        elif registers:
            workspace.run(sys.executable, "-m", "steptool.cli", "register")
            log_outcome(run)
        return states
