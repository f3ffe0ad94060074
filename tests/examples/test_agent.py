"""examples/agent: three agents of public style, unchanged, act through the gateway and are recorded exactly.

rules      query → find_train → its id → times, fare or seats → its reply → Finish
recorded   the prompt of the task, and then action and reply in turn, as in any rollout
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from steptool.config.settings import Params, parse_params
from steptool.core.revision import forget_sources
from steptool.core.types import StopReason, Task, Trajectory
from steptool.formats.episode import encode
from steptool.policies.base_models import fetch_base
from steptool.rollouts.collect import Sampler, open_sampler, sampling_of
from tests.project import ROOT

AGENT = ROOT / "examples" / "agent"
MODULES = ("desk", "plain_agent", "sdk_agent", "graph_agent")
CALLABLES = [
    pytest.param({"callable": "plain_agent:run"}, id="plain client"),
    pytest.param({"command": "python plain_agent.py", "answer": "output"}, id="a command", marks=pytest.mark.slow),
    pytest.param({"callable": "sdk_agent:run"}, id="OpenAI Agents SDK", marks=pytest.mark.slow),
    pytest.param({"callable": "graph_agent:run"}, id="LangGraph", marks=pytest.mark.slow),
]
SHOWN = ("leaves-0", "fare-10", "seats-2")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(AGENT, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".steptool"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    forget_sources()
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)
    forget_sources()


def params_of(world: dict[str, str], **more: Any) -> Params:
    written = YAML(typ="safe").load(Path("params.yaml").read_text())
    return parse_params(
        Path("params.yaml"), {**written, "world": {"use": "agent", "tasks": "tasks.jsonl", **world}, **more}
    )


def demonstrations() -> dict[str, list[dict[str, Any]]]:
    lines = map(json.loads, (AGENT / "demonstrations.jsonl").read_text().splitlines())
    return {line["task_id"]: [step["call"] for step in line["steps"]] for line in lines}


def rules() -> list[dict[str, str]]:
    """What the expert says to the tasks SHOWN: the first of them that fits, so the last action comes first."""
    tasks = {task["id"]: task for task in map(json.loads, (AGENT / "tasks.jsonl").read_text().splitlines())}
    last, second, first = [], [], []
    for name in SHOWN:
        find, look, finish = demonstrations()[name]
        said = [f"{call['name']} {json.dumps(call['arguments'])}" for call in (find, look, finish)]
        answer = finish["arguments"]["answer"]
        last.append({"when": f'"{answer}"' if ":" in answer else f": {answer}}}", "say": said[2]})
        second.append({"when": look["arguments"]["id"], "say": said[1]})
        first.append({"when": tasks[name]["query"], "say": said[0]})
    return [*last, *second, *first]


def test_the_files_are_what_the_script_writes(example: Path) -> None:
    files = ("tasks.jsonl", "demonstrations.jsonl")
    for name in files:
        (example / name).unlink()
    subprocess.run([sys.executable, "make_tasks.py"], cwd=example, check=True)
    assert [(example / name).read_text() for name in files] == [(AGENT / name).read_text() for name in files]


@pytest.mark.parametrize("world", CALLABLES)
def test_an_agent_is_attempted_as_it_is(example: Path, world: dict[str, str]) -> None:
    (example / "says.jsonl").write_text("".join(f"{json.dumps(rule)}\n" for rule in rules()))
    engine = {"use": "steptool.engines.fake:RulesEngine", "rules": "says.jsonl"}
    params = params_of(
        world, engine=engine, model={"base": "tiny-random"}, sample={"max_tokens": 4096, "max_step_tokens": 200}
    )
    fetch_base("tiny-random", example / "policy")
    with open_sampler(params, example / "policy", seed=17) as sampler:
        tasks = [task for task in sampler.world.tasks("train") if task.id in SHOWN]
        found = sampler.attempts(tasks, sampling_of(params), 2, what="attempts", max_broken=0.0)
        assert len(found) == 6
        for trajectory in found:
            task = next(task for task in tasks if task.id == trajectory.task_id)
            assert_as_shown(trajectory, task, sampler)


def assert_as_shown(trajectory: Trajectory, task: Task, sampler: Sampler) -> None:
    """The expert's attempt, and the tokens that an attempt with the same steps has anywhere else."""
    assert (trajectory.stop_reason, trajectory.outcome.solved) == (StopReason.finished, 1.0), trajectory
    calls = [call.model_dump(mode="json") for step in trajectory.steps for call in step.action.calls]
    assert calls == demonstrations()[task.id]
    assert trajectory.conditions is not None and trajectory.conditions.search.name == "agent"
    written = [
        step.model_copy(update={"context_ids": (), "action_ids": (), "action_logprobs": ()})
        for step in trajectory.steps
    ]
    assert trajectory.token_ids == encode(sampler.format, task, written)[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_three_act_with_a_real_engine(example: Path) -> None:
    """An untrained toy model: what it says is no use, and is recorded all the same, token by token."""
    worlds = [{"callable": f"{name}:run"} for name in MODULES if name != "desk"]
    more = {"model": {"base": "tiny-random"}, "sample": {"max_tokens": 4096, "max_calls": 3}}
    params = params_of(worlds[0], **more)
    fetch_base("tiny-random", example / "policy")
    with open_sampler(params, example / "policy", seed=17) as sampler:
        for world in worlds:
            sampler.world.end()  # type: ignore[attr-defined]
            sampler.world = params_of(world, **more).world.build(17)
            tasks = sampler.world.tasks("train")[:4]
            found = sampler.attempts(tasks, sampling_of(params), 2, what=world["callable"], max_broken=0.0)
            for trajectory in found:
                task = next(task for task in tasks if task.id == trajectory.task_id)
                assert trajectory.steps[0].context_ids == sampler.format.prompt(task)
                sampled = [step for step in trajectory.steps if step.action_ids]
                assert all(len(step.action_ids) == len(step.action_logprobs) for step in sampled)
                assert not trajectory.stop_reason.broken
