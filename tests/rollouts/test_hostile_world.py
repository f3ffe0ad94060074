"""A world is code of somebody else. Whatever one tool does, it ends its own attempt at most.

attempt   tool                                        record
0         answers                                     finished
1         raises, cancels, exits, returns rubbish     world_error, with what happened
2         answers                                     finished
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.errors import WorldError
from steptool.core.plugins import NoSettings
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import Action, Observation, Outcome, Sampling, StopReason, Tool, ToolCall, Trajectory
from steptool.engines.base import Generation, Request
from steptool.engines.fake import AnsweringEngine
from steptool.engines.pump import SETTLE_TURNS
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts import loop
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.rollouts.tries import run_searches
from steptool.testing import conditions, message, revision, task

CHAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
ARGUMENTS = {"id": "a-1", "of": [{"deep": 1}]}
LOOK = CHAT.render(Action(calls=(ToolCall(name="look", arguments=ARGUMENTS),)))
ANSWER = CHAT.render(Action(calls=(ToolCall(name="Finish", arguments={"answer": "shipped"}),)))
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_calls=4, max_step_tokens=64, max_tokens=2048)
TASK = task("t1", "Where is order a-1?")
OK = Observation(text="shipped")
SOLVED = Outcome(solved=1.0)
Body = Callable[[dict[str, Any]], Awaitable[Any]]


class Session:
    """Its tools, its user or its verdict is `tool`, as `hostile` says; the others answer as they should."""

    def __init__(self, tool: Body, hostile: str = "call") -> None:
        self.tool, self.hostile = tool, hostile

    async def call(self, call: ToolCall) -> Any:
        return await self.tool(call.arguments) if self.hostile == "call" else OK

    async def say(self, message: str) -> Any:
        return await self.tool({}) if self.hostile == "say" else None

    async def close(self, answer: str | None) -> Any:
        return await self.tool({}) if self.hostile == "close" else SOLVED


async def fine(arguments: dict[str, Any]) -> Observation:
    return OK


class Speaks:
    """JsonCall in which every action is a message."""

    stop_ids, max_observation, prompt, hint = CHAT.stop_ids, CHAT.max_observation, CHAT.prompt, CHAT.hint

    def parse(self, ids: Any, task: Any) -> Action:
        return message("Where is it?")

    def reply(self, action_ids: Any, observations: Any, message: str | None) -> tuple[int, ...]:
        return (7,)


def attempt(open_session: Callable[[], Any], number: int, timeout_s: float = 5.0, **changed: Any) -> Attempt:
    engine = AnsweringEngine(lambda prompt: ANSWER if len(prompt) > len(CHAT.prompt(TASK)) else LOOK)

    def act(stream: Any, most: int, seed: int) -> Awaitable[Generation]:
        return engine.generate(Request(stream, most, 0.7, 0.9, seed, CHAT.stop_ids))

    fields: dict[str, Any] = {
        "task": TASK,
        "open": open_session,
        "act": act,
        "format": CHAT,
        "conditions": conditions(sampling=SAMPLING),
        "policy": revision("p"),
        "seed": 0,
        "number": number,
        "tool_timeout_s": timeout_s,
    }
    return Attempt(**fields | changed)


def run_all(attempts: list[Attempt], concurrency: int = 4) -> list[Trajectory]:
    jobs = [partial(Chain(NoSettings()).attempt, each) for each in attempts]
    return [found[0] for found in loop.run(run_searches(jobs, concurrency))]


def run(tool: Body, *, timeout_s: float = 5.0, hostile: str = "call") -> list[Trajectory]:
    """One bad attempt between two good ones, and what is written of them read back."""
    sessions = [Session(fine), Session(tool, hostile), Session(fine)]
    changed: dict[str, Any] = {"format": Speaks()} if hostile == "say" else {}
    attempts = [
        attempt(lambda each=each: each, number, timeout_s, **(changed if number == 1 else {}))  # type: ignore[misc]
        for number, each in enumerate(sessions)
    ]
    done = run_all(attempts)
    assert [done[0].stop_reason, done[2].stop_reason] == [StopReason.finished] * 2, "the others are left alone"
    return done


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Foreign(BaseException):
    pass


def unchecked(**fields: Any) -> Observation:
    return Observation.model_construct(**{"text": "shipped", "error": None, **fields})


def raising(fault: BaseException) -> Body:
    async def tool(arguments: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        raise fault

    return tool


def returning(value: Any) -> Body:
    async def tool(arguments: dict[str, Any]) -> Any:
        return value

    return tool


async def cancels_its_task(arguments: dict[str, Any]) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


async def raises_in_a_group(arguments: dict[str, Any]) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(raising(ValueError("inside"))(arguments))


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        (raising(asyncio.CancelledError()), "WorldError: look cancelled its own call"),
        (raising(SystemExit(0)), "WorldError: look raised SystemExit: 0"),
        (raising(GeneratorExit()), "GeneratorExit: "),
        (raising(Foreign("odd")), "Foreign: odd"),
        (raising(StopIteration()), "RuntimeError: coroutine raised StopIteration"),
        (raising(BaseExceptionGroup("all", [SystemExit(1)])), "BaseExceptionGroup: all (1 sub-exception)"),
        (raising(ValueError("half \ud800 pair")), "ValueError: half ? pair"),
        (raising(ValueError("two\nlines \x1b[31mred\u202e")), "ValueError: two lines  [31mred "),
        (raising(Unprintable()), "Unprintable: (its message raises RuntimeError)"),
        (raising(Exiting()), "Exiting: (its message raises SystemExit)"),
        (cancels_its_task, "WorldError: look cancelled its own call"),
        (raises_in_a_group, "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"),
        (returning(None), "TypeError: look returned NoneType, not an Observation"),
        (returning("shipped"), "TypeError: look returned str, not an Observation"),
        (returning({"text": "shipped"}), "TypeError: look returned dict, not an Observation"),
    ],
)
def test_what_a_tool_raises_is_the_record_of_its_own_attempt(tool: Body, error: str, tmp_path: Path) -> None:
    done = run(tool)
    assert (done[1].stop_reason, done[1].error) == (StopReason.world_error, error)
    write_jsonl(tmp_path / "t.jsonl.gz", done)
    assert read_jsonl(tmp_path / "t.jsonl.gz", Trajectory) == done


@pytest.mark.parametrize(
    "fields",
    [
        {"text": None},
        {"text": 3},
        {"text": b"shipped"},
        {"error": 3},
        {"error": ["a"]},
    ],
)
def test_an_observation_of_wrong_types_is_a_world_error(fields: dict[str, Any]) -> None:
    assert run(returning(unchecked(**fields)))[1].stop_reason is StopReason.world_error


def test_texts_of_fifty_megabytes_are_cut_and_half_characters_replaced() -> None:
    long = "\ud800" + "x" * 50_000_000
    seen = run(returning(unchecked(text=long, error=long)))[1].steps[0].observations[0]
    assert seen.error is not None
    assert seen.text == seen.error
    assert len(seen.text) < 2000
    assert seen.text.startswith("?x")
    assert len(str(run(raising(ValueError(long)))[1].error)) < 2000


def test_a_tool_cannot_change_what_the_policy_is_recorded_to_have_said() -> None:
    async def tool(arguments: dict[str, Any]) -> Observation:
        arguments["of"][0].clear()
        arguments["self"] = arguments
        return OK

    (call,) = run(tool)[1].steps[0].action.calls
    assert call.arguments == ARGUMENTS


def test_a_world_that_cannot_be_opened_is_a_record_without_steps() -> None:
    for fault in (ValueError("no database"), SystemExit(0), asyncio.CancelledError(), Foreign()):

        def refuse(fault: BaseException = fault) -> Any:
            raise fault

        good = partial(Session, fine)
        done = run_all([attempt(each, number) for number, each in enumerate((good, refuse, good))])
        assert [t.stop_reason for t in done] == [StopReason.finished, StopReason.world_error, StopReason.finished]
        assert done[1].steps == ()
        assert str(done[1].error).startswith(type(fault).__name__)


def test_a_tool_that_refuses_to_be_cancelled_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GRACE_S", 0.05)

    async def tool(arguments: dict[str, Any]) -> Any:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    seen = run(tool, timeout_s=0.05)[1].steps[0].observations[0]
    assert seen.error == "timeout"
    assert time.monotonic() - started < 5


def test_a_tool_whose_thread_never_ends_holds_nobody_up() -> None:
    over = threading.Event()

    async def tool(arguments: dict[str, Any]) -> Any:
        await asyncio.to_thread(over.wait, 30)

    started = time.monotonic()
    seen = run(tool, timeout_s=0.05)[1].steps[0].observations[0]
    taken = time.monotonic() - started
    over.set()
    assert seen.error == "timeout"
    assert taken < 5


def test_a_tool_that_fails_after_its_timeout_is_not_heard_of(capfd: pytest.CaptureFixture[str]) -> None:
    async def tool(arguments: dict[str, Any]) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("too late")

    run(tool, timeout_s=0.01)
    assert capfd.readouterr().err == ""


def test_ctrl_c_ends_everything_even_inside_a_tool() -> None:
    async def tool(arguments: dict[str, Any]) -> Any:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tool)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_task_that_a_tool_leaves_behind_cannot_end_the_command_as_if_all_were_well() -> None:
    async def tool(arguments: dict[str, Any]) -> Any:
        left.append(asyncio.create_task(raising(SystemExit(0))(arguments)))
        return OK

    left: list[asyncio.Task[Any]] = []
    with pytest.raises(WorldError, match="a task that a tool had left running raised SystemExit: 0"):
        run_all([attempt(partial(Session, tool), 0)])


def test_a_task_whose_tools_cannot_be_described_is_a_record_without_steps() -> None:
    bad = TASK.model_copy(update={"tools": (Tool.model_construct(name="t"),)})
    (done,) = run_all([attempt(partial(Session, fine), 0, task=bad)])
    assert (done.stop_reason, done.steps, done.outcome) == (StopReason.world_error, (), SOLVED)


# Closing and speaking: a world's verdict and its user are somebody else's code, too


@pytest.mark.parametrize("name", ["close", "say"])
@pytest.mark.parametrize(
    ("tool", "error"),
    [
        (raising(ValueError("no database")), "ValueError: no database"),
        (raising(asyncio.CancelledError()), "WorldError: NAME cancelled its own call"),
        (raising(SystemExit(0)), "WorldError: NAME raised SystemExit: 0"),
        (raising(Foreign("odd")), "Foreign: odd"),
        (raising(Unprintable()), "Unprintable: (its message raises RuntimeError)"),
        (cancels_its_task, "WorldError: NAME cancelled its own call"),
        (returning(3), "TypeError: NAME returned int, not "),
        (returning(True), "TypeError: NAME returned bool, not "),
        (returning({"solved": 1}), "TypeError: NAME returned dict, not "),
    ],
)
def test_what_a_user_or_a_verdict_raises_is_the_record_of_its_own_attempt(tool: Body, error: str, name: str) -> None:
    bad = run(tool, hostile=name)[1]
    assert bad.stop_reason is StopReason.world_error
    assert str(bad.error).startswith(error.replace("NAME", name))
    assert bad.outcome == (Outcome() if name == "close" else SOLVED)


def test_a_session_without_a_verdict_is_a_world_error_and_keeps_what_was_answered() -> None:
    bad = run(returning(None), hostile="close")[1]
    assert (bad.error, bad.answer) == ("TypeError: close returned NoneType, not an Outcome", "shipped")
    assert bad.steps[-1].is_finish
    assert bad.outcome.solved is None


@pytest.mark.parametrize("name", ["close", "say"])
def test_a_user_or_a_verdict_that_hangs_is_a_world_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GRACE_S", 0.05)

    async def tool(arguments: dict[str, Any]) -> Any:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    bad = run(tool, hostile=name, timeout_s=0.05)[1]
    assert (bad.stop_reason, bad.error) == (
        StopReason.world_error,
        f"NoAnswer: {name} did not answer within 0.05 s",
    )
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("solved", ["yes", -0.5, 1.5, nan, [1]])
def test_a_verdict_that_is_no_score_is_a_world_error(solved: Any) -> None:
    bad = run(returning(Outcome.model_construct(solved=solved, evidence="")), hostile="close")[1]
    assert (bad.stop_reason, bad.outcome) == (StopReason.world_error, Outcome())


def test_long_evidence_and_long_messages_are_cut() -> None:
    long = "\ud800" + "x" * 50_000_000
    outcome = run(returning(Outcome(solved=1, evidence=long)), hostile="close")[1].outcome
    assert outcome.evidence.startswith("?x")
    assert len(outcome.evidence) < 2000
    assert len(str(run(returning(long), hostile="say")[1].steps[0].reply)) < 2000


def test_the_first_fault_is_the_one_that_is_kept() -> None:
    class Broken(Session):
        async def call(self, call: ToolCall) -> Any:
            raise ValueError("first")

    (done,) = run_all([attempt(partial(Broken, raising(ValueError("second")), "close"), 0)])
    assert (done.stop_reason, done.error) == (StopReason.world_error, "ValueError: first")


def test_a_session_that_lacks_a_method_is_a_world_error() -> None:
    class Bare:
        async def call(self, call: ToolCall) -> Observation:
            return OK

    (done,) = run_all([attempt(Bare, 0)])
    assert (done.stop_reason, done.error) == (
        StopReason.world_error,
        "AttributeError: 'Bare' object has no attribute 'close'",
    )


HOSTILE = st.one_of(
    st.sampled_from([raising(f) for f in (SystemExit(1), asyncio.CancelledError(), Unprintable(), Foreign())]),
    st.builds(
        lambda **fields: returning(unchecked(**fields)),
        text=st.one_of(st.text(), st.none(), st.binary(), st.integers(), st.just("\udfff" * 5000)),
        error=st.one_of(st.none(), st.text(), st.floats(), st.just("e" * 10**5)),
    ),
    st.builds(returning, st.one_of(st.none(), st.text(), st.floats(), st.dictionaries(st.text(), st.text()))),
)


@given(
    tools=st.lists(
        st.tuples(st.one_of(st.just(fine), HOSTILE), st.sampled_from(["call", "close"])), min_size=1, max_size=12
    )
)
@settings(max_examples=60, deadline=None)
def test_every_attempt_is_one_record_whatever_the_tools_do(tools: list[tuple[Body, str]]) -> None:
    done = run_all([attempt(partial(Session, *tool), number) for number, tool in enumerate(tools)])
    assert [t.attempt for t in done] == list(range(len(tools)))
    for (tool, hostile), trajectory in zip(tools, done, strict=True):
        json.dumps(trajectory.model_dump(mode="json"), allow_nan=False).encode()
        assert Trajectory.model_validate(trajectory.model_dump()) == trajectory
        assert (tool, hostile) != (fine, "call") or trajectory.stop_reason is StopReason.finished
        assert hostile != "close" or trajectory.stop_reason is StopReason.world_error, "no observation is a verdict"


@pytest.mark.parametrize("budget", [1, 4])
def test_tools_that_answer_at_once_are_in_the_very_next_batch(budget: int) -> None:
    """Turns of the event loop from the engine's reply to the next request, of the same attempt or, where its budget
    is used up, of the next one: the pump waits for SETTLE_TURNS before it steps, so that batches do not depend on time.
    """
    turns: list[int] = []
    waiting: list[asyncio.Future[Any]] = []

    async def act(*_: Any) -> Generation:
        waiting.append(asyncio.get_running_loop().create_future())
        return await waiting[-1]  # type: ignore[no-any-return]

    async def main() -> None:
        allowed = conditions(sampling=SAMPLING.model_copy(update={"max_calls": budget}))
        job = partial(Chain(NoSettings()).attempt, attempt(partial(Session, fine), 0, act=act, conditions=allowed))
        running = asyncio.create_task(run_searches([job] * 3, 1))
        while not running.done():
            if waiting:
                waiting.pop().set_result(Generation(LOOK, (-0.5,) * len(LOOK), stopped=True))
                turns.append(0)
            await asyncio.sleep(0)
            turns[-1:] = [turns[-1] + 1] if turns else []
        await running

    asyncio.run(main())
    assert len(turns) == 3 * budget
    assert max(turns[:-1]) <= SETTLE_TURNS / 2
