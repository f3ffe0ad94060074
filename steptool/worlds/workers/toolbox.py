"""The functions of a module, or the methods of a class of which each attempt gets an object."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from steptool.core.errors import WorldError
from steptool.core.types import Observation, Tool, ToolCall
from steptool.worlds.project.session import failure
from steptool.worlds.project.toolbox import Called
from steptool.worlds.workers import child
from steptool.worlds.workers.client import Ended, ForkServer, Limits, Worker
from steptool.worlds.workers.code import Code

GRACE_S = 0.5
"""How long a call that took too long has to end after it was interrupted. Then its process is killed."""


class FunctionsToolbox:
    """The arguments are those of `Code`; without `tools` it only checks."""

    def __init__(
        self, tools: str, checks: Mapping[str, str], *, checks_file: str = "", limits: Limits | None = None
    ) -> None:
        code = Code(tools, checks_file, checks)
        self.tools: Mapping[str, Tool] = {name: each.tool for name, each in code.tools.items()}
        self._has_state = code.has_state
        limits = limits or Limits()
        settings = {"tools": tools, "checks_file": checks_file, "checks": list(checks), "limits": vars(limits)}
        self._server = ForkServer(child.prepare, settings, limits.output_kb)

    def changes_state(self, name: str) -> bool:
        return self._has_state

    def connect(self) -> FunctionsConnection:
        """The code is imported meanwhile, which may take longer than a call may."""
        self._server.start()
        return FunctionsConnection(self._server, self._has_state)

    def close(self) -> None:
        self._server.close()


class FunctionsConnection:
    """Calls run one after the other, in one process.

    Where that must be ended (a call does not heed its interruption), or ends by itself, the next call gets a new one,
    in which the calls that had come back are made once more, if they share an object. So what these do outside of the
    process may be done twice.
    """

    def __init__(self, server: ForkServer, has_state: bool) -> None:
        self._server, self._has_state = server, has_state
        self._made: list[ToolCall] = []
        """Calls that came back, of which the object's state comes."""
        self._worker: Worker | None = None
        self._turn = asyncio.Lock()

    async def call(self, call: ToolCall) -> Observation:
        try:
            reply = await self._ask(_request(call))
        except Ended as ended:
            return failure("crashed", str(ended))
        if self._has_state:
            self._made.append(call)
        if "error" in reply:
            return failure(reply["error"], reply["text"])
        return Observation(text=reply["text"])

    async def judge(self, check: str, answer: str, calls: Sequence[Called]) -> float:
        try:
            reply = await self._ask({"check": check, "answer": answer, "calls": [vars(call) for call in calls]})
        except Ended as ended:
            raise WorldError(f"its check {check}: {ended}", where=f"check {check}", fix="mend it") from ended
        return float(reply["solved"])

    async def close(self) -> None:
        async with self._turn:
            if self._worker is not None:
                await self._worker.end()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises Ended where the process ends, and WorldError for what is broken beside the tools."""
        async with self._turn:
            if self._worker is None:
                self._worker = await self._started()
            try:
                reply = await self._worker.ask(request)
            except asyncio.CancelledError:
                await self._interrupt(self._worker)
                raise
            except Ended:
                self._worker = None
                raise
        if "fault" in reply:
            raise WorldError(reply["fault"], where="world functions", fix=reply["fix"])
        return reply

    async def _started(self) -> Worker:
        """A process in the state that the calls have made so far."""
        worker = await self._server.worker()
        try:
            for call in self._made:
                await worker.ask(_request(call))
        except asyncio.CancelledError:
            worker.abandon()
            raise
        return worker

    async def _interrupt(self, worker: Worker) -> None:
        """End the call that runs in it, and if that cannot be had, the process."""
        worker.interrupt()
        reply = asyncio.create_task(worker.reply())
        try:
            await asyncio.wait({reply}, timeout=GRACE_S)
        finally:
            if not reply.done() or reply.exception() is not None:
                reply.cancel()
                worker.abandon()
                self._worker = None


def _request(call: ToolCall) -> dict[str, Any]:
    return {"call": call.name, "arguments": call.arguments}
