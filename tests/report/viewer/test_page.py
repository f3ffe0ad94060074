"""The page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from steptool.core.storage import write_jsonl
from steptool.core.types import StopReason
from steptool.testing import scored, trajectory
from tests.report.browser import Page, browser
from tests.report.viewer import project
from tests.report.viewer.serve import served


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.size(1400, 900)
        yield opened


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(project.write(tmp_path))
    with served(tmp_path) as found:
        yield found


def opened(page: Page, address: str, chosen: str = "") -> None:
    page.open(address + chosen)
    page.wait("document.querySelector('#detail .step')")
    page.wait("!document.querySelector('#count').textContent.includes('…')")


def texts(page: Page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)")


def test_two_arms_are_compared_on_the_task_that_one_of_them_solves(page: Page, address: str) -> None:
    opened(page, address)
    assert texts(page, "#compare .cell") == ["1only ppo", "0only sft", "0both", "1neither"]
    page.run("document.querySelector('.cell.won').click()")
    page.wait("document.querySelectorAll('.entry').length == 1")
    assert texts(page, ".entry") == ["Which number has tea?numbers · t1sft ✗ppo ✓"]
    assert texts(page, ".sides > h2") == ["sft✗", "ppo✓"]
    assert texts(page, ".shared > summary") == ["1 step in common find"]
    assert texts(page, ".parting") == ["they part at step 2: another answer"]
    assert page.problems == []


def test_without_verdicts_arms_are_compared_by_their_grounded_answers(page: Page, address: str, tmp_path: Path) -> None:
    for arm, share in {"sft": 0.0, "ppo": 1.0}.items():
        file = tmp_path / f"metrics/evaluation/{arm}.trajectories.jsonl.gz"
        made = [trajectory(*each.trajectory.steps, of=each.trajectory.task_id) for each in project.PPO]
        write_jsonl(file, [scored(each) for each in made])
        (tmp_path / f"metrics/evaluation/{arm}.json").write_text(json.dumps({"grounded": {"t1": share, "t2": 0.0}}))
    opened(page, address)
    assert page.run("document.querySelector('#compare .hint').textContent") == "Answers grounded: "
    assert texts(page, "#compare .cell") == ["1only ppo", "0only sft", "0both", "1neither"]


def test_token_streams_of_one_attempt_are_told_apart(page: Page, address: str, tmp_path: Path) -> None:
    """The first ended the attempt; the agent had rewritten the history of the second."""
    first = trajectory(project.found(), project.answers("7"), of="t1", solved=1.0)
    rewritten = trajectory(project.found(), of="t1", stop=StopReason.rewritten, solved=1.0)
    write_jsonl(tmp_path / "metrics/evaluation/ppo.trajectories.jsonl.gz", [scored(first), scored(rewritten)])
    opened(page, address, "#task=t1")
    assert texts(page, ".line .who") == ["sft", "ppo, stream 1", "ppo, stream 2"]


def test_keys_go_through_the_list_and_search_narrows_it(page: Page, address: str) -> None:
    opened(page, address)
    assert page.run("document.querySelector('.task h1').textContent") == "Which number has tea?"
    page.press("j")
    page.wait("document.querySelector('.task h1').textContent == 'Which number has <b>coffee</b>?'")
    page.press("k")
    page.wait("document.querySelector('.task h1').textContent == 'Which number has tea?'")
    page.press("/")
    assert page.run("document.activeElement.id") == "search"
    for key in "onerror":
        page.press(key)
    page.wait("document.querySelector('#count').textContent == '1 task, 1 attempt'")
    page.press("Escape")
    page.press("m")
    page.wait("document.querySelector('.entry').textContent.includes('ppo #1')")


def test_filters_count_what_they_would_leave(page: Page, address: str) -> None:
    opened(page, address)
    page.run("document.querySelector('[data-key=error]').open = true")
    page.wait("document.querySelector('.menu label')")
    assert texts(page, "[data-key=error] label") == ["rate_limit1"]
    page.run("document.querySelector('[data-key=error] input').click()")
    page.wait("document.querySelector('#count').textContent == '1 task, 1 attempt'")
    assert "is.error=rate_limit" in page.run("location.hash")
    page.run("document.querySelector('#filters .quiet').click()")
    page.wait("document.querySelector('#count').textContent == '2 tasks, 4 attempts'")


def test_the_address_opens_the_same_view_again(page: Page, address: str) -> None:
    opened(page, address, "#source=scored&task=t1&colour=advantage&tokens=1")
    page.wait("document.querySelectorAll('.token').length == 10")
    assert texts(page, ".controls .on") == ["advantage", "tokens"]
    assert texts(page, ".credit p") == [
        "Rewards by paper, gamma 1.",
        "Advantages as ppo learns: baseline attempts, gamma · lambda 1, before whitening.",
    ]
    painted = page.run("[...document.querySelectorAll('.token')].map((each) => each.style.background)")
    assert all("--plus" in each for each in painted[:3]) and all("--minus" in each for each in painted[3:6])


def test_what_came_from_outside_is_text_and_hides_nothing(page: Page, address: str) -> None:
    opened(page, address, "#source=evaluation&task=t2")
    page.wait("document.querySelectorAll('.reply').length == 2")
    assert page.run("document.querySelectorAll('#detail img, #detail b > b, #list b').length") == 0
    assert texts(page, ".reply:not(.failed)") == ["<img src=x onerror=alert(1)>U+202Eevil"]
    assert texts(page, ".hidden-character") == ["U+202E"]
    forbidden = (
        "(() => { try { document.body.innerHTML = '<i>x</i>'; return 'done'; } catch (e) { return e.name; } })()"
    )
    assert page.run(forbidden) == "TypeError"


def test_an_error_says_what_to_do_and_leaves_the_rest(page: Page, address: str, tmp_path: Path) -> None:
    (tmp_path / "metrics/evaluation/sft.trajectories.jsonl.gz").write_bytes(b"nothing")
    opened(page, address)
    assert "sft.trajectories.jsonl.gz" in page.run("document.querySelector('#problem').textContent")
    assert texts(page, "#count") == ["2 tasks, 2 attempts"]
