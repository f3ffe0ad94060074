"""In a log file, one line now and then.

second     0    10    16    20    40
done       0     1     6    50   100      of 100
line       .     .     ✓     .     .      every 15 s, from a twentieth on, never at the end
"""

from __future__ import annotations

import pytest

from steptool.system import progress as module


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The second that it is, to be set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with module.progress("sample r1", 100, "trajectories") as advance:
        for second, done in ((10, 1), (16, 5), (20, 44), (40, 50)):
            clock[0] = second
            advance(done)
    # 6 done in 16 s: 0.375 a second, so 94 more take 251 s
    assert capsys.readouterr().err == "sample r1: 6/100 trajectories, 0.4/s, 251 s left\n"


def test_nothing_is_said_while_the_rate_means_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with module.progress("sample r1", 100, "trajectories") as advance:
        clock[0] = 60
        advance(4)
    assert capsys.readouterr().err == ""
