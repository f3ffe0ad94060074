"""Secrets in a log are nowhere in what comes of it: a whole run, by Prefect, from the import to the registered model.

planted     an address, a phone number, a key, a password, in questions, arguments, replies and answers, in prose,
            in JSON and in JSON within JSON
searched    every file below the project and Prefect's home (data, models, reports, DVC's cache, MLflow's database
            and artifacts, Prefect's database with logs and artifacts), packed ones unpacked, and all that was printed
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT

pytestmark = pytest.mark.slow
SECRETS = {
    "address": "anna.lund@shop.example",
    "phone": "+1 415-555-2671",
    "key": "sk-proj-abcDEF0123456789abcDEF0123456789",
    "password": "hunter22zebra",
}
RULES = [
    {"when": '"price"', "say": 'Finish {"answer": "9.5"}'},
    {"when": "", "say": 'find {"title": "Book 1"}'},
]


def record(number: int) -> dict[str, Any]:
    title, secrets = f"Book {number}", SECRETS
    who = {"user": secrets["address"], "password": secrets["password"]}
    owner = {"email": secrets["address"], "phone": secrets["phone"], "note": json.dumps({"key": secrets["key"]})}
    asked = f"I am {secrets['address']}, {secrets['phone']}, key {secrets['key']}. What does {title} cost?"
    calls = [
        {"id": "1", "type": "function", "function": {"name": "log_in", "arguments": json.dumps(who)}},
        {"id": "2", "type": "function", "function": {"name": "find", "arguments": json.dumps({"title": title})}},
    ]
    return {
        "messages": [
            {"role": "system", "content": f"You serve {secrets['address']}."},
            {"role": "user", "content": asked},
            {
                "role": "assistant",
                "content": f"I look it up with {secrets['password']}.",
                "tool_calls": [calls[0]],
            },
            {"role": "tool", "tool_call_id": "1", "content": f"{secrets['address']} is in"},
            {"role": "assistant", "content": None, "tool_calls": [calls[1]]},
            {"role": "tool", "tool_call_id": "2", "content": json.dumps({"price": 9.5, "owner": owner})},
            {"role": "assistant", "content": f"9.5, {secrets['address']}"},
        ],
        "model": "gpt",
        "solved": number % 4 > 0,
    }


class Run:
    def __init__(self, root: Path) -> None:
        self.root, self.said = root, ""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEPTOOL_", "MLFLOW_"))}
        who = {f"GIT_{one}_{what}": f"t@{one}.org" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = {
            **{name: value for name, value in kept.items() if not name.startswith("PREFECT_")},
            **who,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DVC_NO_ANALYTICS": "1",
            "PREFECT_HOME": str(root / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        }

    def __call__(self, *command: str, cwd: str = "shop") -> None:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root / cwd, env=self.environment, capture_output=True, text=True
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == 0, self.said[-3000:]


def contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    for file in sorted(root.rglob("*")):
        if not file.is_file() or file.is_symlink():
            continue
        data = file.read_bytes()
        yield file, data
        if data[:2] == b"\x1f\x8b":
            yield file, gzip.decompress(data)
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                yield from ((file / name, packed.read(name)) for name in packed.namelist())


def spellings(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield secret.replace("@", "%40").encode()
    yield secret.encode("utf-16-le")


def test_what_is_planted_in_a_log_is_nowhere_in_a_whole_run(tmp_path: Path) -> None:
    log, run = tmp_path / "log.jsonl", Run(tmp_path / "work")
    run.root.mkdir()
    log.write_text("".join(json.dumps(record(number)) + "\n" for number in range(12)))
    run("steptool.cli", "init", "shop", "--traces", str(log), cwd=".")
    shop = run.root / "shop"
    (shop / "says.jsonl").write_text("\n".join(map(json.dumps, RULES)))
    run("steptool.cli", "params", "--profile", "tiny")
    yaml = YAML()
    params = yaml.load((shop / "params.yaml").read_text())
    params["engine"] = {"use": "steptool.engines.fake:RulesEngine", "rules": "says.jsonl"}
    params["arms"]["ppo"]["settings"] = {"max_engine_kl": 1.0e6}
    with (shop / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    run("flows.pipeline")
    run("steptool.cli", "results")
    run("steptool.cli", "traces", "export", "data/trajectories/r1", "out.jsonl")
    run("steptool.cli", "traces", "import", str(log), "--name", "log", "--add")

    everything = list(contents(run.root))
    everything.append((Path("what was printed"), run.said.encode()))
    found = [
        f"{name} in {path}"
        for path, data in everything
        for name, secret in SECRETS.items()
        if any(spelling in data for spelling in spellings(secret))
    ]
    assert found == []
    searched = {path.relative_to(run.root).parts[:2] for path, _ in everything[:-1]}
    assert {("shop", "data"), ("shop", "models"), ("shop", "reports"), ("shop", ".dvc")} <= searched
    assert any(path.name.startswith("prefect.db") for path, _ in everything)
    assert any(path.name.startswith("mlflow") and path.suffix == ".db" for path, _ in everything)
    stand_ins = sum(b"redacted.invalid" in data for _, data in everything)
    assert stand_ins > 10, "what the log says is in what comes of it, and so would the secrets be"
