"""The judge without an endpoint: rules for the calls, a small model for the answer.

attempt                       verdict        solved where the world cannot tell
answers from a reply          P              1 where P > 1/2
sorry, nothing found          smaller P      0
gave up, or out of calls      0              0
a fault of the engine         none           none
"""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from steptool.annotators.annotate import annotate_all
from steptool.annotators.local.features import NAMES, features
from steptool.annotators.local.fit import fit
from steptool.annotators.local.model import Logistic
from steptool.annotators.local_judge import SHIPPED, LocalJudge
from steptool.core.errors import DataError, InputError
from steptool.core.plugins import content_of, revision_of
from steptool.core.storage import read_record, write_json
from steptool.core.types import Judgement, Outcome, StopReason, Trajectory
from steptool.testing import call, finish, give_up, reference, step, task, tool, trajectory
from steptool.traces.judged import JudgedAttempt, judged_attempts

RUNS = Path(os.environ.get("STEPTOOL_RECORDED", "")) / "judged_runs"
needs_runs = pytest.mark.skipif(not RUNS.is_dir(), reason="STEPTOOL_RECORDED names no recorded pack")

TASK = task("t1", "Which teams play in Madrid on Sunday?", tool("games", needs={"city": "string"}))
LOOKED = step(call("games", city="Madrid"), {"games": [{"home": "Getafe", "away": "Osasuna"}], "day": "Sunday"})
RIGHT = trajectory(LOOKED, finish("On Sunday, Getafe and Osasuna play in Madrid."), of=TASK)
LOST = trajectory(
    step(call("games", city="Madrid"), error="hard"),
    step(call("games", city="Madrid"), error="hard"),
    finish("I'm sorry, I couldn't find any games. Please try again later."),
    of=TASK,
)


def judged(made: Trajectory, **config: Any) -> Judgement:
    by = LocalJudge(LocalJudge.Config.model_validate(config))
    found = asyncio.run(by.annotate(made, TASK, reference(TASK)))
    assert len(found) == len(made.steps)
    return found[-1]


def test_an_answer_from_a_reply_is_solved_and_an_apology_is_not() -> None:
    right, lost = judged(RIGHT), judged(LOST)
    assert right.solved == 1.0
    assert lost.solved == 0.0
    assert 0 < (lost.scores["verdict"] or 0) < 0.5 < (right.scores["verdict"] or 0) < 1


@pytest.mark.parametrize("ending", [(give_up(),), ()])
def test_an_attempt_without_an_answer_is_unsolved(ending: tuple[Any, ...]) -> None:
    assert judged(trajectory(LOOKED, *ending, of=TASK)).solved == 0.0


def test_a_fault_has_no_verdict() -> None:
    broken = trajectory(LOOKED, stop=StopReason.engine_error, error="it fell over", of=TASK)
    assert judged(broken).solved is None


def test_what_the_session_recorded_counts_and_the_own_verdict_stands_beside_it() -> None:
    wrong = Trajectory.create(**{**dict(RIGHT), "outcome": Outcome(solved=0.0)})
    found = judged(wrong)
    assert found.solved == 0.0
    assert (found.scores["verdict"] or 0) > 0.5


def test_without_a_threshold_solved_is_the_probability() -> None:
    found = judged(RIGHT, threshold=None)
    assert found.solved == found.scores["verdict"] != 1.0


def test_it_scores_a_file_as_every_annotator_does() -> None:
    by = LocalJudge(LocalJudge.Config())
    known = {TASK.id: reference(TASK)}
    scored = annotate_all(
        by, revision_of(by), [RIGHT, LOST], [TASK], known, source=Path("x"), what="annotate", concurrency=2
    )
    assert [each.solved for each in scored] == [1.0, 0.0]
    assert {"success", "contribution", "builds"} <= scored[0].judgements[0].scores.keys()
    assert scored[0].judgements[-1].scores["grounded"] == 1.0


def test_there_is_a_number_for_each_name() -> None:
    assert len(features(RIGHT, TASK)) == len(features(trajectory(finish(""), of=TASK), TASK)) == len(NAMES)


def test_a_file_of_weights_that_is_missing_or_of_other_features_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    with pytest.raises(InputError, match="no file of weights"):
        judged(RIGHT, weights=str(file))
    shipped = read_record(SHIPPED, Logistic).model_dump(mode="json")
    shipped["weights"].pop("calls")
    write_json(file, shipped)
    with pytest.raises(DataError, match="not those of the features: calls"):
        judged(RIGHT, weights=str(file))


def test_another_file_of_weights_is_another_revision(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    shipped = read_record(SHIPPED, Logistic).model_dump(mode="json")
    found = []
    for bias in (0.0, 1.0):
        write_json(file, {**shipped, "bias": bias})
        found.append(content_of(LocalJudge, LocalJudge.Config(weights=str(file))))
    assert found[0] != found[1]
    assert content_of(LocalJudge, LocalJudge.Config()) == ""


def made_up(count: int, method: str) -> list[JudgedAttempt]:
    """Attempts of which those that apologise are unsolved."""
    runs = []
    for number in range(count):
        own = task(f"t{number}", f"Where is thing {number}?", tool("find"))
        ends = finish("Sorry, I could not find it.") if number % 2 else finish(f"It is in shelf {number}, as asked.")
        made = trajectory(step(call("find"), {"shelf": number}), ends, of=own, policy=method)
        runs.append(JudgedAttempt(method=method, task=own, trajectory=made, votes=(float(not number % 2),) * 3))
    return runs


def test_a_fit_finds_what_tells_them_apart_on_queries_that_it_has_not_seen() -> None:
    fitted = fit([*made_up(60, "a"), *made_up(60, "b")], "made up")
    assert fitted.by_query.auc == 1.0
    assert fitted.by_query.kappa == 1.0
    assert fitted.by_method is not None
    assert fitted.among_votes == 1.0
    assert fitted.model.weights["sorry"].weight < 0
    assert fit([*made_up(60, "a"), *made_up(60, "b")], "made up") == fitted


def test_verdicts_that_say_nothing_give_no_agreement() -> None:
    """The control: with verdicts that the text does not show, held-out queries are judged no better than by chance."""
    runs = [run.model_copy(update={"votes": (float(number % 3 == 0),)}) for number, run in enumerate(made_up(90, "a"))]
    fitted = fit(runs, "made up")
    assert fitted.by_query.auc is not None
    assert fitted.by_query.auc < 0.65


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(DataError, match="10 judged attempts end with an answer, 5 of them solved"):
        fit(made_up(10, "a"), "made up")


def test_attempts_at_one_query_cannot_be_held_out() -> None:
    own = task("t0", "Where is thing 0?", tool("find"))
    runs = [run.model_copy(update={"task": own}) for run in made_up(60, "a")]
    with pytest.raises(DataError, match="the attempts with an answer are at 1 queries"):
        fit(runs, "made up")


def test_a_method_without_answers_is_no_second_one() -> None:
    """What the only method with answers is worth to a model that has not seen it, nobody knows."""
    silent = [
        run.model_copy(update={"method": "b", "trajectory": trajectory(give_up(), of=run.task, policy="b")})
        for run in made_up(10, "b")
    ]
    assert fit([*made_up(60, "a"), *silent], "made up").by_method is None


@needs_runs
@pytest.mark.slow
def test_judged_runs_are_read_as_they_ended() -> None:
    runs = list(judged_attempts(RUNS / "toolllama_sft_cot.jsonl.gz"))
    assert len(runs) == 650
    assert sum(run.trajectory.stop_reason is StopReason.finished for run in runs) == 455
    assert all(len(run.votes) == 3 and run.trajectory.outcome.solved is None for run in runs)


@needs_runs
@pytest.mark.slow
def test_the_shipped_weights_are_those_of_the_command_and_agree_as_documented() -> None:
    fitted = fit(list(judged_attempts(RUNS)), "verdicts on attempts in judged_runs")
    assert fitted.by_query.auc == pytest.approx(0.873, abs=0.005)
    assert fitted.by_query.kappa == pytest.approx(0.605, abs=0.01)
    assert fitted.by_method is not None and fitted.by_method.auc == pytest.approx(0.877, abs=0.005)
    assert fitted.among_votes == pytest.approx(0.833, abs=0.005)
    shipped = read_record(SHIPPED, Logistic)
    assert fitted.model.made["runs"] == shipped.made["runs"]
    for name, own in fitted.model.weights.items():
        assert own.weight == pytest.approx(shipped.weights[name].weight, abs=1e-3), name


def test_a_folder_without_runs_and_a_line_that_is_none_are_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "queries.jsonl.gz", "wt") as file:
        file.write("")
    with pytest.raises(InputError, match="holds no judged runs"):
        list(judged_attempts(tmp_path))
    (tmp_path / "mine.jsonl").write_text('{"query_id": "7", "judgements": ["Perhaps"]}\n')
    with pytest.raises(DataError, match=r"mine\.jsonl:1"):
        list(judged_attempts(tmp_path))
    (tmp_path / "mine.jsonl").write_text(
        '{"query_id": "7", "subset": "G1_tool", "steps": [], "return_type": null, "judgements": []}\n'
    )
    with pytest.raises(InputError, match="asks '7', a request that is not there"):
        list(judged_attempts(tmp_path))
