"""The page needs no network, escapes what tools said, and shows what failed first."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from steptool.checks.calibration import Calibration
from steptool.checks.diagnosis.findings import (
    Diagnosed,
    Diagnosis,
    Name,
    RoundCounts,
    Severity,
    TaskCounts,
    ToolCounts,
)
from steptool.checks.gate import FailingRow, Finding, SuiteReport, ValidationReport
from steptool.checks.page import render_page
from steptool.rewards.evidence import Evidence, Interval

HOSTILE = "<script>alert(1)</script>"


def report(*, passed: bool, verdicts: int = 2) -> ValidationReport:
    good = Finding(
        says="Rewards are finite.",
        fix="mend",
        expectation="expect_a",
        column="reward",
        passed=True,
        observed="all 2 rows",
    )
    row = FailingRow(source="s.jsonl:2", trajectory_id="abc", task_id="t", step=1, value=HOSTILE)
    bad = good.model_copy(update={"says": "Nobody is late.", "passed": False, "failing": (row,), "failing_count": 30})
    suite = SuiteReport(name="steps", title="Steps", rows=2, findings=(good,) if passed else (good, bad))
    return ValidationReport(
        source="s.jsonl",
        trajectories=3,
        tasks=1,
        steps=2,
        verdicts=verdicts,
        solve_rate=0.5 if verdicts else None,
        mean_return=0.25,
        by_calls=1,
        suites=(suite,),
    )


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    page = render_page(report(passed=False))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<img|<iframe", page)


def test_values_are_escaped() -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in render_page(report(passed=False))


@pytest.mark.parametrize(("passed", "verdict"), [(True, "may be trained on"), (False, "Nothing trains on this data")])
def test_the_verdict_stands_at_the_top(passed: bool, verdict: str) -> None:
    page = render_page(report(passed=passed), title="Round 1")
    assert "<title>Round 1</title>" in page
    assert verdict in page


def test_failures_come_first_with_their_rows() -> None:
    page = render_page(report(passed=False))
    assert page.index("Nobody is late.") < page.index("Rewards are finite.")
    assert "s.jsonl:2" in page
    assert "The first 1 of 30." in page


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_page(report(passed=False)) == render_page(report(passed=False))


def test_every_tag_is_closed() -> None:
    open_tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Tags().feed(render_page(report(passed=False), calibration=calibrated()))
    assert open_tags == []


@pytest.mark.parametrize(
    ("verdicts", "shown"),
    [
        (3, "<dt>Solved</dt><dd>50.0%</dd>"),
        (2, "<dt>Solved, of 2 with a verdict</dt><dd>50.0%</dd>"),
        (0, "<dt>Solved, of 0 with a verdict</dt><dd>–</dd>"),
    ],
)
def test_what_is_solved_is_a_share_of_what_has_a_verdict(verdicts: int, shown: str) -> None:
    assert shown in render_page(report(passed=True, verdicts=verdicts))


@pytest.mark.parametrize("passed", [True, False])
def test_the_page_says_what_the_trajectories_were_rewarded_by(passed: bool) -> None:
    assert "2 rewarded by their outcome, 1 by their calls alone." in render_page(report(passed=passed))


def diagnosed(*, wrong: bool) -> Diagnosis:
    fine = Diagnosed(name=Name.engine, severity=Severity.fine, says="all is well")
    bad = Diagnosed(name=Name.timeouts, severity=Severity.fault, says=HOSTILE, what_to_do=f"run `{HOSTILE}`, then more")
    counts = RoundCounts(
        policy="models/sft", attempts=4, endings={"gave_up": 3, HOSTILE: 1}, solved=None, without_verdict=4, calls=1.5,
        tokens=20, without_call=0, cut_actions=0, attempts_cut=1,
    )  # fmt: skip
    tasks = TaskCounts(tasks=2, all_solved=0, none_solved=1, some_solved=0, unknown=1, compared=2, alike=2)
    return Diagnosis(
        findings=(bad, fine) if wrong else (fine,),
        counts=counts,
        previous=counts if wrong else None,
        tasks=tasks,
        tools=(ToolCounts(tool=HOSTILE, calls=3, timeouts=1, errors={HOSTILE: 2}),),
        shortened={HOSTILE: 2},
    )


@pytest.mark.parametrize("wrong", [True, False])
def test_a_diagnosis_stands_before_the_expectations(wrong: bool) -> None:
    page = render_page(report(passed=True), diagnosis=diagnosed(wrong=wrong))
    assert page.index("Diagnosis") < page.index("Rewards are finite.")
    assert ("1 fault</span>" in page, "A tool hangs:" in page) == (wrong, wrong)
    assert "<dt>Engine</dt><dd>all is well</dd>" in page
    assert HOSTILE not in page
    assert re.search(r"gave up</td><td[^>]*>3</td><td[^>]*>75%", page)


def test_what_is_to_be_typed_is_set_as_code() -> None:
    assert "Run <code>&lt;script&gt;alert(1)&lt;/script&gt;</code>, then more." in render_page(
        report(passed=True), diagnosis=diagnosed(wrong=True)
    )


def calibrated() -> Calibration:
    told = Evidence(name=HOSTILE, tasks=1234, correlation=Interval(value=0.4, low=0.2, high=0.6), weight=0.3)
    length = Evidence(name="length", tasks=20, correlation=None, weight=0.05)
    return Calibration(
        scores=(told, length), groups={HOSTILE: (told,), "G2": (length,)}, form="paper", worth=None, why=HOSTILE
    )


def test_a_calibration_stands_before_the_expectations_with_its_sentence_and_its_scores() -> None:
    page = render_page(report(passed=True), calibration=calibrated())
    assert page.index("Calibration") < page.index("Rewards are finite.")
    assert "<p>What the step rewards of this data are worth cannot be said: &lt;script" in page
    assert HOSTILE not in page
    assert re.search(r"\+0\.40</td><td[^>]*>\[\+0\.20, \+0\.60\]</td>.*left: 60\.0%; width: 20\.0%", page)
    assert '<td class="number">1,234</td>' in page
    assert "too few tasks tell" in page
    assert "−0.05" in page  # what a step costs


def test_a_page_without_a_calibration_has_no_section_of_it() -> None:
    assert "Calibration" not in render_page(report(passed=True))
