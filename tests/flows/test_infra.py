"""What stands in infra/: job templates that Prefect takes and renders, and a compose file without loose ends."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessJobConfiguration
from ruamel.yaml import YAML

from tests.flows.conftest import commit_all

INFRA = Path(__file__).parents[2] / "infra"
TEMPLATES = sorted(path.stem for path in (INFRA / "work-pools").glob("*.json"))
SAMPLES: dict[str, dict[str, Any]] = {
    "process": {"working_dir": "/srv/steptool", "env": {"A": "1"}},
    "docker": {"image": "registry.example/steptool:gpu", "gpus": 2, "networks": ["team"], "mem_limit": "64g"},
    "kubernetes": {"namespace": "ml", "gpus": 4, "clone_claim": "node-7", "memory_limit": "128Gi"},
}


def template(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((INFRA / "work-pools" / f"{name}.json").read_text())
    return loaded


def rendered(name: str, **values: Any) -> Any:
    """As a worker does: the values of a deployment over the defaults of the variables."""
    properties = template(name)["variables"]["properties"]
    defaults = {key: schema["default"] for key, schema in properties.items() if "default" in schema}
    made = {"name": "train-r1", "command": "prefect flow-run execute", "labels": {"team": "ml"}}
    return apply_values(template(name)["job_configuration"], defaults | made | values)


def test_there_is_a_template_for_every_type_of_pool() -> None:
    assert sorted(SAMPLES) == TEMPLATES == ["docker", "kubernetes", "process"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_prefect_takes_the_template_and_every_variable_is_used(name: str) -> None:
    """The server's own check: what the configuration names must be among the variables. The reverse is ours."""
    pool = WorkPoolCreate(name="gpu", type=name, base_job_template=template(name))
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(pool.base_job_template["job_configuration"])))
    assert used == set(template(name)["variables"]["properties"])


def test_prefect_refuses_a_template_with_an_unknown_variable() -> None:
    broken = template("docker")
    del broken["variables"]["properties"]["gpus"]
    with pytest.raises(ValueError, match="gpus"):
        WorkPoolCreate(name="gpu", type="docker", base_job_template=broken)


@pytest.mark.parametrize("name", TEMPLATES)
def test_variables_are_a_schema_that_takes_samples_and_its_own_defaults(name: str) -> None:
    schema = template(name)["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = {key: value["default"] for key, value in schema["properties"].items() if "default" in value}
    jsonschema.validate(defaults | SAMPLES[name], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"env": "not a mapping"}, schema)


@pytest.mark.parametrize("name", TEMPLATES)
def test_rendering_leaves_no_placeholder(name: str) -> None:
    assert "{{" not in json.dumps(rendered(name, **SAMPLES[name]))


def test_process_template_renders_into_prefects_configuration() -> None:
    made = ProcessJobConfiguration(**rendered("process", **SAMPLES["process"]))
    assert str(made.working_dir) == "/srv/steptool"
    assert made.env["A"] == "1"


def test_docker_container_gets_its_gpus_and_a_clone_that_lives_on() -> None:
    made = rendered("docker", **SAMPLES["docker"])
    [request] = made["container_create_kwargs"]["device_requests"]
    assert request == {"Driver": "nvidia", "Count": 2, "Capabilities": [["gpu"]]}
    assert made["env"]["STEPTOOL_CLONE"] == "/clone/steptool"
    assert made["volumes"] == ["steptool_clone-gpu:/clone"]
    assert (made["image"], made["privileged"]) == ("registry.example/steptool:gpu", False)


def test_kubernetes_job_gets_its_gpus_secret_and_clone() -> None:
    made = rendered("kubernetes", **SAMPLES["kubernetes"])
    pod = made["job_manifest"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"memory": "128Gi", "nvidia.com/gpu": 4}
    assert container["envFrom"] == [{"secretRef": {"name": "steptool"}}]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "node-7"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (made["namespace"], made["job_manifest"]["metadata"]["namespace"]) == ("ml", "ml")
    assert made["job_manifest"]["spec"]["backoffLimit"] == 0, "retries are the flow's"


def test_kubernetes_manifest_has_what_prefects_worker_asks_for() -> None:
    """prefect-kubernetes refuses a manifest without these; the containers' name is fixed too."""
    manifest = template("kubernetes")["job_configuration"]["job_manifest"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    assert {"annotations", "labels"} <= set(manifest["metadata"])
    pod = manifest["spec"]["template"]["spec"]
    assert (pod["parallelism"], pod["completions"], pod["restartPolicy"]) == (1, 1, "Never")
    assert [container["name"] for container in pod["containers"]] == ["prefect-job"]


# compose.yaml


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((INFRA / "compose.yaml").read_text())
    return loaded


def command() -> list[str]:
    for candidate in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(candidate[0]) and subprocess.run([*candidate, "version"], capture_output=True).returncode == 0:
            return candidate
    pytest.skip("needs `docker compose` or `docker-compose`")


@pytest.mark.parametrize("profiles", [[], ["gpu"], ["vllm"], ["gpu", "vllm"]], ids="+".join)
def test_compose_accepts_the_file(profiles: list[str], tmp_path: Path) -> None:
    shutil.copytree(INFRA, tmp_path / "infra")
    subprocess.run([tmp_path / "infra" / "make-secrets"], check=True, capture_output=True)
    options = [option for profile in profiles for option in ("--profile", profile)]
    file = ["-f", str(tmp_path / "infra" / "compose.yaml")]
    done = subprocess.run([*command(), *file, *options, "config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr.upper(), done.stderr
    services = set(YAML(typ="safe").load(done.stdout)["services"])
    assert {"postgres", "store", "mlflow", "prefect", "worker-cpu"} <= services


def test_images_are_pinned() -> None:
    for name, service in compose()["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d", tag) or service["image"].startswith("steptool:"), f"{name}: {service['image']}"


def test_only_the_loopback_is_published() -> None:
    ports = {name: service.get("ports", []) for name, service in compose()["services"].items()}
    assert {name for name, published in ports.items() if published} == {"mlflow", "prefect", "vllm"}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)


def test_servers_have_health_checks_and_clients_wait_for_them() -> None:
    services = compose()["services"]
    for name in ("postgres", "store", "mlflow", "prefect", "vllm"):
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            ended = how["condition"] == "service_completed_successfully"
            assert ended or "healthcheck" in services[needed], f"{name} waits for {needed}, which has no health check"


def test_passwords_come_from_files() -> None:
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|AUTH_STRING", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"


def test_secrets_are_private_and_kept(tmp_path: Path) -> None:
    script = shutil.copy(INFRA / "make-secrets", tmp_path)

    def make() -> dict[str, str]:
        subprocess.run([script], check=True, capture_output=True)
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    first = make()
    assert make() == first
    assert set(first) == set(compose()["secrets"])
    assert len(set(first.values())) == len(first)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o644}


def start_container(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INFRA / "entrypoint", "sh", "-c", 'echo "$MY_PASSWORD, ${OTHER:-unset}"; exit 7'],
        env={
            "PATH": "/usr/bin:/bin",
            "STEPTOOL_SECRETS": str(tmp_path),
            "MY_PASSWORD_FILE": str(tmp_path / "secret"),
            "OTHER_FILE": "/etc/hostname",
            "STEPTOOL_REPOSITORY": str(tmp_path / "source"),
            "STEPTOOL_CLONE": str(tmp_path / "clone"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def commit(repository: Path, text: str) -> None:
    (repository / "file").write_text(text)
    commit_all(repository)


def test_entrypoint_reads_secrets_and_keeps_a_clone_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t word")
    source, clone = tmp_path / "source", tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    for text in ("first", "second"):
        commit(source, text)
        done = start_container(tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == ("s3cr3t word, unset\n", "", 7)
        assert (clone / "file").read_text() == text


def test_entrypoint_leaves_a_clone_with_work_in_it_and_one_at_a_commit(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t word")
    source, clone = tmp_path / "source", tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    commit(source, "first")
    start_container(tmp_path)
    commit(source, "second")
    (clone / "file").write_text("changed here")
    done = start_container(tmp_path)
    assert done.returncode == 7
    assert "the clone stays as it is" in done.stderr
    assert (clone / "file").read_text() == "changed here"
    subprocess.run(["git", "-C", str(clone), "checkout", "-qf", "--detach"], check=True)
    done = start_container(tmp_path)
    assert (done.stderr, done.returncode) == ("", 7)
    assert (clone / "file").read_text() == "first"
