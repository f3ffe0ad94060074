"""Stage `report`: everything on one self-contained page."""

from __future__ import annotations

import re
from io import StringIO

from ruamel.yaml import YAML

from steptool.config.places import EVALUATION, MODELS, PARAMS, REPORT, TASKS, VALIDATED
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError
from steptool.core.storage import read_jsonl, read_record, write_bytes
from steptool.core.types import ScoredTrajectory, Task
from steptool.evaluation.metrics import Evaluation, attempts_by_task
from steptool.report.page import ReportData, RoundStats, render_report
from steptool.rewards.shaping import step_rewards
from steptool.stages.common import stage
from steptool.stages.results import TRAINING, Training, read_results
from steptool.stages.rounds import read_tasks

NOT_SHOWN = {"promote", "tracking", "machine"}
"""Sections that decide about no result."""
_ADVANTAGE = re.compile(r"advantage_step_(\d{1,9})", re.ASCII)


def main() -> None:
    params = load_params(PARAMS)
    uses = {"reward": params.reward, "gamma": params.train.gamma_step}
    inputs = {"evaluation": EVALUATION, "tasks": TASKS}
    inputs |= {f"trained {key}": MODELS / key / TRAINING for key in params.rounds}
    inputs |= {f"validated {key}": VALIDATED / key for key in params.rounds}
    with stage("report", REPORT, params, uses=uses, inputs=inputs) as running:
        data = _gather(params)
        write_bytes(running.out / "index.html", render_report(data).encode())
        running.run.artifact(running.out / "index.html")
        running.says(f"report on {len(data.evaluations)} policies; open reports/index.html")


def _gather(params: Params) -> ReportData:
    evaluations, comparisons = read_results(params)
    tasks = read_tasks(params.evaluate.split)
    judged = {evaluation.name: _judged(evaluation, tasks) for evaluation in evaluations}
    training = {key: read_record(MODELS / key / TRAINING, Training) for key in params.rounds}
    budget = evaluations[0].budget
    return ReportData(
        evaluations=evaluations,
        comparisons=comparisons,
        judged=judged,
        training={key: trained.steps for key, trained in training.items()},
        round_stats={key: _round_stats(params, key, training[key].summary) for key in params.rounds},
        tasks=tasks,
        rewards={
            scored.trajectory.id: step_rewards(scored, params.reward, params.train.gamma_step)
            for trajectories in judged.values()
            for scored in trajectories
        },
        meta={
            "seed": params.seed,
            "base model": params.model.base,
            "world": f"{budget.world.name} {budget.world.revision}",
            "annotator": f"{budget.annotator.name} {budget.annotator.revision}",
            "params.yaml": _settings(params),
        },
    )


def _settings(params: Params) -> str:
    """The settings that decide about results, as YAML."""
    text = StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(params.model_dump(mode="json", by_alias=True, exclude=NOT_SHOWN), text)
    return text.getvalue()


def _judged(evaluation: Evaluation, tasks: list[Task]) -> list[ScoredTrajectory]:
    """The attempts that an evaluation was made of."""
    path = EVALUATION / f"{evaluation.name}.trajectories.jsonl.gz"
    scored = read_jsonl(path, ScoredTrajectory)
    try:
        attempts_by_task(scored, tasks, evaluation.policy, evaluation.budget)
    except DataError as error:
        raise DataError(f"{error.where}: {error.found}", where=str(path), fix=error.fix) from error
    return scored


def _round_stats(params: Params, key: str, summary: dict[str, float]) -> RoundStats:
    scored = read_jsonl(VALIDATED / key / "scored.jsonl.gz", ScoredTrajectory)
    rewards = [step_rewards(s, params.reward, params.train.gamma_step) for s in scored]
    longest = max((len(r) for r in rewards), default=0)
    by_step = [[r[k] for r in rewards if len(r) > k] for k in range(longest)]
    successes = [j.success for s in scored for j in s.judgements if j.success is not None]
    advantages = sorted((int(found[1]), v) for k, v in summary.items() if (found := _ADVANTAGE.fullmatch(k)))
    return RoundStats(
        solve_rate=sum(s.solved for s in scored) / max(len(scored), 1),
        call_success=sum(successes) / len(successes) if successes else None,
        reward_by_step=tuple(sum(values) / len(values) for values in by_step),
        advantage_by_step=tuple(value for _, value in advantages),
    )
