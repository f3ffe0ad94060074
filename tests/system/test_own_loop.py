"""An event loop in a thread: it outlives the loops of those who use it, and ends with what runs on it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from steptool.system.own_loop import OwnLoop


async def thread_name() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_work_of_several_loops_runs_on_one() -> None:
    loop = OwnLoop("loop of the test")
    found = [asyncio.run(loop.run(thread_name())), asyncio.run(loop.run(thread_name())), loop.wait(thread_name())]
    assert found == ["loop of the test"] * 3
    loop.close()
    loop.close()
    assert "loop of the test" not in names()


def test_nothing_starts_before_the_first_work() -> None:
    loop = OwnLoop("idle")
    assert "idle" not in names()
    loop.close()


def test_what_work_raises_is_raised() -> None:
    async def fails() -> None:
        raise LookupError("no book")

    loop = OwnLoop("fails")
    with pytest.raises(LookupError, match="no book"):
        asyncio.run(loop.run(fails()))
    loop.close()


def test_who_stops_waiting_ends_the_work_and_the_next_work_runs() -> None:
    ended = threading.Event()

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def impatient() -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run(hangs()), 0.05)
        return await loop.run(thread_name())

    loop = OwnLoop("patient")
    assert asyncio.run(impatient()) == "patient"
    assert ended.wait(5)
    loop.close()


def test_closing_ends_what_runs_and_waits_for_it() -> None:
    steps: list[str] = []

    async def runs() -> None:
        try:
            steps.append("began")
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            steps.append("ended")

    async def begins() -> None:
        steps.append("task")
        tasks.append(asyncio.create_task(runs()))
        await asyncio.sleep(0.01)

    tasks: list[asyncio.Task[None]] = []
    loop = OwnLoop("closing")
    loop.wait(begins())
    loop.close()
    assert steps == ["task", "began", "ended"]


def test_it_ends_with_the_process() -> None:
    code = """
import asyncio
from steptool.system.own_loop import OwnLoop
tasks = []
async def runs():
    try:
        await asyncio.sleep(60)
    finally:
        print("ended", flush=True)
async def begins():
    tasks.append(asyncio.create_task(runs()))
    await asyncio.sleep(0)
loop = OwnLoop("left open")
loop.wait(begins())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("ended\n", "")
