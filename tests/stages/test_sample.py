"""Beside the attempts, sampling notes what prompts leave out, and what the engine said to the policy's canary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from steptool.config.places import CANARY, PROMPTS, TRAJECTORIES
from steptool.config.settings import Params
from steptool.core.storage import read_json
from steptool.core.types import Task, Trajectory
from steptool.policies.asked import Asked
from steptool.stages import sample
from steptool.testing import finish, trajectory

TOKENS = {"context_ids": (1, 2), "action_ids": (3,)}
ASKED = Asked(tokens=64, difference=0.1, moved=0.6)


class Cuts:
    """A format that leaves something out of every prompt, and more where there are many tools."""

    def shortened(self, task: Task) -> list[str]:
        return ["a description", "a description", *(["an argument"] if len(task.tools) > 3 else [])]


def searches(tasks: Sequence[Task], *_: object, **__: object) -> list[list[Trajectory]]:
    return [[trajectory(finish("x", **TOKENS), of=task)] for task in tasks]


@pytest.mark.parametrize(("format", "asked"), [(Cuts(), ASKED), (object(), None)])
def test_what_sampling_notes(
    project: Params, monkeypatch: pytest.MonkeyPatch, format: object, asked: Asked | None
) -> None:
    seen: list[Task] = []

    @contextmanager
    def open_sampler(params: Params, policy: Path, *, seed: int) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(
            format=format, asked=asked, searches=lambda tasks, *a, **o: seen.extend(tasks) or searches(tasks)
        )

    monkeypatch.setattr(sample, "open_sampler", open_sampler)
    sample.main("r1")
    folder = TRAJECTORIES / "r1"
    many = sum(len(task.tools) > 3 for task in seen)
    expected = {"a description": len(seen)} | ({"an argument": many} if many else {}) if asked else {}
    assert read_json(folder / PROMPTS) == {"shortened": expected}
    assert (folder / CANARY).exists() == (asked is not None)
    assert asked is None or read_json(folder / CANARY) == asked.model_dump()
