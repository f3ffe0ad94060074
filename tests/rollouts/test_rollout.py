"""Rollouts with a scripted model and a scripted world.

step  model says                       world says           then
0     find_order {"id": "a-1"}         {"state": "shipped"}
1     Finish {"answer": "shipped"}     -                    finished
"""

import asyncio
from collections.abc import Sequence
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.errors import WorldError
from steptool.core.types import Observation, Revision, Sampling, StopReason, Task, ToolCall, Trajectory
from steptool.engines.fake import AnsweringGenerator, ScriptedGenerator
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.rollouts.rollout import Generation, finish_answer, rollout, run_rollouts

CHAT = ChatFormat(tiny_model.tokenizer())
LOOK = CHAT.render_action("Look it up.", ToolCall(name="find_order", arguments={"id": "a-1"}))
PING = CHAT.render_action("", ToolCall(name="ping", arguments={}))
ANSWER = CHAT.render_action("", ToolCall(name="Finish", arguments={"answer": "shipped"}))
SURRENDER = CHAT.render_action("", ToolCall(name="Finish", arguments={"give_up": True}))
SHIPPED = Observation(text='{"state": "shipped"}')
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_calls=4, max_step_tokens=64, max_tokens=2048)
TASK = Task(id="t1", subset="G1_tool", query="Where is order a-1?", tools=())

Reply = Observation | Exception | float | Any


class ScriptedSession:
    """Replies in turn: an observation, an exception to raise, or seconds to hang for."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(self, name: str, arguments: dict[str, Any]) -> Observation:
        self.calls.append((name, arguments))
        reply = self.replies[len(self.calls) - 1]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, float):
            await asyncio.sleep(reply)
            return SHIPPED
        return reply  # type: ignore[no-any-return]

    def verify(self, answer: str | None) -> float | None:
        return None


def attempt(
    script: ScriptedGenerator | Sequence[Any],
    session: ScriptedSession | None = None,
    *,
    sampling: Sampling = SAMPLING,
    tool_timeout_s: float = 5.0,
) -> Trajectory:
    generator = script if isinstance(script, ScriptedGenerator) else ScriptedGenerator(script)
    return asyncio.run(job(generator, session or ScriptedSession(*[SHIPPED] * 9), sampling, tool_timeout_s))


async def job(
    generator: Any,
    session: ScriptedSession,
    sampling: Sampling = SAMPLING,
    tool_timeout_s: float = 5.0,
    number: int = 0,
) -> Trajectory:
    return await rollout(
        TASK,
        lambda: session,
        generator,
        CHAT,
        sampling,
        policy=Revision(name="p", revision="1"),
        world=Revision(name="w", revision="1"),
        seed=3,
        attempt=number,
        tool_timeout_s=tool_timeout_s,
    )


def test_a_rollout_acts_observes_and_finishes() -> None:
    generator, session = ScriptedGenerator([LOOK, ANSWER]), ScriptedSession(SHIPPED)
    done = attempt(generator, session)
    assert session.calls == [("find_order", {"id": "a-1"})]
    assert (done.stop_reason, done.answer, done.error) == (StopReason.finished, "shipped", None)
    look, finish = done.steps
    assert (look.thought, look.observation) == ("Look it up.", SHIPPED)
    assert finish.is_finish
    assert finish.observation is None
    assert (look.context_ids, look.action_ids) == (CHAT.prompt_ids(TASK), LOOK)
    assert (finish.context_ids, finish.action_ids) == (CHAT.observation_ids(SHIPPED.text, True), ANSWER)
    assert look.action_logprobs == (-0.5,) * len(LOOK)


def test_the_engine_is_asked_as_the_sampling_says() -> None:
    generator = ScriptedGenerator([LOOK, ANSWER])
    attempt(generator)
    assert all((a["temperature"], a["top_p"], a["max_tokens"]) == (0.7, 0.9, 64) for a in generator.asked)
    assert all(a["stop_ids"] == CHAT.stop_ids for a in generator.asked)


def test_every_action_has_its_own_seed_and_the_same_attempt_the_same_ones() -> None:
    first, again = ScriptedGenerator([LOOK, ANSWER]), ScriptedGenerator([LOOK, ANSWER])
    other = ScriptedGenerator([LOOK, ANSWER])
    attempt(first)
    attempt(again)
    asyncio.run(job(other, ScriptedSession(SHIPPED), number=1))
    seeds = [[a["seed"] for a in g.asked] for g in (first, again, other)]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 4


def test_every_prompt_is_the_stream_so_far() -> None:
    generator = ScriptedGenerator([LOOK, PING, ANSWER])
    done = attempt(generator)
    for prompt, action in zip(generator.prompts, (LOOK, PING, ANSWER), strict=True):
        assert done.token_ids[: len(prompt) + len(action)] == prompt + action
    assert done.token_ids == generator.prompts[-1] + ANSWER


def test_a_rollout_has_the_stream_of_the_same_demonstration() -> None:
    done = attempt([LOOK, PING, ANSWER])
    bare = [step.model_copy(update={"context_ids": (), "action_ids": (), "action_logprobs": ()}) for step in done.steps]
    demonstrated, _ = CHAT.encode(TASK, bare)
    assert done.token_ids == demonstrated == CHAT.encode(TASK, done.steps)[0]


def test_giving_up_is_no_answer() -> None:
    done = attempt([SURRENDER])
    assert (done.stop_reason, done.answer) == (StopReason.gave_up, None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [("a", "a"), (12, "12"), (1.5, "1.5"), (True, "true"), (["ä", 1], '["ä", 1]'), ({"a": 1}, '{"a": 1}')],
)
def test_answers_become_text(answer: Any, text: str) -> None:
    assert finish_answer({"answer": answer}) == text


def test_an_answer_that_is_a_number_finishes() -> None:
    assert attempt([CHAT.render_action("", ToolCall(name="Finish", arguments={"answer": 12}))]).answer == "12"


def test_a_call_that_cannot_be_read_is_shown_to_the_model_and_never_run() -> None:
    session = ScriptedSession()
    done = attempt([(*CHAT._encode_text("ping ping"), CHAT.end_of_turn), ANSWER], session)
    bad = done.steps[0]
    assert session.calls == []
    assert bad.call is None
    assert bad.parse_error == "no JSON object after ping"
    assert bad.observation == Observation(
        text='parse error: no JSON object after ping. Use: name {"arg": value}', error="parse_error"
    )
    assert done.stop_reason is StopReason.finished


def test_an_action_cut_at_its_limit_says_so_and_the_turn_is_closed_for_it() -> None:
    done = attempt([LOOK, ANSWER], sampling=SAMPLING.model_copy(update={"max_step_tokens": 5}))
    assert done.steps[0].action_ids == LOOK[:5]
    assert str(done.steps[0].parse_error).endswith("(cut after 5 tokens)")
    assert done.steps[1].context_ids[0] == CHAT.end_of_turn


def test_a_tool_that_hangs_is_a_timeout_and_the_rollout_goes_on() -> None:
    done = attempt([PING, ANSWER], ScriptedSession(60.0), tool_timeout_s=0.01)
    assert done.steps[0].observation == Observation(text="error: ping did not answer within 0.01 s", error="timeout")
    assert done.stop_reason is StopReason.finished


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (WorldError("database gone"), "WorldError: database gone"),
        (KeyError("oops"), "KeyError: 'oops'"),
        (TimeoutError("socket"), "TimeoutError: socket"),
        (RecursionError(), "RecursionError: "),
        ("just text", "TypeError: ping returned str, not an Observation"),
        (None, "TypeError: ping returned NoneType, not an Observation"),
    ],
)
def test_a_broken_world_ends_the_trajectory_and_keeps_the_action(fault: Any, error: str) -> None:
    done = attempt([LOOK, PING, ANSWER], ScriptedSession(SHIPPED, fault))
    assert (done.stop_reason, done.error) == (StopReason.world_error, error)
    assert [step.observation for step in done.steps] == [SHIPPED, None]
    assert not done.stop_reason.terminated


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (Generation((), (), False), "ValueError: the engine returned no tokens"),
        (Generation((5, 6), (-1.0,), False), "ValueError: the engine returned 2 tokens but 1 log-probabilities"),
        (Generation((5,), (nan,), False), "ValueError: the engine returned a log-probability that is not finite"),
        (Generation((5,), (-inf,), False), "ValueError: the engine returned a log-probability that is not finite"),
    ],
)
def test_a_broken_engine_ends_the_trajectory_with_what_there_was(fault: Any, error: str) -> None:
    done = attempt([LOOK, fault])
    assert (done.stop_reason, done.error) == (StopReason.engine_error, error)
    assert len(done.steps) == 1
    assert done.token_ids == CHAT.prompt_ids(TASK) + LOOK


def test_an_engine_that_fails_at_once_leaves_no_steps() -> None:
    assert attempt([RuntimeError("no")]).steps == ()


def test_the_last_call_of_the_budget_is_run_so_that_it_can_be_judged() -> None:
    session = ScriptedSession(SHIPPED, SHIPPED)
    done = attempt([LOOK, PING, ANSWER], session, sampling=SAMPLING.model_copy(update={"max_calls": 2}))
    assert done.stop_reason is StopReason.call_budget
    assert [step.observation for step in done.steps] == [SHIPPED, SHIPPED]
    assert len(session.calls) == 2


def test_finish_may_be_the_last_call_of_the_budget() -> None:
    assert attempt([LOOK, ANSWER], sampling=SAMPLING.model_copy(update={"max_calls": 2})).answer == "shipped"


def test_the_token_budget_counts_context_and_cuts_the_last_action() -> None:
    """prompt P, then LOOK in full, then the observation leaves room for 3 tokens."""
    used = len(CHAT.prompt_ids(TASK)) + len(LOOK) + len(CHAT.observation_ids(SHIPPED.text, True))
    done = attempt([LOOK, ANSWER], sampling=SAMPLING.model_copy(update={"max_tokens": used + 3}))
    assert done.stop_reason is StopReason.token_budget
    assert len(done.token_ids) == used + 3
    assert done.steps[1].action_ids == ANSWER[:3]


def test_no_room_for_the_prompt_is_a_trajectory_without_steps() -> None:
    done = attempt([LOOK], sampling=SAMPLING.model_copy(update={"max_tokens": 3}))
    assert (done.stop_reason, done.steps) == (StopReason.token_budget, ())


def test_hostile_tool_output_is_kept_short_and_valid() -> None:
    hostile = Observation(text="<|im_end|>\ud800" + "x" * 10_000)
    done = attempt([LOOK, ANSWER], ScriptedSession(hostile))
    seen = done.steps[0].observation
    assert seen is not None
    assert seen.text == "<|im_end|>?" + "x" * 1013 + "..."
    assert done.token_ids.count(CHAT.end_of_turn) == 2 + 2 + 1  # system and user, two actions, the tool's


def test_cancelling_is_not_swallowed() -> None:
    async def cancelled() -> None:
        running = asyncio.create_task(job(ScriptedGenerator([LOOK]), ScriptedSession(60.0)))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())


@given(
    actions=st.lists(
        st.lists(st.integers(0, tiny_model.VOCABULARY - 1), min_size=1, max_size=20), min_size=9, max_size=9
    ),
    replies=st.lists(st.text(max_size=30), min_size=9, max_size=9),
    max_tokens=st.integers(1, 500),
)
@settings(max_examples=60)
def test_whatever_is_sampled_and_replied_gives_a_valid_trajectory(
    actions: list[list[int]], replies: list[str], max_tokens: int
) -> None:
    generator = ScriptedGenerator(actions)
    sampling = SAMPLING.model_copy(update={"max_tokens": max_tokens, "max_step_tokens": 12})
    done = attempt(generator, ScriptedSession(*(Observation(text=text) for text in replies)), sampling=sampling)
    assert done.stop_reason in (StopReason.call_budget, StopReason.token_budget)
    assert len(done.token_ids) <= max_tokens
    assert len(done.steps) <= sampling.max_calls
    for prompt in generator.prompts:
        assert done.token_ids[: len(prompt)] == prompt


def test_trajectories_come_in_the_order_of_their_jobs() -> None:
    """The first job's tool is the slowest: it ends last and still comes first."""
    ended: list[int] = []
    waits = [0.05, 0.02, 0.0]

    async def main() -> list[Trajectory]:
        jobs = [
            lambda number=number, wait=wait: job(
                ScriptedGenerator([PING, ANSWER]), ScriptedSession(wait), number=number
            )
            for number, wait in enumerate(waits)
        ]
        return await run_rollouts(jobs, 3, lambda done: ended.append(done.attempt))

    assert [done.attempt for done in asyncio.run(main())] == [0, 1, 2]
    assert ended == [2, 1, 0]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_no_more_than_the_limit_are_in_flight(limit: int) -> None:
    flying = most = 0

    class Counting(ScriptedSession):
        async def call(self, name: str, arguments: dict[str, Any]) -> Observation:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0.001)
            flying -= 1
            return SHIPPED

    generator = AnsweringGenerator(lambda prompt: ANSWER if len(prompt) > len(CHAT.prompt_ids(TASK)) else PING)
    jobs = [lambda: job(generator, Counting()) for _ in range(10)]
    done = asyncio.run(run_rollouts(jobs, limit))
    assert most == min(limit, 10)
    assert all(trajectory.stop_reason is StopReason.finished for trajectory in done)


def test_one_bad_rollout_leaves_the_others_alone() -> None:
    async def main() -> list[Trajectory]:
        good = [lambda: job(ScriptedGenerator([PING, ANSWER]), ScriptedSession(SHIPPED))] * 2
        bad = lambda: job(ScriptedGenerator([PING]), ScriptedSession(WorldError("gone")))  # noqa: E731
        return await run_rollouts([good[0], bad, good[1]], 3)

    reasons = [done.stop_reason for done in asyncio.run(main())]
    assert reasons == [StopReason.finished, StopReason.world_error, StopReason.finished]
