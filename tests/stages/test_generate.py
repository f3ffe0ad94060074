"""Attempts that a fault of the engine or the world ended are made again; what is lost after that is counted.

try       1                     2               3
task 0    Finish
task 1    engine fails          Finish                          counts as any other
task 2    engine fails          engine fails    engine fails    lost: 1 of 3 is 33.3 %
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from math import nan
from typing import Any

import pytest

from steptool.config.settings import Params
from steptool.core.errors import ModelError, StepToolError
from steptool.core.types import Observation, Revision, Sampling, StopReason, Task, ToolCall, Trajectory
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.rollouts.collect import TRIES, Sampler, refuse_broken
from steptool.rollouts.rollout import Generation

CHAT = ChatFormat(tiny_model.tokenizer())
ANSWER = CHAT.render_action("", ToolCall(name="Finish", arguments={"answer": "x"}))
PING = CHAT.render_action("", ToolCall(name="ping", arguments={}))
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_calls=2, max_step_tokens=64, max_tokens=2048)
TASKS = [Task(id=f"t{index}", subset="G1_tool", query=f"Question {index}?", tools=()) for index in range(3)]
TASK_OF = {CHAT.prompt_ids(task): index for index, task in enumerate(TASKS)}
Act = Callable[[int, int], Generation | Exception]
"""Index of a task, and which try at it (from 1)."""


def said(ids: tuple[int, ...], logprob: float = -0.5) -> Generation:
    return Generation(ids, (logprob,) * len(ids), stopped=True)


class FakeEngine:
    def __init__(self, act: Act) -> None:
        self.act, self.asked, self.seeds = act, Counter[int](), dict[int, set[int]]()

    async def generate(self, prompt_ids: tuple[int, ...], *, seed: int, **_: Any) -> Generation:
        await asyncio.sleep(0)
        task = TASK_OF[tuple(prompt_ids)]
        self.asked[task] += 1
        self.seeds.setdefault(task, set()).add(seed)
        made = self.act(task, self.asked[task])
        if isinstance(made, Exception):
            raise made
        return made

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(coroutine)


class StubWorld:
    revision = Revision(name="stub", revision="1")

    def __init__(self, resets: Callable[[Task], None] = lambda task: None) -> None:
        self.resets = resets

    def reset(self, task: Task, seed: int) -> StubWorld:
        self.resets(task)
        return self

    async def call(self, name: str, arguments: dict[str, Any]) -> Observation:
        return Observation(text="pong")


def sampler(engine: FakeEngine, world: StubWorld | None = None) -> Sampler:
    policy = Revision(name="models/r1", revision="1")
    return Sampler(engine, CHAT, policy, world or StubWorld(), Params(), "float32")  # type: ignore[arg-type]


def attempts(
    act: Act, *, max_broken: float = 0.0, world: StubWorld | None = None
) -> tuple[list[Trajectory], FakeEngine]:
    engine = FakeEngine(act)
    made = sampler(engine, world).attempts(TASKS, SAMPLING, 1, what="test", max_broken=max_broken)
    return made, engine


def test_an_attempt_that_the_engine_lost_is_made_again_with_the_same_seed() -> None:
    made, engine = attempts(lambda task, tries: RuntimeError("once") if (task, tries) == (1, 1) else said(ANSWER))
    assert [t.stop_reason for t in made] == [StopReason.finished] * 3
    assert engine.asked == {0: 1, 1: 2, 2: 1}, "what ended well is left alone"
    assert all(len(seeds) == 1 for seeds in engine.seeds.values())
    untroubled, _ = attempts(lambda task, tries: said(ANSWER))
    assert made == untroubled


def test_a_world_that_fails_once_is_asked_again() -> None:
    failed: list[str] = []

    def reset(task: Task) -> None:
        if task.id == "t2" and not failed:
            failed.append(task.id)
            raise ConnectionError("database restarts")

    made, _ = attempts(lambda task, tries: said(ANSWER), world=StubWorld(reset))
    assert failed
    assert [t.stop_reason for t in made] == [StopReason.finished] * 3


@pytest.mark.parametrize(
    ("max_broken", "raises"), [(0.0, True), (0.33, True), (1 / 3, False), (0.34, False), (1.0, False)]
)
def test_more_lost_attempts_than_the_bar_allows_are_an_error(max_broken: float, raises: bool) -> None:
    def act(task: int, tries: int) -> Generation | Exception:
        return RuntimeError("device lost") if task == 2 else said(ANSWER)

    if not raises:
        made, engine = attempts(act, max_broken=max_broken)
        assert engine.asked[2] == TRIES
        assert [t.stop_reason for t in made] == [StopReason.finished] * 2 + [StopReason.engine_error]
        return
    with pytest.raises(StepToolError) as refused:
        attempts(act, max_broken=max_broken)
    for part in ("1 of 3 attempts", f"at most {max_broken:.1%}", "device lost", "policy models/r1", "steptool doctor"):
        assert part in str(refused.value)


def test_every_share_up_to_the_limit_is_allowed() -> None:
    """0.29 * 100 is 28.999999999999996, and yet 29 of 100 are 0.29."""
    whole, _, fault = attempts(
        lambda task, tries: RuntimeError("device lost") if task == 2 else said(ANSWER), max_broken=1.0
    )[0]
    for lost in range(1, 101):
        trajectories = [fault] * lost + [whole] * (100 - lost)
        refuse_broken(trajectories, lost / 100)
        with pytest.raises(StepToolError, match=f"{lost} of 100"):
            refuse_broken(trajectories, (lost - 1) / 100)


def test_the_error_names_the_commonest_fault_and_its_first_task() -> None:
    def reset(task: Task) -> None:
        if task.id != "t0":
            raise ConnectionError("database gone")

    def act(task: int, tries: int) -> Exception:
        return RuntimeError("another")

    with pytest.raises(
        StepToolError, match=r"3 of 3.*2 of them in world_error: ConnectionError: database gone"
    ) as refused:
        attempts(act, max_broken=0.5, world=StubWorld(reset))
    assert "first at task t1" in str(refused.value)


def test_a_policy_that_computes_nan_is_named() -> None:
    with pytest.raises(ModelError, match=r"3 of 3 attempts.*log-probability that is not finite") as refused:
        attempts(lambda task, tries: said(ANSWER, nan), max_broken=0.5)
    assert refused.value.exit_code == 2
    assert "models/r1" in str(refused.value)
