"""The server from its start to its end, with a stand-in for vLLM that answers over HTTP; and once with vLLM itself.

serve-model ─ start ─ /health ─ canary ─ ready ─ Ctrl-C ─ gone
                │                 └ other log-probabilities: refused, gone
                └ ends by itself: its last words, gone
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steptool.config.settings import Params, load_params
from steptool.core.errors import InputError, ModelError, StepToolError
from steptool.orchestration.services.servers import any_free_port, is_free
from steptool.policies.canary import Canary, plain_logprobs, read_canary
from steptool.policies.folder import plain_weights
from steptool.policies.model_folder import load_model
from steptool.serving import server
from steptool.serving.policy import find
from steptool.serving.server import Address, arguments, serve_model

STAND_IN = """
import http.server, json, sys
known = json.load(open(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["model"] == "new" and asked["max_tokens"] == 1
        found = known[str(asked["prompt"])]
        rows = [{str(token): {"logprob": value}} for token, value in zip(asked["prompt"][1:], found)]
        self.answer({"choices": [{"prompt_logprobs": [None, *rows]}]})
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
for _ in range(int(sys.argv[3])):
    server.handle_request()
print("a kernel failed")
"""
FOR_EVER, HEALTH_AND_CANARY = 10**6, 5
"""Requests that it answers before it ends."""


class Ready(list[str]):
    """Keeps what the user is told, and then presses Ctrl-C."""

    def __call__(self, text: str) -> None:
        self.append(text)
        raise KeyboardInterrupt


@pytest.fixture
def params(policy: Path) -> Params:
    Path("params.yaml").write_text("model: {dtype: float32}\n", encoding="utf-8")
    return load_params()


@pytest.fixture
def port() -> int:
    return any_free_port()


@pytest.fixture
def instead_of_vllm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(code: str, *arguments: object) -> None:
        command = (sys.executable, "-c", code, *map(str, arguments))
        monkeypatch.setattr(server, "module", lambda *_: command)

    return run


def computed(policy: Path, off: float = 0.0) -> Path:
    """A file with what the policy computes for its canary, a little off if asked for."""
    canary = read_canary(policy)
    assert isinstance(canary, Canary)
    with plain_weights(policy, "float32", Path("merged")) as weights:
        model = load_model(weights, dtype=torch.float32)
    streams = [list(stream.ids) for stream in canary.streams]
    found = {
        str(ids): [value + off for value in values]
        for ids, values in zip(streams, plain_logprobs(model, streams), strict=True)
    }
    Path("known.json").write_text(json.dumps(found))
    return Path("known.json")


def test_it_says_where_it_is_once_it_answers_as_the_trainer_did(
    policy: Path, params: Params, port: int, instead_of_vllm: Callable[..., None]
) -> None:
    instead_of_vllm(STAND_IN, computed(policy), port, FOR_EVER)
    told = Ready()
    serve_model(params, find(params, str(policy)), port, ready=told)
    assert told[0].startswith(f"http://127.0.0.1:{port}/v1 serves new\n")
    assert f"curl -s http://127.0.0.1:{port}/v1/chat/completions" in told[0]
    assert is_free(port), "Ctrl-C ends it"


def test_a_server_that_computes_something_else_is_ended(
    policy: Path, params: Params, port: int, instead_of_vllm: Callable[..., None]
) -> None:
    instead_of_vllm(STAND_IN, computed(policy, off=-0.5), port, FOR_EVER)
    told = Ready()
    with pytest.raises(ModelError, match=r"0\.5 nats of difference"):
        serve_model(params, find(params, str(policy)), port, ready=told)
    assert told == []
    assert is_free(port)


def test_a_server_that_does_not_start_is_reported_with_its_last_words(
    policy: Path, params: Params, port: int, instead_of_vllm: Callable[..., None]
) -> None:
    instead_of_vllm("print('no memory left'); raise SystemExit(3)")
    with pytest.raises(StepToolError, match="no memory left"):
        serve_model(params, find(params, str(policy)), port)


def test_a_server_that_ends_by_itself_is_reported_with_its_last_words(
    policy: Path, params: Params, port: int, instead_of_vllm: Callable[..., None]
) -> None:
    instead_of_vllm(STAND_IN, computed(policy), port, HEALTH_AND_CANARY)
    told: list[str] = []
    with pytest.raises(StepToolError, match=r"vLLM's server ended: .*a kernel failed"):
        serve_model(params, find(params, str(policy)), port, ready=told.append)
    assert len(told) == 1


def test_a_port_that_is_taken_is_refused_before_anything_starts(policy: Path, params: Params) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is taken"):
            serve_model(params, find(params, str(policy)), port)
    assert not server.FOLDER.exists()


def values(command: list[str]) -> dict[str, Any]:
    """Options with their values, flags with None."""
    found: dict[str, Any] = {}
    for word in command:
        if word.startswith("--"):
            last = word
            found[last] = None
        else:
            found[last] = word if found[last] is None else f"{found[last]} {word}"
    return found


def test_an_adapter_is_served_on_its_base_and_a_plain_model_by_itself(policy: Path, params: Params) -> None:
    address = Address("127.0.0.1", 8000)
    found = values(arguments(params, find(params, str(policy)), address, "bfloat16"))
    assert found["--lora-modules"] == f"new={policy.resolve()}"
    assert found["--model"] == str(Path("models/base").resolve())
    assert (found["--max-lora-rank"], found["--dtype"], found["--host"]) == ("8", "bfloat16", "127.0.0.1")
    plain = values(arguments(params, find(params, "models/base"), address, "float32"))
    assert plain["--served-model-name"] == "base"
    assert not any("lora" in option for option in plain)
    assert plain["--max-model-len"] == "2048"


def test_an_arm_that_is_a_folder_is_served_by_the_name_of_the_arm(policy: Path, params: Params) -> None:
    Path("params.yaml").write_text("arms: {start: {folder: models/base}}\n", encoding="utf-8")
    found = find(load_params(), "start")
    assert (found.name, found.folder) == ("start", Path("models/base"))


def test_before_anything_is_trained_the_error_says_what_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("steptool.registry.models.version_or_none", lambda *_: None)
    Path("params.yaml").write_text(
        "arms: {start: {method: sft, from: base, data: [demonstrations]}}\n", encoding="utf-8"
    )
    with pytest.raises(ModelError, match="no policy is registered, and none is trained") as caught:
        find(load_params(), "@champion")
    assert "`steptool run`" in str(caught.value.fix)
    Path("models/start").mkdir(parents=True)
    with pytest.raises(ModelError, match="no version 'champion'"):
        find(load_params(), "@champion")
