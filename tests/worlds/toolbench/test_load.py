"""64 trajectories at one server. What else the machine does changes how long they wait, and not what a reply costs."""

import pytest

from benchmarks.virtual_server import measure


@pytest.mark.slow
def test_a_core_gives_far_more_than_a_thousand_replies_a_second() -> None:
    found = measure(None, in_flight=64, seconds=3)
    assert found.replies > 64
    assert found.cpu_s < 0.0005, str(found)
