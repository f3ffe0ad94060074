"""Attempts that a fault of the engine or the world ended are made again; what is lost after that is counted.

try       1                     2               3
task 0    Finish
task 1    engine fails          Finish                          counts as any other
task 2    engine fails          engine fails    engine fails    lost: 1 of 3 is 33.3 %
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steptool.config.settings import MachineParams, ModelParams, SampleParams
from steptool.core.errors import ModelError, StepToolError
from steptool.core.plugins import NoSettings
from steptool.core.types import Action, Observation, Outcome, Revision, Sampling, StopReason, Task, ToolCall, Trajectory
from steptool.engines.base import Generation, Request
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts import collect, tries
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.rollouts.collect import Sampler, open_sampler
from steptool.rollouts.tries import TRIES, refuse_broken
from steptool.testing import call, revision, task, trajectory

CHAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
ANSWER = CHAT.render(Action(calls=(call("Finish", answer="x"),)))
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_calls=2, max_step_tokens=64, max_tokens=2048)
TASKS = [task(f"t{index}", f"Question {index}?") for index in range(3)]
TASK_OF = {CHAT.prompt(each): index for index, each in enumerate(TASKS)}
Act = Callable[[int, int], Generation | Exception]
"""Index of a task, and which try at it (from 1)."""


def said(ids: tuple[int, ...], logprob: float = -0.5) -> Generation:
    return Generation(ids, (logprob,) * len(ids), stopped=True)


class FakeEngine:
    def __init__(self, act: Act = lambda task, tries: said(ANSWER)) -> None:
        self.act, self.asked, self.seeds = act, Counter[int](), dict[int, set[int]]()
        self.loaded: list[Path] = []
        self.is_closed = False

    async def generate(self, request: Request) -> Generation:
        await asyncio.sleep(0)
        index = TASK_OF[tuple(request.prompt_ids)]
        self.asked[index] += 1
        self.seeds.setdefault(index, set()).add(request.seed)
        made = self.act(index, self.asked[index])
        if isinstance(made, Exception):
            raise made
        return made

    def load(self, policy: Path) -> None:
        self.loaded.append(policy)

    def close(self) -> None:
        self.is_closed = True


class StubWorld:
    def __init__(self, opens: Callable[[Task], None] = lambda task: None) -> None:
        self.opens = opens

    def open(self, task: Task, seed: int) -> StubWorld:
        self.opens(task)
        return self

    async def call(self, call: ToolCall) -> Observation:
        return Observation(text="pong")

    async def close(self, answer: str | None) -> Outcome:
        return Outcome(solved=float(answer == "x"))


def given(build: Callable[..., Any], config: Any = None) -> Any:
    """A section of params.yaml whose plugin is what `build` makes."""
    return SimpleNamespace(build=build, config=config or NoSettings(), cls=object)


def params_of(engine: Any, world: Any = None, search: Any = None) -> Any:
    return SimpleNamespace(
        seed=17,
        model=ModelParams(dtype="float32"),
        world=given(lambda seed: world or StubWorld()),
        format=given(lambda tokenizer: JsonCall(JsonCall.Config(), tokenizer), JsonCall.Config()),
        engine=given(engine if callable(engine) else lambda policy, **_: engine),
        acting_search=given(lambda: search or Chain(NoSettings())),
        sample=SampleParams(),
        machine=MachineParams(),
    )


@pytest.fixture(autouse=True)
def _stubs_have_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of tests lies in no package, so its code has no revision."""
    known = collect.revision_of

    def revision_of(plugin: object, config: Any) -> Revision:
        name = type(plugin).__name__
        return revision(name) if type(plugin).__module__.startswith("tests.") else known(plugin, config)

    monkeypatch.setattr(collect, "revision_of", revision_of)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("policy") / "r1", seed=1)


def save(folder: Path, seed: int, **config: Any) -> Path:
    tiny_model.model(seed).save_pretrained(folder)
    tiny_model.tokenizer().save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.fixture
def attempts(policy: Path) -> Callable[..., tuple[list[Trajectory], FakeEngine]]:
    def make(
        act: Act, *, max_broken: float = 0.0, world: StubWorld | None = None
    ) -> tuple[list[Trajectory], FakeEngine]:
        engine = FakeEngine(act)
        with open_sampler(params_of(engine, world), policy, seed=5) as sampler:
            made = sampler.attempts(TASKS, SAMPLING, 1, what="test", max_broken=max_broken)
        return made, engine

    return make


Attempts = Callable[..., tuple[list[Trajectory], FakeEngine]]


def test_an_attempt_that_the_engine_lost_is_made_again_with_the_same_seed(attempts: Attempts) -> None:
    made, engine = attempts(lambda task, tries: RuntimeError("once") if (task, tries) == (1, 1) else said(ANSWER))
    assert [t.stop_reason for t in made] == [StopReason.finished] * 3
    assert engine.asked == {0: 1, 1: 2, 2: 1}, "what ended well is left alone"
    assert all(len(seeds) == 1 for seeds in engine.seeds.values())
    untroubled, _ = attempts(lambda task, tries: said(ANSWER))
    assert made == untroubled


def test_a_world_that_fails_once_is_asked_again(attempts: Attempts) -> None:
    failed: list[str] = []

    def opens(task: Task) -> None:
        if task.id == "t2" and not failed:
            failed.append(task.id)
            raise ConnectionError("database restarts")

    made, _ = attempts(lambda task, tries: said(ANSWER), world=StubWorld(opens))
    assert failed
    assert [t.stop_reason for t in made] == [StopReason.finished] * 3


@pytest.mark.parametrize(
    ("max_broken", "raises"), [(0.0, True), (0.33, True), (1 / 3, False), (0.34, False), (1.0, False)]
)
def test_more_lost_attempts_than_are_allowed_are_an_error(attempts: Attempts, max_broken: float, raises: bool) -> None:
    def act(task: int, tries: int) -> Generation | Exception:
        return RuntimeError("device lost") if task == 2 else said(ANSWER)

    if not raises:
        made, engine = attempts(act, max_broken=max_broken)
        assert engine.asked[2] == TRIES
        assert [t.stop_reason for t in made] == [StopReason.finished] * 2 + [StopReason.engine_error]
        return
    with pytest.raises(StepToolError) as refused:
        attempts(act, max_broken=max_broken)
    for part in ("1 of 3 attempts", f"at most {max_broken:.1%}", "device lost", "/r1", "steptool doctor"):
        assert part in str(refused.value)


def test_every_share_up_to_the_limit_is_allowed() -> None:
    """0.29 * 100 is 28.999999999999996, and yet 29 of 100 are 0.29."""
    whole, fault = trajectory(), trajectory(stop=StopReason.engine_error, error="RuntimeError: device lost")
    for lost in range(1, 101):
        trajectories = [fault] * lost + [whole] * (100 - lost)
        refuse_broken(trajectories, lost / 100)
        with pytest.raises(StepToolError, match=f"{lost} of 100"):
            refuse_broken(trajectories, (lost - 1) / 100)


def test_the_error_names_the_commonest_fault_and_its_first_task(attempts: Attempts) -> None:
    def opens(task: Task) -> None:
        if task.id != "t0":
            raise ConnectionError("database gone")

    def act(task: int, tries: int) -> Exception:
        return RuntimeError("another")

    with pytest.raises(
        StepToolError, match=r"3 of 3.*2 of them in world_error: ConnectionError: database gone"
    ) as refused:
        attempts(act, max_broken=0.5, world=StubWorld(opens))
    assert "first at task t1" in str(refused.value)


def test_a_policy_that_computes_nan_is_named(attempts: Attempts) -> None:
    with pytest.raises(ModelError, match=r"3 of 3 attempts.*log-probability that is not finite") as refused:
        attempts(lambda task, tries: said(ANSWER, nan), max_broken=0.5)
    assert refused.value.exit_code == 2
    assert "/r1" in str(refused.value)


def test_a_rewritten_history_is_no_fault() -> None:
    refuse_broken([trajectory(stop=StopReason.rewritten)], 0.0)


def test_an_agent_that_fails_is_no_fault_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    failed = [trajectory(stop=StopReason.call_budget, error=error) for error in ("exit 1", "exit 2", "exit 1", None)]
    refuse_broken(failed, 0.0)
    tries.warn_of_agents(failed[3:])
    assert caplog.text == ""
    tries.warn_of_agents(failed)
    assert "in 3 of 4 attempts the agent failed, in 2 of them so: exit 1" in caplog.text


# What a search finds, and under which conditions


def test_a_search_may_find_several_branches_and_its_first_is_the_answer(policy: Path) -> None:
    class Two:
        async def attempt(self, attempt: Attempt) -> Sequence[Trajectory]:
            return [trajectory(attempt=number, of=attempt.task) for number in (attempt.number, 9)]

    with open_sampler(params_of(FakeEngine(), search=Two()), policy, seed=5) as sampler:
        found = sampler.searches(TASKS[:2], SAMPLING, 2, what="test", max_broken=0.0)
        answers = sampler.attempts(TASKS[:2], SAMPLING, 2, what="test", max_broken=0.0)
    assert [[t.attempt for t in each] for each in found] == [[0, 9], [1, 9]] * 2
    trees = [{t.search for t in each} for each in found]
    assert all(len(tree) == 1 and None not in tree for tree in trees), "branches of one search name it"
    assert len({search for tree in trees for search in tree}) == 4
    assert [(t.task_id, t.attempt) for t in answers] == [("t0", 0), ("t0", 1), ("t1", 0), ("t1", 1)]


def test_what_the_search_and_the_world_share_between_attempts_ends_with_the_block(policy: Path) -> None:
    ended: list[str] = []

    class EndingWorld(StubWorld):
        def end(self) -> None:
            ended.append("world")

    class EndingSearch(Chain):
        def end(self) -> None:
            ended.append("search")

    with open_sampler(params_of(FakeEngine(), EndingWorld(), EndingSearch(NoSettings())), policy, seed=5):
        assert ended == []
    assert ended == ["search", "world"], "a program that is still running loses its policy first"


def test_attempts_keep_policy_conditions_and_outcome(attempts: Attempts, policy: Path) -> None:
    made, _ = attempts(lambda task, tries: said(ANSWER))
    assert {t.policy.name for t in made} == {str(policy)}
    assert [t.outcome for t in made] == [Outcome(solved=1.0)] * 3
    conditions = made[0].conditions
    assert conditions is not None
    assert (conditions.engine, conditions.dtype) == (revision("FakeEngine"), "float32")
    assert (conditions.world.name, conditions.format.name, conditions.search.name) == (
        "StubWorld",
        "json_call",
        "chain",
    )
    assert conditions.sampling == SAMPLING
    assert all(t.conditions == conditions for t in made)


def test_conditions_follow_the_seed_of_the_world_the_dtype_and_the_settings(policy: Path) -> None:
    def conditions(**changes: Any) -> Any:
        params = params_of(FakeEngine())
        for name, value in changes.items():
            setattr(params, name, value)
        with open_sampler(params, policy, seed=5) as sampler:
            return sampler.conditions(SAMPLING)

    plain = conditions()
    assert plain.differences(conditions()) == []
    shorter = given(lambda tokenizer: CHAT, JsonCall.Config(max_observation=99))
    for part, changes in {
        "world": {"seed": 18},
        "dtype": {"model": ModelParams(dtype="bfloat16")},
        "format": {"format": shorter},
    }.items():
        (line,) = plain.differences(conditions(**changes))
        assert line.startswith(f"{part}: ")


# One policy at a time


def test_another_policy_of_the_same_architecture_is_swapped_in(policy: Path, tmp_path: Path) -> None:
    built: list[FakeEngine] = []

    def build(weights: Path, **options: Any) -> FakeEngine:
        assert options == {"dtype": "float32", "max_model_len": 1024, "concurrency": 128, "seed": 5}
        built.append(FakeEngine())
        return built[-1]

    other = save(tmp_path / "other", seed=2, use_cache=False, transformers_version="0")
    wider = save(tmp_path / "wider", seed=3, max_position_embeddings=77)
    with open_sampler(params_of(build), policy, seed=5) as sampler:
        first = sampler.policy
        sampler.load(other)
        assert [each.loaded for each in built] == [[other]]
        assert (sampler.policy.name, sampler.policy != first) == (str(other), True)
        sampler.load(wider)
        assert [each.is_closed for each in built] == [True, False], "another architecture has an engine of its own"
        assert built[1].loaded == []
    assert [each.is_closed for each in built] == [True, True]


def test_a_model_that_no_prompt_fits_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    def build(*_: Any, **__: Any) -> FakeEngine:
        raise AssertionError("an engine was started")

    folder = save(tmp_path / "bare", seed=1)
    for file in folder.glob("chat_template*"):
        file.unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "chat_template"}))
    with pytest.raises(ModelError, match="chat template"), open_sampler(params_of(build), folder, seed=5):
        pass


def test_an_engine_that_cannot_take_a_policy_is_closed_all_the_same(policy: Path, tmp_path: Path) -> None:
    class Refusing(FakeEngine):
        def load(self, policy: Path) -> None:
            raise ModelError("no room")

    engine = Refusing()
    other = save(tmp_path / "other", seed=2)
    with pytest.raises(ModelError, match="no room"), open_sampler(params_of(engine), policy, seed=5) as sampler:
        sampler.load(other)
    assert engine.is_closed


def test_a_sampler_without_a_policy_loses_every_attempt_and_says_why() -> None:
    sampler = Sampler(params_of(FakeEngine()), seed=5)
    sampler.close()
    with pytest.raises(RuntimeError, match="no policy is loaded"):
        asyncio.run(sampler._act(SAMPLING, (1,), 1, 0))
