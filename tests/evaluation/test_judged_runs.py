"""Judged runs, measured again. Three requests, two policies, two verdict passes, a budget of 2 calls:

request   subset           needs   sft_cot: calls, verdicts    new_cot: calls, verdicts
a         G1_instruction   f, g    f Finish     S S  → 1       f g Finish   S S  → 1, and 0 within 2 calls
b         G1_tool          f       f f          – –  → 0       f Finish     S U  → ¾
c         G3_instruction   h       Finish       U N  → ¼       (not in the file)
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steptool.cli import app
from steptool.core.errors import DataError, InputError
from steptool.evaluation.judged.figures import Figures, figures, pairs_of
from steptool.evaluation.judged.files import read_requests, read_runs, requests_beside
from steptool.evaluation.judged.records import subset_of
from steptool.report.judged import as_markdown, as_text

RECORDED = Path(os.environ.get("STEPTOOL_RECORDED", ""))
needs_pack = pytest.mark.skipif(
    not (RECORDED / "judged_runs").is_dir(), reason="STEPTOOL_RECORDED names no recorded pack"
)
DOCS = Path(__file__).parents[2] / "docs" / "published-numbers.md"
S, U, N = "Solved", "Unsure", "Unsolved"


def line(id: str, subset: str, calls: str, judgements: list[str], **more: Any) -> dict[str, Any]:
    steps = [{"name": name, "arguments": "{}", "response": ""} for name in calls.split()]
    answers = "give_answer" if "Finish" in calls else None
    return {"query_id": id, "subset": subset, "steps": steps, "return_type": answers, "judgements": judgements, **more}


SFT = [
    line("a", "G1_instruction", "f Finish", [S, S], solved=1.0),
    line("b", "G1_tool", "f f", [S, S], solved=1.0),  # judged, although it never answered
    line("c", "G3_instruction", "Finish", [U, N]),
]
NEW = [
    line("a", "G1_instruction", "f g Finish", [S, S]),
    line("b", "G1_tool", "f Finish", [S, U]),
]
QUERIES = [
    {"query_id": id, "relevant_apis": [{"tool": "t", "api": name, "name": name} for name in needs]}
    for id, needs in (("a", "fg"), ("b", "f"), ("c", "h"))
]


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "runs" / "sft_cot.jsonl", SFT)
    write(tmp_path / "runs" / "new_cot.jsonl", NEW)
    write(tmp_path / "queries.jsonl", QUERIES)
    (tmp_path / "runs" / "README.md").write_text("not a run")
    return tmp_path / "runs"


def measured(folder: Path, *, calls: int = 2, against: str | None = None, resamples: int = 200) -> Figures:
    files = read_runs(folder)
    requests = requests_beside(folder)
    return figures(
        files,
        subset_of(files),
        read_requests(requests) if requests else {},
        pairs_of(files, against),
        calls=calls,
        resamples=resamples,
        confidence=0.95,
        seed=0,
    )


def test_published_rates_are_over_the_requests_of_the_file(folder: Path) -> None:
    new, sft = measured(folder).runs
    assert (new.published["all"].mean, new.published["all"].requests) == (pytest.approx(1.75 / 2), 2)
    assert new.published["all"].spread == pytest.approx(0.125)  # passes: 2 of 2, and 1½ of 2
    assert sft.published["all"].mean == pytest.approx(1.25 / 3)
    assert {group: found.mean for group, found in sft.published.items()} == {
        "G1_instruction": 1.0,
        "G1_tool": 0.0,
        "G3_instruction": 0.25,
        "I1": 0.5,
        "I3": 0.25,
        "all": pytest.approx(1.25 / 3),
    }
    assert "G3_instruction" not in new.published


def test_rates_to_compare_are_over_all_requests(folder: Path) -> None:
    new, sft = measured(folder).runs
    assert new.missing == 1
    assert new.measured.solved.value == pytest.approx(1.75 / 3)
    assert new.measured.finished.value == pytest.approx(2 / 3)
    assert new.measured.solved_if_finished.value == pytest.approx(1.75 / 2)
    assert new.measured.calls.value == pytest.approx(5 / 2)  # 3 and 2; how many c would have taken, nobody knows
    assert (new.measured.calls.low, new.measured.calls.high) == (2.0, 3.0)
    assert new.measured.recall.value == pytest.approx(2 / 3)  # 1, 1, 0
    assert sft.measured.recall.value == pytest.approx(1.5 / 3)  # ½, 1, 0
    assert sft.measured.solved_if_finished.value == pytest.approx(1.25 / 2)


def test_an_attempt_beyond_the_budget_never_answered(folder: Path) -> None:
    new, sft = measured(folder, calls=2).runs
    assert (new.over_budget, new.longest) == (1, 3)
    assert new.measured.solved_within.value == pytest.approx(0.75 / 3)
    assert new.measured.finished_within.value == pytest.approx(1 / 3)
    assert sft.measured.solved_within.value == sft.measured.solved.value
    assert measured(folder, calls=1).runs[1].measured.finished_within.value == pytest.approx(1 / 3)


def test_runs_are_compared_request_by_request(folder: Path) -> None:
    (against,) = measured(folder).against
    assert (against.run, against.baseline) == ("new_cot", "sft_cot")
    assert against.difference.difference == pytest.approx((0 + 0.75 - 0.25) / 3)
    assert against.within.difference == pytest.approx((-1 + 0.75 - 0.25) / 3)
    assert against.both_finish is not None and against.both_finish.tasks == 1
    assert against.both_finish.difference == 0
    # c: the passes say ½ and 0 against none, so they disagree whether it is lost: a tie
    assert (against.won, against.lost, against.tied) == (1, 0, 2)
    assert (against.won_within, against.lost_within, against.tied_within) == (1, 1, 1)
    assert against.win_rate == pytest.approx(2 / 3)


def test_without_requests_nothing_is_said_of_recall(folder: Path) -> None:
    (folder.parent / "queries.jsonl").unlink()
    found = measured(folder)
    assert found.recall_of == 0
    assert found.runs[0].measured.recall.value is None
    assert "–" in as_text(found)


def test_a_stated_mean_that_is_not_that_of_the_verdicts_is_said(folder: Path) -> None:
    found = measured(folder)
    assert [run.restated for run in found.runs] == [0, 1]
    assert "sft_cot: the mean that the file states for 1 requests" in as_text(found)
    said = "new_cot lacks 1 of 3 requests, which count as unsolved in every table but the first; its calls are counted"
    assert f"{said} over the other 2." in as_markdown(found)
    assert "sft_cot lacks" not in as_markdown(found)


@pytest.mark.parametrize(
    ("against", "pairs"),
    [
        (None, [("new_cot", "sft_cot"), ("new_dfs", "sft_dfs")]),
        ("new", [("sft_cot", "new_cot"), ("sft_dfs", "new_dfs")]),
        ("sft_dfs", [("new_cot", "sft_dfs"), ("new_dfs", "sft_dfs"), ("sft_cot", "sft_dfs")]),
    ],
)
def test_a_method_is_the_baseline_of_equal_searches_and_a_run_of_all(
    folder: Path, against: str | None, pairs: list[tuple[str, str]]
) -> None:
    write(folder / "sft_dfs.jsonl", SFT)
    write(folder / "new_dfs.jsonl", NEW)
    assert pairs_of(read_runs(folder), against) == pairs


BROKEN = [
    ({"return_type": "give_answer", "judgements": []}, "gave an answer, and has no judgements"),
    ({"judgements": ["Maybe", S]}, "judgements.0: Input should be 'Solved', 'Unsure' or 'Unsolved'"),
    ({"judgements": [S]}, "1 judgements, where most attempts of the file have 2"),
    ({"query_id": "a"}, "request a stands in line 1 too"),
    ({"query_id": 7}, "query_id: Input should be a valid string"),
    ({"solved": 7}, "solved: Input should be less than or equal to 1"),
    ({"steps": "none"}, "steps: Input should be a valid list"),
]


@pytest.mark.parametrize(("change", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_a_bad_line_is_named(folder: Path, change: dict[str, Any], said: str) -> None:
    write(folder / "sft_cot.jsonl", [*SFT, {**SFT[0], "query_id": "d", **change}])
    with pytest.raises(DataError) as caught:
        read_runs(folder)
    assert f"sft_cot.jsonl:4: {said}" in str(caught.value).replace("JudgedRun: ", "")


def test_what_no_figure_rests_on_may_be_anything(folder: Path) -> None:
    before = measured(folder)
    written = {"arguments": None, "response": None, "error": {"code": 4}}
    changed = [{**each, "final_answer": {"text": "7"}, "thought": 3} for each in SFT]
    changed = [{**each, "steps": [{**step, **written} for step in each["steps"]]} for each in changed]
    write(folder / "sft_cot.jsonl", changed)
    assert measured(folder) == before


def test_every_bad_file_is_named_at_once(folder: Path) -> None:
    (folder / "cut_cot.jsonl.gz").write_bytes(gzip.compress(json.dumps(SFT[0]).encode())[:-9])
    (folder / "empty_cot.jsonl").write_text("")
    (folder / "text_cot.jsonl").write_text("{\n" * 9)
    write(folder / "other_cot.jsonl", [{**SFT[0], "subset": "G2_category"}])
    with pytest.raises(DataError) as caught:
        read_runs(folder)
    said = str(caught.value)
    assert "cut_cot.jsonl.gz:1: not a whole gzip file" in said
    assert "empty_cot.jsonl: it is empty" in said
    assert "text_cot.jsonl:1: not JSON" in said and "text_cot.jsonl: and 6 problems more" in said
    assert "other_cot: request a is of G2_category, in new_cot of G1_instruction" in said


def test_an_empty_file_of_requests_is_refused_and_one_that_knows_a_part_is_said(folder: Path) -> None:
    write(folder.parent / "queries.jsonl", QUERIES[:2])
    found = measured(folder)
    assert found.recall_of == 2
    assert "Recall is over 2 requests" in as_text(found)
    write(folder.parent / "queries.jsonl", [])
    with pytest.raises(DataError, match=r"queries\.jsonl: it is empty"):
        measured(folder)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no judged runs"):
        read_runs(tmp_path)


def test_the_command_prints_tables_and_writes_files(folder: Path, tmp_path: Path) -> None:
    options = ["--calls", "2", "--resamples", "200", "--json", str(tmp_path / "f.json")]
    options += ["--markdown", str(tmp_path / "t.md")]
    made = CliRunner().invoke(app, ["bench", "judged", str(folder), *options])
    assert made.exit_code == 0, made.output
    assert "Over the same 3 requests" in made.output
    stored = json.loads((tmp_path / "f.json").read_text())
    assert stored["runs"][0]["name"] == "new_cot" and stored["calls"] == 2
    assert "| new_cot | sft_cot | +16.7 [" in (tmp_path / "t.md").read_text()


def test_an_unknown_baseline_is_refused(folder: Path) -> None:
    made = CliRunner().invoke(app, ["bench", "judged", str(folder), "--against", "gpt"])
    assert isinstance(made.exception, InputError)
    assert "use one of new, new_cot, sft, sft_cot" in str(made.exception)


# The published runs


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """StepTool and SFT by chain of thought."""
    folder = tmp_path_factory.mktemp("pack") / "judged_runs"
    folder.mkdir()
    for name in ("steptool_cot", "toolllama_sft_cot"):
        (folder / f"{name}.jsonl.gz").symlink_to(RECORDED / "judged_runs" / f"{name}.jsonl.gz")
    (folder.parent / "queries.jsonl.gz").symlink_to(RECORDED / "queries.jsonl.gz")
    return measured(folder, calls=4, resamples=500)


@needs_pack
def test_steptools_advantage_is_as_published_and_is_gone_at_the_baselines_budget(pair: Figures) -> None:
    """The figures of tests/evaluation/test_recorded_runs.py."""
    (against,) = pair.against
    assert (against.run, against.baseline) == ("steptool_cot", "toolllama_sft_cot")
    assert 100 * against.difference.difference == pytest.approx(9.03, abs=0.01)
    assert (100 * against.difference.low, 100 * against.difference.high) == pytest.approx((6.0, 12.1), abs=0.7)
    assert 100 * against.within.difference == pytest.approx(-0.23, abs=0.01)
    assert not against.within.significant
    assert against.both_finish is not None and against.both_finish.tasks == 449
    assert 100 * against.both_finish.difference == pytest.approx(-1.60, abs=0.01)
    assert not against.both_finish.significant


@needs_pack
def test_why_the_advantage_is_gone(pair: Figures) -> None:
    """StepTool answers more often, since it may call more; given an answer it is no better."""
    steptool, sft = pair.runs
    assert (steptool.longest, sft.longest) == (17, 4)
    assert steptool.over_budget == 141
    assert sft.measured.finished.value == pytest.approx(455 / 650)
    assert steptool.measured.finished.value == pytest.approx(577 / 650)
    assert [steptool.published[group].requests for group in ("I1", "I2", "I3")] == [403, 195, 52]
    assert sft.published["all"].mean == pytest.approx(sft.measured.solved.value)
    assert pair.recall_of == 650


@needs_pack
@pytest.mark.slow
def test_the_document_holds_what_the_command_prints() -> None:
    made = as_markdown(measured(RECORDED / "judged_runs", calls=4, resamples=10_000))
    assert made in DOCS.read_text(encoding="utf-8")
