"""Stage `validate`: may this data be trained on, and what is wrong with it? Stops the pipeline where it may not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from steptool.checks.calibration import calibrate
from steptool.checks.diagnosis.diagnose import diagnose
from steptool.checks.diagnosis.text import lines_of
from steptool.checks.gate import validate
from steptool.checks.page import render_page
from steptool.config.arms import Round, comparison_of, round_of
from steptool.config.places import CANARY, PARAMS, PROMPTS, SCORED, TASKS, TRAJECTORIES, VALIDATED, WORK
from steptool.config.settings import Params, load_params
from steptool.core.storage import read_jsonl, read_record, write_bytes, write_json, write_jsonl
from steptool.core.types import Frozen, ScoredTrajectory, Task
from steptool.policies.asked import Asked
from steptool.stages.common import stage
from steptool.stages.rounds import Prompts, read_tasks, tasks_of_round
from steptool.training.compared import compared_by
from steptool.training.siblings import Comparison

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
    sampled = {"prompts": PROMPTS, "canary": CANARY}
    inputs = {"scored": source, "tasks": TASKS}
    inputs |= _if_there({name: TRAJECTORIES / wanted.name / file for name, file in sampled.items()})
    if wanted.previous:
        before = {"previous": SUMMARY, "previous attempts": "scored.jsonl.gz"}
        inputs |= _if_there({name: wanted.previous / file for name, file in before.items()})
    out, uses = VALIDATED / wanted.name, {"validate": params.validate_, "reward": params.reward}
    with stage("validate", out, params, uses=uses, inputs=inputs, argument=wanted.name) as running:
        scored = read_jsonl(source, ScoredTrajectory)
        form, tasks = params.reward.build(), _tasks(params, wanted, scored)
        report = validate(
            scored,
            form,
            params.validate_,
            read_record(inputs["previous"], RoundSummary).solve_rate if "previous" in inputs else None,
            groups={task.id: task.group for task in tasks},
            source=str(source),
        )
        compared, earlier = comparison_of(params, wanted.name), inputs.get("previous attempts")
        comparison = None if compared is None else compared_by(compared)
        diagnosis = diagnose(
            scored,
            form,
            name=wanted.name,
            tasks={task.id: task for task in tasks},
            comparison=comparison,
            before=read_jsonl(earlier, ScoredTrajectory) if earlier else (),
            asked=read_record(inputs["canary"], Asked) if "canary" in inputs else None,
            shortened=read_record(inputs["prompts"], Prompts).shortened if "prompts" in inputs else {},
        )
        calibration = calibrate(
            scored,
            form,
            name=params.reward.name,
            groups={task.id: task.group for task in tasks},
            comparison=comparison if type(comparison) is Comparison else None,  # rewards of steps are what it is about
        )
        title = f"Validation of {wanted.name}"
        page = render_page(report, title=title, diagnosis=diagnosis, calibration=calibration)
        print("\n".join([*lines_of(diagnosis, wanted.name), *calibration.lines(wanted.name)]), flush=True)
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
        wrong = f"; {len(diagnosis.wrong)} findings of the diagnosis to look at" if diagnosis.wrong else ""
        held = f"{len(report.findings)} expectations hold for {len(scored)} trajectories, {report.rewarded}"
        running.says(f"{held}{wrong}")


def _tasks(params: Params, wanted: Round, scored: Sequence[ScoredTrajectory]) -> list[Task]:
    """Those that the round samples, or those that its imported attempts are of."""
    if wanted.traces is None:
        return tasks_of_round(params, wanted.index)
    attempted = {item.trajectory.task_id for item in scored}
    return [task for task in read_tasks("train") if task.id in attempted]


def _if_there(files: dict[str, Path]) -> dict[str, Path]:
    return {name: file for name, file in files.items() if file.exists()}
