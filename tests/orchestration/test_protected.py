"""Passwords of the servers that we start, and what a command says that does not know one."""

from __future__ import annotations

import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from steptool.core.errors import InputError, StepToolError
from steptool.orchestration.approval.decisions import list_waiting
from steptool.orchestration.graph.events import announce_arrival
from steptool.orchestration.services.deploy import deploy
from steptool.orchestration.services.servers import Servers


def test_password_is_made_once_for_its_owner_alone_and_never_empty(tmp_path: Path) -> None:
    servers = Servers(tmp_path, ())
    first = servers.secret("prefect")
    assert Servers(tmp_path, ()).secret("prefect") == first
    assert servers.secret("mlflow") != first
    path = tmp_path / "secrets" / "prefect"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for damaged in ("", "\n"):
        path.write_text(damaged)
        assert len(servers.secret("prefect")) >= 32


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "$(touch here)", "`touch here`", "a\nb", "-n", "\\", "#"])
def test_sourced_file_gives_back_what_was_put_in(tmp_path: Path, value: str) -> None:
    file = Servers(tmp_path / "a folder", ()).write_environment({"WORD": value})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    script = f'source "{file}"; printf %s "$WORD"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == value
    assert not (tmp_path / "here").exists()


@pytest.fixture
def status() -> Iterator[list[int]]:
    """A server at PREFECT_API_URL that answers everything with one status; it may be changed."""
    answers = [401]

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *values: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_address[1]}/api"}):
            yield answers
        server.shutdown()


@pytest.mark.parametrize(("password", "found"), [(None, "is not set"), ("steptool:wrong", "is not its password")])
@pytest.mark.parametrize("refusal", [401, 403])
def test_commands_without_the_password_say_where_it_is(
    status: list[int], refusal: int, password: str | None, found: str, tmp_path: Path
) -> None:
    status[0] = refusal
    with temporary_settings({PREFECT_API_AUTH_STRING: password}):
        for command in (list_waiting, deploy, lambda: announce_arrival(tmp_path)):
            with pytest.raises(InputError, match=found) as caught:
                command()
            assert "source .steptool/serve/environment" in str(caught.value)
            assert caught.value.exit_code == 2
            assert "wrong" not in str(caught.value)


def test_event_is_not_announced_to_a_server_that_is_gone(tmp_path: Path) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(StepToolError, match="does not answer"),
    ):
        announce_arrival(tmp_path)
