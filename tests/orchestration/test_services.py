"""`make services`: what it starts, keeps and protects. All real: PostgreSQL, S3, MLflow, Prefect."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from steptool.core.errors import StepToolError
from steptool.orchestration.services.postgres import DATABASES, USER, postgres_program
from steptool.orchestration.services.servers import POLL_S
from steptool.orchestration.services.team import PORTS, Services
from tests.orchestration.test_process import gone, wait_for


def has_postgres() -> bool:
    try:
        return bool(postgres_program("postgres"))
    except StepToolError:
        return False


needs_postgres = pytest.mark.skipif(not has_postgres(), reason="needs PostgreSQL")


def test_ports_and_passwords_are_kept_and_private(tmp_path: Path) -> None:
    if not has_postgres():
        pytest.skip("needs PostgreSQL")
    first, second = Services(tmp_path), Services(tmp_path)
    assert first.ports == second.ports
    assert len(set(first.ports.values())) == 4
    assert first.environment() == second.environment()
    file = first.write_environment(first.environment())
    for path in [file, *(tmp_path / "secrets").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert first.secret("mlflow") in file.read_text()
    for service in first.table.values():
        assert not any(first.secret("postgres") in part for part in service.command), "`ps` would show it"


ONE = """
import sys
from pathlib import Path
from steptool.orchestration.services.team import PORTS, Services, run
services = Services(Path(sys.argv[1]), ports=dict.fromkeys(PORTS, 0))
services.table = {"store": services.table["store"]}
sys.exit(run(services))
"""


@needs_postgres
def test_service_that_dies_is_started_again_and_ctrl_c_ends_all(tmp_path: Path) -> None:
    """With the object store alone, which starts fast."""
    owner = subprocess.Popen([sys.executable, "-c", ONE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout
        lines = iter(owner.stdout.readline, "")
        assert str(tmp_path / "environment") in next(line for line in lines if "source" in line)
        next(line for line in lines if "Ctrl-C" in line)
        for _ in range(2):
            supervisor = psutil.Process(owner.pid).children()[0]
            supervisor.children()[0].kill()
            assert "starting it again" in next(lines)
            wait_for(lambda: psutil.Process(owner.pid).children() not in ([], [supervisor]), 60)  # noqa: B023
            port = json.loads((tmp_path / "ports.json").read_text())["store"]
            wait_for(lambda: ask(f"http://127.0.0.1:{port}/") == 403, 60)  # noqa: B023
            time.sleep(3 * POLL_S)  # one that dies before it was seen to answer ends everything
        left = psutil.Process(owner.pid).children(recursive=True)
        owner.send_signal(signal.SIGINT)
        assert owner.wait(60) == 0
        assert all(gone(process.pid) for process in left)
    finally:
        owner.kill()
        owner.wait()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    running = Services(tmp_path_factory.mktemp("services"), durable=False, ports=dict.fromkeys(PORTS, 0))
    try:
        running.start_all()
        yield running
    finally:
        running.stop_all()


def store_client(services: Services, secret: str | None = None) -> Any:
    store = services.store_environment()
    return boto3.client(
        "s3",
        endpoint_url=store["AWS_ENDPOINT_URL"],
        aws_access_key_id=store["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret or store["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


def ask(url: str, user: str = "", password: str = "") -> int:
    request = urllib.request.Request(url)  # noqa: S310  always http
    if user:
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0  # nobody answers


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mlflow_and_prefect_let_nobody_in_without_the_password(services: Services) -> None:
    mlflow = f"http://127.0.0.1:{services.ports['mlflow']}/api/2.0/mlflow/experiments/get?experiment_id=0"
    prefect = f"http://127.0.0.1:{services.ports['prefect']}/api/admin/version"
    for url, name in ((mlflow, "mlflow"), (prefect, "prefect")):
        assert ask(url) == 401
        assert ask(url, USER, "wrong") == 401
        assert ask(url, USER, services.secret(name)) == 200


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_the_loopback_is_listened_on(services: Services) -> None:
    owned = {p.pid for name in services.table for p in psutil.Process(services.supervisor(name)).children(True)}
    listening = {c.laddr for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in owned}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} >= set(services.ports.values())


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_artifact_goes_through_mlflow_into_the_store_and_back(services: Services, tmp_path: Path) -> None:
    """The client has no key of the store."""
    script = """
import mlflow
client = mlflow.MlflowClient()
run = client.create_run(client.create_experiment("e"))
client.log_text(run.info.run_id, "hello", "note.txt")
print(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/note.txt"))
"""
    own = {name: value for name, value in services.environment().items() if not name.startswith("AWS")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS")} | own
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "hello" in said.stdout, said.stderr
    assert list((services.folder / "store" / "mlflow").rglob("note.txt"))


WORKER = """
import sys
import mlflow
client = mlflow.MlflowClient()
if sys.argv[1] == "admin":
    client.create_experiment("the administrator's")
else:
    run = client.create_run(client.create_experiment("the worker's"))
    client.log_text(run.info.run_id, "hello", "note.txt")
    client.create_registered_model("the-workers")
    print([experiment.name for experiment in client.search_experiments()])
    client.create_experiment("the administrator's")
"""


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_of_the_compose_file_is_a_user_of_mlflow_and_no_administrator(services: Services) -> None:
    """infra/mlflow-user makes it, as often as it is run; it logs and registers, and sees nothing of others."""
    script = Path(__file__).parents[2] / "infra" / "mlflow-user"
    admin = {name: value for name, value in services.environment().items() if name.startswith("MLFLOW")}
    worker = admin | {"MLFLOW_TRACKING_USERNAME": "worker", "MLFLOW_TRACKING_PASSWORD": "a-password-of-its-own"}

    def run(own: dict[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], env=os.environ | own, capture_output=True, text=True, check=False
        )

    for said in ("user worker made", "user worker was there"):
        made = run(admin | {"NEW_PASSWORD": "a-password-of-its-own"}, script, "worker")
        assert said in made.stdout, made.stderr
    assert run(admin, "-c", WORKER, "admin").returncode == 0
    done = run(worker, "-c", WORKER, "worker")
    assert done.stdout.splitlines()[-1] == '["the worker\'s"]', done.stderr
    assert "already exists" in done.stderr.lower() or "permission" in done.stderr.lower()
    assert run(worker | {"NEW_PASSWORD": "another-password"}, script, "steptool").returncode != 0


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["postgres", "store", "mlflow", "prefect"])
def test_service_killed_with_sigkill_starts_again_with_what_it_had(services: Services, name: str) -> None:
    probe = services.folder / "store" / "dvc" / "kept"
    probe.write_text("kept")
    children = psutil.Process(services.supervisor(name)).children(recursive=True)
    for child in children:
        if child.is_running():
            child.kill()
    wait_for(lambda: services.ended() == [name], 20)
    assert all(gone(child.pid) for child in children), "nothing of it is left"
    services.start(name)
    assert services.ended() == []
    kept = {
        "store": lambda: store_client(services).get_object(Bucket="dvc", Key="kept")["Body"].read() == b"kept",
        "postgres": lambda: set(DATABASES) <= set(_databases(services)),
    }
    assert kept.get(name, lambda: True)()


def _databases(services: Services) -> list[str]:
    import psycopg2

    with psycopg2.connect(
        host="127.0.0.1",
        port=services.ports["postgres"],
        user=USER,
        password=services.secret("postgres"),
        dbname="postgres",
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT datname FROM pg_database")
        return [name for (name,) in cursor.fetchall()]


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_owner_takes_its_services_along(tmp_path: Path) -> None:
    """Only PostgreSQL is started: it is the one that must not lose what it had."""
    script = (
        "import time\nfrom pathlib import Path\nfrom steptool.orchestration.services.team import Services\n"
        f"s = Services(Path({str(tmp_path)!r}))\ns.start('postgres')\n"
        "print(s.supervisor('postgres'), flush=True)\ntime.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    supervisor = int(owner.stdout.readline())
    children = psutil.Process(supervisor).children(recursive=True)
    assert children
    owner.kill()
    owner.wait()
    wait_for(lambda: all(gone(child.pid) for child in children), 15)
    assert json.loads((tmp_path / "ports.json").read_text())
    shutil.rmtree(tmp_path / "postgres")
