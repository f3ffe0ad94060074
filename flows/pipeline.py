"""All stages of dvc.yaml, in dependency order, independent ones at the same time.

python -m flows.pipeline
"""

from __future__ import annotations

import sys

from prefect import flow
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from steptool.orchestration.graph.flow import run_graph

STAGES_AT_ONCE = 8


@flow(name="pipeline", task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE))
def pipeline(
    targets: list[str] | None = None, gpu: str | None = None, again: bool = False, fresh: bool = False
) -> list[State]:
    """Bring `targets`, or everything, up to date in the working directory.

    targets: stages of dvc.yaml; what they need runs first. gpu: the deployment of `flows.node.remote_stage` that
    stages with `resources: gpu` go to, such as `stage/gpu`; they run here where it is not given.
    again: run every stage, changed or not. fresh: sample new trajectories; `sample.draw` in params.yaml is raised.
    """
    return run_graph(targets or [], gpu, again=again, fresh=fresh)


if __name__ == "__main__":
    sys.exit(not pipeline(return_state=True).is_completed())
