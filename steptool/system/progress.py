"""Progress of long work: a bar with rate and time left on a terminal, now and then one line in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]
"""Call with how many units were done since the last call."""

LINE_EVERY_S = 15.0
EARLIEST = 20
"""No line before a twentieth is done: the rate of the first few says nothing about the rest."""


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Show `what` going from 0 to `total` units; yields the function that reports progress."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(what, total, unit) as advance:
        yield advance


@contextmanager
def _bar(what: str, total: int, unit: str) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, {{task.fields[rate]:.1f}}/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    started, done = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=total, rate=0.0)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bars.update(task, advance=count, rate=done / max(time.monotonic() - started, 1e-9))

        yield advance


@contextmanager
def _lines(what: str, total: int, unit: str) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= LINE_EVERY_S and total <= EARLIEST * done < EARLIEST * total:
            last = now
            rate = done / (now - started)
            left = (total - done) / max(rate, 1e-9)
            print(f"{what}: {done}/{total} {unit}, {rate:.1f}/s, {left:.0f} s left", file=sys.stderr, flush=True)

    yield advance
