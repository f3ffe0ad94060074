"""An event loop that outlives what tools leave behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from steptool.core.errors import WorldError, describe

Result = TypeVar("Result")

GRACE_S = 2.0
"""How long the calls of tools that timed out may take to end, once all rollouts have."""

logger = logging.getLogger(__name__)
_abandoned: list[tuple[asyncio.Runner, set[asyncio.Task[Any]]]] = []
"""Loops with tasks that refuse to end. They are kept, as Python would complain of them when it throws them away."""


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run rollouts to their end on an event loop of this thread. Ctrl-C ends them, as in `asyncio.run`.

    Unlike there, what a tool left running is not waited for: neither a task that refuses to be cancelled nor a thread.
    Such a loop stays as it is, never to run again. Raises WorldError where such a task exits.
    """
    runner, threads = asyncio.Runner(), ThreadPoolExecutor()
    loop = runner.get_loop()
    loop.set_default_executor(threads)
    try:
        return runner.run(coroutine)
    except SystemExit as fault:  # it would end the command, and with the status that it carries
        raise WorldError(
            f"a task that a tool had left running raised {describe(fault)}",
            where="the world's tools",
            fix="let a tool end the tasks that it starts before it replies",
        ) from fault
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))  # `close` waits for the threads of the present one
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            _, left = loop.run_until_complete(asyncio.wait(left, timeout=GRACE_S))
        if left:
            _abandoned.append((runner, left))
            logger.warning("%d calls of tools do not end, though they timed out; they are left alone", len(left))
        else:
            runner.close()
