"""Stage `validate`: may this data be trained on? Stops the pipeline when not."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from steptool.checks.gate import validate
from steptool.checks.page import render_page
from steptool.config.arms import round_of
from steptool.config.places import PARAMS, SCORED, TASKS, VALIDATED, WORK
from steptool.config.settings import load_params
from steptool.core.storage import read_jsonl, read_record, write_bytes, write_json, write_jsonl
from steptool.core.types import Frozen, ScoredTrajectory
from steptool.stages.common import stage
from steptool.stages.rounds import tasks_of_round

PAGE = "validation.html"
SUMMARY = "summary.json"


class RoundSummary(Frozen):
    """What summary.json of a validated round holds."""

    solve_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None
    """Of the trajectories that have a verdict; None where none has."""
    trajectories: int = Field(ge=1, strict=True)


def main(round: str) -> None:
    params = load_params(PARAMS)
    wanted = round_of(params, round)
    source = SCORED / wanted.name / "scored.jsonl.gz"
    inputs = {"scored": source, "tasks": TASKS}
    if wanted.previous and (wanted.previous / SUMMARY).exists():
        inputs["previous"] = wanted.previous / SUMMARY
    out, uses = VALIDATED / wanted.name, {"validate": params.validate_, "reward": params.reward}
    with stage("validate", out, params, uses=uses, inputs=inputs, argument=wanted.name) as running:
        scored = read_jsonl(source, ScoredTrajectory)
        report = validate(
            scored,
            params.reward.build(),
            params.validate_,
            read_record(inputs["previous"], RoundSummary).solve_rate if "previous" in inputs else None,
            groups={task.id: task.group for task in tasks_of_round(params, wanted.index)},
            source=str(source),
        )
        page = render_page(report, title=f"Validation of {wanted.name}")
        if not report.passed:
            failed = WORK / "failed" / f"validation-{wanted.name}.html"
            write_bytes(failed, page.encode())
            running.run.artifact(failed)
            report.raise_if_failed(page=str(failed))
        write_jsonl(running.out / "scored.jsonl.gz", scored)
        write_bytes(running.out / PAGE, page.encode())
        summary = RoundSummary(solve_rate=report.solve_rate, trajectories=len(scored))
        write_json(running.out / SUMMARY, summary.model_dump())
        running.run.artifact(running.out / PAGE)
        running.says(f"{len(report.findings)} expectations hold for {len(scored)} trajectories, {report.rewarded}")
