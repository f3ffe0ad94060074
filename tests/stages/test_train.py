"""Stage `train`: one verb for every arm, whoever wrote its method.

base ─ sft ─┬─ r1 ─┬─ ppo1 ─ ppo2
            │      ├─ rft, pairs (dpo), archer
            │      └─ theirs      by dpo.py, a file of the project
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from steptool.config.arms import arm_of
from steptool.config.places import BASE, DEMONSTRATIONS, MODELS, PARAMS, REFERENCES, TASKS, VALIDATED
from steptool.config.settings import load_params
from steptool.core.errors import DataError, ParamsError
from steptool.core.storage import write_jsonl
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.policies.base_models import fetch_base
from steptool.policies.canary import read_canary
from steptool.policies.folder import resolve_policy
from steptool.stages import train
from steptool.testing import call, finish, reference, scored, step, task, tool, trajectory
from steptool.tracking.run import PARENT_VARIABLE

ADAPTER = "lora_first_layer: 1, lora_rank: 2, lora_alpha: 4, minibatches: 2"
SETTINGS = f"""\
seed: 17
model: {{base: tiny-random, dtype: float32}}
methods:
  sft: {{frozen_layers: 1}}
  rft: {{{ADAPTER}}}
  step_ppo: {{{ADAPTER}, max_engine_kl: 1000.0}}
  dpo: {{{ADAPTER}}}
  archer: {{{ADAPTER}, max_engine_kl: 1000.0, critic_updates: 10}}
  mine: {{use: "my_dpo:Dpo", {ADAPTER}, beta: 0.2}}
rounds:
  r1: {{from: sft}}
arms:
  sft: {{method: sft, from: base, data: [demonstrations]}}
  ppo1: {{method: step_ppo, from: sft, data: [r1]}}
  ppo2: {{method: step_ppo, from: ppo1, data: [r1], settings: {{learning_rate: 4.0e-4}}}}
  rft: {{method: rft, from: sft, data: [r1]}}
  pairs: {{method: dpo, from: sft, data: [r1]}}
  archer: {{method: archer, from: sft, data: [r1]}}
  theirs: {{method: mine, from: sft, data: [r1]}}
"""
FIND = tool("find", needs={"name": "string"})
TASKS_GIVEN = [task(f"t{number}", f"Where is the tea of shop {number}?", FIND) for number in range(2)]
CHAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with its base model, tasks, demonstrations and one validated round."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    shutil.copyfile(Path(__file__).parents[2] / "examples" / "plugins" / "dpo.py", "my_dpo.py")
    PARAMS.write_text(SETTINGS)
    fetch_base("tiny-random", BASE)
    write_jsonl(TASKS / "train.jsonl", TASKS_GIVEN)
    write_jsonl(REFERENCES, [reference(each, "7") for each in TASKS_GIVEN])
    shown = [step(call("find", name="tea"), {"id": 7}), finish("7")]
    write_jsonl(DEMONSTRATIONS, [trajectory(*shown, of=each, solved=1.0, conditions=None) for each in TASKS_GIVEN])
    write_round(solved=1.0)
    return tmp_path


def write_round(solved: float) -> None:
    """Two attempts at each task: one finds the tea, `solved` says whether that was right; the other guesses."""
    attempts = []
    for each in TASKS_GIVEN:
        for number, (answer, right) in enumerate([("7", solved), ("9", 0.0)]):
            last = finish(answer)
            ids = {"context_ids": CHAT.prompt(each), "action_ids": CHAT.render(last.action)}
            made = trajectory(finish(answer, **ids), of=each, solved=right, attempt=number)
            attempts.append(scored(made))
    write_jsonl(VALIDATED / "r1" / "scored.jsonl.gz", attempts)


def test_every_arm_is_trained_by_its_method(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arm in ("sft", "ppo1", "ppo2", "rft", "pairs", "archer", "theirs"):
        train.main(arm)
    said = [line.split(" ->")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("train ")]
    assert said == [
        "train sft: sft on demonstrations, 2 updates",
        "train ppo1: step_ppo on r1, 2 updates",
        "train ppo2: step_ppo on r1, 2 updates",
        "train rft: rft on r1, 4 updates",
        "train pairs: dpo on r1, 4 updates",
        "train archer: archer on r1, 4 updates",
        "train theirs: my_dpo:Dpo on r1, 2 updates",
    ]
    assert resolve_policy(MODELS / "sft").adapter is None
    for arm in ("ppo1", "ppo2", "rft", "pairs", "archer", "theirs"):
        assert resolve_policy(MODELS / arm) == (MODELS / "sft", MODELS / arm)
        found = json.loads((MODELS / arm / "training.json").read_text())
        assert found["summary"]["trajectories"] == 4
        assert [row["step"] for row in found["steps"]] == list(range(1, len(found["steps"]) + 1))
    assert all(read_canary(MODELS / arm) for arm in ("sft", "ppo1", "ppo2", "rft", "pairs", "archer", "theirs"))
    assert not any(train.CHECKPOINTS.iterdir())


def test_an_arms_own_settings_stand_above_its_methods(project: Path) -> None:
    params = load_params()
    rates = {name: train.method_of(arm_of(params, name)).config.learning_rate for name in ("ppo1", "ppo2")}
    assert rates == {"ppo1": 1e-3, "ppo2": 4e-4}


def test_the_seed_moves_with_each_arm_of_the_same_method(project: Path) -> None:
    params = load_params()
    found = {name: arm_of(params, name).generation for name in params.arms}
    assert found == {name: int(name == "ppo2") for name in params.arms}


def test_where_nothing_is_solved_rft_is_what_it_started_from_and_ppo_fails(project: Path) -> None:
    train.main("sft")
    write_round(solved=0.0)
    train.main("rft")
    assert json.loads((MODELS / "rft" / "training.json").read_text()) == {
        "summary": {"solved": 0, "trajectories": 4},
        "steps": [],
    }
    with pytest.raises(DataError, match="no trajectory carries a signal"):
        train.main("ppo1")
    assert not (MODELS / "ppo1").exists()


@pytest.mark.parametrize(
    ("arm", "found", "fix"),
    [
        ("rft: {method: rft, from: base, data: [demonstrations]}", "rft needs scored, which data", "data: [ROUND]"),
        ("sft2: {method: sft, from: base, data: [r1]}", "sft needs demonstrations, which data", "[demonstrations]"),
        ("theirs: {folder: given}", "it is evaluated, not trained", "an arm with a method"),
        ("x: {method: sft, from: base, data: [r1], settings: {beta: 1.0}}", "beta: unknown key", ""),
    ],
)
def test_an_arm_whose_data_or_settings_its_method_refuses_is_named(
    project: Path, arm: str, found: str, fix: str
) -> None:
    name = arm.partition(":")[0]
    kept = [line for line in SETTINGS.splitlines(keepends=True) if not line.startswith(f"  {name}: {{method")]
    PARAMS.write_text("".join(kept) + f"  {arm}\n")
    with pytest.raises(ParamsError, match=found) as caught:
        train.main(name)
    assert name in str(caught.value)
    assert fix in str(caught.value.fix)


def test_a_need_that_no_data_gives_is_named(project: Path) -> None:
    source = project / "my_dpo.py"
    source.write_text(source.read_text().replace('{"scored"}', '{"pairs"}').replace("class Dpo", "class Pairs"))
    PARAMS.write_text(SETTINGS.replace("my_dpo:Dpo", "my_dpo2:Pairs"))
    source.rename(project / "my_dpo2.py")
    with pytest.raises(ParamsError, match="needs pairs, which data") as caught:
        train.main("theirs")
    assert caught.value.fix == "let it need some of demonstrations, scored, sampled"


def test_only_the_checkpoints_of_the_arm_that_is_done_are_removed(project: Path) -> None:
    folders = [train.CHECKPOINTS / name for name in ("ppo1-aa", "ppo1-bb", "ppo10-aa")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "checkpoint.safetensors").write_bytes(b"state")
    train.forget_checkpoints("ppo1")
    assert list(train.CHECKPOINTS.iterdir()) == [folders[2]]


def test_an_arm_that_left_no_checkpoint_has_nothing_to_remove(project: Path) -> None:
    train.forget_checkpoints("rft")
    assert not train.CHECKPOINTS.exists()
