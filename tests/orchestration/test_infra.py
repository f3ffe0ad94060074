"""What stands in infra/: job templates that Prefect takes and renders, and a compose file without loose ends."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.utilities.templating import apply_values
from prefect.workers.base import BaseJobConfiguration
from prefect.workers.process import ProcessJobConfiguration
from ruamel.yaml import YAML

from tests.orchestration.conftest import commit_all

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
    made = {"name": "train-ppo1", "command": "prefect flow-run execute", "labels": {"team": "ml"}}
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
    assert made["volumes"] == ["steptool_clone-gpu:/clone", "/etc/steptool/secrets:/run/secrets:ro"]
    assert (made["image"], made["privileged"]) == ("registry.example/steptool:gpu", False)


def test_kubernetes_job_gets_its_gpus_secret_and_clone() -> None:
    made = rendered("kubernetes", **SAMPLES["kubernetes"])
    pod = made["job_manifest"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": 4}
    assert container["envFrom"] == [{"secretRef": {"name": "steptool"}}]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "node-7"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (made["namespace"], made["job_manifest"]["metadata"]["namespace"]) == ("ml", "ml")
    assert made["job_manifest"]["spec"]["backoffLimit"] == 0, "retries are the flow's"


def test_kubernetes_pod_is_one_that_pod_security_restricted_takes() -> None:
    """The rules of the Pod Security Standards' profile `restricted`, baseline included."""
    pod = rendered("kubernetes", **SAMPLES["kubernetes"])["job_manifest"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for volume in pod["volumes"]:
        [kind] = set(volume) - {"name"}
        assert kind in {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "secret"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")


@pytest.mark.parametrize("name", ["docker", "kubernetes"])
def test_worker_does_not_write_its_password_into_the_job(name: str) -> None:
    """What a job is made of is read by all who may look at jobs. Prefect's own preparation of a flow run."""
    with temporary_settings({PREFECT_API_URL: "http://prefect:4200/api", PREFECT_API_AUTH_STRING: "steptool:s3cr3t"}):
        flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), name="train-ppo1")
        plain = BaseJobConfiguration(env={"A": "1"})
        plain.prepare_for_flow_run(flow_run)
        assert "steptool:s3cr3t" in str(plain.env), "else this test sees nothing"
        made = BaseJobConfiguration(env=rendered(name, **SAMPLES[name])["env"])
        made.prepare_for_flow_run(flow_run)
    assert made.env["PREFECT_API_URL"] == "http://prefect:4200/api"
    assert "s3cr3t" not in str(made.env)


def test_docker_container_may_do_little_and_reads_its_secrets_from_files() -> None:
    made = rendered("docker", **SAMPLES["docker"])
    options = made["container_create_kwargs"]
    assert (options["user"], options["cap_drop"]) == ("1000:1000", ["ALL"])
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert options["pids_limit"] and rendered("docker")["mem_limit"]
    for variable, value in made["env"].items():
        if re.search(r"PASSWORD|SECRET|AUTH_STRING", variable) and value is not None:
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in compose()["secrets"]


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


IMAGE = re.compile(r"\$\{([A-Z_]+_IMAGE):-([^}]+)\}")


def test_images_have_a_version_and_can_be_pinned() -> None:
    for name, service in compose()["services"].items():
        if not service["image"].startswith("steptool:"):
            found = IMAGE.fullmatch(service["image"])
            assert found and re.search(r":.*\d", found[2]), f"{name}: {service['image']}"
    default = re.search(r"ARG PYTHON_IMAGE=(\S+)", (INFRA / "Dockerfile").read_text())
    assert default and default[1] in compose()["services"]["prefect"]["build"]["args"]["PYTHON_IMAGE"]


DOCKER = """#!/bin/sh
echo "$@" >> "$ASKED"
for image; do :; done
case "$image" in $MISSING*) echo "not found"; exit 0;; esac
printf 'sha256:%064d\\n' "${#image}"
"""


@pytest.mark.parametrize("missing", ["none", "vllm"])
def test_pin_images_names_them_all_by_digest_or_none(tmp_path: Path, missing: str) -> None:
    shutil.copytree(INFRA, tmp_path / "infra", ignore=shutil.ignore_patterns("secrets", ".env"))
    settings = tmp_path / "infra" / ".env"
    settings.write_text("STEPTOOL_REPOSITORY=https://git.example/x\nVLLM_IMAGE=old\n")
    before = settings.read_text()
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ASKED": str(tmp_path / "asked"), "MISSING": missing}
    done = subprocess.run([tmp_path / "infra" / "pin-images"], env=environment, capture_output=True, text=True)
    if missing != "none":
        assert done.returncode == 1 and "no digest for vllm/" in done.stderr
        assert settings.read_text() == before
        return
    assert done.returncode == 0, done.stderr
    first, *pinned = settings.read_text().splitlines()
    assert first == "STEPTOOL_REPOSITORY=https://git.example/x"
    wanted = dict(IMAGE.findall((INFRA / "compose.yaml").read_text()))
    assert len(wanted) == 5
    found = dict(line.split("=", 1) for line in pinned)
    assert {name: image.partition("@")[0] for name, image in found.items()} == wanted
    assert all(re.fullmatch(r"sha256:\d{64}", image.partition("@")[2]) for image in found.values())


def test_containers_may_do_little() -> None:
    """No capability, no new privilege, no root, no write but to volumes, and an end to what they use."""
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert {"mem_limit", "cpus", "pids_limit"} <= set(service), name
        assert not {"privileged", "network_mode", "cap_add", "pid", "ipc"} & set(service) or name == "volumes", name
        assert service["user"] == "${STEPTOOL_UID:-1000}:${STEPTOOL_GID:-1000}" or name == "volumes", name
    given = compose()["services"]["volumes"]
    assert (given["user"], given["cap_add"], given["network_mode"]) == ("0:0", ["CHOWN"], "none")
    assert "secrets" not in given


REACHED = {
    "database": {"postgres", "mlflow", "prefect"},
    "objects": {"store", "buckets", "mlflow", "worker-cpu", "worker-gpu"},
    "default": {"mlflow", "prefect", "accounts", "worker-cpu", "worker-gpu"},
    "serving": {"vllm"},
}


def test_services_meet_where_they_have_to() -> None:
    services = compose()["services"]
    assert all(service.get("networks") or service.get("network_mode") == "none" for service in services.values())
    for network, members in REACHED.items():
        assert {name for name, service in services.items() if network in service.get("networks", [])} == members
    assert set(compose()["networks"]) == set(REACHED)
    assert all(compose()["networks"][name]["internal"] for name in ("database", "objects"))


HOLDERS = {
    "postgres": {"postgres", "mlflow", "prefect"},
    "store": {"store", "buckets"},
    "store_mlflow": {"buckets", "mlflow"},
    "store_worker": {"buckets", "worker-cpu", "worker-gpu"},
    "mlflow": {"mlflow", "accounts"},
    "mlflow_worker": {"accounts", "worker-cpu", "worker-gpu"},
    "mlflow_sessions": {"mlflow"},
    "prefect": {"prefect", "worker-cpu", "worker-gpu"},
    "vllm": {"vllm"},
}
"""The store's root key and MLflow's administrator are with those who make the others' accounts."""


def test_secrets_are_where_they_are_needed() -> None:
    services = compose()["services"]
    assert set(compose()["secrets"]) == set(HOLDERS)
    for secret, holders in HOLDERS.items():
        assert {name for name, service in services.items() if secret in service.get("secrets", [])} == holders, secret
    for name in ("worker-cpu", "worker-gpu"):
        environment = services[name]["environment"]
        assert environment["AWS_ACCESS_KEY_ID"] == environment["MLFLOW_TRACKING_USERNAME"] == "worker"


@pytest.mark.parametrize("bucket", ["dvc", "mlflow"])
def test_key_of_the_store_opens_one_bucket(bucket: str) -> None:
    policy = json.loads((INFRA / "store" / f"{bucket}.json").read_text())
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert all(re.fullmatch(rf"arn:aws:s3:::{bucket}(/\*)?", resource) for resource in statement["Resource"])
        assert not any("*" in action for action in statement["Action"])


def test_nothing_private_gets_into_an_image() -> None:
    ignored = (INFRA.parent / ".dockerignore").read_text().splitlines()
    private = (".git", ".dvc/config.local", "infra/secrets", "mlruns", "mlartifacts", "mlflow.db*", ".steptool")
    assert {*private, "**/.env", "**/*.log", "data", "models"} <= set(ignored)


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
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o600}
    settings = (tmp_path / ".env").read_text()
    owner = (tmp_path / "secrets" / "store").stat()
    assert settings == f"STEPTOOL_UID={owner.st_uid}\nSTEPTOOL_GID={owner.st_gid}\n", "containers run as the owner"
    assert owner.st_uid != 0


def test_make_secrets_closes_what_an_older_one_left_open_and_keeps_other_settings(tmp_path: Path) -> None:
    script = shutil.copy(INFRA / "make-secrets", tmp_path)
    (tmp_path / "secrets").mkdir(mode=0o755)
    (tmp_path / "secrets" / "store").write_text("kept")
    (tmp_path / "secrets" / "vllm").write_text("")
    (tmp_path / ".env").write_text("STEPTOOL_REPOSITORY=x")
    subprocess.run([script], check=True, capture_output=True)
    assert (tmp_path / "secrets" / "store").read_text() == "kept"
    assert (tmp_path / "secrets" / "vllm").read_text() != "", "an empty password is none"
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o600}
    assert (tmp_path / ".env").read_text().startswith("STEPTOOL_REPOSITORY=x\nSTEPTOOL_UID=")


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
