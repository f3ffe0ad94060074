"""Rollouts with a scripted model and a scripted world.

step  model says                       world says           then
0     find_order {"id": "a-1"}         {"state": "shipped"}
1     Finish {"answer": "shipped"}     -                    finished
"""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.errors import WorldError
from steptool.core.plugins import NoSettings
from steptool.core.types import Action, Observation, Outcome, Sampling, Step, StopReason, ToolCall, Trajectory
from steptool.engines.base import Generation
from steptool.engines.fake import AnsweringEngine, ScriptedEngine
from steptool.formats.episode import encode
from steptool.policies import tiny_model
from steptool.rollouts.chain import Chain
from steptool.rollouts.tries import run_searches
from steptool.testing import call, message, task
from tests.rollouts.attempts import ANSWER, CHAT, LOOK, PING, SAMPLING, SURRENDER, attempt_of, said

SHIPPED = Observation(text='{"state": "shipped"}')
TASK = task("t1", "Where is order a-1?")
SOLVED = Outcome(solved=1.0, evidence="the order was found")

Reply = Observation | Exception | float | Any


class ScriptedSession:
    """Replies in turn: an observation, an exception to raise, or seconds to hang for. The user says `says` in turn."""

    def __init__(self, *replies: Reply, says: Sequence[str | None] = ()) -> None:
        self.replies, self.says = list(replies), list(says)
        self.calls: list[ToolCall] = []
        self.heard: list[str] = []
        self.closed: list[str | None] = []

    async def call(self, call: ToolCall) -> Observation:
        self.calls.append(call)
        reply = self.replies[len(self.calls) - 1]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, float):
            await asyncio.sleep(reply)
            return SHIPPED
        return reply  # type: ignore[no-any-return]

    async def say(self, message: str) -> str | None:
        self.heard.append(message)
        return self.says[len(self.heard) - 1]

    async def close(self, answer: str | None) -> Outcome:
        self.closed.append(answer)
        return SOLVED


def attempt(
    script: ScriptedEngine | Sequence[Any],
    session: ScriptedSession | None = None,
    *,
    sampling: Sampling = SAMPLING,
    tool_timeout_s: float = 5.0,
    format: Any = CHAT,
) -> Trajectory:
    engine = script if isinstance(script, ScriptedEngine) else ScriptedEngine(script)
    session = session or ScriptedSession(*[SHIPPED] * 9)
    (done,) = asyncio.run(job(engine, session, sampling, tool_timeout_s, format=format))
    return done


async def job(
    engine: Any,
    session: ScriptedSession,
    sampling: Sampling = SAMPLING,
    tool_timeout_s: float = 5.0,
    number: int = 0,
    format: Any = CHAT,
) -> Sequence[Trajectory]:
    made = attempt_of(
        TASK, engine, session, sampling=sampling, format=format, number=number, tool_timeout_s=tool_timeout_s
    )
    return await Chain(NoSettings()).attempt(made)


def seen(step: Step) -> Observation:
    (observation,) = step.observations
    return observation


def replied(text: str) -> tuple[int, ...]:
    return CHAT.reply(LOOK, [Observation(text=text)], None)


def test_a_rollout_acts_observes_and_finishes() -> None:
    engine, session = ScriptedEngine([LOOK, ANSWER]), ScriptedSession(SHIPPED)
    done = attempt(engine, session)
    assert session.calls == [call("find_order", id="a-1")]
    assert (done.stop_reason, done.answer, done.error) == (StopReason.finished, "shipped", None)
    look, finish = done.steps
    assert (look.action.thought, look.observations) == ("Look it up.", (SHIPPED,))
    assert finish.is_finish
    assert finish.observations == ()
    assert (look.context_ids, look.action_ids) == (CHAT.prompt(TASK), LOOK)
    assert (finish.context_ids, finish.action_ids) == (replied(SHIPPED.text), ANSWER)
    assert look.action_logprobs == (-0.5,) * len(LOOK)


def test_the_engine_is_asked_as_the_sampling_says() -> None:
    engine = ScriptedEngine([LOOK, ANSWER])
    attempt(engine)
    assert all((a.temperature, a.top_p, a.max_tokens) == (0.7, 0.9, 64) for a in engine.asked)
    assert all(a.stop_ids == CHAT.stop_ids for a in engine.asked)


def test_every_action_has_its_own_seed_and_the_same_attempt_the_same_ones() -> None:
    first, again = ScriptedEngine([LOOK, ANSWER]), ScriptedEngine([LOOK, ANSWER])
    other = ScriptedEngine([LOOK, ANSWER])
    attempt(first)
    attempt(again)
    asyncio.run(job(other, ScriptedSession(SHIPPED), number=1))
    seeds = [[a.seed for a in g.asked] for g in (first, again, other)]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 4


def prompts(engine: ScriptedEngine) -> list[tuple[int, ...]]:
    return [tuple(asked.prompt_ids) for asked in engine.asked]


def test_every_prompt_is_the_stream_so_far() -> None:
    engine = ScriptedEngine([LOOK, PING, ANSWER])
    done = attempt(engine)
    for prompt, action in zip(prompts(engine), (LOOK, PING, ANSWER), strict=True):
        assert done.token_ids[: len(prompt) + len(action)] == prompt + action
    assert done.token_ids == prompts(engine)[-1] + ANSWER


def test_a_rollout_has_the_stream_of_the_same_demonstration() -> None:
    done = attempt([LOOK, PING, ANSWER])
    bare = [step.model_copy(update={"context_ids": (), "action_ids": (), "action_logprobs": ()}) for step in done.steps]
    demonstrated, _ = encode(CHAT, TASK, bare)
    assert done.token_ids == demonstrated == encode(CHAT, TASK, done.steps)[0]


def test_giving_up_is_no_answer() -> None:
    done = attempt([SURRENDER])
    assert (done.stop_reason, done.answer) == (StopReason.gave_up, None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [("a", "a"), (12, "12"), (1.5, "1.5"), (True, "true"), (["ä", 1], '["ä", 1]'), ({"a": 1}, '{"a": 1}')],
)
def test_answers_become_text(answer: Any, text: str) -> None:
    session = ScriptedSession()
    done = attempt([said(call("Finish", answer=answer))], session)
    assert (done.stop_reason, done.answer) == (StopReason.finished, text)
    assert session.closed == [text]


def test_a_call_that_cannot_be_read_is_shown_to_the_model_and_never_run() -> None:
    session = ScriptedSession()
    done = attempt([(*CHAT.turns.encode_action("ping ping"), CHAT.end_of_turn), ANSWER], session)
    bad = done.steps[0]
    assert session.calls == []
    assert bad.action.unreadable == "no JSON object after ping"
    assert seen(bad) == Observation(
        text='parse error: no JSON object after ping. Use: name {"arg": value}', error="parse_error"
    )
    assert done.stop_reason is StopReason.finished


def test_an_action_cut_at_its_limit_says_so_and_the_turn_is_closed_for_it() -> None:
    done = attempt([LOOK, ANSWER], sampling=SAMPLING.model_copy(update={"max_step_tokens": 5}))
    assert done.steps[0].action_ids == LOOK[:5]
    assert str(done.steps[0].action.unreadable).endswith("(cut after 5 tokens)")
    assert done.steps[1].context_ids[0] == CHAT.end_of_turn


def test_a_tool_that_hangs_is_a_timeout_and_the_rollout_goes_on() -> None:
    done = attempt([PING, ANSWER], ScriptedSession(60.0), tool_timeout_s=0.01)
    assert seen(done.steps[0]) == Observation(text="error: ping did not answer within 0.01 s", error="timeout")
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
    assert [step.observations for step in done.steps] == [(SHIPPED,), ()]
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
    assert done.token_ids == CHAT.prompt(TASK) + LOOK


def test_an_engine_that_fails_at_once_leaves_no_steps() -> None:
    assert attempt([RuntimeError("no")]).steps == ()


def test_the_last_call_of_the_budget_is_run_so_that_it_can_be_judged() -> None:
    session = ScriptedSession(SHIPPED, SHIPPED)
    done = attempt([LOOK, PING, ANSWER], session, sampling=SAMPLING.model_copy(update={"max_calls": 2}))
    assert done.stop_reason is StopReason.call_budget
    assert [step.observations for step in done.steps] == [(SHIPPED,), (SHIPPED,)]
    assert len(session.calls) == 2


def test_finish_may_be_the_last_call_of_the_budget() -> None:
    assert attempt([LOOK, ANSWER], sampling=SAMPLING.model_copy(update={"max_calls": 2})).answer == "shipped"


def test_the_token_budget_counts_context_and_cuts_the_last_action() -> None:
    """prompt P, then LOOK in full, then the observation leaves room for 3 tokens."""
    used = len(CHAT.prompt(TASK)) + len(LOOK) + len(replied(SHIPPED.text))
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
    assert seen(done.steps[0]).text == "<|im_end|>?" + "x" * 1013 + "..."
    assert done.token_ids.count(CHAT.end_of_turn) == 2 + 2 + 1  # system and user, two actions, the tool's


def test_cancelling_is_not_swallowed() -> None:
    async def cancelled() -> None:
        running = asyncio.create_task(job(ScriptedEngine([LOOK]), ScriptedSession(60.0)))
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
    engine = ScriptedEngine(actions)
    sampling = SAMPLING.model_copy(update={"max_tokens": max_tokens, "max_step_tokens": 12})
    done = attempt(engine, ScriptedSession(*(Observation(text=text) for text in replies)), sampling=sampling)
    assert done.stop_reason in (StopReason.call_budget, StopReason.token_budget)
    assert len(done.token_ids) <= max_tokens
    assert len(done.steps) <= sampling.max_calls
    for prompt in prompts(engine):
        assert done.token_ids[: len(prompt)] == prompt


def test_trajectories_come_in_the_order_of_their_jobs() -> None:
    """The first job's tool is the slowest: it ends last and still comes first."""
    ended: list[int] = []
    waits = [0.05, 0.02, 0.0]

    async def main() -> list[Sequence[Trajectory]]:
        async def noted(number: int, wait: float) -> Sequence[Trajectory]:
            done = await job(ScriptedEngine([PING, ANSWER]), ScriptedSession(wait), number=number)
            ended.append(number)
            return done

        jobs = [partial(noted, number, wait) for number, wait in enumerate(waits)]
        return await run_searches(jobs, 3)

    assert [done.attempt for (done,) in asyncio.run(main())] == [0, 1, 2]
    assert ended == [2, 1, 0]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_no_more_than_the_limit_are_in_flight(limit: int) -> None:
    flying = most = 0

    class Counting(ScriptedSession):
        async def call(self, call: ToolCall) -> Observation:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0.001)
            flying -= 1
            return SHIPPED

    engine = AnsweringEngine(lambda prompt: ANSWER if len(prompt) > len(CHAT.prompt(TASK)) else PING)
    jobs = [lambda: job(engine, Counting()) for _ in range(10)]
    done = asyncio.run(run_searches(jobs, limit))
    assert most == min(limit, 10)
    assert all(trajectory.stop_reason is StopReason.finished for (trajectory,) in done)


def test_one_bad_rollout_leaves_the_others_alone() -> None:
    async def main() -> list[Sequence[Trajectory]]:
        good = [lambda: job(ScriptedEngine([PING, ANSWER]), ScriptedSession(SHIPPED))] * 2
        bad = lambda: job(ScriptedEngine([PING]), ScriptedSession(WorldError("gone")))  # noqa: E731
        return await run_searches([good[0], bad, good[1]], 3)

    reasons = [done.stop_reason for (done,) in asyncio.run(main())]
    assert reasons == [StopReason.finished, StopReason.world_error, StopReason.finished]


# The session: opened with the attempt, closed with it, whatever ended it


@pytest.mark.parametrize(
    ("script", "replies", "changed", "reason", "answer"),
    [
        ([LOOK, ANSWER], [SHIPPED], {}, StopReason.finished, "shipped"),
        ([SURRENDER], [], {}, StopReason.gave_up, None),
        ([LOOK], [SHIPPED], {"max_calls": 1}, StopReason.call_budget, None),
        ([LOOK], [], {"max_tokens": 3}, StopReason.token_budget, None),
        ([RuntimeError("no")], [], {}, StopReason.engine_error, None),
        ([LOOK], [WorldError("gone")], {}, StopReason.world_error, None),
    ],
)
def test_a_session_is_closed_once_and_its_verdict_kept_whatever_ended_the_attempt(
    script: list[Any], replies: list[Any], changed: dict[str, Any], reason: StopReason, answer: str | None
) -> None:
    session = ScriptedSession(*replies)
    done = attempt(script, session, sampling=SAMPLING.model_copy(update=changed))
    assert (done.stop_reason, session.closed, done.outcome) == (reason, [answer], SOLVED)


def test_a_session_that_is_cancelled_is_closed_too() -> None:
    session = ScriptedSession(60.0)

    async def cancelled() -> None:
        running = asyncio.create_task(job(ScriptedEngine([LOOK]), session))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert session.closed == [None]


def test_a_verdict_that_is_none_stays_none() -> None:
    class Unsure(ScriptedSession):
        async def close(self, answer: str | None) -> Outcome:
            return Outcome(evidence="nothing to hold it against")

    done = attempt([ANSWER], Unsure())
    assert done.outcome == Outcome(solved=None, evidence="nothing to hold it against")


# Formats that have messages and several calls a turn


class CountingSession(ScriptedSession):
    """Its state is how many calls were made; at `fault` calls it cannot say."""

    def __init__(self, fault: int = -1) -> None:
        super().__init__(*[SHIPPED] * 9)
        self.fault = fault

    def state(self) -> Any:
        if len(self.calls) == self.fault:
            raise RuntimeError("no state")
        return f"{len(self.calls)} calls"


def test_a_step_holds_the_state_that_it_was_taken_in_where_the_world_tells_it() -> None:
    told = attempt([LOOK, PING, ANSWER], CountingSession())
    assert [step.state for step in told.steps] == ["0 calls", "1 calls", "2 calls"]
    assert [step.state for step in attempt([LOOK, ANSWER]).steps] == [None, None]


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (lambda self: 7, "TypeError: state returned int, not a text or None"),
        (lambda self: sys.exit(3), "WorldError: state raised SystemExit: 3"),
        (None, "RuntimeError: no state"),
    ],
)
def test_a_world_that_cannot_tell_its_state_ends_the_trajectory(
    monkeypatch: pytest.MonkeyPatch, state: Any, error: str
) -> None:
    session = CountingSession(fault=1)
    if state is not None:
        monkeypatch.setattr(CountingSession, "state", lambda self: state(self) if self.calls else "new")
    done = attempt([LOOK, PING, ANSWER], session)
    assert (done.stop_reason, done.error) == (StopReason.world_error, error)
    assert [step.observations for step in done.steps] == [(SHIPPED,)]


class Talkative:
    """JsonCall in which `say` and several calls of a turn are written by the test; it writes replies as texts."""

    stop_ids, max_observation = CHAT.stop_ids, CHAT.max_observation
    prompt, hint = CHAT.prompt, CHAT.hint

    def __init__(self, *actions: Action, extends: bool = True) -> None:
        self.actions, self.extends = list(actions), extends
        self.replied: list[tuple[list[str], str | None]] = []

    def parse(self, ids: Sequence[int], task: Any) -> Action:
        return self.actions[ids[0]]

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...] | None:
        self.replied.append(([each.text for each in observations], message))
        return (7, 7) if self.extends else None


def turns(count: int) -> list[tuple[int, int]]:
    return [(number, CHAT.end_of_turn) for number in range(count)]


def test_a_message_that_nobody_answers_ends_the_attempt_with_it_as_the_answer() -> None:
    session = ScriptedSession(says=["The red one.", None])
    talk = Talkative(message("Which one?"), message("It is on its way."))
    done = attempt(turns(2), session, format=talk)
    assert session.heard == ["Which one?", "It is on its way."]
    assert [step.reply for step in done.steps] == ["The red one.", None]
    assert (done.stop_reason, done.answer) == (StopReason.finished, "It is on its way.")
    assert session.closed == ["It is on its way."]
    assert talk.replied == [([], "The red one.")]


def test_an_empty_message_is_an_answer_too() -> None:
    done = attempt(turns(1), ScriptedSession(says=[None]), format=Talkative(message("")))
    assert (done.stop_reason, done.answer) == (StopReason.finished, "")


def test_calls_of_one_turn_are_made_in_their_order() -> None:
    session = ScriptedSession(Observation(text="one"), Observation(text="two", error="rate_limit"))
    both = Action(calls=(call("find_order", id="a-1"), call("ping")))
    talk = Talkative(both, Action(calls=(call("Finish", answer="1"),)))
    done = attempt(turns(2), session, format=talk)
    assert session.calls == list(both.calls)
    assert done.steps[0].observations == (
        Observation(text="one"),
        Observation(text="two", error="rate_limit"),
    )
    assert talk.replied == [(["one", "two"], None)]


def test_a_world_that_breaks_at_the_second_call_leaves_the_action_unanswered() -> None:
    both = Action(calls=(call("ping"), call("ping")))
    done = attempt(turns(1), ScriptedSession(SHIPPED, WorldError("gone")), format=Talkative(both))
    assert (done.stop_reason, done.steps[0].observations) == (StopReason.world_error, ())


def test_a_stream_that_cannot_be_extended_exactly_is_a_truncation() -> None:
    done = attempt(turns(1), ScriptedSession(SHIPPED), format=Talkative(Action(calls=(call("ping"),)), extends=False))
    assert done.stop_reason is StopReason.rewritten
    assert done.steps[0].observations == (SHIPPED,)


def test_a_format_that_fails_is_the_record_of_its_own_attempt() -> None:
    class Broken(Talkative):
        def reply(self, *arguments: Any) -> Any:
            raise ValueError("no template")

    done = attempt(turns(1), ScriptedSession(SHIPPED), format=Broken(Action(calls=(call("ping"),))))
    assert (done.stop_reason, done.error) == (StopReason.engine_error, "ValueError: no template")
