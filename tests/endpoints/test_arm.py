"""A model behind an endpoint as an arm: measured beside ours, never trained, never registered, and stale for its own
settings alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from steptool.config.arms import arm_of
from steptool.config.graph import dvc_document, stages_of
from steptool.config.lineage import stage_revision
from steptool.config.places import COMPARISONS, EVALUATION, PARAMS, SELECTION
from steptool.config.settings import Params, load_params
from steptool.core.errors import NotComparable, ParamsError, StepToolError
from steptool.core.revision import MEANS_NOTHING, closure
from steptool.core.storage import read_json, read_jsonl, read_record
from steptool.core.types import ScoredTrajectory
from steptool.evaluation.compare import refuse_unless_comparable
from steptool.evaluation.metrics import Evaluation
from steptool.policies.base_models import fetch_base
from steptool.report.page import ReportData, render_report
from steptool.serving.policy import find
from steptool.stages import evaluate, prepare, select
from steptool.stages.evaluate import SUMMARY
from steptool.stages.register import arm_to_register
from steptool.stages.results import read_results
from steptool.stages.rounds import read_tasks
from steptool.stages.table import results_table
from steptool.tracking.run import PARENT_VARIABLE
from steptool.worlds.mini import MiniWorld
from tests.endpoints.fake import Answer, Fake, Fault, fake, says

RULES = '{"when": "", "say": "Finish {\\"answer\\": \\"x\\"}"}\n'


@pytest.fixture
def endpoint() -> Iterator[Fake]:
    with fake(lambda _: says("x")) as served:
        yield served


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Fake) -> Params:
    """An arm of random weights, whose engine says the same always, and one behind an endpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    Path("rules.jsonl").write_text(RULES)
    PARAMS.write_text(f"""
world: {{train_tasks: 24, dev_tasks: 12, test_tasks: 12}}
demonstrations: {{count: 4}}
model: {{base: tiny-random, dtype: float32}}
sample: {{max_calls: 5, max_step_tokens: 64, max_tokens: 8192}}
engine: {{use: 'steptool.engines.fake:RulesEngine', rules: rules.jsonl}}
evaluate: {{resamples: 200}}
machine: {{concurrency: 8}}
arms:
  ours: {{folder: models/base}}
  gpt: {{endpoint: {{url: '{endpoint.url}', model: gpt-x, max_retries: 0}}}}
compare: [[gpt, ours]]
""")
    fetch_base("tiny-random", Path("models/base"))
    prepare.main()
    return load_params(PARAMS)


def change(**of_gpt: Any) -> Params:
    yaml = YAML()
    yaml.preserve_quotes = True
    settings = yaml.load(PARAMS)
    settings["arms"]["gpt"]["endpoint"] |= of_gpt
    yaml.dump(settings, PARAMS)
    return load_params(PARAMS)


def solve(endpoint: Fake, params: Params) -> None:
    """The endpoint is asked the test tasks, and knows them all."""
    world = params.world.build(params.seed)
    assert isinstance(world, MiniWorld)
    tasks = read_tasks("test")
    answers = {task.query: world.reference(task) for task in tasks}

    def act(request: dict[str, Any]) -> Answer:
        check = answers[request["messages"][0]["content"]].answer_check
        expected = check.expected if check else ""
        return says(", ".join(expected) if isinstance(expected, list) else str(expected))

    endpoint.act = act


def test_an_endpoint_is_measured_beside_our_policies(
    project: Params, endpoint: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    solve(endpoint, project)
    evaluate.main()
    gpt, ours = (read_record(EVALUATION / f"{arm}.json", Evaluation) for arm in ("gpt", "ours"))
    assert (ours.pass_rate, gpt.broken) == (0.0, 0.0)
    assert gpt.pass_rate == 1.0
    assert gpt.policy.name == f"gpt-x at {endpoint.url.removeprefix('http://').removesuffix('/v1')}"
    assert (gpt.conditions.engine.name, gpt.conditions.format.name, gpt.conditions.dtype) == ("endpoint",) * 2 + (None,)
    assert (gpt.conditions.world, gpt.conditions.search) == (ours.conditions.world, ours.conditions.search)
    assert (gpt.conditions.sampling.max_calls, gpt.conditions.sampling.temperature) == (5, 0.0)
    assert (gpt.metrics["all"]["tokens_per_task"].value, ours.metrics["all"]["tokens_per_task"].value is None) == (
        None, False,
    )  # fmt: skip
    (compared,) = read_json(EVALUATION / COMPARISONS)
    assert (compared["candidate"], compared["lost"]) == ("gpt", 0)
    assert {request["temperature"] for request in endpoint.requests} == {0.0}, "as ours is measured"
    assert "12 answers paid for, 240 tokens in, 60 out" in capsys.readouterr().out
    judged = read_jsonl(EVALUATION / "gpt.trajectories.jsonl.gz", ScoredTrajectory)
    assert all(each.trajectory.token_ids == () for each in judged)

    results = read_results(project)
    assert results.arm("gpt").caption == gpt.policy.name
    table = results_table()
    assert f"gpt: {gpt.policy.name}" in table
    assert "gpt answers by messages at an endpoint" in table.replace("\n", " ")
    page = render_report(ReportData(**dict(results), tasks=read_tasks("test")))
    assert "gpt answers by messages at an endpoint" in page

    evaluate.main()
    assert len(endpoint.requests) == 12, "measured again, it costs nothing"


def test_endpoints_alone_can_be_measured(project: Params, endpoint: Fake) -> None:
    yaml = YAML()
    yaml.preserve_quotes = True
    settings = yaml.load(PARAMS)
    del settings["arms"]["ours"], settings["compare"]
    settings["arms"]["other"] = {"endpoint": {**settings["arms"]["gpt"]["endpoint"], "model": "gpt-y"}}
    yaml.dump(settings, PARAMS)
    evaluate.main()
    assert "gpt and other answer by messages at an endpoint" in results_table().replace("\n", " ")
    assert {request["model"] for request in endpoint.requests} == {"gpt-x", "gpt-y"}


def test_a_ceiling_stops_the_stage_and_it_goes_on_from_there(project: Params, endpoint: Fake) -> None:
    endpoint.act = lambda _: says("x", usage=(2000, 10))
    change(ceiling_tokens=9000, max_completion_tokens=100, concurrency=1)
    with pytest.raises(StepToolError, match="raise `ceiling_tokens`"):
        evaluate.main()
    asked = len(endpoint.requests)
    assert 0 < asked < 12
    assert not EVALUATION.exists()
    change(ceiling_tokens=10**6)
    evaluate.main()
    assert len(endpoint.requests) == 12


def test_an_endpoint_that_fails_too_often_writes_nothing(project: Params, endpoint: Fake) -> None:
    endpoint.act = lambda request: Fault(503) if "tools" in request else says("x")
    with pytest.raises(StepToolError, match=r"12 of 12 attempts .* engine_error: EndpointFailed: 503") as refused:
        evaluate.main()
    assert f"see whether {endpoint.url} answers" in str(refused.value)
    assert not EVALUATION.exists()


def test_what_differs_beside_the_endpoint_is_still_refused(project: Params, endpoint: Fake) -> None:
    evaluate.main()
    gpt, ours = (read_record(EVALUATION / f"{arm}.json", Evaluation) for arm in ("gpt", "ours"))
    refuse_unless_comparable(gpt, ours)
    sampling = ours.conditions.sampling.model_copy(update={"max_calls": 6})
    other = ours.model_copy(update={"conditions": ours.conditions.model_copy(update={"sampling": sampling})})
    for pair in ((gpt, other), (other, gpt)):
        with pytest.raises(NotComparable, match="max_calls"):
            refuse_unless_comparable(*pair)


def test_it_is_in_the_graph_for_evaluation_alone(project: Params) -> None:
    stages = dvc_document(project)["stages"]
    assert "train-gpt" not in stages
    assert stages["evaluate"]["deps"] == ["data/revisions/evaluate.json", "data/tasks", "models/base"]
    written = {key for key in stages["evaluate"]["params"] if key.startswith("arms.")}
    assert written == {"arms.gpt.endpoint.url", "arms.gpt.endpoint.model"}


def test_only_what_decides_its_answers_makes_the_evaluation_stale(project: Params) -> None:
    def revision(params: Params) -> Any:
        return stage_revision(stages_of(params)["evaluate"], params)

    before = revision(project)
    assert revision(change(ceiling_tokens=9, requests_per_minute=3.0, concurrency=2)) == before
    assert revision(change(system="Be brief.")) != before
    read = closure(["steptool.endpoints.policy"], without=MEANS_NOTHING)
    assert "steptool.endpoints.client" in read
    assert not {"steptool.endpoints.budget", "steptool.endpoints.ledger"} & set(read), "what is paid decides nothing"


def test_to_choose_an_arm_to_register_no_endpoint_is_paid(project: Params, endpoint: Fake) -> None:
    trained = "  sft: {method: sft, from: base, data: [demonstrations]}\ncompare:"
    PARAMS.write_text(PARAMS.read_text().replace("compare:", trained) + "register: {best_on: dev}\n")
    shutil.copytree("models/base", "models/sft")
    chosen = load_params(PARAMS)
    assert not [key for key in dvc_document(chosen)["stages"]["select"]["params"] if key.startswith("arms.")]
    select.main()
    assert list(read_json(SELECTION / SUMMARY)) == ["ours", "sft"]
    assert not endpoint.requests


def test_it_has_no_weights(project: Params) -> None:
    assert arm_to_register(project) == "ours", "the first of `compare` that has weights"
    for use in (lambda: arm_of(project, "gpt").weights, lambda: find(project, "gpt")):
        with pytest.raises(ParamsError, match="its weights are not here"):
            use()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rounds: {r1: {from: gpt}}", "rounds.r1.from: is 'gpt'; it can be base, ours"),
        ("register: {arm: gpt}", "register.arm: is 'gpt'"),
        ("register: {best_on: dev}", "register.best_on: chooses among arms that are trained, and there is none"),
    ],
)
def test_what_an_endpoint_cannot_be_is_said(project: Params, line: str, said: str) -> None:
    PARAMS.write_text(PARAMS.read_text() + line + "\n")
    with pytest.raises(ParamsError, match=said):
        evaluate.main()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{url: 'https://a/v1'}", "arms.gpt.endpoint.model: Field required"),
        ("{url: 'https://a/v1', modell: x, model: y}", "unknown key, did you mean 'model'"),
        ("{url: 'https://me:secret@a/v1', model: x}", "keep it in an environment variable"),
        ("{url: 'https://a/v1', model: x, key: 'sk-123'}", "never write the secret itself"),
    ],
)
def test_wrong_settings_are_named_with_their_line(tmp_path: Path, settings: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"arms:\n  gpt: {{endpoint: {settings}}}\n")
    with pytest.raises(ParamsError, match=said) as refused:
        load_params(path)
    assert f"{path}:2" in str(refused.value)


def test_an_arm_is_one_thing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("arms: {gpt: {folder: theirs, endpoint: {url: 'https://a/v1', model: x}}}\n")
    with pytest.raises(ParamsError, match="either a folder or an endpoint"):
        load_params(path)
