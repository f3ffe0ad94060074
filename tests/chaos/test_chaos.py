"""Kill -9, at random moments, of everything that a pipeline stands on.

    make chaos N=20 SEED=1              the toy job: four stages of a second
    make chaos N=20 SEED=1 JOB=tiny     the project's own pipeline on the tiny profile, with the real engine

    a ──> g (on the node) ──> c        the flow, the node's worker, the Prefect server, PostgreSQL,
      └─> b ──────────────────┘        the object store: one of them dies in each round

What was killed is started again, and so is the flow where it failed. In each round every stage has work to do, and
it must end with the hashes of a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from ruamel.yaml import YAML

from flows.pipeline import pipeline
from steptool.orchestration.services.team import Services
from tests.orchestration.conftest import Workspace, dvc, sh, workspace
from tests.orchestration.site import ROOT, START_S, Site, gpu, kill, team
from tests.orchestration.test_process import wait_for
from tests.orchestration.test_services import needs_postgres
from tests.project import copy_project

__all__ = ["workspace"]  # a fixture of the flows' tests
ROUNDS = int(os.environ.get("STEPTOOL_CHAOS_ROUNDS", "5"))
SEED = int(os.environ.get("STEPTOOL_CHAOS_SEED", "1"))
JOB = os.environ.get("STEPTOOL_CHAOS_JOB", "toy")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200 * (ROUNDS + 1)), needs_postgres]
VICTIMS = ("flow", "worker", "prefect", "postgres", "store")
HUNG = 5
"""A run that takes so many times as long as an undisturbed one, and two minutes, is killed and counts as hung."""
STARTS = 4
"""Most starts of the flow in one round."""
SCRIPT = """
import sys
from flows.pipeline import pipeline
sys.exit(not pipeline(gpu='stage/gpu', return_state=True).is_completed())
"""


def stage(name: str, *deps: str) -> dict[str, object]:
    """Cheap, and a function of the seed and of what it reads."""
    made = gpu(f"sleep 1; cat {' '.join(deps)} params.yaml | sha256sum > {name}.txt", f"{name}.txt", list(deps))
    made |= {"params": ["seed"]}
    if name != "g":
        made["meta"] = {"retries": 1}
    return made


GRAPH: dict[str, object] = {
    "a": stage("a"),
    "g": stage("g", "a.txt"),
    "b": stage("b", "a.txt"),
    "c": stage("c", "g.txt", "b.txt"),
}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with team(tmp_path_factory.mktemp("services"), "postgres", "store", "mlflow", "prefect") as made:
        yield made


def hashes(root: Path) -> dict[str, Any]:
    """What dvc.lock says: for every stage its command and the hashes of all that it read and wrote."""
    stages: dict[str, Any] = YAML(typ="safe").load((root / "dvc.lock").read_text())["stages"]
    return stages


class Job(Protocol):
    def renew(self, number: int) -> dict[str, Any]:
        """Give every stage work to do. Returns the hashes of a run that nobody disturbs, by `dvc repro` alone."""
        ...


class Toy:
    """Each round has a seed of its own, on which all of its files depend."""

    def __init__(self, site: Site, clone: Path, undisturbed: Path) -> None:
        self._root, self._undisturbed = site.root, undisturbed

    def renew(self, number: int) -> dict[str, Any]:
        for root in (self._root, self._undisturbed):
            (root / "params.yaml").write_text(f"seed: {number}\n")
        dvc(self._undisturbed, "repro", "-q")
        return hashes(self._undisturbed)


class Tiny:
    """Every round is the same; what the last one left is thrown away, and the remote is an empty folder."""

    def __init__(self, site: Site, clone: Path, undisturbed: Path) -> None:
        self._root, self._clone = site.root, clone
        self._remote = f"s3://dvc/{site.base.name}"
        dvc(undisturbed, "repro", "-q")
        self._expected = hashes(undisturbed)

    def renew(self, number: int) -> dict[str, Any]:
        for root in (self._root, self._clone):
            for made in ("data", "models", "metrics", "reports", ".dvc/cache", ".dvc/tmp"):
                shutil.rmtree(root / made, ignore_errors=True)
            (root / "dvc.lock").unlink(missing_ok=True)
            dvc(root, "remote", "modify", "--local", "shared", "url", f"{self._remote}/{number}")
        return self._expected


JOBS: dict[str, Callable[[Site, Path, Path], Job]] = {"toy": Toy, "tiny": Tiny}


def tiny_workspace(folder: Path) -> Path:
    """The project with the params of the tiny profile, in a Git repository."""
    root = folder / "workspace"
    copy_project(root)
    sh(root, "git", "init", "-q")
    sh(root, str(Path(sys.executable).with_name("steptool")), "params", "--profile", "tiny")
    return root


class Arena:
    """A site whose parts die and come back."""

    def __init__(self, site: Site, job: Job) -> None:
        self.site, self.job = site, job
        self.worker = site.start_worker("node")
        self.flow: subprocess.Popen[bytes] | None = None
        self.patience_s = 1800.0

    def start_flow(self) -> None:
        log = self.site.base / "flow.log"
        with log.open("wb") as file:
            self.flow = subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                cwd=self.site.root,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=file,
                stderr=file,
            )
        flow = self.flow
        wait_for(lambda: b"Beginning flow run" in log.read_bytes() or flow.poll() is not None, START_S)

    def end_flow(self) -> str:
        """`done`, `failed` or `hung`; afterwards it runs no more."""
        assert self.flow is not None
        try:
            return "done" if self.flow.wait(self.patience_s) == 0 else "failed"
        except subprocess.TimeoutExpired:
            kill(self.flow.pid)
            self.flow.wait()
            return "hung"

    def strike(self, victim: str) -> None:
        """Kill it, and what it started with it; whoever watches over it starts it again."""
        if victim == "flow":
            assert self.flow is not None
            kill(self.flow.pid)
        elif victim == "worker":
            flows = psutil.Process(self.worker.pid).children() if self.worker.poll() is None else []
            for pid in [self.worker.pid, *(process.pid for process in flows)]:
                kill(pid)
            self.worker.wait()
        else:
            for child in psutil.Process(self.site.services.supervisor(victim)).children(recursive=True):
                kill(child.pid)
            wait_for(lambda: victim in self.site.services.ended(), 30)
        self.mend()

    def mend(self) -> None:
        """Start what ended, as a supervisor of services does."""
        for name in self.site.services.ended():
            self.site.services.start(name)
        if self.worker.poll() is not None:
            self.worker = self.site.start_worker("node")


def test_twenty_runs_at_once_on_one_workspace_take_turns(
    services: Services, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run i brings stage s<i> up to date. A stage that met another would fail at `mkdir busy`."""
    count = 20
    alone = "mkdir busy && sleep 0.2 && rmdir busy && echo {0} > s{0}.txt"
    root = workspace({f"s{i}": {"cmd": alone.format(i), "outs": [f"s{i}.txt"]} for i in range(count)})
    (root / "params.yaml").write_text("seed: 17\n")
    monkeypatch.chdir(root)
    with ThreadPoolExecutor(count) as pool:
        runs = [
            pool.submit(copy_context().run, lambda i: pipeline([f"s{i}"], return_state=True), i) for i in range(count)
        ]
        states = [run.result() for run in runs]
    assert Counter(state.name for state in states) == {"Completed": count}
    assert set(hashes(root)) == {f"s{i}" for i in range(count)}
    assert "up to date" in dvc(root, "status")


@pytest.mark.parametrize("name", JOBS)
def test_pipeline_finishes_with_the_same_hashes_whatever_is_killed(
    services: Services, tmp_path: Path, workspace: Workspace, name: str
) -> None:
    """The job that was not asked for runs once, undisturbed."""
    choose, count = random.Random(SEED), ROUNDS if name == JOB else 0
    with ExitStack() as stack:
        site = Site(services, tiny_workspace(tmp_path) if name == "tiny" else workspace(GRAPH), tmp_path, stack)
        undisturbed = tmp_path / "undisturbed"
        sh(tmp_path, "git", "clone", "-q", str(site.root), str(undisturbed))
        arena = Arena(site, JOBS[name](site, site.make_clone("node"), undisturbed))
        rounds = [_round(arena, choose, number, span) for number, span in _spans(arena, count)]
        if rounds:
            _report(rounds)
    assert all(outcome["same"] for outcome in rounds), rounds


def _spans(arena: Arena, count: int) -> Iterator[tuple[int, float]]:
    """Number of each round and how long a whole run takes, from its beginning: measured once, undisturbed."""
    expected = arena.job.renew(0)
    arena.start_flow()
    started = time.monotonic()
    assert arena.end_flow() == "done", (arena.site.base / "flow.log").read_text()
    span = time.monotonic() - started
    assert hashes(arena.site.root) == expected
    arena.patience_s = HUNG * span + 120
    print(f"an undisturbed run takes {span:.0f} s", flush=True)
    for number in range(1, count + 1):
        began = time.monotonic()
        yield number, span
        # The machine may have become quicker since: then most moments would come after the end.
        span = min(span, time.monotonic() - began)


def _round(arena: Arena, choose: random.Random, number: int, span: float) -> dict[str, Any]:
    victim, moment = VICTIMS[(number - 1) % len(VICTIMS)], choose.uniform(0, span)
    expected = arena.job.renew(number)
    started = time.monotonic()
    arena.start_flow()
    time.sleep(moment)
    was_running = arena.flow is not None and arena.flow.poll() is None
    arena.strike(victim)
    ends = [arena.end_flow()]
    while ends[-1] != "done" and len(ends) < STARTS:
        arena.mend()
        arena.start_flow()
        ends.append(arena.end_flow())
    same = ends[-1] == "done" and hashes(arena.site.root) == expected
    outcome = {
        "round": number,
        "victim": victim,
        "at_s": round(moment, 1),
        "was_running": was_running,
        "starts": ends,
        "same": same,
    }
    print(json.dumps(outcome | {"took_s": round(time.monotonic() - started)}), flush=True)
    return outcome


def _report(rounds: list[dict[str, Any]]) -> None:
    by_victim = Counter(outcome["victim"] for outcome in rounds if outcome["same"])
    again = sum(len(outcome["starts"]) > 1 for outcome in rounds)
    good = sum(outcome["same"] for outcome in rounds)
    during = sum(outcome["was_running"] for outcome in rounds)
    print(f"{good} of {len(rounds)} rounds ended with the same hashes: {dict(by_victim)}")
    print(f"{during} victims died while the flow ran, {again} rounds needed a second start")
