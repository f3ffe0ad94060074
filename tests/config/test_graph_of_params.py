"""dvc.yaml, as params.yaml asks for it.

rounds: r1 from sft                base ─ prepare ─ train-sft ─ sample-r1 ─ annotate-r1 ─ validate-r1 ─┐
arms:   sft, ppo1 on r1, theirs                         └──────────────────────────────────── train-ppo1
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from steptool.config.arms import COMPARING, check_methods, comparison_of, round_of
from steptool.config.graph import dvc_document, dvc_text, stages_of
from steptool.config.lineage import PIPELINE, refuse_unless_written, write_graph
from steptool.config.places import PARAMS
from steptool.config.plugins import BUILT_IN
from steptool.config.settings import Params, load_params, parse_params
from steptool.core.errors import ParamsError
from steptool.core.plugins import load_class
from steptool.orchestration.graph.stages import read_graph
from steptool.training.compared import KINDS, compared_by
from steptool.training.siblings import Comparison
from tests.project import ROOT

SMALL: dict[str, Any] = {
    "seed": 3,
    "rounds": {"r1": {"from": "sft"}},
    "arms": {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "ppo1": {"method": "step_ppo", "from": "sft", "data": ["r1"]},
        "theirs": {"folder": "given/theirs"},
    },
}


def stages(data: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = dvc_document(parse_params(PARAMS, data))["stages"]
    return document


def test_the_shipped_file_is_the_graph_of_the_shipped_params(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    refuse_unless_written(load_params(PARAMS))


def test_every_round_and_arm_is_a_stage_after_what_it_reads() -> None:
    made = stages(SMALL)
    order = list(made)
    assert order == [
        *("revisions", "base", "prepare", "train-sft", "sample-r1", "annotate-r1", "validate-r1", "train-ppo1"),
        *("evaluate", "report"),
    ]
    assert made["train-ppo1"]["cmd"] == "steptool train ppo1"
    assert made["train-ppo1"]["deps"] == [
        *("data/revisions/train-ppo1.json", "data/tasks", "data/validated/r1/scored.jsonl.gz"),
        *("models/sft", "models/base"),
    ]
    assert made["sample-r1"]["deps"][2:] == ["models/sft", "models/base"], "an adapter needs what it is built on"
    assert "given/theirs" in made["evaluate"]["deps"]
    assert {name: stage["outs"] for name, stage in made.items() if name not in ("revisions",)} == {
        "base": ["models/base"],
        "prepare": ["data/tasks"],
        "train-sft": ["models/sft"],
        "sample-r1": ["data/trajectories/r1"],
        "annotate-r1": ["data/scored/r1"],
        "validate-r1": ["data/validated/r1"],
        "train-ppo1": ["models/ppo1"],
        "evaluate": ["metrics/evaluation"],
        "report": ["reports"],
    }


def test_a_stage_lists_the_settings_that_the_file_holds_and_no_other() -> None:
    """DVC refuses a setting that it does not find; what is left out counts through stage `revisions`."""
    assert stages(SMALL)["train-ppo1"]["params"] == ["seed", "arms.ppo1"]
    more = SMALL | {"methods": {"step_ppo": {"epochs": 2}}, "model": {"dtype": "float32"}, "reward": {"alpha": 0.1}}
    assert stages(more)["train-ppo1"]["params"] == ["seed", "arms.ppo1", "methods.step_ppo", "model.dtype", "reward"]
    assert stages(more)["train-sft"]["params"] == ["seed", "arms.sft", "model.dtype"], "no round, so no reward"
    assert stages(more)["base"]["params"] == ["seed"]


def test_a_project_may_have_no_sft_and_no_rounds() -> None:
    only = {"arms": {"theirs": {"folder": "given/theirs"}}}
    assert list(stages(only)) == ["revisions", "base", "prepare", "evaluate", "report"]
    from_base = {
        "rounds": {"r1": {"from": "base"}},
        "arms": {"ppo": {"method": "step_ppo", "from": "base", "data": ["r1"]}},
    }
    assert stages(from_base)["sample-r1"]["deps"][2:] == ["models/base"]
    with pytest.raises(ParamsError, match="holds no `arms`"):
        stages({})


def test_the_choice_of_an_arm_on_dev_is_a_stage_only_where_it_is_asked_for() -> None:
    made = stages(SMALL | {"register": {"best_on": "dev"}})
    assert made["select"]["outs"] == ["metrics/selection"]
    assert "select" not in stages(SMALL)


def test_what_a_project_adds_is_kept() -> None:
    params = parse_params(PARAMS, SMALL)
    existing = dvc_document(params)
    existing["stages"]["ours"] = {"cmd": "make ours", "deps": ["reports"], "outs": ["ours"]}
    existing["stages"]["train-sft"]["meta"] = {"resources": "cpu"}
    existing["plots"] = ["ours/plot.csv"]
    existing["metrics"] = ["metrics/evaluation/summary.json", "ours/metrics.json"]
    existing["stages"]["train-gone"] = {"cmd": "steptool train gone", "outs": ["models/gone"]}
    made = dvc_document(params, existing)
    assert made["stages"]["ours"] == existing["stages"]["ours"]
    assert made["stages"]["train-sft"]["meta"] == {"resources": "cpu"}
    assert (made["plots"], made["metrics"]) == (existing["plots"], existing["metrics"])
    assert "train-gone" not in made["stages"], "an arm that params.yaml no longer has"
    assert dvc_document(params, made) == made


def test_the_text_reads_as_the_document(tmp_path: Path) -> None:
    document = dvc_document(parse_params(PARAMS, SMALL))
    assert YAML(typ="safe").load(dvc_text(document)) == document


def test_the_file_is_written_where_params_ask_for_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    PARAMS.write_text("arms: {a: {method: sft, from: base, data: [demonstrations]}}\n")
    with pytest.raises(
        ParamsError, match=r"dvc\.yaml: is not the graph that params\.yaml asks for\n  fix: steptool graph"
    ):
        refuse_unless_written(load_params(PARAMS))
    assert "train-a" in write_graph()
    refuse_unless_written(load_params(PARAMS))
    before = PIPELINE.stat().st_mtime_ns
    assert "is the graph that" in write_graph()
    assert PIPELINE.stat().st_mtime_ns == before
    PARAMS.write_text("arms: {b: {method: sft, from: base, data: [demonstrations]}}\n")
    with pytest.raises(ParamsError, match="is not the graph"):
        refuse_unless_written(load_params(PARAMS))


def test_dvc_reads_what_is_written(tmp_path: Path) -> None:
    from dvc.repo import Repo

    Repo.init(str(tmp_path), no_scm=True).close()
    data = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "dvc.yaml").write_text(dvc_text(dvc_document(parse_params(PARAMS, data))))
    found = {stage.address: stage for stage in read_graph(tmp_path)}
    assert found.keys() == {"revisions", *stages_of(parse_params(PARAMS, data))}
    assert found["train-ppo2"].schedule.resources == "gpu"
    assert set(found["train-rft"].upstream) >= {"validate-r1", "validate-r2", "train-sft"}


def test_how_attempts_are_compared_is_what_the_first_arm_says_that_compares_them() -> None:
    arms = {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "rft": {"method": "rft", "from": "sft", "data": ["r1", "r2"]},
        "ppo": {"method": "step_ppo", "from": "sft", "data": ["r1"], "settings": {"baseline": "critic"}},
        "own": {"method": "mine", "from": "sft", "data": ["r3"]},
    }
    params = Params.model_validate(
        {
            "rounds": {name: {"from": "sft"} for name in ("r1", "r2", "r3")},
            "arms": arms,
            "methods": {"step_ppo": {"lambda_step": 0.5, "epochs": 3}, "mine": {"use": "a.b:C", "lambda_step": 1}},
        }
    )
    compared = [comparison_of(params, name) for name in params.rounds]
    assert compared == [{"baseline": "critic", "lambda_step": 0.5}, None, {"lambda_step": 1}]


def test_a_method_that_compares_in_another_way_is_named_and_step_ppo_is_not() -> None:
    """What the graph says of a project with `step_ppo` stays as it was, so that nothing of it runs again."""
    grpo = {"scale": "none", "kl_coef": 1}
    methods = {"step_ppo": {}, "ppo_final": {"kl_coef": 1}, "grpo": grpo, "gigpo": {}, "dpo": {}}
    arms = {
        f"a{number}": {"method": name, "from": "base", "data": [f"r{number}"], "settings": settings}
        for number, (name, settings) in enumerate(methods.items())
    }
    params = Params.model_validate({"rounds": {f"r{n}": {"from": "base"} for n in range(len(arms))}, "arms": arms})
    expected = [{}, {"method": "ppo_final"}, {"method": "grpo", "scale": "none"}, {"method": "gigpo"}, None]
    assert [comparison_of(params, name) for name in params.rounds] == expected


def test_pages_know_the_settings_of_every_method_that_compares() -> None:
    for name, keys in COMPARING.items():
        assert tuple(KINDS.get(name, Comparison).model_fields) == keys
        own = load_class(BUILT_IN["methods"][name]).Config()
        assert own.model_dump(include=set(keys)) == compared_by({"method": name}).model_dump()


LOG: dict[str, Any] = {
    "rounds": {"log": {"traces": "traces/support"}, "r1": {"from": "sft"}},
    "arms": {
        "sft": {"method": "sft", "from": "base", "data": ["demonstrations"]},
        "rft": {"method": "rft", "from": "sft", "data": ["log", "r1"]},
    },
}


def test_a_round_of_traces_reads_no_policy_and_leaves_the_sampled_rounds_as_they_were() -> None:
    """r1 is the first that is sampled: its tasks and random numbers are those that it has without the log."""
    made = stages(LOG)
    assert made["sample-log"]["deps"] == ["data/revisions/sample-log.json", "data/tasks"]
    assert "resources" not in made["sample-log"]["meta"], "no GPU"
    assert made["validate-r1"]["deps"][-1] == "data/scored/r1", "there is no sampled round before it"
    rounds = {name: round_of(parse_params(PARAMS, LOG), name) for name in ("log", "r1")}
    assert (rounds["r1"].index, rounds["r1"].previous, rounds["r1"].origin) == (0, None, "sft")
    assert (rounds["log"].previous, rounds["log"].origin) == (None, "traces/support")


@pytest.mark.parametrize("written", [{}, {"from": "sft", "traces": "traces/support"}])
def test_a_round_is_sampled_or_imported(written: dict[str, str]) -> None:
    with pytest.raises(ParamsError, match="a round has either `from`, such as"):
        stages(SMALL | {"rounds": {"r1": written}})


def test_ppo_on_imported_traces_is_refused_before_anything_runs() -> None:
    arms = LOG["arms"] | {"ppo": {"method": "step_ppo", "from": "sft", "data": ["log"]}}
    with pytest.raises(
        ParamsError, match=r"step_ppo needs sampled, which data.*does not give, since log is imported"
    ) as no:
        check_methods(parse_params(PARAMS, LOG | {"arms": arms}))
    assert "imported traces teach the method rft, and sft by demonstrations: {use: traces}" in str(no.value)
    check_methods(parse_params(PARAMS, LOG))


PROGRESS = {"annotate": {"use": "progress", "policy": "models/sft", "reference": "models/base"}}


def test_what_judges_by_policies_waits_for_them() -> None:
    made = stages(SMALL | PROGRESS)
    assert made["annotate-r1"]["deps"][1:] == ["data/tasks", "data/trajectories/r1", "models/sft", "models/base"]
    assert made["evaluate"]["deps"].count("models/sft") == 1
    outside = {"annotate": {**PROGRESS["annotate"], "policy": "given/old"}}
    assert "given/old" in stages(SMALL | outside)["annotate-r1"]["deps"]
    assert "given/old" in stages(SMALL | outside)["evaluate"]["deps"]


def test_a_policy_that_learns_from_a_round_cannot_judge_it() -> None:
    own = {"annotate": {**PROGRESS["annotate"], "policy": "models/ppo1"}}
    with pytest.raises(ParamsError, match="reads the policy models/ppo1, which learns from round r1: it cannot judge"):
        stages(SMALL | own)
    later = {
        "rounds": {**SMALL["rounds"], "r2": {"from": "ppo1"}},
        "arms": {**SMALL["arms"], "ppo2": {"method": "step_ppo", "from": "sft", "data": ["r2"]}},
        "annotate": {**PROGRESS["annotate"], "policy": "models/ppo2"},
    }
    with pytest.raises(ParamsError, match="models/ppo2, which learns from round r1 by way of arm ppo1"):
        stages(SMALL | later)
    with pytest.raises(ParamsError, match="reads the policy models/stf, and no arm is trained into that folder"):
        stages(SMALL | {"annotate": {**PROGRESS["annotate"], "policy": "models/stf"}})
