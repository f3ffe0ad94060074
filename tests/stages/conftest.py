"""A project folder as `evaluate` and `annotate` find it, with stand-ins for the models and for the engine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steptool.config.places import DEMONSTRATIONS, PARAMS, TASKS
from steptool.config.settings import Params, apply_profile, load_params
from steptool.core.storage import write_jsonl
from steptool.core.types import Revision, ToolCall
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model
from steptool.rollouts.collect import Sampler, _revision
from steptool.rollouts.rollout import Generation
from steptool.stages import evaluate
from steptool.stages.results import policies_of
from steptool.tracking.run import PARENT_VARIABLE
from steptool.worlds import open_world
from steptool.worlds.mini import MiniWorld, expert_demonstrations

ROOT = Path(__file__).parents[2]
CHAT = ChatFormat(tiny_model.tokenizer())
ANSWER = CHAT.render_action("", ToolCall(name="Finish", arguments={"answer": "x"}))
Act = Callable[[str, str, tuple[int, ...]], Generation | Exception]
"""Policy, request (its prompt as text), and the ids of the prompt."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    shutil.copyfile(ROOT / "params.yaml", folder / PARAMS)
    (folder / PARAMS).write_text(apply_profile(folder / PARAMS, ROOT / "profiles/tiny.yaml"))
    params = load_params(folder / PARAMS)
    world = open_world(params.world, params.seed)
    assert isinstance(world, MiniWorld)
    for split in ("train", "dev", "test"):
        write_jsonl(folder / TASKS / f"{split}.jsonl", world.all_tasks(split))
    write_jsonl(folder / DEMONSTRATIONS, expert_demonstrations(world, 4, 0.0, params.seed))
    for name, policy in policies_of(params).items():
        (folder / policy).mkdir(parents=True)
        (folder / policy / "config.json").write_text(f'"{name}"')
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The tiny profile with its tasks, and a folder for every policy; tracking goes to a file."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    return load_params(PARAMS)


@pytest.fixture
def evaluate_with(project: Params, monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], None]:
    """Run the stage `evaluate` with what `act` says in place of an engine."""

    class Engine:
        def __init__(self, act: Act) -> None:
            self.act, self.policy = act, ""

        async def generate(self, prompt_ids: tuple[int, ...], **_: Any) -> Generation:
            await asyncio.sleep(0)
            made = self.act(self.policy, CHAT._tokenizer.decode(list(prompt_ids)), prompt_ids)
            if isinstance(made, Exception):
                raise made
            return made

        def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run(coroutine)

    class FakeSampler(Sampler):
        def load(self, policy: Path) -> None:
            self.policy = _revision(policy)
            self.engine.policy = policy.name  # type: ignore[attr-defined]

    def run(act: Act) -> None:
        @contextmanager
        def generate(params: Params, policy: Path, *, seed: int) -> Iterator[Sampler]:
            engine: Any = Engine(act)
            world = open_world(params.world, params.seed)
            sampler = FakeSampler(engine, CHAT, Revision(name="none", revision=""), world, params, "float32")
            sampler.load(policy)
            yield sampler

        monkeypatch.setattr(evaluate, "generate", generate)
        evaluate.main()

    return run


def answers(ids: tuple[int, ...] = ANSWER) -> Generation:
    return Generation(ids, (-0.5,) * len(ids), stopped=True)
