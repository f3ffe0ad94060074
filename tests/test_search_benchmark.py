"""What `benchmarks.search` counts, and how it compares searches.

task       1   2   3   4
chain      ✗   ✗   ✓   ✗        +50 points: two won, none lost
dfsdt      ✓   ✓   ✓   ✗
"""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.search import Counted, Measured, Spent, counted, difference, repeats, search_of
from steptool.core.errors import InputError
from steptool.engines.fake import ScriptedEngine
from steptool.rollouts.dfsdt import Dfsdt
from steptool.testing import finish, give_up, trajectory
from tests.rollouts.attempts import ANSWER, PING, SURRENDER
from tests.rollouts.test_dfsdt import SCRIPT, Book, Shelf, job, search


def measured(name: str, *solved: float, of: str = "abcd") -> Measured:
    found = [[trajectory(finish("x") if each else give_up(), solved=each)] for each in solved]
    clusters = [(each, "") for each in of]
    return Measured(name, 8, found, clusters, Spent(actions=10, calls=6, sampled=40, seen=800, computed=200), 1.0)


def test_searches_are_compared_task_by_task_with_the_first() -> None:
    chain, tree = measured("chain", 0, 0, 1, 0), measured("dfsdt", 1, 1, 1, 0)
    assert difference(chain, chain) == ""
    assert difference(tree, chain).startswith("+50.0 [0.0, 100.0], 2 won, 0 lost, p 0.50")
    together = measured("dfsdt", 1, 1, 1, 0, of="aabb")
    assert difference(together, chain).startswith("+50.0 [0.0, 100.0], 2 won, 0 lost, p 1.00")
    row = tree.row(chain).replace("\u202f", " ").split(" | ")
    assert row[:3] == ["| 8", "dfsdt", "75.0 %"]
    assert row[4:7] == ["3 / 1 / 0 / 0", "1.00", "0.00"]
    assert row[7:12] == ["2.50", "1.50", "10", "200", "50 (25 %)"]


def test_a_branch_that_ends_with_what_another_had_done_there_is_a_repeat() -> None:
    found, _ = search([PING, SURRENDER, PING, ANSWER], children=3)
    assert repeats(found) == 1
    assert repeats(search(SCRIPT)[0]) == 0


@pytest.mark.parametrize(("forks", "calls"), [(True, 3), (False, 4)])
def test_all_that_a_tree_does_is_counted(forks: bool, calls: int) -> None:
    engine, spent = ScriptedEngine(SCRIPT), Spent()
    made = counted(job(engine, Shelf()), spent, forks=forks)
    asyncio.run(Dfsdt(Dfsdt.Config()).attempt(made))
    assert (spent.actions, spent.calls) == (5, calls)
    assert spent.sampled == sum(map(len, SCRIPT))
    assert spent.seen == sum(len(asked.prompt_ids) for asked in engine.asked)


def test_a_session_that_cannot_be_forked_stays_so() -> None:
    assert Counted(Book(Shelf(Book)), Spent(), forks=True).fork() is None


def test_a_search_is_written_with_its_settings() -> None:
    assert search_of("dfsdt:back=1,budget=12").config == Dfsdt.Config(back=1, budget=12)
    for wrong in ("depth_first", "dfsdt:back=0", "dfsdt:nonsense=1"):
        with pytest.raises(InputError, match="no such search"):
            search_of(wrong)
