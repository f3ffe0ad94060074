"""Attempts at a task with any engine, and what a scripted model says in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steptool.core.types import Action, Sampling, Task, ToolCall
from steptool.engines.base import Request
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts.base import Attempt
from steptool.testing import call, conditions, revision

CHAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_calls=4, max_step_tokens=64, max_tokens=2048)


def said(made: ToolCall, thought: str = "") -> tuple[int, ...]:
    return CHAT.render(Action(thought=thought, calls=(made,)))


LOOK = said(call("find_order", id="a-1"), "Look it up.")
PING = said(call("ping"))
ANSWER = said(call("Finish", answer="shipped"))
SURRENDER = said(call("Finish", give_up=True))


def attempt_of(
    task: Task, engine: Any, session: Any, *, sampling: Sampling = SAMPLING, format: Any = CHAT, number: int = 0,
    tool_timeout_s: float = 5.0,
) -> Attempt:  # fmt: skip
    def act(stream: Sequence[int], most: int, seed: int) -> Any:
        return engine.generate(Request(stream, most, sampling.temperature, sampling.top_p, seed, format.stop_ids))

    return Attempt(
        task=task,
        open=lambda: session,
        act=act,
        format=format,
        conditions=conditions(sampling=sampling),
        policy=revision("p"),
        seed=3,
        number=number,
        tool_timeout_s=tool_timeout_s,
    )
