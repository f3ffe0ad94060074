"""`steptool register`: which arm, against what, and that it can be repeated.

arms       base ─ sft ─┬─ ppo1 ─ ppo2          compare    ppo2 with sft, ppo2 with rft
                       └─ rft
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steptool.config.places import EVALUATION, REGISTRATION
from steptool.config.settings import Params
from steptool.core.errors import DataError, ParamsError
from steptool.core.storage import file_hash, write_json
from steptool.core.types import Revision
from steptool.evaluation.metrics import Evaluation
from steptool.registry.models import Registration, find_version, load_baseline, load_evaluation
from steptool.stages.register import arm_to_register, baseline_of, main
from steptool.tracking.run import Tracking

Build = Callable[..., Evaluation]
ARMS: dict[str, Any] = {
    "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
    "ppo1": {"method": "step_ppo", "from": "sft", "data": ["r1"]},
    "ppo2": {"method": "step_ppo", "from": "ppo1", "data": ["r1"]},
    "rft": {"method": "rft", "from": "sft", "data": ["r1"]},
    "theirs": {"folder": "given"},
}
COMPARE = [["ppo2", "sft"], ["ppo2", "rft"]]


def params(**changes: Any) -> Params:
    sections = {"rounds": {"r1": {"from": "sft"}}, "arms": ARMS, "compare": COMPARE, **changes}
    return Params.model_validate(sections)


@pytest.mark.parametrize(
    ("changes", "arm"),
    [
        ({"register": {"arm": "rft"}}, "rft"),
        ({}, "ppo2"),
        ({"compare": []}, "ppo1"),
        ({"compare": [], "arms": {"only": ARMS["sft"]}, "rounds": {}}, "only"),
    ],
    ids=["that is named", "first of compare", "compared with the first", "the only one"],
)
def test_the_arm_to_register(changes: dict[str, Any], arm: str) -> None:
    assert arm_to_register(params(**changes)) == arm


@pytest.mark.parametrize(
    ("rates", "arm"),
    [
        ({"sft": 0.3, "ppo1": 0.5, "ppo2": 0.4, "rft": 0.2}, "ppo1"),
        ({"sft": 0.3, "ppo1": 0.5, "ppo2": 0.5, "rft": 0.5}, "ppo1"),
        ({"sft": 0.3, "ppo1": 0.4, "ppo2": 0.5, "rft": 0.6, "theirs": 0.9}, "rft"),
        ({"sft": 0.0, "ppo1": 0.0, "ppo2": 0.0, "rft": 0.0}, "sft"),
    ],
    ids=["best", "earlier of equal ones", "of those that were trained", "all alike"],
)
def test_the_best_arm_on_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: dict[str, float], arm: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "metrics/selection/summary.json", {name: {"pass_rate": x} for name, x in rates.items()})
    assert arm_to_register(params(register={"best_on": "dev"})) == arm


@pytest.mark.parametrize("stored", [{"sft": {"pass_rate": 0.3}}, {"sft": {}, "ppo1": {}, "ppo2": {}, "rft": {}}])
def test_a_selection_that_lacks_an_arm_chooses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "metrics/selection/summary.json", stored)
    with pytest.raises(DataError, match=r"no pass_rate of .*ppo1.*\n.*steptool run"):
        arm_to_register(params(register={"best_on": "dev"}))


def test_without_verdicts_the_best_arm_is_that_with_the_most_grounded_answers_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grounded = {"sft": 0.2, "ppo1": 0.5, "ppo2": 0.4, "rft": 0.1}
    rows = {arm: {"grounded": share, "tasks_with_verdict": 0.0} for arm, share in grounded.items()}
    write_json(tmp_path / "metrics/selection/summary.json", rows)
    with pytest.raises(DataError, match=r"no pass_rate of .*\n.*no task of this split has a verdict"):
        arm_to_register(params(register={"best_on": "dev"}))
    assert arm_to_register(params(register={"best_on": "dev"}, promote={"measure": "grounded"})) == "ppo1"


def test_nothing_that_was_trained_is_no_choice() -> None:
    with pytest.raises(ValueError, match="there is none"):
        params(register={"best_on": "dev"}, arms={"theirs": ARMS["theirs"]}, compare=[], rounds={})


@pytest.mark.parametrize(("arm", "baseline"), [("ppo2", "sft"), ("rft", "sft"), ("theirs", "sft"), ("sft", None)])
def test_the_baseline_is_the_first_of_compare_or_of_all(arm: str, baseline: str | None) -> None:
    assert baseline_of(params(), arm) == baseline


def test_the_first_arm_may_have_a_baseline_too() -> None:
    assert baseline_of(params(compare=[["sft", "theirs"]]), "sft") == "theirs"


@pytest.fixture
def project(tracking: Tracking, evaluation_of: Build, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose arms ppo2 and sft were trained and evaluated."""
    from steptool.policies.tiny_model import model, tokenizer

    root = tracking.root
    monkeypatch.chdir(root)
    (root / "params.yaml").write_text(
        json.dumps(
            {"rounds": {"r1": {"from": "sft"}}, "arms": ARMS, "compare": COMPARE, "tracking": {"model_name": "m"}}
        )
    )
    for seed, (arm, verdicts) in enumerate({"sft": "1000", "ppo2": "1110"}.items()):
        folder = root / "models" / arm
        model(seed).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        evaluated(root, evaluation_of(verdicts, arm))
    return root


def evaluated(root: Path, evaluation: Evaluation) -> None:
    """Store an evaluation as `evaluate` does, of the policy that lies there."""
    folder = Path("models") / evaluation.name
    policy = Revision(name=str(folder), revision=file_hash(root / folder))
    write_json(
        root / EVALUATION / f"{evaluation.name}.json",
        evaluation.model_copy(update={"policy": policy}).model_dump(mode="json"),
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_registering_an_arm_says_what_made_it_and_can_be_repeated(
    project: Path, tracking: Tracking, capsys: pytest.CaptureFixture[str]
) -> None:
    main()
    assert "ppo2 is registered as m version 1, the candidate" in capsys.readouterr().out
    version = find_version(tracking, "m", "candidate")
    evaluation, baseline = load_evaluation(tracking, version), load_baseline(tracking, version)
    assert baseline is not None
    assert (evaluation.name, baseline.name) == ("ppo2", "sft")
    made_by = {key.removeprefix("lineage."): value for key, value in version.tags.items() if key.startswith("lineage.")}
    assert made_by == {
        "seed": "17",
        "arm": "ppo2",
        "policy": f"models/ppo2 {file_hash(project / 'models/ppo2')}",
        "world": "mini 1",
        "format": "json_call 1",
        "engine": "vllm 1 in float32",
        "search": "chain 1",
        "annotator": "rules 1",
        "input.policy": file_hash(project / "models/ppo2"),
        "input.evaluation": file_hash(project / EVALUATION / "ppo2.json"),
        "input.baseline": file_hash(project / EVALUATION / "sft.json"),
    }
    receipt = Registration.model_validate_json((project / REGISTRATION).read_bytes())
    assert (receipt.arm, receipt.name, receipt.version, receipt.is_new) == ("ppo2", "m", 1, True)
    assert receipt.lineage == made_by

    main()
    assert "ppo2 was registered before, with this evaluation, as m version 1" in capsys.readouterr().out
    main("sft")
    assert find_version(tracking, "m", "candidate").version == 2
    assert load_baseline(tracking, find_version(tracking, "m", 2)) is None
    main("ppo2")
    assert find_version(tracking, "m", "candidate").version == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_arm_that_was_trained_since_it_was_evaluated_is_refused(project: Path) -> None:
    shutil.copytree(project / "models/sft", project / "models/ppo2", dirs_exist_ok=True)
    with pytest.raises(DataError, match=r"is of models/ppo2 .*, but models/ppo2 is now .*\n.*steptool run"):
        main()
    assert not (project / REGISTRATION).exists()
    with pytest.raises(DataError, match=r"rft\.json: no such file"):
        main("rft")
    with pytest.raises(ParamsError, match="no arm 'r2'; there are sft, ppo1, ppo2, rft, theirs"):
        main("r2")
