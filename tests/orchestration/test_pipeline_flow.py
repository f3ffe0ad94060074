"""The flow over a toy graph, on a real Prefect server (ephemeral), with real DVC and MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.testing.utilities import prefect_test_harness

from flows.pipeline import pipeline
from steptool.orchestration.graph.stages import read_graph

pytestmark = pytest.mark.slow
Workspace = Callable[[dict[str, object]], Path]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=300):
        yield


def stage(cmd: str, out: str, deps: list[str] | None = None, **meta: object) -> dict[str, object]:
    return {"cmd": cmd, "outs": [out], **({"deps": deps} if deps else {}), **({"meta": meta} if meta else {})}


def run(root: Path, monkeypatch: pytest.MonkeyPatch, targets: list[str] | None = None) -> dict[str, State]:
    """Final state of every stage's task by its name."""
    monkeypatch.chdir(root)
    (root / "params.yaml").write_text("seed: 17\n")
    state = pipeline(targets, return_state=True)
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs()
    mine = [task for task in runs if task.flow_run_id == state.state_details.flow_run_id]
    return {task.name.rsplit("-", 1)[0]: task.state for task in mine if task.state}


def test_stages_run_once_and_are_cached_after(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace(
        {
            "a": stage("echo 1 > a.txt; echo a: wrote 1", "a.txt"),
            "b": stage("cat a.txt > b.txt; echo b: read 1", "b.txt", ["a.txt"]),
        }
    )
    first = {name: (state.name, state.message) for name, state in run(root, monkeypatch).items()}
    assert first == {"a": ("Completed", "a: wrote 1"), "b": ("Completed", "b: read 1")}
    assert {name: state.name for name, state in run(root, monkeypatch).items()} == {"a": "Cached", "b": "Cached"}
    assert (root / "b.txt").read_text() == "1\n"


def test_lost_stage_is_tried_again_and_bad_input_is_not(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steptool.orchestration.graph.task.RETRY_DELAYS_S", [0.1, 0.1])
    root = workspace(
        {
            "lost": stage("echo x >> tries; test $(wc -l < tries) = 2 && touch lost.txt", "lost.txt", retries=2),
            "bad": stage("echo x >> bads; echo 'steptool: no task' >&2; exit 2", "bad.txt", retries=2),
            "after": stage("touch after.txt", "after.txt", ["bad.txt"]),
        }
    )
    states = run(root, monkeypatch)
    assert {name: state.name for name, state in states.items()} == {
        "lost": "Completed",
        "bad": "Failed",
        "after": "NotReady",
    }
    assert "no task" in str(states["bad"].message)
    assert (root / "bads").read_text() == "x\n"


def test_independent_stages_run_at_the_same_time_but_one_at_a_time_on_the_accelerator(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a and b wait for each other, so they end only side by side; g and h would fail if they met."""
    alone = "mkdir busy && sleep .5 && rmdir busy && touch {0}.txt"
    root = workspace(
        {
            "a": stage("touch a.here; until test -e b.here; do sleep .1; done; touch a.txt", "a.txt", timeout="60s"),
            "b": stage("touch b.here; until test -e a.here; do sleep .1; done; touch b.txt", "b.txt", timeout="60s"),
            "g": stage(alone.format("g"), "g.txt", resources="gpu"),
            "h": stage(alone.format("h"), "h.txt", resources="gpu"),
        }
    )
    assert {state.name for state in run(root, monkeypatch).values()} == {"Completed"}


def test_stage_past_its_timeout_fails(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace({"slow": stage("sleep 600", "slow.txt", timeout="3s")})
    started = time.monotonic()
    states = run(root, monkeypatch)
    assert states["slow"].name == "TimedOut"
    assert time.monotonic() - started < 60


def test_stage_that_emits_says_what_it_made_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace({"s": stage("echo 1 > new.txt", "new.txt", emits="steptool.data.new")})
    run(root, monkeypatch)
    assert {state.name for state in run(root, monkeypatch).values()} == {"Cached"}
    wanted = {"filter": {"event": {"name": ["steptool.data.new"]}}}
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while not (events := client.request("POST", "/events/filter", json=wanted).json()["events"]):
            assert time.monotonic() < deadline, "no event arrived"
            time.sleep(0.5)
    (event,) = events
    assert event["resource"]["prefect.resource.id"] == "steptool.data.new.txt"
    assert event["resource"]["steptool.origin"] == "stage"
    assert event["resource"]["steptool.content-hash"] == "b026324c6904b2a9cb4b88d6d61c81d1"  # md5 of "1\n"
    assert any(related["prefect.resource.id"].startswith("prefect.flow-run.") for related in event["related"])


def test_again_runs_what_has_not_changed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace({"a": stage("echo x >> runs; echo 1 > a.txt", "a.txt")})
    run(root, monkeypatch)
    pipeline(again=True)
    assert (root / "runs").read_text() == "x\nx\n"


def test_fresh_run_draws_again_and_runs_what_depends_on_the_draw(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = stage("grep -o 'draw: .*' params.yaml > sample.txt || echo none > sample.txt", "sample.txt")
    root = workspace({"sample": {**sample, "params": ["sample"]}, "base": stage("echo x >> bases; touch b", "b")})
    (root / "params.yaml").write_text("sample:\n  tasks: 4  # a round\n")
    monkeypatch.chdir(root)
    pipeline()
    pipeline(fresh=True)
    assert (root / "sample.txt").read_text() == "draw: 1\n"
    assert "tasks: 4  # a round" in (root / "params.yaml").read_text()
    assert (root / "bases").read_text() == "x\n"


def test_fresh_run_writes_the_graph_that_its_draw_asks_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dvc.yaml names the settings that stand in params.yaml: `sample` does so from the first draw on."""
    root = workspace({})
    params = "rounds: {r1: {from: base}}\narms: {sft: {method: sft, from: base, data: [demonstrations]}}\n"
    (root / "params.yaml").write_text(params)
    monkeypatch.chdir(root)
    assert pipeline(["revisions"], fresh=True, return_state=True).is_completed()
    (sample,) = [stage for stage in read_graph(root) if stage.address == "sample-r1"]
    assert sample.sources == ("params.yaml",)
    assert "draw: 1" in (root / "params.yaml").read_text()
