"""Kill -9 of `steptool serve-tools` while its simulator replies: what a client was told once, it is told again.

A  B  C  …   asked of the server, each reply noted        ┐
     kill -9                                              │ in every round
A  B  C  …   asked of a new one that has no simulator     ┘ the same replies
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.endpoints.fake import Answer, fake, says
from tests.worlds.toolbench.folders import make_pack
from tests.worlds.toolbench.test_server import WANTED

ROUNDS = 4
LEAST = 5
"""Replies a round, before the server is killed."""
STARTS_S = 60.0


def start(folder: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "steptool.cli", "serve-tools", str(folder), "--port", "0", *more]
    command += ["--kept", str(folder.parent / "kept.db"), "--nearest", "1"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    found = re.match(r"(http://\S+) ", server.stdout.readline())
    assert found is not None
    return server, found[1]


def ask(client: httpx.Client, url: str, key: str) -> tuple[str, str]:
    response = client.post(url, json={**WANTED, "tool_input": {"key": key}}, timeout=30)
    response.raise_for_status()
    return response.text, response.headers["x-reply-source"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_reply_that_was_given_is_lost(tmp_path: Path) -> None:
    folder, rng, numbers = make_pack(tmp_path / "data"), random.Random(0), count()
    told: dict[str, str] = {}

    def act(request: dict[str, Any]) -> Answer:
        return says(json.dumps({"error": "", "response": f"reply {next(numbers)}"}))

    def keep_asking(url: str, name: str) -> None:
        with httpx.Client() as client:
            for number in range(10_000):
                key = f"{name}-{number}"
                try:
                    text, source = ask(client, url, key)
                except httpx.HTTPError:
                    return  # it was killed
                assert source == "simulated"
                told[key] = text

    with fake(act) as endpoint:
        for turn in range(ROUNDS):
            store = ("--set", f"store={tmp_path / 'e.db'}")
            server, url = start(folder, "--simulator", endpoint.url, "--model", "m", *store)
            threads = [Thread(target=keep_asking, args=(url, f"{turn}-{name}")) for name in range(4)]
            for thread in threads:
                thread.start()
            latest = time.monotonic() + STARTS_S
            while len(told) < (turn + 1) * LEAST and time.monotonic() < latest:
                time.sleep(0.05)
            time.sleep(rng.random() / 2)
            server.send_signal(signal.SIGKILL)
            server.wait()
            for thread in threads:
                thread.join()
    assert len(told) >= ROUNDS * LEAST
    server, url = start(folder)
    try:
        with httpx.Client() as client:
            assert {key: ask(client, url, key) for key in told} == {
                key: (text, "simulated") for key, text in told.items()
            }
    finally:
        server.terminate()
        server.wait(timeout=30)
