"""Rollouts of some turns over vLLM, printed to the last bit: run by test_vllm_local in processes of their own.

Printed with them: which requests joined the batch at which step, in their order. On a model this small the order hardly
shows in the last bit; on a real one it does.

    python -m tests.engines.rollouts_of_a_process MODEL_FOLDER SWITCH_INTERVAL

SWITCH_INTERVAL, in seconds, is how long Python lets a thread run before another one may: it disturbs the order in which
the engine's thread and the event loop do their work.
"""

import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path

from steptool.core.plugins import NoSettings
from steptool.engines import vllm_local
from steptool.engines.base import Request
from steptool.engines.vllm_local import VllmEngine
from steptool.rollouts.loop import run

ROLLOUTS, TURNS, AT_ONCE, STOP_IDS = 96, 4, 32, tuple(range(0, 60, 2))
REPLY = (5, 7, 11)


joined: list[tuple[int, tuple[int, ...]]] = []


class Noted(vllm_local._Vllm):
    def add(self, id: str, request: Request) -> None:
        joined.append((self._steps, tuple(request.prompt_ids)))
        super().add(id, request)


async def rollout(engine: VllmEngine, number: int, slots: asyncio.Semaphore) -> list[list[object]]:
    """What each of its turns sampled: ids, and log-probabilities as hexadecimal numbers."""
    stream, turns = tuple(range(40 + number % 8, 60)), []
    async with slots:
        for turn in range(TURNS):
            asked = Request(stream, 12, temperature=1.0, top_p=1.0, seed=number * TURNS + turn, stop_ids=STOP_IDS)
            made = await engine.generate(asked)
            turns.append([made.ids, [value.hex() for value in made.logprobs]])
            stream += (*made.ids, *REPLY)
    return turns


async def all_of(engine: VllmEngine) -> list[list[list[object]]]:
    slots = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(rollout(engine, number, slots) for number in range(ROLLOUTS)))


if __name__ == "__main__":
    vllm_local._Vllm = Noted  # type: ignore[misc]
    sys.setswitchinterval(float(sys.argv[2]))
    with closing(
        VllmEngine(NoSettings(), Path(sys.argv[1]), dtype="bfloat16", max_model_len=128, concurrency=AT_ONCE, seed=7)
    ) as engine:
        print(json.dumps({"rollouts": run(all_of(engine)), "joined": joined}))
