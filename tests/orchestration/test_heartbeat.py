"""When the other side counts as gone. `Labels` stands for the API: it keeps the labels of one run, and can be away."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest

from steptool.orchestration.graph.task import NodeLost, StageCancelled, StageFailed, is_worth_retrying
from steptool.orchestration.machines import heartbeat
from steptool.orchestration.machines.heartbeat import NODE, ORCHESTRATOR, READS, Pulse


class Labels:
    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self.is_away = False

    def update_flow_run_labels(self, run_id: object, labels: dict[str, int]) -> None:
        if self.is_away:
            raise httpx.ConnectError("away")
        self.kept |= labels

    def read_flow_run(self, run_id: object) -> SimpleNamespace:
        return SimpleNamespace(labels=self.kept, state=None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: made.now)
    return made


def pair(labels: Labels) -> tuple[Pulse, Pulse]:
    return (
        Pulse(labels, uuid4(), mine=NODE, theirs=ORCHESTRATOR),  # type: ignore[arg-type]
        Pulse(labels, uuid4(), mine=ORCHESTRATOR, theirs=NODE),  # type: ignore[arg-type]
    )


def test_silence_is_counted_from_the_last_beat_of_the_other_side(clock: SimpleNamespace) -> None:
    """
    second          0  1  2  3  4  5  6  7  8
    orchestrator    x  x
    node            x  x  x  x  x  x  x  x  x     hears it last in second 1
    """
    node, orchestrator = pair(Labels())
    for second in range(9):
        clock.now = second
        if second <= 1:
            orchestrator.beat()
        node.beat()
        if second <= READS:
            assert node.silence_s == 0
    assert node.silence_s == 7


def test_a_side_that_never_spoke_is_not_silent(clock: SimpleNamespace) -> None:
    node, _ = pair(Labels())
    for second in range(100):
        clock.now = second
        node.beat()
    assert (node.has_spoken, node.silence_s) == (False, 0)


def test_an_api_that_is_away_says_nothing_about_the_other_side(clock: SimpleNamespace) -> None:
    labels = Labels()
    node, orchestrator = pair(labels)
    orchestrator.beat()
    node.beat()
    labels.is_away = True
    for second in range(1, 100):
        clock.now = second
        assert node.beat() is None
    labels.is_away = False
    clock.now = 101
    node.beat()
    assert node.silence_s == 0


def test_few_slow_answers_are_not_yet_a_silence(clock: SimpleNamespace) -> None:
    """Where every answer takes 10 s, the other side's beats come as slowly."""
    node, orchestrator = pair(Labels())
    orchestrator.beat()
    node.beat()
    for answer in range(1, READS):
        clock.now = 10.0 * answer
        node.beat()
        assert node.silence_s == 0


@pytest.mark.parametrize(
    ("fault", "attempts", "retries", "expected"),
    [
        (StageFailed("", stage_code=1, where="", fix=""), 1, 2, True),
        (StageFailed("", stage_code=1, where="", fix=""), 3, 2, False),
        (StageFailed("", stage_code=2, where="", fix=""), 1, 2, False),
        (StageFailed("", stage_code=3, where="", fix=""), 1, 2, False),
        (StageFailed("", stage_code=None, where="", fix=""), 1, 0, False),
        (StageCancelled("", stage_code=None, where="", fix=""), 1, 2, False),
        (NodeLost(""), 1, 0, True),
        (TimeoutError(), 1, 1, True),
    ],
)
def test_what_is_tried_again(fault: Exception, attempts: int, retries: int, expected: bool) -> None:
    assert is_worth_retrying(fault, attempts, retries) is expected
