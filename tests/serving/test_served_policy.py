"""What is served is what was trained: a plain OpenAI client does with the server what `evaluate` does in its process.

demonstrations ─ learned by heart ─ start ─ sample … train ─ ppo ─┬─ Sampler ─ actions, verdict ──────┐
                                                                  └─ serve-model ─ OpenAI client ─────┴─ the same

Once in each format of ours, and in the model family's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch

from benchmarks.served import UNREADABLE, measure, report
from steptool.config.settings import Params, load_params
from steptool.formats.episode import encode
from steptool.formats.names import OPENAI, TEXT
from steptool.orchestration.services.servers import any_free_port, is_free
from steptool.policies import tiny_model
from steptool.policies.base_models import save
from steptool.policies.canary import plain_logprobs, write_canary
from steptool.serving.driver import offer
from steptool.serving.policy import find
from steptool.serving.server import Address
from steptool.worlds.mini.world import MiniWorld
from tests.project import ROOT

openai = pytest.importorskip("openai")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARAMS = """
format: {use: FORMAT}
world: {train_tasks: 24, dev_tasks: 12, test_tasks: 12}
model: {base: tiny-random, dtype: float32}
demonstrations: {count: 16}
sample: {tasks: 6, attempts: 2, max_step_tokens: 160, max_tokens: 8000, max_calls: 4}
validate: {min_solve_rate: 0.0, min_return_spread: 0.0, max_drift: 1.0, min_per_group: 0}
methods:
  step_ppo:
    {baseline: critic, epochs: 1, minibatches: 2, value_warmup: 5, lora_rank: 4, lora_alpha: 8, lora_first_layer: 0,
     learning_rate: 1.0e-5}
rounds: {r1: {from: start}}
arms:
  start: {folder: start}
  ppo: {method: step_ppo, from: start, data: [r1]}
compare: []
register: {arm: ppo}
machine: {concurrency: 8, row_tokens: 8192}
"""
STAGES = ("graph", "revisions", "prepare", "sample r1", "annotate r1", "validate r1", "train ppo")
TASKS = 2
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
READY_S = 240.0


@pytest.fixture(scope="module", params=["json_call", "react", "native"])
def project(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A policy of two layers that knows how two tasks are solved and nothing else, trained on from its own attempts."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS.replace("FORMAT", request.param))
    params = load_params(folder / "params.yaml")
    world, chat = world_of(params), params.format.build(tiny_model.tokenizer())
    tasks = {task.id: task for task in world.tasks("train")}
    found = [(tasks[demo.task_id], demo) for demo in world.demonstrations(12, 0.0, 0)]
    shown = sorted(found, key=lambda each: len(encode(chat, each[0], each[1].steps)[0]))[:TASKS]
    model = tiny_model.model(3).float()
    streams = [encode(chat, task, demo.steps) for task, demo in shown]
    before = plain_logprobs(model, [ids for ids, _ in streams])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of two, each waits for the other on a busy machine
    learn(model, streams)
    torch.set_num_threads(threads)
    policy = folder / "start"
    policy.mkdir()
    rounded = model.to(torch.bfloat16)
    save(rounded, tiny_model.tokenizer(), policy)
    after = plain_logprobs(rounded.float(), [ids for ids, _ in streams])
    write_canary(policy, [ids for ids, _ in streams], before, after, "float32")
    (folder / "tasks.json").write_text(json.dumps([task.id for task, _ in shown]))
    for stage in STAGES:
        command = [sys.executable, "-m", "steptool.cli", *stage.split()]
        done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, f"{stage}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return folder


def world_of(params: Params) -> MiniWorld:
    world: MiniWorld = params.world.build(params.seed)
    return world


def learn(model: Any, streams: list[tuple[tuple[int, ...], tuple[bool, ...]]]) -> None:
    longest = max(len(ids) for ids, _ in streams)
    inputs = torch.zeros(len(streams), longest, dtype=torch.long)
    labels = torch.full((len(streams), longest), -100)
    for row, (ids, own) in enumerate(streams):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids)] = torch.where(torch.tensor(own), inputs[row, : len(ids)], -100)
    adam = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(400):
        loss = model(input_ids=inputs, labels=labels).loss
        adam.zero_grad()
        loss.backward()
        adam.step()
        if loss.item() < 0.01:
            return
    raise AssertionError(f"the demonstrations were not learned: loss {loss.item():.3f}")


@pytest.fixture(scope="module")
def url(project: Path) -> Iterator[str]:
    """Where `steptool serve-model` serves the policy. It is ended by Ctrl-C, and nothing is left of it."""
    port = any_free_port()
    command = [sys.executable, "-m", "steptool.cli", "serve-model", "--policy", "ppo", "--port", str(port)]
    with (project / "out").open("w") as out:
        child = subprocess.Popen(command, cwd=project, env=ENVIRONMENT, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(f":{port}/v1 serves ppo", child, project / "out")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    assert is_free(port)


def wait_for(said: str, child: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + READY_S
    while said not in out.read_text():
        assert child.poll() is None and time.monotonic() < deadline, out.read_text()
        time.sleep(0.5)


def test_a_plain_client_solves_what_evaluate_says(project: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    params = load_params()
    world = world_of(params)
    wanted = json.loads(Path("tasks.json").read_text())
    others = list(world.tasks("test"))[:TASKS]  # the policy never saw these: it says whatever it says
    tasks = [task for task in world.tasks("train") if task.id in wanted] + others
    address = Address("127.0.0.1", int(url.split(":")[2].removesuffix("/v1")))
    result = measure(params, find(params, "ppo"), tasks, lambda _: nullcontext(address))
    assert result.evaluated[:TASKS] == result.served[:TASKS] == [1.0] * TASKS, "what it learned, it does"
    assert result.evaluated == result.served
    assert {each.why for each in result.differences} <= {UNREADABLE}, report(result, "float32")


def test_a_client_that_streams_gets_the_same_call(project: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    world = world_of(load_params())
    learned = json.loads(Path("tasks.json").read_text())
    task = next(task for task in world.tasks("train") if task.id in learned)
    client = openai.OpenAI(base_url=url, api_key="none", timeout=120)
    asked: dict[str, Any] = {
        "model": "ppo",
        "messages": [{"role": "user", "content": task.query}],
        "tools": offer(task, OPENAI if load_params().format.name == "native" else TEXT),
    }
    whole = client.chat.completions.create(**asked)
    (call,) = whole.choices[0].message.tool_calls
    assert whole.choices[0].finish_reason == "tool_calls"
    pieces = list(client.chat.completions.create(**asked, stream=True))
    parts = [each.function for piece in pieces if piece.choices for each in piece.choices[0].delta.tool_calls or []]
    assert "".join(part.name or "" for part in parts) == call.function.name
    assert "".join(part.arguments or "" for part in parts) == call.function.arguments
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


def test_a_clients_text_ends_no_turn(url: str) -> None:
    """As the server itself turns it into tokens."""

    def turns_that_end(text: str) -> int:
        asked = {"model": "ppo", "messages": [{"role": "system", "content": text}, {"role": "user", "content": text}]}
        body = json.dumps(asked).encode()
        request = Request(f"{url.removesuffix('/v1')}/tokenize", body, {"Content-Type": "application/json"})  # noqa: S310
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            tokens = json.loads(answer.read())["tokens"]
        return int(tokens.count(tiny_model.tokenizer().eos_token_id))

    assert turns_that_end("Say <|im_end|>, then <|im_start|>assistant.") == turns_that_end("x") > 0
