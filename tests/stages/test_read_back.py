"""JSON of ours that is valid and wrong: whatever stands in a file that we read, the reader says what and where.

file                       {}    []    "text"    3    null    NaN    cut off    nested deep    a value swapped
each that is read back     DataError with the file's name, exit status 2; never KeyError, TypeError, ...
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steptool.config.places import EVALUATION, MODELS, REFERENCES, TASKS, VALIDATED
from steptool.config.settings import Params
from steptool.core.errors import InputError
from steptool.core.storage import read_jsonl, write_json, write_jsonl
from steptool.core.types import ScoredTrajectory, Task
from steptool.evaluation.compare import compare
from steptool.evaluation.metrics import Evaluation, evaluate
from steptool.report.page import render_report
from steptool.report.wording import text_table
from steptool.stages import report
from steptool.stages.results import read_results
from steptool.stages.rounds import read_tasks
from steptool.testing import CONDITIONS, call, finish, judgement, reference, revision, step, task, trajectory
from steptool.testing import scored as judged_as

RULES = revision("rules")
PARAMS = Params.model_validate(
    {
        "rounds": {"r1": {"from": "sft"}},
        "arms": {
            "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
            "ppo1": {"method": "step_ppo", "from": "sft", "data": ["r1"]},
            "rft": {"method": "rft", "from": "sft", "data": ["r1"]},
        },
        "evaluate": {"resamples": 100},
    }
)
ARMS = list(PARAMS.arms)
FILES = [*(EVALUATION / f"{name}.json" for name in ARMS), EVALUATION / "comparisons.json"]
FILES += [MODELS / "ppo1/training.json"]
SHAPES = {
    "object": "{}",
    "array": "[]",
    "text": '"text"',
    "number": "3",
    "null": "null",
    "NaN": "NaN",
    "infinity": "Infinity",
    "empty": "",
    "no JSON": "<<<<<<< HEAD",
    "array of arrays": "[[]]",
    "array of null": "[null]",
    "deep": "[" * 500 + "]" * 500,
    "deep object": '{"metrics":' * 500 + "{}" + "}" * 500,
}


def scored(of: Task, policy: str, solved: float) -> ScoredTrajectory:
    made = trajectory(step(call("look"), "{}"), finish("x"), of=of, solved=solved, policy=policy)
    return judged_as(made, judgement(success=1.0, contribution=0.5), judgement(solved=solved))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `report` reads, of three arms and six tasks."""
    folder = tmp_path_factory.mktemp("results")
    tasks = [task(f"{group}-{index}", "?", group=group) for index in range(3) for group in ("G1_tool", "G2_category")]
    known = {each.id: reference(each, "x") for each in tasks}
    evaluations: list[Evaluation] = []
    for number, name in enumerate(ARMS):
        judged = [scored(each, name, float(index <= number + 1)) for index, each in enumerate(tasks)]
        made = evaluate(
            name, revision(name), judged, tasks, known, conditions=CONDITIONS, annotator=RULES, attempts=1,
            split="test", resamples=100, confidence=0.95, rng=np.random.default_rng(0),
        )  # fmt: skip
        write_json(folder / EVALUATION / f"{name}.json", made.model_dump(mode="json"))
        write_jsonl(folder / EVALUATION / f"{name}.trajectories.jsonl.gz", judged)
        evaluations.append(made)
    compared = [compare(e, evaluations[0], resamples=100, confidence=0.95, seed=0) for e in evaluations[1:]]
    write_json(folder / EVALUATION / "comparisons.json", [c.model_dump(mode="json") for c in compared])
    summary = {"loss": 0.5, "advantage_step_0": 0.1, "advantage_step_1": 0.2, "advantage_step_x": 0.3}
    steps = [{"step": n, "approx_kl": 0.1, "grad_norm": 1.0} for n in range(3)]
    for name in ARMS:
        write_json(folder / MODELS / name / "training.json", {"summary": summary, "steps": steps})
    write_jsonl(folder / VALIDATED / "r1/scored.jsonl.gz", [scored(each, "sft", 1.0) for each in tasks])
    write_jsonl(folder / TASKS / "test.jsonl", tasks)
    write_jsonl(folder / REFERENCES, known.values())
    (folder / "params.yaml").write_text("seed: 17\n")
    return folder


@pytest.fixture
def workspace(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(results, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def read_all() -> str:
    """Everything that `report` and `results` do with what they read."""
    return text_table(read_results(PARAMS)) + render_report(report._gather(PARAMS))


def test_what_was_written_is_read(workspace: Path) -> None:
    assert "step_ppo from sft on r1" in read_all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_of_the_wrong_shape_is_named(workspace: Path, file: Path, shape: str) -> None:
    if (file.name, shape) == ("comparisons.json", "array"):
        file.write_text("[]")  # no comparison was asked for
        read_all()
        return
    file.write_text(SHAPES[shape])
    with pytest.raises(InputError) as refused:
        read_all()
    assert str(file) in str(refused.value)
    assert "fix:" in str(refused.value)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_that_is_cut_off_is_named(workspace: Path, file: Path) -> None:
    whole = file.read_bytes()
    for end in range(1, len(whole) - 2, max(1, len(whole) // 40)):
        file.write_bytes(whole[:end])
        with pytest.raises(InputError, match=file.name):
            read_all()


@pytest.mark.parametrize("file", ["sft.json", "ppo1.json"])
def test_an_evaluation_of_another_policy_is_refused(workspace: Path, file: str) -> None:
    shutil.copyfile(EVALUATION / "rft.json", EVALUATION / file)
    with pytest.raises(InputError, match=rf"{file}: is the evaluation of 'rft'"):
        read_all()


def test_an_evaluation_of_another_version_is_refused(workspace: Path) -> None:
    record = json.loads((EVALUATION / "ppo1.json").read_text())
    del record["broken"]
    write_json(EVALUATION / "ppo1.json", record)
    with pytest.raises(InputError, match=r"ppo1\.json: Evaluation: broken: Field required") as refused:
        read_all()
    assert "another version of StepTool may have written it" in str(refused.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("conditions", "sampling", "max_calls"), 3),
        (("conditions", "world"), {"name": "mini", "revision": "2"}),
        (("annotator",), {"name": "rules", "revision": "2"}),
        (("attempts",), 2),
        (("tasks_hash",), "0" * 16),
    ],
)
def test_evaluations_of_different_runs_are_refused(workspace: Path, place: tuple[str, ...], value: Any) -> None:
    record = json.loads((EVALUATION / "ppo1.json").read_text())
    holder = record
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    write_json(EVALUATION / "ppo1.json", record)
    with pytest.raises(InputError, match=f"ppo1 and sft were measured under different conditions:\n  {place[-1]}"):
        read_all()


@pytest.mark.parametrize("of", ["another policy", "another task", "one attempt twice"])
def test_attempts_that_the_evaluation_was_not_made_of_are_refused(workspace: Path, of: str) -> None:
    file = EVALUATION / "ppo1.trajectories.jsonl.gz"
    judged = read_jsonl(file, ScoredTrajectory)
    stranger = task("gone", "?")
    changed = {
        "another policy": [scored(read_tasks("test")[0], "sft", 1.0)],
        "another task": [*judged, scored(stranger, "ppo1", 1.0)],
        "one attempt twice": [*judged, judged[0]],
    }
    write_jsonl(file, changed[of])
    with pytest.raises(InputError, match=r"ppo1\.trajectories\.jsonl\.gz: trajectory \w+ of task"):
        read_all()


WRONG: list[Any] = [
    None, True, "text", "", -1, 2, 10**30, 1e308, -0.5, 1.5, float("nan"), float("inf"), [], {}, [None], {"": None},
    "\ud800", "<script>", "NaN",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_value_swapped_anywhere_is_read_or_refused_by_name(workspace: Path, data: st.DataObject) -> None:
    """A value that is wrong and possible (another p-value) is read; a traceback never comes of it."""
    file = data.draw(st.sampled_from(FILES))
    whole = file.read_text()
    parsed = json.loads(whole)
    path = data.draw(st.sampled_from(list(places(parsed))))
    changed = copy.deepcopy(parsed)
    holder: Any = {"": changed}
    steps = ("", *path)
    for key in steps[:-1]:
        holder = holder[key]
    root = holder if len(steps) == 1 else None
    how = data.draw(st.sampled_from(["swap", "drop", "add"]))
    if how == "drop" and root is None:
        del holder[steps[-1]]
    elif how == "add" and isinstance(holder[steps[-1]], dict):
        holder[steps[-1]]["unknown"] = data.draw(st.sampled_from(WRONG))
    else:
        holder[steps[-1]] = data.draw(st.sampled_from(WRONG))
    file.write_text(json.dumps(root[""] if root else changed))
    with suppress(InputError):
        read_all()
    file.write_text(whole)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "-0.1", "1.1", "true", '"0.5"', "null", "[]"])
@pytest.mark.parametrize("place", ["solved", "metrics", "broken", "low"])
def test_a_rate_that_is_none_is_never_read(workspace: Path, value: str, place: str) -> None:
    file = EVALUATION / "ppo1.json"
    record = json.loads(file.read_text())
    spots = {
        "solved": (record["solved"], "G1_tool-0"),
        "metrics": (record["metrics"]["all"]["pass_rate"], "value"),
        "low": (record["metrics"]["all"]["pass_rate"], "low"),
        "broken": (record, "broken"),
    }
    holder, key = spots[place]
    if value == "null" and place in ("low", "solved"):
        return  # a rate without an interval, a task without a verdict
    holder[key] = "@"
    file.write_text(json.dumps(record).replace('"@"', value))
    with pytest.raises(InputError, match=r"ppo1\.json"):
        read_all()
