"""What happens in the process of the agent itself: it becomes the program, or calls the function."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from steptool.core.errors import InputError, describe
from steptool.core.plugins import load_module
from steptool.core.secrets import Secrets
from steptool.worlds.agent.program import Program
from steptool.worlds.workers.limits import end_with_parent, limit_memory

MAX_ANSWER = 100_000
"""Characters of an answer that are kept."""
IMPORTED_LATER = (
    *("openai.resources.chat.completions", "openai.resources.responses", "openai.lib.streaming.responses"),
    *("httpcore", "httpcore2", "h11", "h2", "truststore", "anyio._backends._asyncio"),
)
"""What OpenAI's client imports once it is used, where it is installed: half of the time of a short attempt."""
FAILED = 1
"""Exit status of an agent whose function failed."""


def preload(names: list[str]) -> None:
    """Import modules, or the modules in which these names are, so that no attempt has to.

    One that cannot be imported is left for the attempt, which says so.
    """
    for name in names:
        module, _, inside = name.rpartition(".")
        if not _is_imported(name) and module and _is_imported(module):
            getattr(sys.modules[module], inside, None)  # some packages import what is inside them when it is asked for
    if "openai" in sys.modules:
        for name in IMPORTED_LATER:
            _is_imported(name)


def _is_imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except BaseException:  # noqa: BLE001 - code of somebody else, which may raise anything
        return False
    return True


def act(
    program: Program, query: str, environment: dict[str, str], memory_mb: int, pipes: tuple[int, int, int], parent: int
) -> None:
    """Be the agent, in a process that was forked for it. Never returns.

    `pipes`: where its standard output and errors go, and where it reports what JSON holds: {"answer": …} or
    {"failed": …}.
    """
    output, errors, report = pipes
    status = FAILED
    try:
        os.setsid()
        end_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(_input(query if program.command and program.reads_query else ""), 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.environ.update(environment)
        limit_memory(memory_mb)
        found = _replaced(program.argv(query)) if program.command else _called(program.callable, query)
        os.write(report, json.dumps(found).encode() + b"\n")
        status = FAILED if "failed" in found else 0
    except BaseException:  # noqa: BLE001 - it goes to what the agent prints, for there is nobody else to tell
        traceback.print_exc()
    finally:
        os._exit(status)  # nothing of the fork server's is to run


def _input(text: str) -> int:
    """A file that holds `text`: a pipe would hold up whoever writes more than fits."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode("utf-8", "replace"))
        file.seek(0)
        return os.dup(file.fileno())


def _replaced(argv: list[str]) -> dict[str, Any]:
    """Become the program. Returns only where there is none."""
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores
        os.execvp(argv[0], argv)  # noqa: S606 - no shell, on purpose
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return {"failed": f"{argv[0]} cannot be started: {why}"}


def _called(path: str, query: str) -> dict[str, Any]:
    """What the function returns, or what that comes to when it is awaited."""
    random.seed(0)  # Python seeds it anew after a fork
    # Those of the fork server were made for other files.
    sys.stdout, sys.stderr = (open(number, "w", 1, errors="replace", closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        function = _function(path)
        value = function(query)
        answer = asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value
    except InputError as fault:
        print(_secrets().hide(traceback.format_exc()), end="", file=sys.stderr)
        return {"failed": f"{fault.where}: {fault.found}"}
    except BaseException as fault:  # noqa: BLE001 - code of somebody else, which may raise anything
        print(_secrets().hide(traceback.format_exc()), end="", file=sys.stderr)
        return {"failed": f"{path} raised {describe(fault, _secrets().hide)}"}
    if answer is not None and not isinstance(answer, str):
        return {"failed": f"{path} returned {type(answer).__name__}, not a text or None"}
    return {"answer": answer and answer[:MAX_ANSWER]}


def _secrets() -> Secrets:
    """Those of the agent's environment as it is now."""
    found = Secrets()
    found.add_environment(os.environ)
    return found


def _function(path: str) -> Callable[[str], Any]:
    """Raises InputError where there is no such function, or it takes no query."""
    module, _, name = path.partition(":")
    function = getattr(load_module(module, lambda error: _secrets().reason(error)), name, None)
    if not callable(function):
        raise InputError(f"has no function {name}", where=module)
    try:
        inspect.signature(function).bind("query")
    except TypeError as error:
        raise InputError(f"{name} does not take the query alone: {error}", where=module) from error
    return function


async def _awaited(value: Any) -> Any:
    return await value
