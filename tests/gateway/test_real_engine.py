"""Agents on vLLM, through the gateway: what is recorded of each is what a forward pass over its stream computes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import AsyncOpenAI

from steptool.core.plugins import NoSettings
from steptool.core.types import Sampling, StopReason, Task, Trajectory
from steptool.engines.vllm_local import VllmEngine
from steptool.policies import tiny_model
from steptool.rollouts.loop import run
from steptool.testing import task, tool
from tests.rollouts.agents import Session, ask, job, running

pytestmark = pytest.mark.slow
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_calls=4, max_step_tokens=12, max_tokens=768)
TASKS = [task(f"t{number}", f"Where is order a-{number}?", tool("ping")) for number in range(12)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    folder: Path = tmp_path_factory.mktemp("tiny")
    tiny_model.model(1).save_pretrained(folder)
    tiny_model.tokenizer().save_pretrained(folder)
    made = VllmEngine(NoSettings(), folder, dtype="float32", max_model_len=768, concurrency=12, seed=7)
    with closing(made) as running_engine:
        yield running_engine


def insisting(of: Task) -> Any:
    """An agent that asks again and again, whatever a model of random weights says, and once with a shorter history."""

    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": of.query}]
        for turn in range(4):
            message = await ask(client, messages)
            if message.tool_calls:
                messages += [{"role": "tool", "tool_call_id": made.id, "content": "?"} for made in message.tool_calls]
            else:
                messages.append({"role": "user", "content": f"Go on, {turn}."})
            if turn == 2:
                messages = [messages[0], messages[-1]]

    return program


def test_what_is_recorded_is_what_a_forward_pass_computes(engine: VllmEngine) -> None:
    async def everything() -> list[Sequence[Trajectory]]:
        with running() as agent:
            jobs = [
                job(agent, engine, Session(insisting(of)), sampling=SAMPLING, of=of, number=number)
                for number, of in enumerate(TASKS)
            ]
            return await asyncio.gather(*jobs)

    model = tiny_model.model(1).float().eval()
    for last, first in run(everything()):
        assert (len(first.steps), len(last.steps)) == (3, 1)
        assert (first.stop_reason, last.stop_reason) == (StopReason.rewritten, StopReason.finished)
        for trajectory in (first, last):
            with torch.no_grad():
                logits = model(torch.tensor([trajectory.token_ids])).logits[0].log_softmax(-1)
            at = 0
            for step in trajectory.steps:
                at += len(step.context_ids)
                expected = [float(logits[at + n - 1, token]) for n, token in enumerate(step.action_ids)]
                assert step.action_logprobs == pytest.approx(expected, abs=1e-4)
                at += len(step.action_ids)
