"""Whatever an agent does with its history, each stream that is recorded is the one that the engine saw, token by token:

    conversation(first request) · action · reply · action · …        the format's and the engine's own tokens
    False                         True     False   True              what is trained on

Agents here go on, rewrite, fork, start sub-agents, ask several things at once, and ask again.
"""

from __future__ import annotations

import asyncio
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steptool.core.messages import Message
from steptool.core.types import Action, Outcome, Sampling, StopReason, ToolCall, Trajectory
from steptool.engines.base import Generation, Request
from steptool.engines.fake import spoken
from steptool.formats.episode import encode
from steptool.formats.json_call import JsonCall
from steptool.gateway.base import ChatReply, ChatRequest, Refused
from steptool.policies import tiny_model
from steptool.rollouts.ending import Ending
from steptool.rollouts.recording import Recording
from steptool.testing import call, task, tool
from tests.formats.test_native import native
from tests.rollouts.attempts import attempt_of

TOOLS = (tool("find_order", needs={"id": "string"}), tool("ping"))
TASK = task("t1", "Where is order a-1?", *TOOLS)
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_calls=30, max_step_tokens=60, max_tokens=1500)
CALLS = (call("find_order", id="a-1"), call("ping"), call("none_such", x=[1]), call("find_order"))


@cache
def format_of(name: str) -> Any:
    return JsonCall(JsonCall.Config(), tiny_model.tokenizer()) if name == "json_call" else native(name)


class RandomEngine:
    """Says anything: calls, answers, nonsense, and actions that are cut. It remembers what it was asked and said."""

    def __init__(self, name: str, seed: int) -> None:
        self.format, self.random = format_of(name), random.Random(seed)
        self.said: list[tuple[tuple[int, ...], Generation]] = []

    async def generate(self, request: Request) -> Generation:
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)
        generation = spoken(self._action(), request)
        self.said.append((tuple(request.prompt_ids), generation))
        return generation

    def _action(self) -> tuple[int, ...]:
        kind = self.random.randrange(6)
        if kind == 0:
            return tuple(self.random.randrange(100) for _ in range(self.random.randrange(1, 20)))
        if kind == 1:
            return self.format.render(Action(calls=(ToolCall(name="Finish", arguments={"answer": "7"}),)), TASK)  # type: ignore[no-any-return]
        calls: Any = [self.random.choice(CALLS)]
        if kind == 2 and not isinstance(self.format, JsonCall) and self.format.family.parallel:
            calls = self.random.choices(CALLS, k=2)
        ids = self.format.render(Action(thought=self.random.choice(["", "Hm."]), calls=tuple(calls)), TASK)
        return ids[:-3] if kind == 3 else ids  # type: ignore[no-any-return]


class Chat:
    """One history of an agent."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)

    async def ask(self, recording: Recording, again: int = 1) -> None:
        request = ChatRequest(messages=tuple(self.messages), tools=TOOLS)
        replies = await asyncio.gather(*(recording.complete(request) for _ in range(again)))
        assert len(set(map(str, replies))) == 1
        reply: ChatReply = replies[0]
        self.messages.append(Message(role="assistant", text=reply.text, calls=reply.calls))

    def answer(self, chosen: random.Random) -> None:
        last = self.messages[-1]
        if last.role != "assistant":
            return
        replies = [
            Message(
                role="tool", call_id=each.id, text=chosen.choice(['{"state": "shipped"}', '{"error": "x"}', "é" * 9])
            )
            for each in last.calls
        ]
        chosen.shuffle(replies)
        self.messages += replies or [Message(role="user", text="Go on.")]
        if chosen.random() < 0.1:
            self.messages.append(Message(role="user", text="And hurry."))

    def rewrite(self, chosen: random.Random) -> None:
        place = chosen.randrange(len(self.messages))
        old = self.messages[place]
        self.messages[place] = old.model_copy(update={"text": old.text + " (shortened)"})
        if chosen.random() < 0.5:
            self.messages = [self.messages[0], Message(role="user", text="So far: nothing.")]


async def live(name: str, seed: int) -> tuple[RandomEngine, list[Trajectory]]:
    chosen, engine = random.Random(seed), RandomEngine(name, seed)

    recording = Recording(attempt_of(TASK, engine, None, sampling=SAMPLING, format=engine.format))
    chats, codes = [Chat(Message(role="user", text=TASK.query))], list[str]()
    try:
        for _ in range(chosen.randrange(1, 12)):
            chat = chosen.choice(chats)
            deed = chosen.randrange(7)
            if deed == 0:
                chat.rewrite(chosen)
            elif deed == 1:
                chats.append(Chat(*chat.messages))
            elif deed == 2:
                chats.append(
                    Chat(Message(role="system", text="You find."), Message(role="user", text=f"Find {len(chats)}."))
                )
            if deed == 3:
                several = chosen.sample(chats, k=chosen.randrange(1, len(chats) + 1))
                for each in several:
                    each.answer(chosen)
                await asyncio.gather(*(each.ask(recording) for each in several))
            else:
                chat.answer(chosen)
                await chat.ask(recording, again=chosen.choice([1, 1, 3]))
    except Refused as refused:
        codes.append(refused.code)
    assert set(codes) <= {"insufficient_quota", "context_length_exceeded"}
    recording.stop()
    await asyncio.sleep(0.01)
    return engine, recording.trajectories(Ending(StopReason.call_budget), Outcome())


@pytest.mark.parametrize("name", ["json_call", "qwen2.5", "llama-3"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_every_recorded_stream_is_what_the_engine_saw(name: str, seed: int) -> None:
    engine, trajectories = asyncio.run(live(name, seed))
    format = format_of(name)
    recorded = set()
    for trajectory in trajectories:
        before: tuple[int, ...] = ()
        for index, step in enumerate(trajectory.steps):
            if index:
                previous = trajectory.steps[index - 1]
                assert step.context_ids == format.reply(previous.action_ids, previous.observations, previous.reply)
            recorded.add(((*before, *step.context_ids), step.action_ids))
            before += (*step.context_ids, *step.action_ids)
        ids, mask = encode(format, TASK, trajectory.steps)
        assert ids == trajectory.token_ids == before
        flags = [flag for s in trajectory.steps for flag in [False] * len(s.context_ids) + [True] * len(s.action_ids)]
        assert list(mask) == flags
    saw = [(prompt, generation.ids) for prompt, generation in engine.said]
    assert set(saw) >= recorded, "nothing is recorded that was not sampled"
    assert len(recorded) == sum(len(trajectory.steps) for trajectory in trajectories)
    assert len(trajectories) == 0 or len(saw) - len(recorded) <= 8, "but for what was being sampled at the end"


@pytest.mark.parametrize("name", ["json_call", "qwen2.5"])
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_stream_begins_with_what_the_format_writes_of_its_first_request(name: str, seed: int) -> None:
    chosen, format = random.Random(seed), format_of(name)
    messages = [Message(role="system", text=f"You are {chosen.random()}."), Message(role="user", text=TASK.query)]

    async def first() -> Trajectory:
        engine = RandomEngine(name, seed)
        recording = Recording(attempt_of(TASK, engine, None, sampling=SAMPLING, format=format))
        await recording.complete(ChatRequest(messages=tuple(messages), tools=TOOLS))
        return recording.trajectories(Ending(StopReason.call_budget), Outcome())[0]

    trajectory = asyncio.run(first())
    assert trajectory.steps[0].context_ids == format.conversation(messages, TOOLS)
