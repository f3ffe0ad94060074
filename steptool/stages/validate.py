"""Stage `validate`: may this data be trained on? Stops the pipeline when not."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from steptool.annotators.rules import unjudged
from steptool.checks.gate import validate
from steptool.checks.page import render_page
from steptool.config.places import PARAMS, SCORED, TASKS, VALIDATED, WORK
from steptool.config.settings import load_params
from steptool.core.errors import ValidationFailed
from steptool.core.storage import read_jsonl, read_record, write_bytes, write_json, write_jsonl
from steptool.core.types import Frozen, ScoredTrajectory
from steptool.rewards.shaping import step_rewards
from steptool.stages.common import stage
from steptool.stages.rounds import round_of, tasks_of_round

PAGE = "validation.html"
SUMMARY = "summary.json"


class RoundSummary(Frozen):
    """What summary.json of a validated round holds."""

    solve_rate: float = Field(ge=0, le=1, allow_inf_nan=False, strict=True)
    trajectories: int = Field(ge=1, strict=True)


def main(round: str) -> None:
    params = load_params(PARAMS)
    index, settings = round_of(params, round)
    source = SCORED / round / "scored.jsonl.gz"
    previous = Path(settings.previous) / SUMMARY
    uses = {"validate": params.validate_, "reward": params.reward, "gamma": params.train.gamma_step}
    inputs = {"scored": source, "tasks": TASKS} | ({"previous": previous} if previous.exists() else {})
    with stage("validate", VALIDATED / round, params, uses=uses, inputs=inputs, round=round) as running:
        scored = read_jsonl(source, ScoredTrajectory)
        rewards = [step_rewards(s, params.reward, params.train.gamma_step) for s in scored]
        if unknown := unjudged(scored):
            raise ValidationFailed(
                f"{len(unknown)} of {len(scored)} answers count as unsolved because nothing here can check them, "
                f"that to task {unknown[0].trajectory.task_id} first: training would unlearn what may be right",
                where=str(source),
                fix="give every training task an exact answer_check (text, number or set), or take a world with them",
            )
        before = read_record(previous, RoundSummary).solve_rate if previous.exists() else None
        report = validate(
            scored,
            rewards,
            params.validate_,
            before,
            sampled=True,
            subsets={task.subset for task in tasks_of_round(params, index)},
            reward=params.reward,
            gamma=params.train.gamma_step,
            source=str(source),
        )
        page = render_page(report, title=f"Validation of {round}")
        if not report.passed:
            failed = WORK / "failed" / f"validation-{round}.html"
            write_bytes(failed, page.encode())
            running.run.artifact(failed)
            report.raise_if_failed(page=str(failed))
        write_jsonl(running.out / "scored.jsonl.gz", scored)
        write_bytes(running.out / PAGE, page.encode())
        summary = RoundSummary(solve_rate=sum(s.solved for s in scored) / len(scored), trajectories=len(scored))
        write_json(running.out / SUMMARY, summary.model_dump())
        running.run.artifact(running.out / PAGE)
        running.says(f"{len(report.findings)} expectations hold for {len(scored)} trajectories")
