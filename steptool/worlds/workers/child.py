"""What runs in the process of one attempt: calls and checks, one after the other, each a JSON line in and one out.

    {"call": "find", "arguments": {"title": "Dune"}}        {"text": "{\"id\":\"b1\"}"}
    {"call": "find", "arguments": {"title": 5}}             {"text": "title: Input …", "error": "invalid_argument"}
    {"check": "is_ordered", "answer": "yes", "calls": […]}  {"solved": 1.0}
                                                            {"fault": "its check is_ordered raised …"}

SIGINT ends the call that runs, as Ctrl-C would; between calls nothing happens.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from pydantic_core import to_json

from steptool.core.errors import describe
from steptool.worlds.project.toolbox import Called
from steptool.worlds.workers.code import Code
from steptool.worlds.workers.limits import adopt_orphans, end_with_parent, limit_memory
from steptool.worlds.workers.tools import WrongArguments

Reply = dict[str, Any]


class BrokenObject(Exception):
    """The class of the tools cannot be made. The message says why."""


def prepare(settings: dict[str, Any]) -> Callable[[socket.socket, int], None]:
    """Import the code. Raises InputError where it cannot be imported."""
    code = Code(settings["tools"], settings["checks_file"], dict.fromkeys(settings["checks"], ""))
    return partial(run, code=code, **settings["limits"])


def run(data: socket.socket, parent: int, *, code: Code, memory_mb: int, output_kb: int) -> None:
    """Answer what `data` asks until it is closed."""
    os.setpgid(0, 0)
    end_with_parent(parent)
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    limit_memory(memory_mb)
    random.seed(0)  # Python seeds it anew after a fork
    attempt = _Attempt(code, output_kb << 10)
    with data.makefile("rb") as lines:
        for line in lines:
            reply = attempt.answer(json.loads(line))
            data.sendall(json.dumps(reply, ensure_ascii=False).encode() + b"\n")


class _Attempt:
    def __init__(self, code: Code, most: int) -> None:
        self._code, self._most = code, most
        self._state: Any = None
        self._runner = asyncio.Runner()

    def answer(self, request: dict[str, Any]) -> Reply:
        work = self._call if "call" in request else self._check
        try:
            return work(request)
        except BrokenObject as fault:
            return {"fault": str(fault), "fix": "mend it: it is made for each attempt"}

    def _call(self, request: dict[str, Any]) -> Reply:
        tool = self._code.tools[request["call"]]
        try:
            arguments = tool.read(request["arguments"])
            value = self._run(lambda: getattr(self._object(), request["call"])(**arguments))
            return {"text": _cut(_as_text(value), self._most)}
        except WrongArguments as wrong:
            return {"text": str(wrong), "error": "invalid_argument"}
        except BrokenObject:
            raise
        except BaseException as fault:  # noqa: BLE001 - code of somebody else, which may raise anything
            return {"text": describe(fault), "error": "tool_error"}

    def _check(self, request: dict[str, Any]) -> Reply:
        name, calls = request["check"], [Called(**call) for call in request["calls"]]
        try:
            solved = self._run(lambda: self._code.judges[name](request["answer"], calls, self._object_or_none()))
        except BrokenObject:
            raise
        except BaseException as fault:  # noqa: BLE001 - the same
            return {"fault": f"its check {name} raised {describe(fault)}", "fix": "mend it"}
        if not isinstance(solved, bool | int | float) or not 0 <= solved <= 1:
            fix = "return True or False, or a number from 0 to 1"
            return {"fault": f"its check {name} returned {solved!r:.80}", "fix": fix}
        return {"solved": float(solved)}

    def _run(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, or what that comes to when it is awaited. Until then SIGINT raises KeyboardInterrupt."""
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            value = work()
            return self._runner.run(_awaited(value)) if inspect.isawaitable(value) else value
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _object(self) -> Any:
        """What the functions are called on; the object of a class is made when it is first asked for."""
        home = self._code.home
        if isinstance(home, ModuleType):
            return home
        if self._state is None and home is not None:
            try:
                self._state = home()
            except BaseException as fault:
                raise BrokenObject(f"{home.__name__}() raised {describe(fault)}") from fault
        return self._state

    def _object_or_none(self) -> Any:
        return self._object() if self._code.has_state else None


async def _awaited(value: Any) -> Any:
    return await value


def _as_text(value: Any) -> str:
    """Raises TypeError or ValueError for what JSON cannot hold. Bytes that are no UTF-8 become `?`."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):  # which may have no end
        raise TypeError("a generator was returned, which JSON cannot hold; return a list")
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    text = value if isinstance(value, str) else to_json(value).decode()
    return text.encode("utf-8", "replace").decode()


def _cut(text: str, most: int) -> str:
    """`text` of at most `most` bytes; what is longer is cut, and says so."""
    content = text.encode()
    if len(content) <= most:
        return text
    return content[:most].decode("utf-8", "ignore") + f"... (cut: {len(content)} bytes, {most} are kept)"
