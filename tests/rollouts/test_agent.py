"""Attempts that an agent of its own makes, through a real gateway and an engine that follows a script.

agent asks              model says                      then
user                    find_order {"id": "a-1"}        a call for the agent
user, call, reply       Finish {"answer": "shipped"}    a message for the agent, which ends
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError

from steptool.core.errors import WorldError
from steptool.core.messages import GAVE_UP, Message
from steptool.core.types import Observation, Outcome, StopReason, Task
from steptool.engines.fake import AnsweringEngine, ScriptedEngine
from steptool.gateway.base import ChatRequest, Refused
from steptool.rollouts import recording
from steptool.rollouts.ending import Ending
from steptool.testing import call, task
from steptool.worlds.base import AgentFailed
from tests.rollouts.agents import MUMBLE, SHIPPED, TASK, TOOLS, Session, ask, attempt, job, loop, running
from tests.rollouts.attempts import ANSWER, CHAT, LOOK, PING, SAMPLING, SURRENDER, attempt_of, said


def test_an_agents_attempt_is_recorded_as_a_rollout_of_our_own_is() -> None:
    engine, session = ScriptedEngine([LOOK, ANSWER]), Session(loop)
    (done,) = attempt(engine, session)
    assert (done.stop_reason, done.answer, done.outcome.solved) == (StopReason.finished, "shipped", 1.0)
    look, finish = done.steps
    assert look.context_ids == CHAT.prompt(TASK)
    assert (look.action.thought, look.action.calls) == ("Look it up.", (call("find_order", id="a-1"),))
    assert look.observations == (Observation(text=SHIPPED),)
    assert finish.context_ids == CHAT.reply(LOOK, look.observations, None)
    assert finish.is_finish and not finish.observations
    assert done.token_ids == (*CHAT.prompt(TASK), *LOOK, *finish.context_ids, *ANSWER)
    assert session.closed == ["shipped"]
    assert session.seen == [(call("find_order", id="a-1"), Observation(text=SHIPPED))]
    assert [tuple(request.prompt_ids) for request in engine.asked] == [
        CHAT.prompt(TASK),
        (*CHAT.prompt(TASK), *LOOK, *finish.context_ids),
    ]


def test_the_agent_gets_calls_thoughts_and_the_answer() -> None:
    got: list[Any] = []

    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        got.append(await ask(client, messages))
        messages.append({"role": "tool", "tool_call_id": got[0].tool_calls[0].id, "content": "?"})
        got.append(await ask(client, messages))

    attempt(ScriptedEngine([LOOK, ANSWER]), Session(program))
    first, second = got
    assert first.content == "Look it up."
    assert (first.tool_calls[0].function.name, first.tool_calls[0].function.arguments) == (
        "find_order",
        '{"id": "a-1"}',
    )
    assert (second.content, second.tool_calls) == ("shipped", None)


def test_an_answer_of_its_own_stands_above_the_last_message() -> None:
    async def program(client: AsyncOpenAI) -> str:
        await loop(client)
        return "It is shipped."

    (done,) = attempt(ScriptedEngine([ANSWER]), session := Session(program))
    assert (done.stop_reason, done.answer, session.closed) == (
        StopReason.finished,
        "It is shipped.",
        ["It is shipped."],
    )


def test_an_agent_may_end_with_a_call() -> None:
    """A framework that takes the arguments of `final_answer` for the answer."""

    async def program(client: AsyncOpenAI) -> str:
        await ask(client, [{"role": "user", "content": TASK.query}])
        return "7"

    (done,) = attempt(ScriptedEngine([LOOK]), Session(program))
    assert (done.stop_reason, done.answer, done.steps[0].observations) == (StopReason.finished, "7", ())


def test_text_that_cannot_be_read_may_be_the_answer() -> None:
    (done,) = attempt(ScriptedEngine([MUMBLE]), Session(loop))
    assert (done.stop_reason, done.answer) == (StopReason.finished, "Well, now.")
    assert done.steps[0].action.unreadable is not None


def test_what_follows_text_that_cannot_be_read_is_its_observation() -> None:
    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        await ask(client, messages)
        messages.append({"role": "user", "content": "Call a tool."})
        await ask(client, messages)

    (done,) = attempt(ScriptedEngine([MUMBLE, ANSWER]), Session(program))
    assert done.steps[0].observations == (Observation(text="Call a tool.", error="parse_error"),)
    assert done.steps[1].context_ids == CHAT.reply(MUMBLE, done.steps[0].observations, None)


def test_giving_up_is_said_and_recorded() -> None:
    (done,) = attempt(ScriptedEngine([SURRENDER]), session := Session(loop))
    assert (done.stop_reason, done.answer, session.closed) == (StopReason.gave_up, None, [None])

    async def program(client: AsyncOpenAI) -> str:
        message = await ask(client, [{"role": "user", "content": TASK.query}])
        assert message.content == GAVE_UP
        return "I looked it up myself: shipped"

    (done,) = attempt(ScriptedEngine([SURRENDER]), Session(program))
    assert (done.stop_reason, done.answer) == (StopReason.finished, "I looked it up myself: shipped")


def test_the_failure_of_a_tool_is_read_from_its_reply() -> None:
    async def program(client: AsyncOpenAI) -> None:
        await loop(client, reply='{"error": "rate_limit"}')

    (done,) = attempt(ScriptedEngine([LOOK, ANSWER]), Session(program))
    assert done.steps[0].observations[0].error == "rate_limit"


# Histories that are rewritten


def test_a_rewritten_history_begins_a_new_stream() -> None:
    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        message = await ask(client, messages)
        messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": SHIPPED})
        await ask(client, [messages[0], {"role": "user", "content": "So far: it is shipped."}])

    first, old = attempt(ScriptedEngine([LOOK, ANSWER]), session := Session(program))
    assert (first.stop_reason, len(first.steps)) == (StopReason.finished, 1)
    assert (old.stop_reason, len(old.steps), old.answer) == (StopReason.rewritten, 1, None)
    assert first.outcome == old.outcome
    assert session.seen == [], "what the tool replied, the agent told nobody"


def test_a_reply_that_stands_in_another_stream_is_known_all_the_same() -> None:
    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "system", "content": "It is 10:01."}, {"role": "user", "content": TASK.query}]
        message = await ask(client, messages)
        messages[0] = {"role": "system", "content": "It is 10:02."}
        messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": SHIPPED})
        await ask(client, messages)

    _, old = attempt(ScriptedEngine([LOOK, ANSWER]), session := Session(program))
    assert (old.stop_reason, old.answer) == (StopReason.finished, "Look it up."), "it handed over, as to another agent"
    assert session.seen == [(call("find_order", id="a-1"), Observation(text=SHIPPED))]


def test_sub_agents_are_streams_of_their_own_that_finish() -> None:
    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        message = await ask(client, messages)
        await ask(client, [{"role": "system", "content": "You find."}, {"role": "user", "content": "Find a-1"}])
        messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "shipped"})
        await ask(client, messages)

    main, sub = attempt(ScriptedEngine([LOOK, ANSWER, ANSWER]), Session(program))
    assert (len(main.steps), main.stop_reason) == (2, StopReason.finished)
    assert (len(sub.steps), sub.stop_reason, sub.answer) == (1, StopReason.finished, "shipped")


def test_tools_that_are_not_to_be_called_are_not_offered() -> None:
    async def program(client: AsyncOpenAI) -> None:
        await ask(client, [{"role": "user", "content": TASK.query}], tool_choice="none")

    (done,) = attempt(ScriptedEngine([ANSWER]), Session(program))
    assert done.steps[0].context_ids == CHAT.prompt(TASK.model_copy(update={"tools": ()}))


# Retries and streams


def test_a_request_that_is_sent_again_gets_the_same_reply() -> None:
    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        several = await asyncio.gather(*(ask(client, list(messages)) for _ in range(4)))
        several.append(await ask(client, messages))
        assert len({message.tool_calls[0].id for message in several}) == 1

    engine = ScriptedEngine([PING])
    (done,) = attempt(engine, Session(program))
    assert (len(engine.asked), len(done.steps)) == (1, 1)


def test_a_request_that_never_ends_being_sent_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "ENDING_S", 0.2)

    codes: list[str | None] = []

    async def program(client: AsyncOpenAI) -> None:
        while True:
            try:
                await ask(client, [{"role": "user", "content": TASK.query}])
            except BadRequestError as refused:
                codes.append(refused.code)
                await asyncio.sleep(0.01)

    (done,) = attempt(ScriptedEngine([MUMBLE]), session := Session(program))
    assert (done.stop_reason, len(done.steps), session.was_cancelled) == (StopReason.call_budget, 1, True)
    assert set(codes) == {"repeated_request"}


def test_a_stream_that_the_client_closes_is_recorded() -> None:
    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        stream = await client.chat.completions.create(model="x", messages=messages, tools=TOOLS, stream=True)
        async for _ in stream:
            break
        await stream.close()

    (done,) = attempt(ScriptedEngine([LOOK]), Session(program))
    assert [step.action.calls for step in done.steps] == [(call("find_order", id="a-1"),)]


# Budgets


def test_the_budget_of_calls_is_the_whole_attempts() -> None:
    sampling = SAMPLING.model_copy(update={"max_calls": 2})
    (done,) = attempt(ScriptedEngine([LOOK, PING]), session := Session(loop), sampling=sampling)
    assert (done.stop_reason, done.answer, len(done.steps)) == (StopReason.call_budget, None, 2)
    assert done.steps[-1].observations == (Observation(text=SHIPPED),), "the last call was carried out"
    assert session.closed == [None]


def test_an_agent_that_goes_on_after_its_budget_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "ENDING_S", 0.2)

    codes: list[str | None] = []

    async def program(client: AsyncOpenAI) -> None:
        messages: list[Any] = [{"role": "user", "content": TASK.query}]
        for number in range(1_000_000):
            try:
                await ask(client, messages)
            except BadRequestError as refused:
                codes.append(refused.code)
                await asyncio.sleep(0.01)
            messages = [{"role": "user", "content": f"Again, {number}"}]

    sampling = SAMPLING.model_copy(update={"max_calls": 1})
    (done,) = attempt(ScriptedEngine([LOOK]), session := Session(program), sampling=sampling)
    assert (done.stop_reason, session.was_cancelled) == (StopReason.call_budget, True)
    assert set(codes) == {"insufficient_quota"}


def test_an_agent_may_answer_by_itself_where_its_budget_is_used_up_but_that_is_none_of_the_policys() -> None:
    async def program(client: AsyncOpenAI) -> str:
        try:
            return str(await loop(client))
        except APIStatusError:
            return "shipped"

    sampling = SAMPLING.model_copy(update={"max_calls": 1})
    (done,) = attempt(ScriptedEngine([LOOK]), session := Session(program), sampling=sampling)
    assert (done.stop_reason, done.answer, session.closed) == (StopReason.call_budget, None, [None])


def test_an_agent_whose_conversation_is_full_may_go_on_with_a_shorter_one() -> None:
    prompt = len(CHAT.prompt(TASK))
    sampling = SAMPLING.model_copy(update={"max_tokens": prompt + len(LOOK) + 4})

    codes: list[str | None] = []

    async def program(client: AsyncOpenAI) -> None:
        try:
            await loop(client)
        except BadRequestError as refused:
            codes.append(refused.code)
            await ask(client, [{"role": "user", "content": TASK.query}, {"role": "user", "content": "-"}], tools=[])

    first, full = attempt(ScriptedEngine([LOOK, ANSWER]), Session(program), sampling=sampling)
    assert (first.stop_reason, first.answer) == (StopReason.finished, "shipped")
    assert full.stop_reason is StopReason.rewritten
    assert codes == ["context_length_exceeded"]

    (done,) = attempt(ScriptedEngine([LOOK]), Session(loop), sampling=sampling)
    assert done.stop_reason is StopReason.token_budget


def test_a_request_that_is_refused_again_has_met_its_budget_again() -> None:
    async def program(client: AsyncOpenAI) -> str:
        long: Any = [{"role": "user", "content": "What? " * 3000}]
        for is_last in (False, True):
            with pytest.raises(BadRequestError) as refused:
                await client.chat.completions.create(model="policy", messages=long)
            assert refused.value.code == "context_length_exceeded"
            if not is_last:
                await ask(client, [{"role": "user", "content": "What?"}])
        return "no idea"

    (done,) = attempt(ScriptedEngine([LOOK]), Session(program))
    assert (done.stop_reason, done.answer) == (StopReason.token_budget, None)


def test_a_limit_of_the_agents_own_shortens_a_reply() -> None:
    async def program(client: AsyncOpenAI) -> None:
        made = await client.chat.completions.create(
            model="x", messages=[{"role": "user", "content": TASK.query}], max_tokens=3, temperature=0, seed=1
        )
        assert (made.choices[0].finish_reason, made.usage and made.usage.completion_tokens) == ("length", 3)

    engine = ScriptedEngine([LOOK])
    (done,) = attempt(engine, Session(program))
    assert done.steps[0].action_ids == LOOK[:3]
    assert (engine.asked[0].temperature, engine.asked[0].max_tokens) == (0.7, 3), "the project samples, not the agent"


# Failures


def test_an_agent_that_fails_after_it_acted_has_not_solved_its_task() -> None:
    async def program(client: AsyncOpenAI) -> None:
        await ask(client, [{"role": "user", "content": TASK.query}])
        raise AgentFailed("exit status 1: KeyError: 'id'")

    (done,) = attempt(ScriptedEngine([LOOK]), session := Session(program))
    assert (done.stop_reason, done.answer) == (StopReason.call_budget, None)
    assert done.error == "the agent failed: exit status 1: KeyError: 'id'"
    assert session.closed == [None]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (None, "the agent ended, without an action of the policy: it sent no request"),
        (AgentFailed("exit status 3"), "the agent failed: exit status 3, without an action of the policy: it sent no"),
        (WorldError("no fork server"), "WorldError: no fork server"),
        (SystemExit(3), "WorldError: run raised SystemExit: 3"),
    ],
)
def test_an_agent_that_never_asks_is_a_fault_of_the_world(fault: BaseException | None, error: str) -> None:
    async def program(client: AsyncOpenAI) -> None:
        if fault is not None:
            raise fault

    (done,) = attempt(ScriptedEngine([]), Session(program))
    assert (done.stop_reason, done.steps) == (StopReason.world_error, ())
    assert str(done.error).startswith(error)


def test_what_was_refused_is_said_where_the_agent_never_got_an_action() -> None:
    async def program(client: AsyncOpenAI) -> None:
        await ask(client, [{"role": "user", "content": "?"}, {"role": "assistant", "content": "So?"}])

    (done,) = attempt(ScriptedEngine([]), Session(program))
    assert done.stop_reason is StopReason.world_error
    assert "its last request was refused: the messages cannot be written: the assistant has spoken last" in str(
        done.error
    )


def test_a_fault_of_the_engine_ends_the_attempt_at_once() -> None:
    statuses: list[int] = []

    async def program(client: AsyncOpenAI) -> None:
        try:
            await loop(client)
        except APIStatusError as error:
            statuses.append(error.status_code)
        await asyncio.sleep(60)

    (done,) = attempt(ScriptedEngine([LOOK, RuntimeError("out of memory")]), session := Session(program))
    assert (done.stop_reason, done.error) == (StopReason.engine_error, "RuntimeError: out of memory")
    assert len(done.steps) == 1
    assert session.was_cancelled
    assert set(statuses) <= {500}, "it may be ended before it hears of it"


def test_a_session_that_does_not_close_is_a_fault_of_the_world() -> None:
    (done,) = attempt(ScriptedEngine([ANSWER]), Session(loop, RuntimeError("no")))
    assert (done.stop_reason, done.outcome) == (StopReason.world_error, Outcome())


def test_a_world_without_programs_is_told_so() -> None:
    (done,) = attempt(ScriptedEngine([]), object())
    assert "no program that makes attempts" in str(done.error)


def test_a_cancelled_attempt_ends_its_program_and_closes_its_session() -> None:
    session = Session(lambda client: asyncio.sleep(60))

    async def cancelled() -> None:
        with running() as agent:
            task = asyncio.create_task(job(agent, ScriptedEngine([]), session))
            while not session.key:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert (session.was_cancelled, session.closed) == (True, [None])


def test_a_request_that_comes_behind_the_end_gets_no_action() -> None:
    """It was on its way from the gateway's thread when the key was closed."""
    engine = ScriptedEngine([LOOK, ANSWER])

    async def late() -> None:
        ended = recording.Recording(attempt_of(TASK, engine, None))
        ended.stop()
        with pytest.raises(Refused, match="the attempt has ended"):
            await ended.complete(ChatRequest(messages=(Message(role="user", text="Hello."),)))
        await asyncio.sleep(0)
        assert ended.trajectories(Ending(StopReason.call_budget), Outcome()) == []

    asyncio.run(late())
    assert not engine.asked


def test_what_a_failed_agent_says_may_be_no_valid_text() -> None:
    async def program(client: AsyncOpenAI) -> None:
        await ask(client, [{"role": "user", "content": TASK.query}])
        raise AgentFailed("no \ud800 \x1b[2J")

    (done,) = attempt(ScriptedEngine([LOOK]), Session(program))
    assert done.error == "the agent failed: no \\ud800 \\x1b[2J"


def test_a_request_of_megabytes_is_refused_before_it_is_written() -> None:
    took: list[float] = []

    def message(role: str, text: str = "What? " * 250_000) -> Any:
        return {"role": role, "content": text}

    async def program(client: AsyncOpenAI) -> None:
        asked, many = message("user", "?"), [message("user", "?"), message("assistant", "!")] * 3000
        for messages in ([message("user")], [message("assistant"), asked], [*many, asked]):
            began = time.monotonic()
            with pytest.raises(BadRequestError, match="at least") as refused:
                await client.chat.completions.create(model="policy", messages=messages)
            took.append(time.monotonic() - began)
            assert refused.value.code == "context_length_exceeded"
        await ask(client, [asked, message("user")])

    (done,) = attempt(ScriptedEngine([LOOK]), Session(program))
    assert len(done.steps) == 1, "what is cut anyway is not too long"
    assert len(took) == 3
    assert max(took) < 20, "on a busy machine, too"


def test_a_tool_that_is_called_as_the_end_is_refused() -> None:
    async def program(client: AsyncOpenAI) -> None:
        finish = {"type": "function", "function": {"name": "Finish", "parameters": {}}}
        with pytest.raises(BadRequestError, match="a tool is called Finish"):
            await ask(client, [{"role": "user", "content": TASK.query}], [*TOOLS, finish])
        await loop(client)

    (done,) = attempt(ScriptedEngine([ANSWER]), Session(program))
    assert done.answer == "shipped"


def test_a_key_ends_with_its_attempt() -> None:
    async def both() -> None:
        with running() as agent:
            session = Session(loop)
            await job(agent, ScriptedEngine([ANSWER]), session)
            async with AsyncOpenAI(base_url=session.base_url, api_key=session.key) as client:
                with pytest.raises(APIStatusError, match="no running attempt"):
                    await loop(client)

    asyncio.run(both())


def test_64_attempts_at_once_are_each_their_own() -> None:
    tasks = [task(f"t{number}", f"Where is order a-{number}?", *TASK.tools) for number in range(64)]
    prompts = {CHAT.prompt(each): number for number, each in enumerate(tasks)}

    def answer(prompt: tuple[int, ...]) -> tuple[int, ...]:
        if prompt in prompts:
            return said(call("find_order", id=f"a-{prompts[prompt]}"))
        number = next(number for begin, number in prompts.items() if prompt[: len(begin)] == begin)
        return said(call("Finish", answer=f"{number}"))

    def program(of: Task) -> Any:
        return lambda client: loop(client, of.query)

    async def everything() -> list[Any]:
        with running() as agent:
            engine = AnsweringEngine(answer)
            return await asyncio.gather(
                *(job(agent, engine, Session(program(each)), of=each, number=n) for n, each in enumerate(tasks))
            )

    for number, ((done,), of) in enumerate(zip(asyncio.run(everything()), tasks, strict=True)):
        assert (done.task_id, done.answer, done.attempt) == (of.id, str(number), number)
        assert [step.action.calls[0].arguments for step in done.steps] == [
            {"id": f"a-{number}"},
            {"answer": f"{number}"},
        ]
        assert done.steps[0].context_ids == CHAT.prompt(of)


def test_an_agent_that_sends_nonsense_holds_no_other_up() -> None:
    async def nonsense(client: AsyncOpenAI) -> None:
        async def bad(number: int) -> None:
            with suppress(APIStatusError):
                await client.post("/chat/completions", cast_to=object, body={"messages": [None] * number})

        await asyncio.gather(*map(bad, range(60)))
        await loop(client)

    async def both() -> list[Any]:
        with running() as agent:
            engines = [ScriptedEngine([LOOK, ANSWER]) for _ in range(2)]
            return await asyncio.gather(
                job(agent, engines[0], Session(nonsense)), job(agent, engines[1], Session(loop), number=1)
            )

    (bad,), (good,) = asyncio.run(both())
    assert (bad.answer, good.answer) == ("shipped", "shipped")
    assert bad.token_ids == good.token_ids
