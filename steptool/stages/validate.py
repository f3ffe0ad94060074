"""Stage `validate`: may this data be trained on? Stops the pipeline when not."""

from __future__ import annotations

from pathlib import Path

from steptool.params import load_params
from steptool.rewards.shaping import step_rewards
from steptool.stages.common import PARAMS, SCORED, TASKS, VALIDATED, WORK, round_of, stage, tasks_of_round
from steptool.storage import read_json, read_jsonl, write_bytes, write_json, write_jsonl
from steptool.types import ScoredTrajectory
from steptool.validation.gate import validate
from steptool.validation.page import render_page

PAGE = "validation.html"
SUMMARY = "summary.json"


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
        before = read_json(previous)["solve_rate"] if previous.exists() else None
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
        solve_rate = sum(s.solved for s in scored) / len(scored)
        write_json(running.out / SUMMARY, {"solve_rate": solve_rate, "trajectories": len(scored)})
        running.run.artifact(running.out / PAGE)
        running.says(f"{len(report.findings)} expectations hold for {len(scored)} trajectories")
