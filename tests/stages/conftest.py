"""A project folder as `evaluate` and `annotate` find it, with stand-ins for the models and for the engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steptool.config.arms import arms_of
from steptool.config.graph import dvc_document, dvc_text
from steptool.config.places import DEMONSTRATIONS, PARAMS, REFERENCES, TASKS
from steptool.config.settings import Params, apply_profile, load_params
from steptool.core.storage import write_jsonl
from steptool.core.types import Conditions, Revision, Sampling, Task, Trajectory
from steptool.rollouts.tries import refuse_broken
from steptool.stages import evaluate, select
from steptool.testing import conditions, finish, revision, trajectory
from steptool.tracking.run import PARENT_VARIABLE
from steptool.worlds.mini import MiniWorld

ROOT = Path(__file__).parents[2]
Attempt = Callable[[str, Task], Trajectory | None]
"""By arm and task the attempt; None is one that answers `x` and is wrong."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    shutil.copyfile(ROOT / "params.yaml", folder / PARAMS)
    (folder / PARAMS).write_text(apply_profile(folder / PARAMS, ROOT / "profiles/tiny.yaml"))
    params = load_params(folder / PARAMS)
    (folder / "dvc.yaml").write_text(dvc_text(dvc_document(params)))
    world = params.world.build(params.seed)
    assert isinstance(world, MiniWorld)
    known = []
    for split in ("train", "dev", "test"):
        tasks = world.tasks(split)
        write_jsonl(folder / TASKS / f"{split}.jsonl", tasks)
        known += [world.reference(task) for task in tasks]
    write_jsonl(folder / REFERENCES, known)
    write_jsonl(folder / DEMONSTRATIONS, world.demonstrations(4, 0.0, params.seed))
    for arm in arms_of(params):
        (folder / arm.folder).mkdir(parents=True)
        (folder / arm.folder / "config.json").write_text(f'"{arm.name}"')
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The tiny profile with its tasks, and a folder for every arm; tracking goes to a file."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    return load_params(PARAMS)


class StandIn:
    """In place of a sampler: its attempts are what a test says."""

    def __init__(self, attempt: Attempt, policy: Path) -> None:
        self.attempt = attempt
        self.load(policy)

    def load(self, policy: Path) -> None:
        self.policy: Revision = revision(str(policy))

    def conditions(self, sampling: Sampling) -> Conditions:
        return conditions(**dict(sampling))

    def attempts(
        self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Trajectory]:
        arm = Path(self.policy.name).name
        made = [self.attempt(arm, task) or trajectory(finish("x"), of=task, solved=0.0) for task in tasks]
        refuse_broken(made, max_broken)
        by_this_policy = {"policy": self.policy, "conditions": self.conditions(sampling)}
        return [Trajectory.create(**{**_fields(each), **by_this_policy}) for each in made]


def _fields(of: Trajectory) -> dict[str, Any]:
    return {name: value for name, value in dict(of).items() if name != "id"}


@pytest.fixture
def measure(project: Params, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the stage `evaluate`, or `select`, with the attempts that `attempt` gives in place of an engine's."""

    def run(attempt: Attempt, stage: str = "evaluate") -> None:
        @contextmanager
        def open_sampler(params: Params, policy: Path, *, seed: int) -> Iterator[StandIn]:
            yield StandIn(attempt, policy)

        monkeypatch.setattr(evaluate, "open_sampler", open_sampler)
        (evaluate if stage == "evaluate" else select).main()

    return run
