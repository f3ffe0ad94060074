"""Promotion past a person: a real Prefect server, a real worker, a real registry; nothing stands in for anything.

asked ─> approved   version 1 champion, receipt: by ada, her reason, UTC time
asked ─> rejected   no champion, receipt: rejected by bob
asked ─> silence    no champion, receipt: rejected, timed_out
gate refuses        nobody is asked
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flows.improve import improve
from steptool.core.errors import InputError
from steptool.orchestration.approval import promotion
from steptool.orchestration.approval.decisions import Decision, NotWaiting, Proposal, decide, list_waiting, waiting
from steptool.orchestration.graph.events import announce_arrival
from steptool.orchestration.services.deploy import NIGHTLY, TRAIN_ON_NEW_DATA, deploy
from steptool.registry.models import CHAMPION, register, version_or_none
from steptool.registry.promotion import has_verdict
from steptool.registry.receipts import Receipt
from steptool.stages.promote import Proposals
from steptool.tracking.run import Tracking
from tests.orchestration.conftest import dvc, sh
from tests.registry.conftest import empty_database, evaluation_of, nothing_solved  # noqa: F401  fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PARAMS = "promote: {{approval: human, approval_timeout: {timeout}}}\nevaluate: {{resamples: 200}}\n"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="module")
def deployed(server: str) -> list[str]:
    return deploy()


@pytest.fixture
def registry(
    tmp_path: Path,
    empty_database: Path,  # noqa: F811
    evaluation_of: Callable[..., Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Tracking]:
    """A checkout with a candidate, the working directory of this process and of the worker."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.chdir(tmp_path)

    def candidate(verdicts: str = "1111111110", timeout: str = "10m") -> Tracking:
        (tmp_path / "params.yaml").write_text(PARAMS.format(timeout=timeout))
        tracking = Tracking(None, "steptool", root=tmp_path)
        folder = tmp_path / f"model-{verdicts}"
        folder.mkdir()
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / file).write_text(verdicts)
        with tracking.stage("register") as run:
            evaluation = evaluation_of(verdicts, verdicts)
            register(tracking, run, "steptool", folder, evaluation, {"seed": "17"}, baseline=nothing_solved(evaluation))
        return tracking

    return candidate


@pytest.fixture
def worker(deployed: list[str], server: str, tmp_path: Path) -> Iterator[None]:
    environment = os.environ | {
        "PREFECT_API_URL": server,
        "STEPTOOL_CLONE": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu", "--name", str(tmp_path.name)]
    with (tmp_path / "worker.log").open("w") as log:
        child = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            child.terminate()
            child.wait(60)


@pytest.fixture
def client(server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


def propose() -> FlowRun:
    run: Any = run_deployment("promotion/promote", timeout=0, as_subflow=False)
    return run


def until(client: SyncPrefectClient, run: FlowRun, *names: str, seconds: float = 240) -> FlowRun:
    deadline = time.monotonic() + seconds
    while True:
        found = client.read_flow_run(run.id)
        assert found.state is not None
        if found.state.name in names:
            return found
        unexpected = found.state.is_final() and not set(names) & {found.state.name}
        assert not unexpected and time.monotonic() < deadline, f"{found.state.name}: {found.state.message}"
        time.sleep(0.5)


def receipt_of(tracking: Tracking, version: int = 1) -> Receipt:
    tags = tracking.client.get_model_version("steptool", str(version)).tags
    return Receipt.model_validate_json(tags["steptool.receipt"])


def champion_of(tracking: Tracking) -> int | None:
    version = version_or_none(tracking, "steptool", CHAMPION)
    return int(version.version) if version else None


def test_deploying_twice_changes_nothing_and_keeps_what_a_person_switched_on(
    deployed: list[str], client: SyncPrefectClient
) -> None:
    def state() -> dict[str, Any]:
        schedules = {d.name: [s.active for s in d.schedules] for d in client.read_deployments()}
        automations = [(a.name, a.enabled) for a in client.read_automations()]
        limits = [(limit.name, limit.limit) for limit in client.read_global_concurrency_limits() if limit.name == "gpu"]
        return {
            "schedules": schedules,
            "automations": automations,
            "limits": limits,
            "pools": sorted(pool.name for pool in client.read_work_pools()),
        }

    first = state()
    assert first == {
        "schedules": {
            "nightly": [False],
            "weekly-full": [False],
            "evaluate-only": [],
            "promote": [],
            "expire": [],
            "gpu": [],
        },
        "automations": [(TRAIN_ON_NEW_DATA, False)],
        "limits": [("gpu", 1)],
        "pools": ["cpu", "gpu"],
    }
    nightly = client.read_deployment_by_name(NIGHTLY)
    assert nightly.global_concurrency_limit is not None
    assert nightly.global_concurrency_limit.limit == 1
    assert nightly.concurrency_options is not None
    assert nightly.concurrency_options.collision_strategy == "ENQUEUE"
    client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)
    try:
        assert deploy() == deployed
        assert state() == first | {"schedules": first["schedules"] | {"nightly": [True]}}
    finally:
        (schedule,) = client.read_deployment_by_name(NIGHTLY).schedules
        client.update_deployment_schedule(nightly.id, schedule.id, active=False)
    assert deploy() == deployed
    assert state() == first


def test_approved_promotion_makes_the_champion_and_says_who_and_why(
    registry: Callable[..., Tracking], worker: None, client: SyncPrefectClient, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = registry()
    run = until(client, propose(), "Suspended")
    assert champion_of(tracking) is None
    assert not has_verdict(tracking, "steptool")
    capsys.readouterr()
    list_waiting()
    shown = capsys.readouterr().out
    assert f"steptool approve {run.name} --by NAME --reason TEXT" in shown
    assert "pass rate: 90.0%" in shown
    (asked,) = [artifact for artifact in client.read_artifacts() if artifact.key == "promotion"]
    assert f"steptool approve {run.name}" in str(asked.data)
    (_, proposal) = next(pair for pair in waiting(client) if pair[0].id == run.id)

    decide(run.name, "approved", "ada", "looked at twenty transcripts")
    until(client, run, "Promoted")
    receipt = receipt_of(tracking)
    assert (receipt.verdict, receipt.by) == ("promoted", "ada")
    assert receipt.approval is not None
    assert (receipt.approval.outcome, receipt.approval.reason) == ("approved", "looked at twenty transcripts")
    assert receipt.approval.at.endswith("+00:00")
    assert champion_of(tracking) == 1
    assert proposal.expiry not in {found.id for found in client.read_flow_runs()}, "nothing is left on the schedule"

    with pytest.raises(NotWaiting, match="it is Promoted"):
        decide(str(run.id), "approved", "ada", "again")
    with pytest.raises(InputError, match="no such flow run") as caught:
        decide("no-such-run", "approved", "ada", "why not")
    assert caught.value.exit_code == 2
    assert until(client, propose(), "Unchanged").state.message == "version 1 is the champion already"


def test_evidence_is_looked_at_again_when_it_is_approved(
    registry: Callable[..., Tracking], worker: None, client: SyncPrefectClient
) -> None:
    """Version 1 is asked about; version 2, which no other can beat, is champion before the answer comes."""
    tracking = registry("1111111000")
    run = until(client, propose(), "Suspended")
    registry("1111111111")
    tracking.client.set_registered_model_alias("steptool", CHAMPION, "2")
    decide(run.name, "approved", "ada", "good enough")
    until(client, run, "Refused")
    receipt = receipt_of(tracking)
    assert receipt.verdict == "refused"
    assert "-30.0% against the champion" in receipt.reasons[0]
    assert receipt.approval is not None
    assert receipt.approval.by == "ada"
    assert champion_of(tracking) == 2


def test_rejected_promotion_leaves_the_champion(
    registry: Callable[..., Tracking], worker: None, client: SyncPrefectClient
) -> None:
    tracking = registry()
    run = until(client, propose(), "Suspended")
    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "steptool.cli", "reject", run.name, "--by", "bob", "--reason", "it loops on I3"]
    subprocess.run(command, env=environment, check=True)
    until(client, run, "Rejected")
    receipt = receipt_of(tracking)
    assert (receipt.verdict, receipt.by, receipt.reasons) == ("rejected", "bob", ("it loops on I3",))
    assert receipt.pass_rate == pytest.approx(0.9)
    assert champion_of(tracking) is None
    done = subprocess.run([*command[:3], "approve", *command[4:]], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "does not wait for a decision: it is Rejected" in done.stderr


@pytest.mark.parametrize("text", ["x" * 99_000, "ok\x1b[2J", " \n"], ids=ascii)
def test_a_decision_that_no_receipt_can_hold_is_refused_at_the_door(text: str) -> None:
    for by, reason in ((text, "it loops"), ("ada", text)):
        with pytest.raises(InputError) as caught:
            decide("any-run", "approved", by, reason)
        assert caught.value.exit_code == 2
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["x" * 99_000, "ok\x1b[2J\nand on", " \n"], ids=ascii)
@pytest.mark.parametrize(("outcome", "verdict"), [("approved", "promoted"), ("rejected", "rejected")])
def test_a_decision_is_carried_out_however_it_was_worded_on_prefects_page(
    registry: Callable[..., Tracking], monkeypatch: pytest.MonkeyPatch, outcome: Any, verdict: str, text: str
) -> None:
    tracking = registry()
    now = datetime.now(UTC)
    monkeypatch.setattr(promotion, "_forget", lambda _: None)
    monkeypatch.setattr(promotion, "_answered_at", lambda: now)
    proposals = Proposals()
    proposal = Proposal(receipt=proposals.assess(), deadline=now + timedelta(hours=1), expiry=uuid4())
    decision = Decision.model_construct(outcome=outcome, by=text, reason=text)
    receipt = promotion._settle(proposals, proposal, decision)
    assert receipt.verdict == verdict
    assert receipt == receipt_of(tracking)
    assert receipt.approval is not None
    assert receipt.approval.reason.isprintable()
    assert 0 < len(receipt.approval.reason) <= 2000
    assert champion_of(tracking) == (1 if verdict == "promoted" else None)


def test_silence_is_a_rejection_with_a_receipt(
    registry: Callable[..., Tracking], worker: None, client: SyncPrefectClient
) -> None:
    tracking = registry(timeout="15s")
    run = until(client, propose(), "Suspended")
    until(client, run, "Rejected")
    receipt = receipt_of(tracking)
    assert (receipt.verdict, receipt.reasons) == ("rejected", ("nobody decided within 15s",))
    assert receipt.approval is not None
    assert receipt.approval.outcome == "timed_out"
    assert champion_of(tracking) is None


def test_nobody_is_asked_about_what_the_gate_refuses(
    registry: Callable[..., Tracking], worker: None, client: SyncPrefectClient
) -> None:
    tracking = registry("1000000000")
    run = until(client, propose(), "Refused")
    assert "pass rate 10.0% is below the 30.0% of promote.min_pass_rate" in str(run.state and run.state.message)
    assert receipt_of(tracking).verdict == "refused"
    assert "Suspended" not in {state.name for state in client.read_flow_run_states(run.id)}


def test_improvement_is_proposed_once(
    registry: Callable[..., Tracking], worker: None, client: SyncPrefectClient, tmp_path: Path
) -> None:
    registry()
    sh(tmp_path, "git", "init", "-q")
    dvc(tmp_path, "init", "-q")
    sample = {"cmd": "grep draw params.yaml > sample.txt", "outs": ["sample.txt"], "params": ["sample"]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"sample": sample}}))

    proposed = improve(fresh=True, return_state=True)
    assert proposed.name == "Proposed"
    assert (tmp_path / "sample.txt").read_text() == "  draw: 1\n"
    name = str(proposed.message).removeprefix("version 1, by flow run ")
    (run,) = [found for found in client.read_flow_runs() if found.name == name]
    until(client, run, "Suspended")

    again = improve(return_state=True)
    assert (again.name, again.message) == ("Unchanged", "version 1 waits for a decision already")
    decide(name, "approved", "ada", "better on every group")
    until(client, run, "Promoted")
    judged = improve(return_state=True)
    assert (judged.name, judged.message) == ("Unchanged", "the candidate has its verdict")
    assert (tmp_path / "sample.txt").read_text() == "  draw: 1\n"


def test_data_from_outside_starts_the_nightly_run_once_that_is_switched_on(
    deployed: list[str], client: SyncPrefectClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "traces.jsonl"
    data.write_text(json.dumps({"id": 1}))
    nightly = client.read_deployment_by_name(NIGHTLY)

    def runs() -> int:
        return sum(run.deployment_id == nightly.id for run in client.read_flow_runs())

    assert runs() == 0
    announce_arrival(data)
    (automation,) = client.read_automations_by_name(TRAIN_ON_NEW_DATA)
    client.resume_automation(automation.id)
    time.sleep(5)
    assert runs() == 0, "switched off, and what came before it was switched on is past"
    announce_arrival(data)
    deadline = time.monotonic() + 60
    while not runs():
        assert time.monotonic() < deadline, "the automation did not run"
        time.sleep(0.5)
    assert deploy() == deployed
    (automation,) = client.read_automations_by_name(TRAIN_ON_NEW_DATA)
    assert automation.enabled, "deploying again leaves it on"
