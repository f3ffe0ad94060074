"""Servers that run side by side until Ctrl-C, each below a supervisor and with a log file.

Every one ends with this process, by kill -9 too, and one that dies is started again where it was.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from steptool.core.errors import StepToolError
from steptool.system.environment import QUIET
from steptool.system.supervisor import supervised

HOST = "127.0.0.1"
USER = "steptool"
READY_S = 600.0
"""Longest wait for an answer. The first start of Prefect and MLflow makes some hundred tables."""
STOP_S = 15.0
POLL_S = 0.3
WATCH_S = 1.0


@dataclass(frozen=True)
class Server:
    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] = lambda: None
    """Before every start."""
    complete: Callable[[], object] = lambda: None
    """Once it is ready."""
    clear: Callable[[], object] = lambda: None
    """Once it has been stopped on purpose, while what it needs still runs."""


class Servers:
    """`table` is in the order in which they need each other. Logs go to `folder`."""

    def __init__(self, folder: Path, table: Iterable[Server]) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.table = {server.name: server for server in table}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def secret(self, name: str) -> str:
        """A password made on first use, in a file that only its owner reads."""
        path = self.folder / "secrets" / name
        if not path.exists() or not path.read_text().strip():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def write_environment(self, variables: Mapping[str, str]) -> Path:
        """A file to `source`, which holds passwords and so is only its owner's to read."""
        path = self.folder / "environment"
        write_private(path, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
        return path

    def start(self, name: str) -> None:
        """Start a server and wait until it answers. Raises StepToolError, with the end of its log, if it does not."""
        server = self.table[name]
        server.prepare()
        with self.log(name).open("ab") as log:
            # The supervisor ends it, and all that it started, when this process is gone and its pipe with it.
            child = subprocess.Popen(
                supervised(server.command),
                env=QUIET | os.environ | server.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[name] = child
        deadline = time.monotonic() + READY_S
        while True:
            is_ready = server.is_ready()
            # Something else may answer on its port: it must be there, too.
            if is_ready and child.poll() is None:
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise StepToolError(
                    f"{name} does not answer: {self._last_words(name)}",
                    where=str(self.log(name)),
                    fix="mend what its log says, then run the same command again",
                )
            time.sleep(POLL_S)
        server.complete()

    def start_all(self) -> None:
        for name in self.table:
            self.start(name)

    def stop_all(self) -> None:
        """The last started first: nobody loses what it needs before it has ended itself."""
        for name in reversed(list(self._running)):
            child = self._running.pop(name)
            if child.stdin is not None:
                child.stdin.close()
            child.wait(STOP_S)
            try:
                self.table[name].clear()
            except StepToolError as fault:  # the others are to be stopped all the same
                print(f"steptool: {fault}", file=sys.stderr, flush=True)

    def ended(self) -> list[str]:
        """Servers that were started and run no more."""
        return [name for name, child in self._running.items() if child.poll() is not None]

    def supervisor(self, name: str) -> int:
        """Process id of the supervisor of a running server."""
        return self._running[name].pid

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def run(self, greeting: Callable[[], str]) -> None:
        """Start them all, greet, and keep them running until Ctrl-C or SIGTERM. Raises what `start` raises."""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins without it
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for name in self.table:
                print(f"starting {name}", flush=True)
                self.start(name)
            print(greeting(), flush=True)
            while True:
                time.sleep(WATCH_S)
                for name in self.ended():
                    print(f"{name} ended; starting it again (see {self.log(name)})", flush=True)
                    self.start(name)
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the rest running
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.stop_all()

    def _last_words(self, name: str) -> str:
        return " / ".join(self.log(name).read_text(errors="replace").splitlines()[-3:])


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + ("" if text.endswith("\n") else "\n"))
    temporary.rename(path)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a Python module."""
    return (sys.executable, "-m", name, *arguments)


def answers(url: str) -> bool:
    """Whether anything but a server error comes back."""
    try:
        urlopen(url, timeout=5).close()  # noqa: S310  always http
    except HTTPError as refused:
        return refused.code < 500
    except OSError:
        return False
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
