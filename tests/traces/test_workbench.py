"""GPT-4's recorded runs of WorkBench, by the road that a team's own log takes: 590 requests with calls and verdicts.

    run       steps [find → "Event not found.", delete → "Event deleted successfully."], answer, correct
    record    {"messages": [user, assistant + tool for each step, assistant], "solved": correct}

The data is not ours to copy; it lies beside the checkout, or where STEPTOOL_WORKBENCH says.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steptool.annotators.rules import Rules
from steptool.core.types import Reference
from steptool.traces import folder as imported
from steptool.traces.kinds import import_from
from steptool.traces.tasks import as_tasks

BENCH = Path(os.environ.get("STEPTOOL_WORKBENCH") or Path(__file__).parents[3] / "shared" / "workbench")
REFUSED = re.compile(
    r".* not found\.|.* not provided\.|.* not valid\..*|Value to plot must be one of .*|Invalid .*|Missing .*"
    r"|.* is not a valid tool.*",
    re.DOTALL,
)
"""What WorkBench's own tools reply to a call that they refuse, by their published sources."""

pytestmark = pytest.mark.skipif(not (BENCH / "queries.jsonl").is_file(), reason="needs the recordings of WorkBench")


def records(run: str) -> Iterator[dict[str, Any]]:
    with (BENCH / "queries.jsonl").open() as file:
        queries = {row["id"]: row for row in map(json.loads, file)}
    with gzip.open(BENCH / "runs" / f"{run}.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            query = queries[row["query_id"]]
            messages: list[dict[str, Any]] = [{"role": "user", "content": query["query"]}]
            for number, step in enumerate(row["steps"]):
                function = {"name": step["name"] or "None", "arguments": json.dumps(step["arguments"])}
                call = {"id": str(number), "type": "function", "function": function}
                reply = step["reply"] if isinstance(step["reply"], str) else json.dumps(step["reply"])
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
                messages.append({"role": "tool", "tool_call_id": str(number), "content": reply})
            if row["answer"]:
                messages.append({"role": "assistant", "content": row["answer"]})
            yield {"messages": messages, "model": "gpt-4", "solved": row["correct"], "group": query["domain"]}


@pytest.mark.parametrize("run", ["gpt-4_domains", "gpt-4_all"])
def test_judgement_by_rules_makes_sense_on_the_runs_of_gpt_4(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = list(records(run))
    Path("log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in written))
    folder, report = import_from("log.jsonl")
    left_out = {reason: places.count for reason, places in report.skipped.items()}
    assert report.kept + report.copies + sum(left_out.values()) == len(written) == 590
    assert report.kept > 560, left_out

    tasks = as_tasks(imported.tasks(folder), imported.tools(folder))
    rules, done = Rules(Rules.Config()), imported.trajectories(folder)
    agree, steps = 0, 0
    mean: dict[float | None, list[float]] = {0.0: [], 1.0: []}
    for trajectory in done:
        task = tasks[trajectory.task_id]
        judged = asyncio.run(rules.annotate(trajectory, task, Reference(task_id=task.id)))
        for step, judgement in zip(trajectory.steps[:-1], judged, strict=False):
            reply = step.observations[0].text
            refused = REFUSED.fullmatch(reply) is not None or reply in ("", "[]", "{}")
            assert judgement.success is not None
            agree += refused == (judgement.success == 0)
            steps += 1
            mean[trajectory.outcome.solved].append(judgement.success)
    solved, unsolved = (sum(mean[label]) / len(mean[label]) for label in (1.0, 0.0))
    print(f"{run}: {report.kept} runs, {report.labels}, left out {left_out}")
    print(f"steps {steps}; rules and the tools' refusals agree on {agree / steps:.1%}")
    print(f"steps that succeed: {solved:.1%} in solved runs, {unsolved:.1%} in others; {report.judged}")
    assert agree / steps > 0.99
    assert solved > unsolved + 0.05
