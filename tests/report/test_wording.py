from __future__ import annotations

import pytest

from steptool.core.types import SUBSETS, Revision, StopReason
from steptool.evaluation.compare import compare
from steptool.evaluation.metrics import ROLL_UPS, Evaluation
from steptool.report.page import ReportData, render_report
from steptool.report.results import Arm, Results
from steptool.report.wording import COLUMNS, THIN, _short, groups_text, p_number, points, text_table, verdict
from tests.report.sample import ARMS, FIRST, SECOND, SFT, THEIRS, answer, evaluation, report_data, scored, task


@pytest.fixture(scope="module")
def data() -> ReportData:
    return report_data(tasks_per_group=6)


def measured(name: str, solved: int, of: int = 20) -> Evaluation:
    tasks = [task(index) for index in range(of)]
    judged = [scored(each, [answer("1")], float(index < solved), arm=name) for index, each in enumerate(tasks)]
    return evaluation(name, judged, tasks)


def sentence(candidate: Evaluation, baseline: Evaluation) -> str:
    comparison = compare(candidate, baseline, resamples=1_000, confidence=0.95, seed=0)
    return verdict(Results(arms=[], evaluations=[baseline, candidate], comparisons=[comparison])).replace(THIN, " ")


def alone(*evaluations: Evaluation) -> Results:
    return Results(arms=[], evaluations=list(evaluations), comparisons=[])


def test_verdict_of_a_gain_gives_both_rates_the_interval_and_p() -> None:
    text = sentence(measured("second", 16), measured("warmup", 4))
    assert text.startswith("second solves 80 % of 20 unseen tasks, warmup 20 %: +60 points [")
    assert text.endswith("], p < 0.001.")


@pytest.mark.parametrize(
    ("world", "present", "split", "tasks", "groups"),
    [
        ("mini", SUBSETS, "test", "6 unseen tasks",
         "G1 tasks need one tool, G2 tasks need several tools of one category, "
         "G3 tasks need several tools of one collection; the second word says what training never saw."),
        ("mini", SUBSETS[:1], "dev", "1 held-out task;",
         "G1 tasks need one tool; the second word says what training never saw."),
        ("recorded", ("G2_category", "G3_instruction"), "test", "2 held-out tasks",
         "G2 tasks need several tools of one category, G3 tasks need several tools of one collection."),
        ("shop", ("returns", "G1_of_ours"), "test", "2 held-out tasks", ""),
    ],
)  # fmt: skip
def test_only_what_is_true_of_a_world_is_said_of_it(
    world: str, present: tuple[str, ...], split: str, tasks: str, groups: str
) -> None:
    made = evaluation("warmup", [], [task(0, group) for group in present])
    conditions = made.conditions.model_copy(update={"world": Revision(name=world, revision="1")})
    of_world = made.model_copy(update={"conditions": conditions, "split": split})
    assert tasks in verdict(alone(of_world)).replace(THIN, " ")
    assert groups_text(of_world) == groups
    page = render_report(ReportData(arms=[SFT], evaluations=[of_world], comparisons=[]))
    assert groups in page
    for name in (*SUBSETS, *ROLL_UPS):
        assert (name in of_world.metrics) == (name in present or any(
            group in SUBSETS and group.startswith(ROLL_UPS.get(name, "-")) for group in present
        )), "a group that does not occur makes no column"  # fmt: skip
    assert ("never saw" in page) == (world == "mini")


def test_verdict_says_so_when_nothing_is_shown() -> None:
    assert sentence(measured("first", 5), measured("warmup", 4)).endswith("That is no evidence of a difference.")


def test_verdict_admits_a_loss() -> None:
    text = sentence(measured("first", 4), measured("warmup", 16))
    assert "\N{MINUS SIGN}60 points" in text
    assert text.endswith("It got worse.")


def test_verdict_without_a_comparison() -> None:
    assert verdict(alone(measured("warmup", 4))).endswith("; it is compared with nothing.")
    assert verdict(alone()) == "Nothing has been evaluated."


def test_verdict_is_about_the_first_pair_whatever_the_names(data: ReportData) -> None:
    assert verdict(data).startswith("second solves")
    turned = data.model_copy(update={"comparisons": data.comparisons[::-1]})
    assert turned.headline is not None
    assert (turned.headline.candidate, turned.headline.baseline) == ("second", "filtered")
    assert ", filtered " in verdict(turned)


def test_table_fits_a_terminal_and_aligns(data: ReportData) -> None:
    lines = text_table(data).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    rule = lines.index(next(line for line in lines if line.startswith("─")))
    table = [lines[rule - 1], *lines[rule + 1 : rule + 1 + len(data.evaluations)]]
    assert len({len(line) for line in table}) == 1
    assert [line.split("  ")[0].strip() for line in table[1:]] == [arm.name for arm in data.arms]


def test_table_leaves_the_groups_out_where_they_do_not_fit() -> None:
    long = Arm(name="an_arm_with_a_name_of_40_characters_12345", method="sft", start="base", data=("demonstrations",))
    text = text_table(report_data(1, arms=[long], pairs=[]))
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "G1 ins" not in text
    assert "all [95 %]" in text


@pytest.mark.parametrize(
    ("groups", "short"),
    [
        (["G1_instruction", "G1_tool", "I1"], ["G1 ins", "G1 too", "I1"]),
        (["multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param"], ["base", "miss fun", "miss par"]),
        (["multi_turn_base"], ["multi tur"]),
        (["analytics", "project_management"], ["analytic", "project man"]),
        (["a_b", "a_b_c"], ["b", "b c"]),
        ([], []),
    ],
)
def test_groups_are_told_apart_by_their_short_names(groups: list[str], short: list[str]) -> None:
    assert _short(groups) == short


def test_table_shows_whole_percents_and_every_comparison(data: ReportData) -> None:
    text = text_table(data)
    assert f"{100 * data.evaluations[0].pass_rate:.0f} [" in text
    assert text.count(" won, ") == len(data.comparisons)


def test_table_says_how_each_arm_was_made_and_explains_the_metrics_of_the_project(data: ReportData) -> None:
    lines = text_table(data).splitlines()
    assert lines[-len(ARMS) :] == [f"{arm.name}: {arm.caption}" for arm in ARMS]
    (retries,) = [line for line in lines if line.startswith("retries ")]
    values = [f"{each.name} {each.metrics['all']['retries'].value:.1f}" for each in data.evaluations]
    assert retries == f"retries (calls that repeat the one before): {', '.join(values)}"


@pytest.mark.parametrize("arms", [[SFT], [THEIRS], [SECOND], [FIRST, THEIRS]])
def test_table_of_a_project_with_less(arms: list[Arm]) -> None:
    data = report_data(1, arms=arms, pairs=[])
    text = text_table(data)
    assert "compared with nothing" in text
    for arm in arms:
        assert f"\n{arm.name}: {arm.caption}" in text


def test_an_arm_follows_those_that_it_came_from(data: ReportData) -> None:
    """base ─ warmup ─┬─ first ─ second; theirs came from nowhere"""
    assert data.line_of("second") == ["warmup", "first", "second"]
    assert data.line_of("filtered") == ["warmup", "filtered"]
    assert data.line_of("theirs") == ["theirs"]


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(0.131, 0, "+13"), (-0.024, 1, "\N{MINUS SIGN}2.4"), (-0.0004, 0, "0"), (0, 1, "0.0")]
)
def test_points_have_a_true_minus_and_no_signed_zero(value: float, digits: int, text: str) -> None:
    assert points(value, digits, sign=True) == text


def test_p_values_keep_the_digits_that_matter() -> None:
    assert [p_number(p).replace(THIN, " ") for p in (0.0004, 0.0123, 0.049, 0.41)] == [
        "< 0.001",
        "0.012",
        "0.049",
        "0.41",
    ]


def test_the_table_says_whose_attempts_were_lost() -> None:
    tasks = [task(index) for index in range(4)]
    whole = evaluation("warmup", [scored(of, [answer("1")], 1.0) for of in tasks], tasks)
    lost = [scored(of, [], 0.0, arm="first", stop=StopReason.engine_error) for of in tasks[:1]]
    part = evaluation("first", lost + [scored(of, [answer("1")], 1.0, arm="first") for of in tasks[1:]], tasks)
    assert (
        "\nfirst: faults of the engine or the world ended 25.0 % of its attempts, which count as unsolved\n"
        in text_table(alone(whole, part))
    )


def test_the_table_without_any_verdict_shows_grounded_answers() -> None:
    data = report_data(tasks_per_group=6, checked=0.0)
    lines = text_table(data).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    (head,) = [line for line in lines if line.startswith("arm ")]
    assert "grounded [95 %]" in head
    assert "solved" not in head
    assert sum(", grounded answers: " in line for line in lines) == len(data.comparisons)


@pytest.mark.parametrize(
    ("checked", "per_group", "columns"),
    [(0.5, 10, ("all [95 %]", "grounded")), (0.1, 10, ("grounded [95 %]", "solved, of 6"))],
)
def test_the_table_of_some_verdicts_shows_both(checked: float, per_group: int, columns: tuple[str, str]) -> None:
    lines = text_table(report_data(per_group, checked=checked)).splitlines()
    (head,) = [line for line in lines if line.startswith("arm ")]
    assert all(column in head for column in columns)
    assert max(map(len, lines)) <= COLUMNS
