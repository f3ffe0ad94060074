"""Attempts by messages: the budget, the world, the endings, and what is written down of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from steptool import testing
from steptool.core.plugins import NoSettings
from steptool.core.types import Observation, Outcome, StopReason, ToolCall, Trajectory
from steptool.endpoints.chat import Chat, Reply, TooLong, read_reply
from steptool.endpoints.spoken import Spoken, without_tokens
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from tests.endpoints.fake import says

TASK = testing.task("t1", "Where is order a-1?", testing.tool("find", needs={"id": "string"}))
LOOKS = says(calls=[("find", {"id": "a-1"})])
Said = dict[str, Any] | Exception


class Shop:
    """A session that keeps what happened."""

    def __init__(self, *, user: Sequence[str] = (), breaks: str = "") -> None:
        self.calls: list[ToolCall] = []
        self.answers: list[str | None] = []
        self._user, self._breaks = list(user), breaks

    async def call(self, call: ToolCall) -> Observation:
        self._fail("call")
        self.calls.append(call)
        return Observation(text="x" * 50)

    async def say(self, message: str) -> str | None:
        self._fail("say")
        return self._user.pop(0) if self._user else None

    async def close(self, answer: str | None) -> Outcome:
        self.answers.append(answer)
        self._fail("close")
        return Outcome(solved=float(answer == "shipped"))

    def _fail(self, where: str) -> None:
        if self._breaks == where:
            raise RuntimeError("the shop burns")


def attempt(*script: Said, shop: Shop | None = None, system: str = "") -> tuple[Trajectory, list[Chat]]:
    """The attempt in which the endpoint says this, and the conversations that it was asked with."""
    asked: list[Chat] = []

    async def ask(chat: Chat, tools: Sequence[dict[str, Any]], most: int) -> Reply:
        asked.append(chat)
        said = script[min(len(asked), len(script)) - 1]
        if isinstance(said, Exception):
            raise said
        return read_reply(said)

    session = shop or Shop()
    spoken = Spoken(ask, max_observation=20, system=system)
    made = Attempt(
        task=TASK,
        open=lambda: session,
        act=spoken.act,
        format=spoken,
        conditions=testing.conditions(max_calls=4),
        policy=testing.revision("teacher"),
        seed=3,
        number=3,
        tool_timeout_s=5.0,
    )
    (found,) = asyncio.run(Chain(NoSettings()).attempt(made))
    return without_tokens(found, None), asked


def test_calls_are_made_and_the_last_message_is_the_answer() -> None:
    shop = Shop()
    made, asked = attempt(LOOKS, says("shipped"), shop=shop, system="Be brief.")
    assert (made.stop_reason, made.answer, made.outcome.solved) == (StopReason.finished, "shipped", 1.0)
    assert (made.attempt, made.token_ids, len(made.steps)) == (3, (), 2)
    assert [call.name for call in shop.calls] == ["find"]
    assert made.steps[0].observations[0].text == "x" * 20 + "...", "it sees no more than our policies"
    assert [message["role"] for message in asked[1]] == ["system", "user", "assistant", "tool"]


def test_several_calls_at_once_are_one_action() -> None:
    made, _ = attempt(says(calls=[("find", {"id": "a"}), ("find", {"id": "b"})]), says("shipped"))
    assert [len(step.observations) for step in made.steps] == [2, 0]


def test_a_user_who_replies_keeps_it_going() -> None:
    made, asked = attempt(says("Which one?"), says("shipped"), shop=Shop(user=["a-1"]))
    assert (made.steps[0].reply, made.answer) == ("a-1", "shipped")
    assert asked[1][-2:] == [{"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "a-1"}]


def test_what_cannot_be_read_is_a_step_with_a_hint() -> None:
    made, _ = attempt(says(calls=[("find", "{")]), says("shipped"))
    assert made.steps[0].action.unreadable is not None
    assert [seen.error for seen in made.steps[0].observations] == ["parse_error"]
    assert made.outcome.solved == 1.0


def test_the_last_allowed_action_is_carried_out() -> None:
    shop = Shop()
    made, asked = attempt(LOOKS, shop=shop)
    assert (made.stop_reason, made.answer, made.outcome.solved) == (StopReason.call_budget, None, 0.0)
    assert (len(asked), len(made.steps), len(shop.calls), shop.answers) == (4, 4, 4, [None])


@pytest.mark.parametrize(
    ("fault", "reason", "error"),
    [
        (RuntimeError("gone"), StopReason.engine_error, "RuntimeError: gone"),
        (TooLong("8193 > 8192"), StopReason.token_budget, None),
    ],
)
def test_faults_of_the_endpoint_end_the_attempt(fault: Exception, reason: StopReason, error: str | None) -> None:
    made, _ = attempt(LOOKS, fault)
    assert (made.stop_reason, made.error, len(made.steps)) == (reason, error, 1)


@pytest.mark.parametrize("where", ["call", "say", "close"])
def test_faults_of_the_world_end_the_attempt(where: str) -> None:
    made, _ = attempt(LOOKS, says("shipped"), shop=Shop(breaks=where))
    assert (made.stop_reason, made.error) == (StopReason.world_error, "RuntimeError: the shop burns")
    assert made.answer == ("shipped" if where == "close" else None)
