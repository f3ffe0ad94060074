"""20,000 attempts: the first are there at once, and nothing waits for the rest."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from steptool.core.storage import write_jsonl
from steptool.testing import call, step, task
from tests.report.browser import browser
from tests.report.viewer import project
from tests.report.viewer.test_command import command

TASKS, ATTEMPTS = 3_334, 6
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TIMED = """new Promise((done) => {{
    const start = performance.now(); {};
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
}})"""
"""Milliseconds until what a statement changes is painted."""


def write_many(root: Path) -> None:
    tasks = [task(f"t{n}", f"Which number has thing {n}?", project.FIND, group=f"g{n % 9}") for n in range(TASKS)]
    context = range(1000, 1300)
    body = [
        step(call("find", name="tea"), {"id": 7, "about": "x" * 200}, context_ids=context, action_ids=range(20)),
        step(call("find", name="tee"), error="rate_limit", context_ids=context, action_ids=range(20)),
    ]
    many = [
        project.attempt(of, *body, project.answers(str(k)), solved=float(k == n % ATTEMPTS), number=k)
        for n, of in enumerate(tasks)
        for k in range(ATTEMPTS)
    ]
    write_jsonl(root / "data/scored/r1/scored.jsonl.gz", many)
    write_jsonl(root / "data/tasks/train.jsonl", tasks)


def test_20_000_attempts_are_there_at_once_and_filters_answer_at_once(tmp_path: Path) -> None:
    write_many(project.write(tmp_path))
    process = command(tmp_path, "data/scored")
    assert process.stdout is not None
    address = re.search(r"http\S+", process.stdout.readline() + process.stdout.readline())
    assert address is not None
    count = f"{TASKS * ATTEMPTS:,} attempts"
    try:
        with browser(tmp_path / "profile") as page:
            page.size(1400, 900)
            start = time.monotonic()
            page.open(address[0])
            page.wait("document.querySelector('#detail .step')")
            first = time.monotonic() - start
            page.wait(f"document.querySelector('#count').textContent.endsWith({count!r})")
            whole = time.monotonic() - start
            page.run("document.querySelector('[data-key=error]').open = true")
            page.wait("document.querySelector('.menu label')")
            filtered = page.run(TIMED.format("document.querySelector('.menu input').click()"))
            sort = "const s = document.querySelector('#sort'); s.value = 'mixed'; s.dispatchEvent(new Event('change'))"
            ordered = page.run(TIMED.format(sort))
            assert page.run("document.querySelectorAll('.entry').length") < 40  # those in sight
            memory = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            assert memory is not None
            print(f"first {first:.1f} s, whole {whole:.1f} s, filter {filtered:.0f} ms, order {ordered:.0f} ms")
            assert page.problems == []
        assert first < 6 and whole < 60
        assert filtered < 500 and ordered < 500
        assert int(memory[1]) < 500_000
    finally:
        os.kill(process.pid, signal.SIGINT)
        process.wait(30)
