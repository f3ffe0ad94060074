"""The stage graph inside of a flow run: each stage a task, in dependency order, independent ones at the same time.

Runs in one workspace wait for each other. When the flow ends, by a cancellation or a fault too, so do its stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect.futures import PrefectFuture, wait
from prefect.states import State

from steptool.config.places import PARAMS
from steptool.config.settings import load_params, next_draw
from steptool.core.storage import write_bytes
from steptool.orchestration.graph.stages import Node, read_graph
from steptool.orchestration.graph.task import run_stage, scheduled
from steptool.orchestration.graph.workspace import alone, open_workspace
from steptool.orchestration.machines.remote import LOST_RETRIES, run_remote_stage
from steptool.stages.outcome import log_outcome
from steptool.tracking.run import Tracking


def run_graph(targets: Sequence[str], gpu: str | None, *, again: bool, fresh: bool) -> list[State]:
    """Bring `targets`, or everything where there are none, up to date in the working directory; the stages' states.

    targets: stages of dvc.yaml; what they need runs first. gpu: the deployment of `run_requested_stage` that stages
    with `resources: gpu` go to, such as `stage/gpu`; they run here where it is not given.
    again: run every stage, changed or not. fresh: sample new trajectories; `sample.draw` in params.yaml is raised.
    """
    root = Path.cwd()
    nodes = read_graph(root, targets)
    with alone(root):
        if fresh:
            write_bytes(root / PARAMS, next_draw(root / PARAMS).encode())
        return _run(root, nodes, gpu, again=again)


def _run(root: Path, nodes: list[Node], gpu: str | None, *, again: bool) -> list[State]:
    params = load_params(PARAMS)
    tracking = Tracking(None, params.tracking.experiment)
    with tracking.pipeline(params.model_dump()) as run, open_workspace(root, run.run_id, again=again) as workspace:
        futures: dict[str, PrefectFuture[State]] = {}
        for node in nodes:
            upstream = [futures[address] for address in node.upstream]
            if gpu and node.schedule.resources == "gpu":
                remote = scheduled(run_remote_stage, node, lost_retries=LOST_RETRIES)
                futures[node.address] = remote.submit(node, workspace, gpu, wait_for=upstream)
            else:
                futures[node.address] = scheduled(run_stage, node).submit(node, workspace, wait_for=upstream)
        wait(list(futures.values()))
        states = [future.state for future in futures.values()]
        if not all(state.is_completed() for state in states):
            run.status = "KILLED" if any(state.is_cancelled() for state in states) else "FAILED"
        elif {"evaluate", "register"} <= futures.keys():
            log_outcome(run, params)
        return states
