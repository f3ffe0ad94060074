from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from steptool.core.types import ScoredTrajectory, Task
from steptool.evaluation.compare import Comparison, Difference, compare
from steptool.evaluation.metrics import Measure
from steptool.report.examples import choose_tasks, examples
from steptool.report.page import ReportData, Trained, _context, _forest, render_report
from steptool.report.results import Arm
from steptool.testing import call, give_up, message, step, unreadable
from tests.report.sample import (
    ARMS,
    FILTERED,
    FIRST,
    SECOND,
    SFT,
    THEIRS,
    answer,
    did,
    evaluation,
    report_data,
    scored,
    task,
)

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
    return report_data(tasks_per_group=6)


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render_report(data)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_page_is_well_formed_and_loads_nothing(page: str) -> None:
    found = parsed(page)
    assert found.loads == []
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_same_data_same_bytes(page: str) -> None:
    assert render_report(report_data(tasks_per_group=6)) == page


def test_page_shows_every_arm_group_and_section(page: str) -> None:
    for text in ("warmup", "first", "second", "filtered", "theirs", "G3<br>instruction", "I2", "Explained"):
        assert text in page
    assert headings(page) == [
        "Results",
        "Where the difference is",
        "From arm to arm",
        "Where failures come from",
        "What was sampled",
        "How it was trained",
        "The same task, before and after",
        "What made this report",
    ]
    assert page.count('<figure class="chart">') == 2 + 2 + 7 + 1
    assert "Newly solved" in page
    assert "No longer solved" in page


def test_page_says_how_each_arm_was_made(page: str) -> None:
    for arm in ARMS:
        assert f"{arm.name}<small>{arm.caption}</small>" in page
    assert SECOND.caption == "step_ppo from first on tuesday"
    assert FILTERED.caption == "rft from warmup on monday, tuesday"
    assert THEIRS.caption == "not trained here"
    assert "monday was sampled from warmup, tuesday from first" in page


def test_page_shows_the_conditions(page: str) -> None:
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert [facts[part] for part in ("world", "format", "engine", "search", "annotator")] == [
        "mini 1",
        "json_call 1",
        "vllm 1 in float32",
        "chain 1",
        "rules 1",
    ]
    assert facts["sampling"] == "temperature 0.0, top_p 1.0, max_calls 8, max_step_tokens 64, max_tokens 1024"
    assert facts["tasks"] == "36 of split test, 1 attempt each"


def rows(page: str) -> dict[str, list[list[str]]]:
    """Arm → its cells, of each table that it is in; a cell without its interval."""
    found: dict[str, list[list[str]]] = {}
    for name, cells in re.findall(r'<tr><th><i class="key"[^>]*></i>(\w+)<small>(.*?)</tr>', page, flags=re.S):
        found.setdefault(name, []).append(re.findall(r"<td[^>]*>([^<]*)", cells))
    return found


def test_numbers_on_the_page_are_those_of_the_evaluation(page: str, data: ReportData) -> None:
    for each in data.evaluations:
        solved, measured = rows(page)[each.name]
        expected = [f"{100 * (row['pass_rate'].value or 0):.0f}" for row in each.metrics.values()]
        assert [cell.split("\N{NARROW NO-BREAK SPACE}")[0] for cell in solved] == expected
        assert len(measured) == len(data.measures)


def test_a_metric_of_the_project_is_a_column_and_is_explained(page: str, data: ReportData) -> None:
    assert list(data.own_measures) == ["retries"]
    assert '<th class="name">Retries</th>' in page
    assert "<dt>Retries</dt><dd>calls that repeat the one before</dd>" in page
    for each in data.evaluations:
        assert rows(page)[each.name][1][-1] == f"{each.metrics['all']['retries'].value:.1f}"


def test_lines_lead_from_the_arm_that_training_started_from(data: ReportData) -> None:
    """warmup, at x0, leads to first and to filtered, first to second; nothing leads to theirs.

    base is no arm of the table.
    """
    chart = next(chart for chart in _context(data)["in_table_order"] if chart.title.startswith("Pass rate"))
    at = {tick.text: f"{tick.at:g}" for tick in chart.x_ticks}
    lines = {tuple(place.split(" ")[0] for place in each.path[1:].split("L")) for each in chart.series if each.path}
    assert lines == {
        (at["warmup"], at["first"]),
        (at["first"], at["second"]),
        (at["warmup"], at["filtered"]),
    }


def test_colours_tell_every_arm_apart(data: ReportData) -> None:
    colour = _context(data)["colour"]
    assert len(set(colour.values())) == len(ARMS)
    assert colour["warmup"] == "var(--baseline)"
    assert "100%" in colour["second"]


def test_what_is_known_is_shown_first_and_the_rest_is_folded(page: str) -> None:
    shown, folded = page.split("What else was logged")
    assert "KL to the sampling policy" in shown
    assert "Value loss" not in shown
    assert "Value loss" in folded


def test_a_method_of_the_project_has_all_that_it_logs_shown() -> None:
    mine = Arm(name="mine", method="my_method", start="base", data=("monday",))
    data = report_data(2, arms=[mine], pairs=[])
    steps = [{"step": k, "margin": float(k), "agreement": 0.5} for k in range(3)]
    page = render_report(data.model_copy(update={"trained": {"mine": Trained(steps=steps)}}))
    assert "Margin" in page
    assert "Agreement" in page
    assert "my_method" in page
    assert "What else was logged" not in page


@pytest.mark.parametrize(
    ("arms", "pairs", "missing"),
    [
        ([Arm(name="tuned", method="step_ppo", start="base", data=("monday",)), THEIRS], [("tuned", "theirs")], set()),
        ([SFT], [], {"Where the difference is", "From arm to arm", "What was sampled",
                     "The same task, before and after"}),
        ([THEIRS], [], {"Where the difference is", "From arm to arm", "What was sampled", "How it was trained",
                        "The same task, before and after"}),
        ([SFT, THEIRS], [("warmup", "theirs")], {"What was sampled"}),
        ([SFT, FIRST], [], {"Where the difference is", "The same task, before and after"}),
    ],
    ids=["without demonstrations", "one arm", "one that was not trained", "without rounds", "without comparisons"],
)  # fmt: skip
def test_a_project_with_less_has_a_page_without_what_it_lacks(
    page: str, arms: list[Arm], pairs: list[tuple[str, str]], missing: set[str]
) -> None:
    small = render_report(report_data(2, arms=arms, pairs=pairs))
    parsed(small)
    assert headings(small) == [heading for heading in headings(page) if heading not in missing]
    assert ("compared with nothing" in small) == (not pairs)
    for arm in arms:
        assert arm.caption in small


def compared(before: ScoredTrajectory, after: ScoredTrajectory, one: Task, note: str = "") -> ReportData:
    old, new = evaluation("warmup", [before], [one]), evaluation("first", [after], [one])
    return ReportData(
        arms=[SFT, FIRST],
        evaluations=[old, new],
        comparisons=[compare(new, old, resamples=100, confidence=0.95, seed=0)],
        judged={"warmup": [before], "first": [after]},
        tasks=[one],
        meta={"seed": 1, "note": note},
    )


def small(query: str, output: str) -> ReportData:
    one = task(0).model_copy(update={"query": query})
    find = did("libris.find_book", output, title=output)
    before = scored(one, [find, give_up()], 0.0)
    after = scored(one, [find, step(message(output), output), answer(output)], 1.0, arm="first")
    return compared(before, after, one, output[:100])


def test_hostile_tool_output_stays_text() -> None:
    page = render_report(small(HOSTILE, HOSTILE))
    found = parsed(page)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert found.loads == []
    assert "{{ 7*7 }}" in page


def test_hostile_names_stay_text() -> None:
    """Arms have plain names, but what a method logs and what a project calls its metrics come from its own code."""
    data = report_data(2, arms=[SFT], pairs=[])
    trained = {"warmup": Trained(steps=[{HOSTILE: 1.0}])}
    measures = {**data.evaluations[0].measures, "retries": Measure(describes=HOSTILE, is_rate=False)}
    evaluations = [data.evaluations[0].model_copy(update={"measures": measures})]
    found = parsed(render_report(data.model_copy(update={"trained": trained, "evaluations": evaluations})))
    assert "script" not in found.tags
    assert found.loads == []


def test_endless_tool_output_is_cut() -> None:
    page = render_report(small("q", "x" * 50_000))
    assert "x" * 1_201 not in page
    assert "48800 more characters" in page


def test_report_of_nothing_says_so() -> None:
    page = render_report(ReportData(arms=[], evaluations=[], comparisons=[]))
    parsed(page)
    assert "Nothing has been evaluated." in page


def test_examples_of_several_attempts_show_the_ones_that_changed() -> None:
    one = task(0)
    before = [scored(one, [answer(str(n))], float(n), attempt=n) for n in (0, 1)]  # lost, then solved
    after = [scored(one, [answer("1")], 1.0, arm="first", attempt=n) for n in (0, 1)]
    old, new = evaluation("warmup", before, [one], attempts=2), evaluation("first", after, [one], attempts=2)
    comparison = compare(new, old, resamples=100, confidence=0.95, seed=0)
    rewards = {after[0].trajectory.id: [0.98]}
    (shown,) = examples(comparison, {"warmup": old, "first": new}, {"warmup": before, "first": after}, [one], rewards)
    assert (shown.won, shown.before.solved, shown.after.solved) == (True, 0.0, 1.0)
    assert (shown.before.outcome, shown.after.outcome) == ("wrong answer", "solved")
    assert (shown.before.steps[0].reward, shown.after.steps[0].reward) == (None, 0.98)


def test_examples_take_each_group_in_turn() -> None:
    tasks = [task(0), task(1), task(0, "G2_category"), task(2)]
    lost = evaluation("warmup", [scored(each, [answer("1")], 0.0) for each in tasks], tasks)
    won = evaluation("first", [scored(each, [answer("1")], 1.0, arm="first") for each in tasks], tasks)
    assert choose_tasks(won, lost, tasks, won=True) == [tasks[0], tasks[2], tasks[1]]
    assert choose_tasks(won, lost, tasks, won=False) == []


def test_an_example_shows_calls_at_the_same_time_messages_and_what_could_not_be_read() -> None:
    one = task(0)
    both = step([call("libris.find_book", title="a"), call("libris.find_book", title="b")], ["found a", "found b"])
    before = scored(one, [step(unreadable("no call"), error="parse_error"), give_up()], 0.0)
    after = scored(one, [both, step(message("Which of them?"), "The first."), answer("1983")], 1.0, arm="first")
    page = render_report(compared(before, after, one))
    for text in ("found a", "found b", "Which of them?", "The first.", "could not be read:</em> no call"):
        assert text in page


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (-0.002, 0.004), (-0.02, 0.34), (-1.0, 0.0)])
def test_each_tick_of_a_comparison_says_another_number(low: float, high: float) -> None:
    found = Difference(difference=(low + high) / 2, low=low, high=high, p_value=1, won=1, lost=1, tied=0)
    forest = _forest(
        Comparison(**found.model_dump(), candidate="a", baseline="b", confidence=0.95, groups={"all": found})
    )
    texts = [text for _, text in forest.ticks]
    assert len(texts) == len(set(texts)) >= 2
    assert all(0 <= at <= 100 for at, _ in forest.ticks)


# Tasks without a verdict


def test_a_page_without_any_verdict_is_about_grounded_answers_and_says_what_they_are() -> None:
    data = report_data(tasks_per_group=6, checked=0.0)
    page = render_report(data)
    assert (data.measure, data.metric) == ("grounded", "grounded")
    assert "second gives grounded answers to" in page
    assert "Whether these answers are right, nobody has judged." in page
    assert "Share of grounded answers" in page
    assert "Comparison of grounded answers" in page
    assert "Newly grounded" in page
    assert "How attempts ended" in page
    assert "Solved" not in page and "None" not in page
    assert not {"pass_rate", "pass_rate_finished", "grounded"} & data.measures.keys()
    for each in data.evaluations:
        shown, _ = rows(page)[each.name]
        expected = [f"{100 * (row['grounded'].value or 0):.0f}" for row in each.metrics.values()]
        assert [cell.split("\N{NARROW NO-BREAK SPACE}")[0] for cell in shown] == expected


def test_a_page_of_some_verdicts_is_about_these_tasks_and_says_how_many() -> None:
    data = report_data(tasks_per_group=10, checked=0.5)
    page = render_report(data).replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert data.measure == "solved"
    assert re.search(r"second solves \d+ % of the 30 of 60 unseen tasks that have a verdict, warmup", page)
    assert "Solved, of 30 with a verdict" in page
    assert "60 of split test, 1 attempt each; 30 have a verdict" in page
    assert "answer without a verdict" in page
    assert "grounded" in data.measures


def test_a_page_of_verdicts_alone_does_not_speak_of_missing_ones(page: str) -> None:
    for words in ("without a verdict", "have a verdict", "How attempts ended", "nobody has judged"):
        assert words not in page
