"""`make serve`: everything answers, and a signal leaves no process."""

from __future__ import annotations

import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from steptool.core.errors import InputError
from steptool.orchestration.services.serve import serve
from steptool.orchestration.services.servers import any_free_port
from tests.orchestration.serving import lay_out, serving
from tests.registry.conftest import empty_database  # noqa: F401  a fixture


@pytest.fixture
def checkout(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(lay_out(tmp_path, empty_database))
    return tmp_path


def test_port_that_is_taken_is_named_before_anything_starts(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(InputError, match=f"port {taken} is taken(?s:.*)make serve PREFECT_PORT=") as caught:
            serve(taken, any_free_port())
    assert caught.value.exit_code == 2
    assert not (checkout / ".steptool" / "serve").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_everything_answers_and_a_signal_leaves_no_process(checkout: Path, number: signal.Signals) -> None:
    with serving(checkout) as served:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.prefect_port}/api/health", timeout=10) as answer:
            assert answer.read() == b"true"
        with urllib.request.urlopen(f"http://127.0.0.1:{served.mlflow_port}/health", timeout=10) as answer:
            assert answer.read() == b"OK"
        assert served.stop(number) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
