"""Cells of a comparison, from a policy that acts by its seed; what they say; and what a corner knows of an attempt."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from benchmarks import corners
from benchmarks.budgets import budgets
from benchmarks.cells import Bench, Cell, paid_for_length
from benchmarks.figures import Sample, holm, paired, read_cells, resampled, tables
from benchmarks.folds import folds
from benchmarks.habits import Corner, as_known, habits, misjudged, repeats, within_tasks, without_score
from steptool.config.places import JUDGED, PARAMS
from steptool.config.settings import parse_params
from steptool.core.errors import DataError, InputError, NotComparable
from steptool.core.storage import write_jsonl
from steptool.core.types import Reference
from steptool.engines.base import Generation, Request
from steptool.engines.fake import spoken
from steptool.evaluation.metrics import Evaluation
from steptool.methods.grpo import Grpo
from steptool.methods.rft import Rft
from steptool.methods.step_ppo import StepPpo
from steptool.methods.step_ppo_release import StepPpoRelease
from steptool.policies.base_models import fetch_base
from steptool.report.wording import points
from steptool.rewards.paper import Paper
from steptool.testing import call, finish, give_up, judgement, scored, step, trajectory
from steptool.training.job import Data

ROOT = Path(__file__).parents[1]


class BySeed:
    """An engine that, by the request's seed, answers or says what is no call."""

    takes_adapters = True

    def __init__(self, config: Any, policy: Path, **_: Any) -> None:
        self.load(policy)

    async def generate(self, request: Request) -> Generation:
        says = 'Finish {"answer": "7"}' if request.seed % 2 else "hm"
        return spoken([*self._tokenizer.encode(says, add_special_tokens=False).ids, request.stop_ids[0]], request)

    def load(self, policy: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(policy / "tokenizer.json"))

    def close(self) -> None:
        """There is nothing to free."""


SMALL = [
    f"engine.use={__name__}:BySeed",
    "sample.max_step_tokens=64",
    "methods.step_ppo.max_engine_kl=1000",
    "methods.step_ppo.baseline=branches",
]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "start"
    folder.mkdir()
    fetch_base("tiny-random", folder)
    return folder


def run(start: Path, out: Path, **more: Any) -> None:
    few = Corner("none-2", tasks=4, attempts=2, verdict="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corners, "CORNERS", [few])
        patch.setattr(corners, "EQUAL_BUDGET", [])
        corners.run(
            few.name, "sft,potential,rft", ["nobody=no_such_method"], "17", start=[f"17={start}"], profile="tiny",
            changes=SMALL, out=out, **more,
        )  # fmt: skip


def test_a_comparison_goes_on_where_it_stopped(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(start, out, rounds=2)
    cells = {(cell.variant, cell.round): cell for cell in read_cells(out / "cells")}
    first, second = cells["potential", 1], cells["potential", 2]
    assert cells["sft", 0].evaluation
    assert first.trained and second.trained and first.trained.sampled.attempts == 8
    assert first.trained.tokens > 0
    sampled = first.trained.sampled
    assert 0 < sampled.finished == 1 - sampled.out_of_budget < 1
    assert first.acted and first.acted.attempts == 12
    assert "none of 8 trajectories has a verdict" in cells["rft", 1].refused == cells["rft", 2].refused
    assert (out / "seed17/policies/none-2.potential.r2").is_dir()
    said = capsys.readouterr()
    assert "| potential, round 2 |" in said.out and "nobody: left out: " in said.err
    before = {file: file.read_bytes() for file in (out / "cells").rglob("*.json")}
    assert all(len(text.splitlines()) == 1 for text in before.values())

    def fails(*_: Any) -> None:
        raise AssertionError("what is there is made again")

    monkeypatch.setattr(Bench, "_train", fails)
    monkeypatch.setattr("benchmarks.cells.measure_policy", fails)
    run(start, out, rounds=2)
    assert {file: file.read_bytes() for file in (out / "cells").rglob("*.json")} == before
    monkeypatch.setattr(sys.modules[__name__], "SMALL", [*SMALL, "sample.max_tokens=500"])
    with pytest.raises(Exception, match="cells failed"):  # an attempt may be longer, so it is measured anew
        run(start, out)


def test_a_fault_of_one_cell_costs_no_other(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Bench, "_train", fails)
    with pytest.raises(Exception, match="cells failed"):
        run(start, tmp_path)
    assert [cell.variant for cell in read_cells(tmp_path / "cells")] == ["sft"]


def test_settings_of_a_run_stand_over_the_profile_and_the_params() -> None:
    written = corners.settings_of("", ["sample.tasks=7", "engine.use=server"], 3)
    assert (written["seed"], written["sample"]["tasks"], written["engine"]) == (3, 7, {"use": "server"})


@pytest.mark.parametrize(("corner", "variant"), [("nowhere", "*"), ("*", "nobody")])
def test_an_unknown_name_is_refused(corner: str, variant: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        corners.run(corner, variant, out=tmp_path)


def test_every_variant_with_a_method_that_there_is_has_settings_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    written = corners.settings_of("", (), 17)
    found = list(corners.variants_of(written, corners.VARIANTS))
    parse_params(PARAMS, written)
    assert {"rft", "outcome", "potential", "paper", "published", "auto"} <= {each.name for each in found}
    hidden = {each.name: each.hidden for each in corners.variants_of(written, corners.ABLATIONS)}
    assert hidden["paper_no_success"] == "success" and hidden["paper_no_cost"] == ""
    assert "unexpected" not in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"split": "tset"}, {"calls": "3,x"}, {"seeds": "x"}])
def test_a_mistake_shows_before_the_work(
    wrong: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"no (split|numbers)"):
        corners.run("none-2", "rft", out=tmp_path, **wrong)  # type: ignore[arg-type]


# What a corner knows


def answered(solved: float | None, answer: str = "7", task: str = "task") -> Any:
    return trajectory(finish(answer), solved=solved, of=task)


def test_a_share_of_the_answers_is_misjudged_and_the_same_answer_always_alike() -> None:
    attempts = [answered(float(index % 2), task=str(index)) for index in range(400)]
    turned = [misjudged(each, 0.3, 17) for each in attempts]
    wrong = sum(a.outcome.solved != b.outcome.solved for a, b in zip(attempts, turned, strict=True))
    assert 0.2 < wrong / 400 < 0.4
    assert turned == [misjudged(each, 0.3, 17) for each in attempts]
    assert turned != [misjudged(each, 0.3, 18) for each in attempts]
    assert misjudged(answered(1.0), 1.0, 0).outcome.solved == 0
    assert misjudged(answered(None), 1.0, 0).outcome.solved is None


def test_giving_up_is_no_answer_that_could_be_misjudged() -> None:
    gave_up = trajectory(give_up(), solved=0.0)
    assert misjudged(gave_up, 1.0, 0) == gave_up


def test_without_an_exact_verdict_nothing_tells_which_tools_matter() -> None:
    known = {"task": Reference(task_id="task", relevant_tools=("find",), has_own_check=True)}
    attempts, references = as_known([answered(1.0)], known, Corner("", 1, 1, "none"), 0)
    assert attempts[0].outcome.solved is None and references == {"task": Reference(task_id="task")}
    attempts, references = as_known([answered(1.0)], known, Corner("", 1, 1, "exact"), 0)
    assert attempts == [answered(1.0)] and references is known


def test_a_score_that_is_left_out_is_0_and_the_others_stay() -> None:
    lookup, end = step(call("find", name="tea"), {"id": 7}), judgement(solved=1)
    whole = scored(trajectory(lookup, finish("7")), judgement(success=1, contribution=1), end)
    assert without_score(whole, "success").judgements == (judgement(success=0, contribution=1), end)


# What attempts do


def test_a_call_that_had_succeeded_is_repeated() -> None:
    good, bad = judgement(success=1, contribution=0), judgement(success=0, contribution=0)
    same = step(call("find", name="tea"), {"id": 7})
    other = step(call("find", name="milk"), {"id": 8})
    end = judgement(solved=0)
    assert repeats(scored(trajectory(same, same, finish("7")), good, good, end))
    assert not repeats(scored(trajectory(same, same, finish("7")), bad, good, end))
    assert not repeats(scored(trajectory(same, other, finish("7")), good, good, end))


def test_habits_are_shares_of_the_attempts() -> None:
    right = scored(trajectory(finish("7"), solved=1.0), judgement(solved=1))
    gave_up = scored(trajectory(give_up(), solved=0.0), judgement(solved=0))
    found = habits([right, right, right, gave_up])
    assert (found.solved, found.finished, found.gave_up, found.calls, found.attempts) == (0.75, 0.75, 0.25, 1.0, 4)


def test_a_correlation_within_tasks_does_not_see_what_differs_between_them() -> None:
    tasks = ["a", "a", "b", "b"]
    assert within_tasks(tasks, [0, 1, 10, 11], [5, 6, 1, 2]) == pytest.approx(1)
    assert within_tasks(tasks, [0, 1, 10, 11], [6, 5, 2, 1]) == pytest.approx(-1)
    assert within_tasks(tasks, [0, 0, 10, 10], [6, 5, 2, 1]) is None


def test_pay_for_length_is_of_what_the_method_pays() -> None:
    """Two attempts: a longer wrong one and a right one. The calls pay the longer one more, the verdict the shorter."""
    lookup, good = step(call("find", name="tea"), {"id": 7}), judgement(success=1, contribution=1)
    wrong = scored(trajectory(lookup, lookup, finish("8")), good, good, judgement(solved=0))
    right = scored(trajectory(finish("7")), judgement(solved=1))
    free = Paper(Paper.Config(alpha=0.5, step_cost=0, budget_cost=0))
    data = Data(format=None, reward=free, scored=[wrong, right])  # type: ignore[arg-type]
    for method, expected in ((StepPpo, 1), (StepPpoRelease, 1), (Grpo, -1), (Rft, None)):
        assert paid_for_length(method(method.Config()), data) == (expected and pytest.approx(expected))


# What cells say


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """One of the start."""
    folder = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        start = folder / "start"
        start.mkdir()
        fetch_base("tiny-random", start)
        run(start, folder)
    return next(cell for cell in read_cells(folder / "cells") if cell.variant == "sft")


def with_solved(cell: Cell, variant: str, seed: int, solved: list[float]) -> Cell:
    assert cell.evaluation
    tasks = list(cell.evaluation.solved)
    found = dict(zip(tasks, solved + [0.0] * (len(tasks) - len(solved)), strict=True))
    evaluation = cell.evaluation.model_copy(update={"solved": found, "name": variant})
    corner = "start" if variant == "sft" else "none-2"
    place = {"variant": variant, "seed": seed, "corner": corner, "round": int(variant != "sft")}
    return cell.model_copy(update={**place, "evaluation": evaluation})


def of_seed(cell: Cell, variant: str, seed: int, solved: list[float]) -> Evaluation:
    """On tasks that each seed has for itself, as the bundled world has."""
    found = with_solved(cell, variant, seed, solved).evaluation
    assert found
    return found.model_copy(update={"tasks_hash": str(seed)})


def test_policies_are_compared_task_by_task_within_each_seed(cell: Cell) -> None:
    ours = {seed: of_seed(cell, "new", seed, [1, 1, 1, 0]) for seed in (17, 18)}
    theirs = {seed: of_seed(cell, "old", seed, [0, 1, 0, 1]) for seed in (17, 18, 19)}
    found = paired(ours, theirs)
    assert found is not None
    assert (list(found.by_seed), found.won, found.lost) == ([17, 18], 4, 2)
    assert found.difference == pytest.approx(1 / 12)
    assert found.low < found.difference < found.high
    assert found.p_value == pytest.approx(0.6875)  # 4 of 6 by an exact sign test
    assert paired({}, theirs) is None


def test_tasks_of_one_cluster_are_one_draw_there_too(cell: Cell) -> None:
    """won twice in cluster a, lost once in b: one cluster against one."""
    ours, theirs = of_seed(cell, "new", 17, [1, 1, 0]), of_seed(cell, "old", 17, [0, 0, 1])
    first, second, third, *_ = ours.solved
    named = {"cluster_of": {first: "a", second: "a", third: "b"}}
    found = paired({17: ours.model_copy(update=named)}, {17: theirs.model_copy(update=named)})
    apart = paired({17: ours}, {17: theirs})
    assert found is not None and apart is not None
    assert (found.won, found.lost) == (1, 1)
    assert (apart.won, apart.lost) == (2, 1)
    assert found.difference == apart.difference
    assert found.high - found.low > apart.high - apart.low


def test_folds_are_taken_together_over_the_tasks_of_all(cell: Cell, tmp_path: Path) -> None:
    """Fold a: 2 won. Fold b: 1 lost. Over both: 2 won, 1 lost."""
    for fold, ours, theirs in (("a", [1.0, 1, 0], [0.0, 0, 0]), ("b", [0.0], [1.0])):
        for made, solved in (("new", ours), ("sft", theirs)):
            found = with_solved(cell, made, 17, solved)
            (tmp_path / fold / "cells" / made).mkdir(parents=True)
            (tmp_path / fold / "cells" / made / "cell.json").write_text(found.model_dump_json())
    tasks = len(cell.evaluation.solved) if cell.evaluation else 0
    text = folds([tmp_path / "a", tmp_path / "b"])
    assert "| variant | a, seed 17 | b, seed 17 | − sft, all of these |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| new |")]
    assert f"{points(1 / (2 * tasks), 1, sign=True)} points" in line
    assert f"2 won, 1 lost, {2 * tasks} tasks of {tasks} clusters" in line  # both folds hold out the same tasks here
    with pytest.raises(DataError, match="no cells"):
        folds([tmp_path / "c"])
    file = tmp_path / "b" / "cells" / "new" / "cell.json"
    file.write_text(file.read_text().replace('"split":"dev","tasks_hash"', '"split":"test","tasks_hash"'))
    assert "| measured otherwise |" in folds([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(InputError, match="2 folders are named 'a'"):
        folds([tmp_path / "a", tmp_path / "other" / "a"])


def test_an_interval_knows_that_seeds_differ() -> None:
    rng = np.random.default_rng(0)
    alike = resampled([Sample(np.full(50, 0.5), np.ones(50))] * 2, rng)
    apart = resampled([Sample(np.zeros(50), np.ones(50)), Sample(np.ones(50), np.ones(50))], rng)
    assert np.ptp(alike) == pytest.approx(0)
    assert sorted({round(value, 6) for value in apart}) == [0, 0.5, 1]
    assert apart.mean() == pytest.approx(0.5, abs=0.02)


def test_a_table_sets_each_variant_against_the_start_and_the_best_of_outcomes_alone(cell: Cell) -> None:
    cells = [with_solved(cell, name, 17, [1.0] * count) for name, count in {"sft": 3, "rft": 5, "new": 9}.items()]
    text = "\n".join(tables(cells))
    assert "## none-2: dev tasks, at most 3 actions" in text
    assert "| variant | seed 17 | mean | − sft | − rft |" in text
    assert "The best without step rewards is rft (chosen here, after looking)." in text
    assert re.search(r"\| new \| \+33\.3 \[.*\], p = 0\.12 \| 0\.12 \| 4, 0 \| 17: \+33\.3 \|", text)


def test_where_outcomes_teach_harm_the_best_without_step_rewards_is_the_start(cell: Cell) -> None:
    cells = [with_solved(cell, name, 17, [1.0] * count) for name, count in {"sft": 5, "outcome": 2, "new": 9}.items()]
    assert "The best without step rewards is sft" in "\n".join(tables(cells))


def test_a_policy_of_one_lucky_seed_is_not_the_best_of_three(cell: Cell) -> None:
    whole = [with_solved(cell, name, seed, [1.0] * 4) for name in ("rft", "new") for seed in (17, 18)]
    text = "\n".join(tables([*whole, with_solved(cell, "grpo", 17, [1.0] * 12)]))
    assert "The best without step rewards is rft" in text


def test_rounds_are_not_compared_with_later_ones(cell: Cell) -> None:
    def after(name: str, round: int, count: int) -> Cell:
        return with_solved(cell, name, 17, [1.0] * count).model_copy(update={"round": round})

    text = "\n".join(tables([after("rft", 1, 3), after("rft", 2, 6), after("new", 1, 4), after("new", 2, 7)]))
    first, second = text.split("The best without step rewards is ")[1:]
    assert first.startswith("rft (") and "| new |" in first and "| new, round 2 |" not in first
    assert second.startswith("rft, round 2 (") and "| new, round 2 | +8.3" in second


def test_a_task_that_all_seeds_share_counts_once(cell: Cell) -> None:
    """Two tasks won on each of three seeds: six wins of tasks that differ, two of tasks that are the same."""
    ours = {seed: with_solved(cell, "new", seed, [1, 1]).evaluation for seed in (17, 18, 19)}
    theirs = {seed: with_solved(cell, "old", seed, [0, 0]).evaluation for seed in (17, 18, 19)}
    same = paired(ours, theirs)  # type: ignore[arg-type]
    assert same is not None
    assert (same.won, same.p_value) == (2, 0.5)
    assert same.difference == pytest.approx(2 / 12)


def test_many_rows_make_a_small_p_value_larger() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 × .01, then 2 × .03, then 1 × .04, no less
    assert holm([]) == []


def test_fewer_actions_are_the_same_attempts_cut(cell: Cell, tmp_path: Path) -> None:
    """Solved at the second action and at the third; within two actions only the first is."""
    lookup = step(call("find", name="tea"), {"id": 7})
    assert cell.evaluation
    tasks = list(cell.evaluation.solved)
    ends = [[lookup, finish("7")], [lookup, lookup, finish("7")]]
    made = [scored(trajectory(*steps, of=task, solved=1.0)) for task, steps in zip(tasks, ends, strict=False)]
    cells = [with_solved(cell, "sft", 17, []), with_solved(cell, "new", 17, [1.0, 1.0])]
    for each in cells:
        name = f"measuring/17.{each.variant}/{each.corner}.r{each.round}.dev.c3{JUDGED}"
        write_jsonl(tmp_path / "seed17" / name, made if each.variant == "new" else [])
    text = "\n".join(budgets(cells, tmp_path, [2]))
    share = 100 / len(tasks)
    assert "| variant | seeds | 2 actions | 3 actions |" in text
    assert re.search(rf"\| new \| 17 \| {share:.1f}.%, .* \| {2 * share:.1f}.%, ", text)
    (tmp_path / "seed17" / name).unlink()
    with pytest.raises(DataError, match="the attempts of a cell are gone"):
        list(budgets(cells, tmp_path, [2]))


def test_policies_that_were_measured_otherwise_are_not_compared(cell: Cell) -> None:
    one, other = with_solved(cell, "rft", 17, [1.0]), with_solved(cell, "new", 17, [1.0])
    assert one.evaluation and other.evaluation
    elsewhere = other.evaluation.model_copy(update={"split": "test"})
    with pytest.raises(NotComparable):
        paired({17: elsewhere}, {17: one.evaluation})
    assert "measured otherwise" in "\n".join(tables([one, other.model_copy(update={"evaluation": elsewhere})]))


def test_a_cell_is_one_line_of_json(cell: Cell) -> None:
    assert Cell.model_validate(json.loads(cell.model_dump_json())) == cell
