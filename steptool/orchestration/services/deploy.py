"""Register infra/prefect.yaml with the Prefect server at PREFECT_API_URL, and what it needs there.

    make deploy

May be run as often as wanted: what is there stays, and what a person switched on or off stays so too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from steptool.core.errors import StepToolError
from steptool.orchestration.approval.decisions import server
from steptool.orchestration.graph.events import NEW_DATA, ORIGIN, OUTSIDE
from steptool.orchestration.machines import GPU_LIMIT

DEPLOYMENTS = Path("infra/prefect.yaml")
POOLS = ("cpu", "gpu")
NIGHTLY = "improve/nightly"
TRAIN_ON_NEW_DATA = "train-on-new-data"
_COMMAND = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS))


def deploy() -> list[str]:
    """Names of the deployments, each `flow/name`. Raises StepToolError where Prefect refuses."""
    with server() as client:
        for pool in POOLS:
            _create_pool(client, pool)
        _create_gpu_limit(client)
        with _switches_kept(client):
            environment = os.environ | {"PREFECT_API_URL": str(client.api_url)}
            done = subprocess.run(_COMMAND, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = " / ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
            raise StepToolError(f"`prefect deploy` ended with {done.returncode}: {last}", where=str(DEPLOYMENTS))
        _automate(client)
        names = {flow.id: flow.name for flow in client.read_flows()}
        return sorted(f"{names[found.flow_id]}/{found.name}" for found in _deployments(client))


def _create_pool(client: SyncPrefectClient, name: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))
    except ObjectAlreadyExists:
        return  # its job template may have been changed on purpose


def _create_gpu_limit(client: SyncPrefectClient) -> None:
    """One stage a GPU; `prefect gcl update gpu --limit N` says how many there are."""
    if all(limit.name != GPU_LIMIT for limit in client.read_global_concurrency_limits()):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))


@contextmanager
def _switches_kept(client: SyncPrefectClient) -> Iterator[None]:
    """Deploying makes the schedules anew, off; those that were on before are switched on again."""
    on = {
        (deployment.id, schedule.slug)
        for deployment in _deployments(client)
        for schedule in deployment.schedules
        if schedule.active
    }
    try:
        yield
    finally:
        for deployment in _deployments(client):
            for schedule in deployment.schedules:
                if (deployment.id, schedule.slug) in on and not schedule.active:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def _automate(client: SyncPrefectClient) -> None:
    """Data that comes from outside starts the nightly run. What the pipeline itself makes has another origin, so it
    cannot start itself. Off until somebody switches it on, as the schedules are."""
    nightly = client.read_deployment_by_name(NIGHTLY)
    known = client.read_automations_by_name(TRAIN_ON_NEW_DATA)
    automation = AutomationCore(
        name=TRAIN_ON_NEW_DATA,
        description=f"Runs {NIGHTLY} when `steptool data-arrived` says that there is new data",
        enabled=bool(known and known[0].enabled),
        trigger=EventTrigger(
            posture=Posture.Reactive,
            expect={NEW_DATA},
            match=ResourceSpecification({ORIGIN: OUTSIDE}),
            threshold=1,
            within=timedelta(0),
        ),
        # The data is what is new: nothing is sampled again for its own sake.
        actions=[RunDeployment(source="selected", deployment_id=nightly.id, parameters={"fresh": False})],
    )
    if known:
        client.update_automation(known[0].id, automation)
    else:
        client.create_automation(automation)


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    return client.read_deployments()
