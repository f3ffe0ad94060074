from __future__ import annotations

import pytest
from sample_data import evaluation, finish, report_data, scored, task

from steptool.core.types import SUBSETS, Revision, StopReason
from steptool.evaluation.compare import compare
from steptool.evaluation.metrics import ROLL_UPS, Evaluation
from steptool.report.page import ReportData, render_report, text_table
from steptool.report.wording import THIN, groups_text, headline, label, p_number, points, verdict


@pytest.fixture(scope="module")
def data() -> ReportData:
    return report_data(tasks_per_subset=6)


def measured(name: str, solved: int, of: int = 20) -> Evaluation:
    tasks = [task(index) for index in range(of)]
    judged = [scored(each, [finish("1")], float(index < solved), policy=name) for index, each in enumerate(tasks)]
    return evaluation(name, judged, tasks)


def sentence(candidate: Evaluation, baseline: Evaluation) -> str:
    comparison = compare(candidate, baseline, resamples=1_000, confidence=0.95, seed=0)
    return verdict([baseline, candidate], [comparison]).replace(THIN, " ")


def test_verdict_of_a_gain_gives_both_rates_the_interval_and_p() -> None:
    text = sentence(measured("r3", 16), measured("sft", 4))
    assert text.startswith("Step-grained PPO solves 80 % of 20 unseen tasks, SFT 20 %: +60 points [")
    assert text.endswith("], p < 0.001.")


@pytest.mark.parametrize(
    ("world", "subsets", "split", "tasks", "groups"),
    [
        ("mini", SUBSETS, "test", "6 unseen tasks",
         "G1 tasks need one tool, G2 tasks need several tools of one category, "
         "G3 tasks need several tools of one collection; the second word says what training never saw."),
        ("mini", SUBSETS[:1], "dev", "1 held-out tasks",
         "G1 tasks need one tool; the second word says what training never saw."),
        ("recorded", ("G2_category", "G3_instruction"), "test", "2 held-out tasks",
         "G2 tasks need several tools of one category, G3 tasks need several tools of one collection."),
        ("shop", ("returns", "G1_of_ours"), "test", "2 held-out tasks", ""),
    ],
)  # fmt: skip
def test_only_what_is_true_of_a_world_is_said_of_it(
    world: str, subsets: tuple[str, ...], split: str, tasks: str, groups: str
) -> None:
    made = evaluation("sft", [], [task(0, subset) for subset in subsets])
    budget = made.budget.model_copy(update={"world": Revision(name=world, revision="1"), "split": split})
    of_world = made.model_copy(update={"budget": budget})
    assert tasks in verdict([of_world], []).replace(THIN, " ")
    assert groups_text(of_world) == groups
    page = render_report(ReportData(evaluations=[of_world], comparisons=[]))
    assert groups in page
    for name in (*SUBSETS, *ROLL_UPS):
        assert (name in of_world.metrics) == (name in subsets or any(
            subset in SUBSETS and subset.startswith(ROLL_UPS.get(name, "-")) for subset in subsets
        )), "a group that does not occur makes no column"  # fmt: skip
    assert ("never saw" in page) == (world == "mini")


def test_verdict_says_so_when_nothing_is_shown() -> None:
    assert sentence(measured("r1", 5), measured("sft", 4)).endswith("That is no evidence of a difference.")


def test_verdict_admits_a_loss() -> None:
    text = sentence(measured("r1", 4), measured("sft", 16))
    assert "\N{MINUS SIGN}60 points" in text
    assert text.endswith("It got worse.")


def test_verdict_without_a_comparison() -> None:
    assert "compared with nothing" in verdict([measured("sft", 4)], [])
    assert verdict([], []) == "Nothing has been evaluated."


def test_verdict_is_about_the_last_round_not_about_other_arms(data: ReportData) -> None:
    assert verdict(data.evaluations, data.comparisons).startswith("Step-grained PPO solves")
    only_rft = [each for each in data.comparisons if each.candidate == "rft"]
    assert verdict(data.evaluations, only_rft).startswith("RFT solves")


def test_verdict_is_against_the_first_policy_whatever_else_was_compared(data: ReportData) -> None:
    assert (data.comparisons[-1].candidate, data.comparisons[-1].baseline) == ("r3", "rft")
    for order in (data.comparisons, data.comparisons[::-1]):
        chosen = headline(data.evaluations, order)
        assert chosen is not None
        assert (chosen.candidate, chosen.baseline) == ("r3", "sft")


def test_table_fits_a_terminal_and_aligns(data: ReportData) -> None:
    lines = text_table(data.evaluations, data.comparisons).splitlines()
    assert max(map(len, lines)) <= 110
    rule = lines.index(next(line for line in lines if line.startswith("─")))
    table = [lines[rule - 1], *lines[rule + 1 : rule + 1 + len(data.evaluations)]]
    assert len({len(line) for line in table}) == 1
    assert [line.split("  ")[0].strip() for line in table[1:]] == [label(e.name) for e in data.evaluations]


def test_table_shows_whole_percents_and_every_comparison(data: ReportData) -> None:
    text = text_table(data.evaluations, data.comparisons)
    assert f"{100 * data.evaluations[0].pass_rate:.0f} [" in text
    assert text.count(" won, ") == len(data.comparisons)


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


def test_names_of_policies() -> None:
    assert [label(name) for name in ("sft", "r2", "rft", "my-model")] == ["SFT", "PPO round 2", "RFT", "my-model"]


def test_the_table_says_whose_attempts_were_lost() -> None:
    tasks = [task(index) for index in range(4)]
    whole = evaluation("sft", [scored(of, [finish("1")], 1.0) for of in tasks], tasks)
    lost = [scored(of, [], 0.0, policy="r1", stop=StopReason.engine_error) for of in tasks[:1]]
    part = evaluation("r1", lost + [scored(of, [finish("1")], 1.0, policy="r1") for of in tasks[1:]], tasks)
    assert text_table([whole, part], []).endswith(
        "\nPPO round 1: faults of the engine or the world ended 25.0 % of its attempts, which count as unsolved"
    )
