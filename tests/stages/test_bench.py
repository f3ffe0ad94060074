"""`steptool bench WORLD`: an empty folder, an untrained toy model, an engine that repeats its prompt.

bench mini, bench switches:Switches     table, evaluation, receipt in .steptool/bench/WORLD
the same once more                      nothing is sampled
another limit, seed or setting          measured anew
the stage evaluate                      the same evaluation, to the last field
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from steptool.cli import app
from steptool.config.settings import SMOLLM2
from steptool.core.errors import InputError, NotComparable
from steptool.policies.base_models import fetch_base
from steptool.report.bench import page
from steptool.stages import bench
from steptool.stages.bench import Wanted, chosen_of, params_of
from steptool.stages.bench_all import measure_all
from steptool.stages.evaluate import measure_policy
from tests.project import ROOT

PLUGINS = ROOT / "examples" / "plugins"
QUICK = {
    "model.base": "tiny-random",
    "engine.use": "parrot:Parrot",
    "sample.max_tokens": 4096,
    "sample.max_calls": 2,
    "evaluate.resamples": 100,
}
SMALL = {"train_tasks": 12, "dev_tasks": 6, "test_tasks": 6}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("parrot.py", "switches.py"):
        shutil.copyfile(PLUGINS / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(world: str, *options: str, **settings: Any) -> Result:
    given = [f"{key}={value}" for key, value in (QUICK | settings).items()]
    return CliRunner().invoke(app, ["bench", world, *(part for text in given for part in ("--set", text)), *options])


def refused(made: Result) -> str:
    assert isinstance(made.exception, InputError), made.output
    return str(made.exception)


def test_an_empty_folder_needs_no_settings(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured("mini", "--limit", "3", "--json", "found.json", "--html", "found.html", **SMALL)
    assert made.exit_code == 0, made.output
    assert "base solves 0 % of 3 unseen tasks" in made.output
    (evaluation,) = json.loads(Path("found.json").read_text())["evaluations"]
    assert len(evaluation["solved"]) == 3 and evaluation["split"] == "test"
    assert "<title>" in Path("found.html").read_text()
    (kept,) = (empty / ".steptool/bench/mini").iterdir()
    receipt = json.loads((kept / "manifest.json").read_text())
    assert receipt["policy"]["folder"] == ".steptool/bench/base"
    assert receipt["tasks"] == evaluation["tasks_hash"]

    def refuse(*args: Any) -> None:
        raise RuntimeError("sampled what is kept")

    monkeypatch.setattr(bench, "measure_policy", refuse)
    again = measured("mini", "--limit", "3", "--json", "again.json", **SMALL)
    assert again.exit_code == 0, again.output
    assert Path("again.json").read_text() == Path("found.json").read_text()
    assert "sampled what is kept" in repr(measured("mini", "--limit", "4", **SMALL).exception)


def test_a_world_by_its_import_path_and_two_policies(empty: Path) -> None:
    fetch_base("tiny-random", Path("one"), seed=1)
    fetch_base("tiny-random", Path("two/one"), seed=2)
    made = measured("switches:Switches", "--policy", "one", "--policy", "two/one", test_tasks=2)
    assert made.exit_code == 0, made.output
    assert "one-2 against one: 0.0 points" in made.output
    fetch_base("tiny-random", Path("three"), seed=3)
    made = measured("switches:Switches", *(f"--policy={name}" for name in ("one", "two/one", "three")), test_tasks=2)
    assert made.output.index("three against one") < made.output.index("one-2 against one")  # the last is the headline
    assert len(list((empty / ".steptool/bench/switches_Switches").iterdir())) == 3


@pytest.mark.parametrize(
    ("world", "options", "said"),
    [
        ("mni", [], "did you mean 'mini'?; use one of mini, recorded"),
        ("functions", [], "tasks.jsonl: no such file\n  fix: set world.tasks"),
        ("mini", ["--set", "tets_tasks=3"], "tets_tasks: Extra inputs are not permitted"),
        ("mini", ["--set", "sample.max_cals=3"], "sample.max_cals: unknown key, did you mean 'max_calls'?"),
        ("mini", ["--set", "3"], "'3' is no setting"),
        ("mini", ["--set", "world.tets_tasks=3"], "tets_tasks: Extra inputs are not permitted"),
        ("mini", ["--set", "sample.draw=1", "--set", "sample.draw.x=2"], "sample.draw.x lies within draw, which is"),
        ("switches:Switches", ["--policy", "nowhere"], "no such policy"),
        ("switches:Switches", ["--endpoint", "gpt"], "write MODEL@URL"),
        ("switches:Switches", ["--endpoint", "gpt@nowhere"], "--endpoint gpt@nowhere: is an address"),
    ],
)
def test_what_does_not_exist_is_named(empty: Path, world: str, options: list[str], said: str) -> None:
    assert said in refused(CliRunner().invoke(app, ["bench", world, *options]))


def test_a_baseline_is_one_of_the_policies(empty: Path) -> None:
    said = refused(measured("switches:Switches", "--against", "sft"))
    assert "'sft' is not among the policies" in said


PROJECT = """\
seed: 5
world: {use: mini, test_tasks: 12, dev_tasks: 6, train_tasks: 12}
sample: {max_calls: 5}
arms:
  sft: {method: sft, from: base, data: [demonstrations]}
  theirs: {folder: given}
  gpt: {endpoint: {url: 'http://127.0.0.1:9/v1', model: gpt}}
compare: [[theirs, sft]]
"""


def test_a_projects_settings_hold_unless_others_are_given(empty: Path) -> None:
    Path("params.yaml").write_text(PROJECT)
    same = params_of(Wanted("mini", settings=("test_tasks=4",), seed=6, split="dev"))
    assert (same.seed, same.sample.max_calls, same.evaluate.split) == (6, 5, "dev")
    assert same.world.config.test_tasks == 4 and same.world.config.train_tasks == 12
    other = params_of(Wanted("switches:Switches", settings=("sample.max_calls=7",)))
    assert (other.seed, other.sample.max_calls) == (5, 7)
    assert other.world.settings == {}
    (empty / "params.yaml").unlink()
    assert params_of(Wanted("mini")).model.base == SMOLLM2


def test_all_arms_that_are_there_are_measured_where_none_is_named(empty: Path) -> None:
    Path("params.yaml").write_text(PROJECT)
    fetch_base("tiny-random", Path("given"))
    params = params_of(Wanted("mini"))
    assert [each.name for each in chosen_of(params, Wanted("mini"))] == ["theirs"]
    asked = chosen_of(params, Wanted("mini", endpoints=("gpt", "big@http://127.0.0.1:9/v1"), key="THE_KEY"))
    assert [each.name for each in asked] == ["gpt", "big"]
    assert asked[1].endpoint is not None and asked[1].endpoint.config.key == "THE_KEY"


def test_a_world_offers_metrics_of_its_own(empty: Path) -> None:
    shutil.copyfile(PLUGINS / "repeats.py", "repeats.py")
    world = "from switches import Switches\nimport repeats\n\n\nclass Counted(Switches):\n"
    Path("counted.py").write_text(world + "    metrics = {'repeats': {'use': 'repeats:Repeats'}}\n")
    made = measured("counted:Counted", "--limit", "1", "--json", "found.json")
    assert made.exit_code == 0, made.output
    (evaluation,) = json.loads(Path("found.json").read_text())["evaluations"]
    assert "repeats" in evaluation["metrics"]["all"]
    (receipt,) = (empty / ".steptool/bench/counted_Counted").glob("*/manifest.json")
    assert json.loads(receipt.read_text())["metrics"]["repeats"]["revision"]


def test_a_part_of_what_a_project_says_of_its_world_can_be_set(empty: Path) -> None:
    (empty / "params.yaml").write_text("world: {use: toolbench, simulator: {url: 'http://x/v1', model: m}}\n")
    params = params_of(Wanted("toolbench", settings=("world.simulator.url=http://y/v1",)))
    assert params.world.settings["simulator"] == {"url": "http://y/v1", "model": "m"}


HOLDS = """
from pathlib import Path
from steptool.annotators.rules import Rules

class Holds(Rules):
    def __init__(self, config):
        super().__init__(config)
        self.note("begun")

    def end(self):
        self.note("ended")

    def note(self, what):
        with Path("notes.txt").open("a") as file:
            file.write(f"{what} ")
"""


def test_what_the_annotator_started_is_ended(empty: Path) -> None:
    """Once for its revision, in the receipt, and once for the policy that it judges."""
    Path("holds.py").write_text(HOLDS)
    made = measured("switches:Switches", "--limit", "1", **{"annotate.use": "holds:Holds"})
    assert made.exit_code == 0, made.output
    assert Path("notes.txt").read_text().split() == ["begun", "ended"] * 2


def test_worlds_that_are_not_there_are_left_out_by_name(empty: Path) -> None:
    worlds = {"switches:Switches": ("test_tasks=2",), "functions": (), "tau9": ()}
    settings = tuple(f"{key}={value}" for key, value in QUICK.items())
    found = measure_all(Wanted("", settings=settings, limit=1), worlds)
    assert list(found.measured) == ["switches:Switches"] and list(found.left_out) == ["functions", "tau9"]
    text = page(found)
    assert "| world | tasks | measured on | base |" in text
    assert "| switches:Switches | 1 | solved | 0.0 [0.0, 0.0] |" in text
    assert "- functions: tasks.jsonl: no such file; fix: set world.tasks" in text
    assert "- tau9: world: nothing is called 'tau9'" in text
    assert "solves 0 % of 1 held-out task" in text
    (settings,) = [line for line in text.splitlines() if line.startswith("world ")]
    assert settings == "world switches:Switches (train_tasks: 8, dev_tasks: 4, test_tasks: 2); seed 17; split test"


def test_no_world_at_all_is_an_error(empty: Path) -> None:
    with pytest.raises(InputError, match="no world can be measured"):
        measure_all(Wanted(""), {"tau9": ()})


@pytest.mark.slow
def test_the_figures_are_those_of_the_stage_evaluate(empty: Path) -> None:
    settings = "model: {base: tiny-random}\nengine: {use: 'parrot:Parrot'}\nevaluate: {resamples: 100}\n"
    settings += "demonstrations: {count: 4}\n"
    written = PROJECT.replace("sample: {max_calls: 5}", "sample: {max_calls: 5, max_tokens: 4096}")
    lines = [line for line in written.splitlines() if not line.startswith(("  sft", "  gpt", "compare"))]
    Path("params.yaml").write_text("\n".join([*lines, settings]))
    fetch_base("tiny-random", Path("given"))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("STEPTOOL_", "MLFLOW_"))}
    environment = kept | {"PYTHONPATH": str(ROOT), "STEPTOOL_PARENT_RUN_ID": "0" * 32}
    for verb in (["prepare"], ["evaluate"], ["bench", "mini", "--json", "found.json"]):
        command = [sys.executable, "-m", "steptool.cli", *verb]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    (ours,) = json.loads(Path("found.json").read_text())["evaluations"]
    assert ours == json.loads(Path("metrics/evaluation/theirs.json").read_text())


def test_policies_of_other_conditions_are_not_compared(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an evaluation that was kept by hand, or one whose format is of another tokenizer."""
    fetch_base("tiny-random", Path("one"), seed=1)
    fetch_base("tiny-random", Path("two"), seed=2)
    measure = measure_policy

    def shorter(params: Any, name: str, acting: Any, *rest: Any) -> Any:
        if name == "two":
            params = params.model_copy(update={"sample": params.sample.model_copy(update={"max_calls": 1})})
        return measure(params, name, acting, *rest)

    monkeypatch.setattr(bench, "measure_policy", shorter)
    made = measured("switches:Switches", "--policy", "one", "--policy", "two", "--limit", "1")
    assert isinstance(made.exception, NotComparable)
    assert "max_calls: 1 against 2" in str(made.exception)
