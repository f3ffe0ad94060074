"""What is served is what was trained: a plain OpenAI client does with the server what `evaluate` does in its process.

demonstrations ─ learned by heart ─ models/policy ─┬─ Sampler ─ actions, verdict ──────────┐
                                                   └─ serve-model ─ OpenAI client, world ──┴─ the same
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steptool.config.settings import Params, load_params
from steptool.core.types import FINISH, Task, Trajectory
from steptool.formats.episode import encode
from steptool.formats.json_call import JsonCall
from steptool.formats.tool_text import openai_tools
from steptool.orchestration.services.servers import any_free_port, is_free
from steptool.policies import tiny_model
from steptool.policies.base_models import save
from steptool.policies.canary import plain_logprobs, write_canary
from steptool.rollouts.collect import open_sampler, sampling_of
from steptool.serving.driver import attempt
from steptool.worlds.mini.world import MiniWorld
from tests.project import ROOT

openai = pytest.importorskip("openai")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARAMS = """
world: {train_tasks: 24, dev_tasks: 12, test_tasks: 12}
model: {base: tiny-random, dtype: float32}
sample: {max_step_tokens: 96, max_tokens: 2048}
machine: {concurrency: 8}
"""
TASKS = 2
READY_S = 240.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of two layers that knows how two tasks are solved, and nothing else."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS)
    world, chat = world_of(load_params(folder / "params.yaml")), JsonCall(JsonCall.Config(), tiny_model.tokenizer())
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
    policy = folder / "models" / "policy"
    policy.mkdir(parents=True)
    rounded = model.to(torch.bfloat16)
    save(rounded, tiny_model.tokenizer(), policy)
    after = plain_logprobs(rounded.float(), [ids for ids, _ in streams])
    write_canary(policy, [ids for ids, _ in streams], before, after, "float32")
    (folder / "tasks.json").write_text(json.dumps([task.id for task, _ in shown]))
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
    command = [sys.executable, "-m", "steptool.cli", "serve-model", "--policy", "models/policy", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (project / "out").open("w") as out:
        child = subprocess.Popen(command, cwd=project, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(f":{port}/v1 serves policy", child, project / "out")
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


def said(trajectory: Trajectory, chat: JsonCall) -> list[tuple[str, Any]]:
    """The calls of an attempt, and its answer."""
    calls = [call for step in trajectory.steps for call in step.action.calls]
    made: list[tuple[str, Any]] = [(call.name, call.arguments) for call in calls if call.name != FINISH]
    return [*made, ("answer", trajectory.answer)]


def test_a_plain_client_solves_what_evaluate_says(project: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    params = load_params()
    world = world_of(params)
    wanted = json.loads(Path("tasks.json").read_text())
    others = list(world.tasks("test"))[:TASKS]  # the policy never saw these: it says whatever it says
    tasks: list[Task] = [task for task in world.tasks("train") if task.id in wanted] + others
    sampling = sampling_of(params).model_copy(update={"temperature": 0.0, "top_p": 1.0})
    with open_sampler(params, Path("models/policy"), seed=params.seed) as sampler:
        here = sampler.attempts(tasks, sampling, 1, what="here", max_broken=0.0)
        readable = [all(step.action.unreadable is None for step in each.steps) for each in here]
        chat = sampler.format
    client = openai.AsyncOpenAI(base_url=url, api_key="none", timeout=120)

    async def served() -> list[Any]:
        limit = params.sample.max_calls
        return [await attempt(client, "policy", world, task, max_calls=limit) for task in tasks]

    solved = []
    for own, (outcome, messages), is_readable in zip(here, asyncio.run(served()), readable, strict=True):
        if not is_readable:  # a client takes it for the answer, where a rollout says what is wrong and goes on
            continue
        calls = [call for message in messages for call in message.get("tool_calls") or []]
        made = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
        ended = own.answer if own.answer is not None else messages[-1].get("content")
        assert [*made, ("answer", ended)] == [*said(own, chat)[:-1], ("answer", ended)]
        assert outcome.solved == own.outcome.solved
        solved.append(outcome.solved)
    assert solved[:TASKS] == [1.0] * TASKS, "what it learned, it does"


def test_a_client_that_streams_gets_the_same_call(project: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    world = world_of(load_params())
    task = next(task for task in world.tasks("train") if task.id in json.loads(Path("tasks.json").read_text()))
    client = openai.OpenAI(base_url=url, api_key="none", timeout=120)
    asked: dict[str, Any] = {
        "model": "policy",
        "messages": [{"role": "user", "content": task.query}],
        "tools": openai_tools(task.tools),
    }
    whole = client.chat.completions.create(**asked)
    (call,) = whole.choices[0].message.tool_calls
    assert whole.choices[0].finish_reason == "tool_calls"
    pieces = list(client.chat.completions.create(**asked, stream=True))
    (streamed,) = [each for piece in pieces for each in piece.choices[0].delta.tool_calls or []]
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    assert pieces[-1].choices[0].finish_reason == "tool_calls"
