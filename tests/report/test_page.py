from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from sample_data import call, evaluation, finish, give_up, report_data, scored, task

from steptool.evaluation.compare import compare
from steptool.report.examples import choose_tasks, examples
from steptool.report.page import ReportData, render_report

HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
VOID = {"meta", "br", "line", "circle", "path"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order, and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [
            f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset") or name.startswith("on")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def data() -> ReportData:
    return report_data(tasks_per_subset=6)


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render_report(data)


def test_page_is_well_formed_and_loads_nothing(page: str) -> None:
    found = parsed(page)
    assert found.loads == []
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_same_data_same_bytes(page: str) -> None:
    assert render_report(report_data(tasks_per_subset=6)) == page


def test_page_shows_every_policy_group_and_section(page: str, data: ReportData) -> None:
    for text in ("SFT", "PPO round 1", "PPO round 3", "RFT", "G3<br>instruction", "I2", "explained".capitalize()):
        assert text in page
    for heading in ("Results", "Where failures come from", "The same task, before and after", "What made this report"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count('<figure class="chart">') == 3 + 2 + 4
    assert "Newly solved" in page
    assert "No longer solved" in page
    assert "PPO round 3 against RFT: " in page


def test_numbers_on_the_page_are_those_of_the_evaluation(page: str, data: ReportData) -> None:
    rows = re.findall(r"<tr><th>.*?</tr>", page, flags=re.S)[1:]  # below the heads
    cells = [re.findall(r"<td[^>]*>([^<]*)", row) for row in rows]
    for evaluation_, row in zip(data.evaluations, cells, strict=False):
        expected = [f"{100 * (each['pass_rate'].value or 0):.0f}" for each in evaluation_.metrics.values()]
        assert [cell.split("\N{NARROW NO-BREAK SPACE}")[0] for cell in row] == expected


def small(query: str, output: str) -> ReportData:
    one = task(0).model_copy(update={"query": query})
    find = call("libris.find_book", {"title": output}, output)
    before = scored(one, [find, give_up()], 0.0)
    after = scored(one, [find, finish(output)], 1.0, policy="r1")
    sft, r1 = evaluation("sft", [before], [one]), evaluation("r1", [after], [one])
    return ReportData(
        evaluations=[sft, r1],
        comparisons=[compare(r1, sft, resamples=100, confidence=0.95, seed=0)],
        judged={"sft": [before], "r1": [after]},
        tasks=[one],
        meta={"seed": 1, "note": output[:100]},
    )


def test_hostile_tool_output_stays_text() -> None:
    page = render_report(small(HOSTILE, HOSTILE))
    found = parsed(page)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert found.loads == []
    assert "{{ 7*7 }}" in page


def test_endless_tool_output_is_cut() -> None:
    page = render_report(small("q", "x" * 50_000))
    assert "x" * 1_201 not in page
    assert "48800 more characters" in page


def test_report_of_a_single_evaluation_has_no_comparison(data: ReportData) -> None:
    page = render_report(ReportData(evaluations=data.evaluations[:1], comparisons=[]))
    parsed(page)
    assert "compared with nothing" in page
    assert "Where the difference is" not in page
    assert "before and after" not in page


def test_report_of_nothing_says_so() -> None:
    page = render_report(ReportData(evaluations=[], comparisons=[]))
    parsed(page)
    assert "Nothing has been evaluated." in page


def test_examples_of_several_attempts_show_the_ones_that_changed() -> None:
    one = task(0)
    before = [scored(one, [finish(str(n))], float(n), attempt=n) for n in (0, 1)]  # lost, then solved
    after = [scored(one, [finish("1")], 1.0, policy="r1", attempt=n) for n in (0, 1)]
    sft, r1 = evaluation("sft", before, [one], attempts=2), evaluation("r1", after, [one], attempts=2)
    comparison = compare(r1, sft, resamples=100, confidence=0.95, seed=0)
    rewards = {after[0].trajectory.id: [0.98]}
    (shown,) = examples(comparison, {"sft": sft, "r1": r1}, {"sft": before, "r1": after}, [one], rewards)
    assert (shown.won, shown.before.solved, shown.after.solved) == (True, 0.0, 1.0)
    assert (shown.before.outcome, shown.after.outcome) == ("wrong answer", "solved")
    assert (shown.before.steps[0].reward, shown.after.steps[0].reward) == (None, 0.98)


def test_examples_take_each_subset_in_turn() -> None:
    tasks = [task(0), task(1), task(0, "G2_category"), task(2)]
    lost = evaluation("sft", [scored(each, [finish("1")], 0.0) for each in tasks], tasks)
    won = evaluation("r1", [scored(each, [finish("1")], 1.0, policy="r1") for each in tasks], tasks)
    assert choose_tasks(won, lost, tasks, won=True) == [tasks[0], tasks[2], tasks[1]]
    assert choose_tasks(won, lost, tasks, won=False) == []
