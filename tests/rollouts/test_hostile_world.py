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
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steptool.core.errors import WorldError
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import Observation, Revision, Sampling, StopReason, Task, Tool, ToolCall, Trajectory
from steptool.engines import vllm_local as engine_module
from steptool.engines.fake import AnsweringGenerator
from steptool.engines.pump import SETTLE_TURNS
from steptool.engines.vllm_local import Engine
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.rollouts.rollout import Generation, rollout, run_rollouts

CHAT = ChatFormat(tiny_model.tokenizer())
ARGUMENTS = {"id": "a-1", "of": [{"deep": 1}]}
LOOK = CHAT.render_action("", ToolCall(name="look", arguments=ARGUMENTS))
ANSWER = CHAT.render_action("", ToolCall(name="Finish", arguments={"answer": "shipped"}))
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_calls=4, max_step_tokens=64, max_tokens=2048)
TASK = Task(id="t1", subset="G1_tool", query="Where is order a-1?", tools=())
REVISION = Revision(name="w", revision="1")
OK = Observation(text="shipped")
Body = Callable[[dict[str, Any]], Awaitable[Any]]


class World:
    def __init__(self, tool: Body) -> None:
        self.tool = tool

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self.tool(arguments)

    def verify(self, answer: str | None) -> float | None:
        return None


async def fine(arguments: dict[str, Any]) -> Observation:
    return OK


def jobs(*sessions: Callable[[], Any], timeout_s: float = 5.0) -> list[Callable[[], Awaitable[Trajectory]]]:
    generator = AnsweringGenerator(lambda prompt: ANSWER if len(prompt) > len(CHAT.prompt_ids(TASK)) else LOOK)
    shared: dict[str, Any] = {"policy": REVISION, "world": REVISION, "seed": 0, "tool_timeout_s": timeout_s}
    return [
        partial(rollout, TASK, session, generator, CHAT, SAMPLING, attempt=number, **shared)
        for number, session in enumerate(sessions)
    ]


def run(tool: Body, *, timeout_s: float = 5.0) -> list[Trajectory]:
    """One bad attempt between two good ones, and what is written of them read back."""
    worlds = [World(fine), World(tool), World(fine)]
    done = in_a_loop(run_rollouts(jobs(*((lambda w=w: w) for w in worlds), timeout_s=timeout_s), 3))
    assert [done[0].stop_reason, done[2].stop_reason] == [StopReason.finished] * 2, "the others are left alone"
    return done


def in_a_loop(coroutine: Any) -> Any:
    engine = object.__new__(Engine)
    engine._abandoned = []
    return engine.run(coroutine)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Foreign(BaseException):
    pass


def unchecked(**fields: Any) -> Observation:
    return Observation.model_construct(**{"text": "shipped", "error": None, "latency_s": 0.0, **fields})


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
        {"latency_s": "soon"},
        {"latency_s": None},
        {"latency_s": 10**400},
    ],
)
def test_an_observation_of_wrong_types_is_a_world_error(fields: dict[str, Any]) -> None:
    assert run(returning(unchecked(**fields)))[1].stop_reason is StopReason.world_error


@pytest.mark.parametrize("latency", [inf, -inf, nan, -1.0])
def test_a_latency_that_is_none_counts_as_zero(latency: float, tmp_path: Path) -> None:
    done = run(returning(unchecked(latency_s=latency)))
    assert done[1].steps[0].observation == OK
    write_jsonl(tmp_path / "t.jsonl", done)


def test_texts_of_fifty_megabytes_are_cut_and_half_characters_replaced() -> None:
    long = "\ud800" + "x" * 50_000_000
    seen = run(returning(unchecked(text=long, error=long)))[1].steps[0].observation
    assert seen is not None
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

    call = run(tool)[1].steps[0].call
    assert call is not None
    assert call.arguments == ARGUMENTS


def test_a_world_that_cannot_be_reset_is_a_record_without_steps() -> None:
    for fault in (ValueError("no database"), SystemExit(0), asyncio.CancelledError(), Foreign()):

        def reset(fault: BaseException = fault) -> Any:
            raise fault

        good = partial(World, fine)
        done = in_a_loop(run_rollouts(jobs(good, reset, good), 3))
        assert [t.stop_reason for t in done] == [StopReason.finished, StopReason.world_error, StopReason.finished]
        assert done[1].steps == ()
        assert str(done[1].error).startswith(type(fault).__name__)


def test_a_tool_that_refuses_to_be_cancelled_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "GRACE_S", 0.05)

    async def tool(arguments: dict[str, Any]) -> Any:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    seen = run(tool, timeout_s=0.05)[1].steps[0].observation
    assert seen is not None
    assert seen.error == "timeout"
    assert time.monotonic() - started < 5


def test_a_tool_whose_thread_never_ends_holds_nobody_up() -> None:
    over = threading.Event()

    async def tool(arguments: dict[str, Any]) -> Any:
        await asyncio.to_thread(over.wait, 30)

    started = time.monotonic()
    seen = run(tool, timeout_s=0.05)[1].steps[0].observation
    taken = time.monotonic() - started
    over.set()
    assert seen is not None
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

    with pytest.raises(KeyboardInterrupt):
        run(tool)


def test_a_task_that_a_tool_leaves_behind_cannot_end_the_command_as_if_all_were_well() -> None:
    async def tool(arguments: dict[str, Any]) -> Any:
        world.left = asyncio.create_task(raising(SystemExit(0))(arguments))  # type: ignore[attr-defined]
        return OK

    world = World(tool)
    with pytest.raises(WorldError, match="a task that a tool had left running raised SystemExit: 0"):
        in_a_loop(run_rollouts(jobs(lambda: world), 1))


def test_a_task_whose_tools_cannot_be_described_is_a_record_without_steps() -> None:
    bad = TASK.model_copy(update={"tools": (Tool.model_construct(name="t", description="", parameters=None),)})
    (job,) = jobs(partial(World, fine))
    done = in_a_loop(run_rollouts([partial(rollout, bad, *job.args[1:], **job.keywords)], 1))  # type: ignore[attr-defined]
    assert (done[0].stop_reason, done[0].steps) == (StopReason.world_error, ())


HOSTILE = st.one_of(
    st.sampled_from([raising(f) for f in (SystemExit(1), asyncio.CancelledError(), Unprintable(), Foreign())]),
    st.builds(
        lambda **fields: returning(unchecked(**fields)),
        text=st.one_of(st.text(), st.none(), st.binary(), st.integers(), st.just("\udfff" * 5000)),
        error=st.one_of(st.none(), st.text(), st.floats(), st.just("e" * 10**5)),
        latency_s=st.one_of(st.floats(), st.none(), st.text(), st.booleans()),
    ),
    st.builds(returning, st.one_of(st.none(), st.text(), st.floats(), st.dictionaries(st.text(), st.text()))),
)


@given(tools=st.lists(st.one_of(st.just(fine), HOSTILE), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_attempt_is_one_record_whatever_the_tools_do(tools: list[Body]) -> None:
    done = in_a_loop(run_rollouts(jobs(*((lambda t=t: World(t)) for t in tools)), 4))
    assert [t.attempt for t in done] == list(range(len(tools)))
    for tool, trajectory in zip(tools, done, strict=True):
        json.dumps(trajectory.model_dump(mode="json"), allow_nan=False).encode()
        assert Trajectory.model_validate(trajectory.model_dump()) == trajectory
        assert tool is not fine or trajectory.stop_reason is StopReason.finished


@pytest.mark.parametrize("budget", [1, 4])
def test_tools_that_answer_at_once_are_in_the_very_next_batch(budget: int) -> None:
    """Turns of the event loop from the engine's reply to the next request, of the same attempt or, where its budget
    is used up, of the next one: the pump waits for SETTLE_TURNS before it steps, so that batches do not depend on time.
    """
    turns: list[int] = []
    waiting: list[asyncio.Future[Any]] = []

    class Engine:
        async def generate(self, prompt_ids: Any, **_: Any) -> Generation:
            waiting.append(asyncio.get_running_loop().create_future())
            return await waiting[-1]  # type: ignore[no-any-return]

    async def main() -> None:
        sampling = SAMPLING.model_copy(update={"max_calls": budget})
        shared: dict[str, Any] = {"policy": REVISION, "world": REVISION, "seed": 0, "tool_timeout_s": 5.0}
        job = partial(rollout, TASK, partial(World, fine), Engine(), CHAT, sampling, attempt=0, **shared)
        running = asyncio.create_task(run_rollouts([job] * 3, 1))
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
