"""What is read from dvc.yaml and dvc.lock.

a ──> b@x ──> c        alone
  └─> b@y ──┘
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from ruamel.yaml import YAML

from steptool.core.errors import InputError, ParamsError
from steptool.orchestration.graph.stages import Schedule, lock_entry, merge_lock_entry, read_graph
from tests.orchestration.conftest import dvc
from tests.project import ROOT

STAGES: dict[str, object] = {
    "a": {"cmd": "echo a > a.txt", "outs": ["a.txt"], "desc": "The first"},
    "b": {
        "foreach": {"x": 1, "y": 2},
        "do": {
            "cmd": "cat a.txt > ${key}.txt",
            "deps": ["a.txt"],
            "outs": ["${key}.txt"],
            "meta": {"resources": "gpu", "retries": 2, "timeout": "90m"},
        },
    },
    "c": {
        "cmd": "cat x.txt y.txt > c.json",
        "deps": ["x.txt", "y.txt", ".dvcignore"],
        "outs": ["c.html"],
        "metrics": ["c.json"],
    },
    "alone": {"cmd": "true", "outs": ["alone.txt"]},
}
Workspace = Callable[[dict[str, object]], Path]


def test_stages_come_after_what_they_need(workspace: Workspace) -> None:
    nodes = {node.address: node for node in read_graph(workspace(STAGES))}
    order = list(nodes)
    assert sorted(order) == ["a", "alone", "b@x", "b@y", "c"]
    assert order.index("a") < order.index("b@x") < order.index("c") > order.index("b@y")
    assert {name: node.upstream for name, node in nodes.items()} == {
        "a": (),
        "alone": (),
        "b@x": ("a",),
        "b@y": ("a",),
        "c": ("b@x", "b@y"),
    }
    assert nodes["c"].inputs == ("x.txt", "y.txt"), ".dvcignore is no stage's output"
    assert (nodes["c"].outputs, nodes["c"].metrics) == (("c.html", "c.json"), ("c.json",))
    assert nodes["a"].description == "The first"
    assert nodes["b@y"].schedule == Schedule(resources="gpu", retries=2, timeout=timedelta(minutes=90))


def test_inputs_are_outputs_of_others_those_inside_a_folder_and_parts_of_one(workspace: Workspace) -> None:
    root = workspace(
        {
            "r1": {"cmd": "true", "outs": ["rounds/r1"]},
            "r2": {"cmd": "true", "outs": ["rounds/r2"]},
            "all": {"cmd": "true", "deps": ["rounds", ".dvcignore"], "outs": ["all.txt"]},
            "part": {"cmd": "true", "deps": ["rounds/r1/tasks.jsonl"], "outs": ["part.txt"]},
        }
    )
    nodes = {node.address: node for node in read_graph(root)}
    assert (nodes["all"].inputs, nodes["all"].folders) == (("rounds/r1", "rounds/r2"), ("rounds",))
    assert nodes["all"].sources == (".dvcignore",)
    assert (nodes["part"].inputs, nodes["part"].folders) == (("rounds/r1/tasks.jsonl",), ())
    assert (nodes["all"].upstream, nodes["part"].upstream) == (("r1", "r2"), ("r1",))


def test_what_the_projects_own_stages_read_on_a_node() -> None:
    nodes = {node.address: node for node in read_graph(ROOT)}
    revisions = "data/revisions"
    rounds = ("data/validated/r1/scored.jsonl.gz", "data/validated/r2/scored.jsonl.gz")
    trained = (f"{revisions}/train-rft.json", "data/tasks", *rounds, "models/base", "models/sft")
    assert nodes["train-rft"].inputs == trained
    models = [f"models/{name}" for name in ("base", "ppo1", "ppo2", "rft", "sft")]
    assert nodes["evaluate"].inputs == (f"{revisions}/evaluate.json", "data/tasks", *models)
    sampled = (f"{revisions}/sample-r2.json", "data/tasks", "models/base", "models/ppo1", "models/sft")
    assert nodes["sample-r2"].inputs == sampled, "ppo1 is an adapter of sft"
    assert nodes["evaluate"].metrics == ("metrics/evaluation/summary.json",)
    assert nodes["evaluate"].sources == ("params.yaml",)
    assert not [name for name, node in nodes.items() if node.folders]


def test_data_that_was_added_to_dvc_is_an_input_and_no_stage(workspace: Workspace) -> None:
    root = workspace({"a": {"cmd": "true", "deps": ["traces.jsonl"], "outs": ["a.txt"]}})
    (root / "traces.jsonl").write_text("{}\n")
    dvc(root, "add", "-q", "traces.jsonl")
    (node,) = read_graph(root)
    assert (node.address, node.upstream, node.inputs, node.sources) == ("a", (), ("traces.jsonl",), ())


@pytest.mark.parametrize(
    ("targets", "expected"),
    [(["b@x"], ["a", "b@x"]), (["b"], ["a", "b@x", "b@y"]), (["alone", "a"], ["a", "alone"])],
)
def test_targets_bring_what_they_need(workspace: Workspace, targets: list[str], expected: list[str]) -> None:
    assert sorted(node.address for node in read_graph(workspace(STAGES), targets)) == expected


def test_a_stage_added_to_dvc_yaml_is_in_the_graph(workspace: Workspace) -> None:
    root = workspace(STAGES)
    yaml = YAML()
    document = yaml.load(root / "dvc.yaml")
    document["stages"]["d"] = {"cmd": "true", "deps": ["c.json"], "outs": ["d.txt"]}
    yaml.dump(document, root / "dvc.yaml")
    assert read_graph(root)[-1].address in ("alone", "d")
    assert {node.address: node.upstream for node in read_graph(root)}["d"] == ("c",)


@pytest.mark.parametrize(
    ("meta", "said"),
    [({"resources": "tpu"}, "resources"), ({"retries": -1}, "retries"), ({"timout": "6h"}, "timout")],
)
def test_meta_that_is_no_schedule_names_the_stage_and_the_key(
    workspace: Workspace, meta: dict[str, object], said: str
) -> None:
    root = workspace({"a": {"cmd": "true", "outs": ["a.txt"], "meta": meta}})
    with pytest.raises(ParamsError, match=rf"meta of stage a: .*{said}") as caught:
        read_graph(root)
    assert caught.value.exit_code == 2


def test_unknown_target_lists_the_stages(workspace: Workspace) -> None:
    with pytest.raises(ParamsError, match=r"(?s)no stage 'z'.*a, alone, b@x, b@y, c"):
        read_graph(workspace(STAGES), ["z"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1.5h", 5400), ("1d", 86400), (7, 7)]
)
def test_durations(text: object, seconds: float) -> None:
    assert Schedule.model_validate({"timeout": text}).timeout == timedelta(seconds=seconds)


def test_entry_made_elsewhere_makes_the_stage_up_to_date(workspace: Workspace) -> None:
    """What the orchestrator does after a stage ran in another clone: the entry, then the outputs from the cache."""
    root = workspace(STAGES)
    dvc(root, "repro", "-q", "a")
    entry = lock_entry(root, "a")
    assert entry is not None
    assert lock_entry(root, "c") is None
    (root / "dvc.lock").unlink()
    (root / "a.txt").unlink()
    merge_lock_entry(root, "a", entry)
    assert lock_entry(root, "a") == entry
    dvc(root, "checkout", "-q", "a.txt")
    assert "didn't change" in dvc(root, "repro", "a")


def test_merging_leaves_the_other_entries_alone(workspace: Workspace) -> None:
    root = workspace(STAGES)
    dvc(root, "repro", "-q", "a")
    before = lock_entry(root, "a")
    merge_lock_entry(root, "b@x", {"cmd": "cat a.txt > x.txt"})
    assert (lock_entry(root, "a"), lock_entry(root, "b@x")) == (before, {"cmd": "cat a.txt > x.txt"})


def test_threads_that_read_at_once_find_the_same(workspace: Workspace) -> None:
    root = workspace({f"s{number}": {"cmd": "true", "outs": [f"{number}.txt"]} for number in range(20)})
    count = 8
    together = Barrier(count)

    def read() -> int:
        together.wait(10)
        return len(read_graph(root))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change places often
    try:
        with ThreadPoolExecutor(count) as pool:
            assert [answer.result() for answer in [pool.submit(read) for _ in range(count)]] == [20] * count
    finally:
        sys.setswitchinterval(before)


CONFLICT = "stages:\n<<<<<<< HEAD\n  a: {cmd: x}\n=======\n  a: {cmd: y}\n>>>>>>> theirs\n"


@pytest.mark.parametrize("text", [CONFLICT, "stages: [", "3"])
def test_a_lock_that_cannot_be_read_is_one_plain_error(workspace: Workspace, text: str) -> None:
    root = workspace(STAGES)
    (root / "dvc.lock").write_text(text)
    with pytest.raises(ParamsError, match=r"/dvc\.lock(:\d+)?: ") as caught:
        read_graph(root)
    assert len(str(caught.value).splitlines()) == 2


def test_a_folder_without_dvc_is_one_plain_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no DVC repository"):
        read_graph(tmp_path)
