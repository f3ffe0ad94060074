"""The agents of a world, as this process sees them: each in processes of its own, below one fork server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steptool.core.errors import WorldError, printable
from steptool.worlds.agent import keeper
from steptool.worlds.agent.acting import MAX_ANSWER
from steptool.worlds.agent.program import Program
from steptool.worlds.base import AgentFailed
from steptool.worlds.workers.client import Ended, ForkServer, Worker, how_it_ended

START_S = 300.0
"""How long it may take to import what the agents import."""
STOP_S = keeper.GRACE_S + 1.0
"""How long an agent and its keeper have to end once they are interrupted. Then they are killed."""
DEFAULTS = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "PYTHONUNBUFFERED": "1"}
"""What the environment of an agent has beside the user's, where that does not say otherwise: the OpenAI Agents SDK
would send what it does to OpenAI, and what is printed is kept although the agent is killed."""
MAX_SHOWN = 200
"""Characters of the line that an agent printed last."""


def environment(base_url: str, key: str) -> dict[str, str]:
    """What an agent is told of the model, under the names that OpenAI's client, LiteLLM and LangChain read; `python` is
    the Python that runs this, and no proxy stands between."""
    spared = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy", ""), urlsplit(base_url).hostname or ""]
    without_proxy = ",".join(filter(None, spared))
    return {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_BASE": base_url,
        "OPENAI_API_KEY": key,
        "NO_PROXY": without_proxy,
        "no_proxy": without_proxy,
        "PATH": os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH")))),
    }


class Agents:
    """Of one program. The first run starts their fork server, which imports the modules `preload`.

    `timeout_s`: longest time of a run. `memory_mb`: what each of its processes may take.
    """

    def __init__(
        self, program: Program, *, timeout_s: float, preload: Sequence[str] = (), memory_mb: int = 4096
    ) -> None:
        self._timeout_s = timeout_s
        settings = {
            "program": vars(program),
            "preload": list(preload),
            "memory_mb": memory_mb,
            "environment": {name: os.environ.get(name, value) for name, value in DEFAULTS.items()},
        }
        self._server = ForkServer(keeper.prepare, settings, reply_kb=2 * MAX_ANSWER >> 10)

    def start(self) -> None:
        """Import meanwhile what the agents import."""
        self._server.start()

    async def run(self, query: str, base_url: str, key: str, *, log: Path) -> str | None:
        """Start one, and wait until it has ended: its answer, None where it gave none of its own.

        `log`: the file of what it prints, written at its end. Where this is cancelled, the agent is ended, with every
        process that it started. Raises AgentFailed where it fails or takes too long, WorldError where no process can
        be started.
        """
        worker = await self._server.worker()
        request = {"query": query, "environment": environment(base_url, key), "log": str(log)}
        try:
            await _begun(worker)
            reply = await self._reply(worker, request, log)
            await worker.end()
        except Ended as ended:
            raise AgentFailed(f"the process that keeps it has ended: {ended}") from ended
        finally:
            worker.abandon()
        return _answer(reply, log)

    async def _reply(self, worker: Worker, request: dict[str, Any], log: Path) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await worker.ask(request)
        except TimeoutError:
            last = await _stopped(worker)
            raise AgentFailed(f"it did not end within {self._timeout_s:g} s{_words(last, log)}") from None
        except asyncio.CancelledError:
            await _stopped(worker)
            raise

    def close(self) -> None:
        """End all of them. May be called twice."""
        self._server.close()


async def _begun(worker: Worker) -> None:
    """Wait until an agent can be started."""
    try:
        async with asyncio.timeout(START_S):
            await worker.reply()
    except TimeoutError:
        worker.abandon()
        found = f"what the agent imports is not imported within {START_S:g} s"
        raise WorldError(found, fix="see what its packages do when they are imported") from None


def _answer(reply: dict[str, Any], log: Path) -> str | None:
    if reply["failed"] is not None:
        raise AgentFailed(printable(reply["failed"]))
    if reply["status"]:
        raise AgentFailed(f"{how_it_ended(reply['status'])}{_words(reply['last'], log)}")
    answer: str | None = reply["answer"]
    return answer


def _words(last: str, log: Path) -> str:
    return f"; it printed last: {printable(last[:MAX_SHOWN])} (all of it: {log})" if last else ""


async def _stopped(worker: Worker) -> str:
    """End an agent that still runs, and wait until nothing of it is left. The line that it printed last."""
    worker.interrupt()
    last = ""
    with suppress(TimeoutError, Ended):
        async with asyncio.timeout(STOP_S):
            last = (await worker.reply())["last"]
    await worker.end()
    return last
