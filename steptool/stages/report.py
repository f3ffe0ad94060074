"""Stage `report`: everything on one self-contained page."""

from __future__ import annotations

import re
from io import StringIO

from ruamel.yaml import YAML

from steptool.config.arms import Round as RoundOfParams
from steptool.config.arms import arms_of, rounds_of
from steptool.config.places import EVALUATION, JUDGED, MODELS, PARAMS, REPORT, TASKS, VALIDATED
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError
from steptool.core.storage import read_jsonl, read_record, write_bytes
from steptool.core.types import ScoredTrajectory, Task
from steptool.evaluation.metrics import Evaluation, attempts_by_task
from steptool.report.page import ReportData, Round, Trained, render_report
from steptool.rewards.base import Fits, RewardForm, rewards_of
from steptool.stages.common import stage
from steptool.stages.results import TRAINING, Training, read_results
from steptool.stages.rounds import read_tasks

NOT_SHOWN = {"register_", "promote", "tracking", "machine"}
"""Sections that decide about no result."""
_ADVANTAGE = re.compile(r"advantage_step_(\d{1,9})", re.ASCII)
"""What a method with advantages calls their mean size at a step, in the summary of its training."""


def main() -> None:
    params = load_params(PARAMS)
    inputs = {"evaluation": EVALUATION, "tasks": TASKS}
    inputs |= {f"trained {name}": MODELS / name / TRAINING for name in _trained(params)}
    inputs |= {f"validated {name}": VALIDATED / name for name in params.rounds}
    with stage("report", REPORT, params, uses={"reward": params.reward}, inputs=inputs) as running:
        data = _gather(params)
        write_bytes(running.out / "index.html", render_report(data).encode())
        running.run.artifact(running.out / "index.html")
        running.says(f"report on {len(data.evaluations)} arms; open {REPORT}/index.html")


def _gather(params: Params) -> ReportData:
    results = read_results(params)
    tasks = read_tasks(params.evaluate.split)
    judged = {evaluation.name: _judged(evaluation, tasks) for evaluation in results.evaluations}
    form = _form(params)
    return ReportData(
        **dict(results),
        judged=judged,
        trained={name: _read_training(name) for name in _trained(params)},
        rounds={round.name: _describe(round, form) for round in rounds_of(params)},
        tasks=tasks,
        rewards={
            scored.trajectory.id: list(own)
            for attempts in judged.values()
            for scored, own in zip(attempts, rewards_of(form, attempts), strict=True)
        },
        meta={"seed": params.seed, "base model": params.model.base, "params.yaml": _settings(params)},
    )


def _form(params: Params) -> RewardForm:
    """One that must see data first sees those of all rounds."""
    form: RewardForm = params.reward.build()
    if not isinstance(form, Fits):
        return form
    return form.fitted([each for round in rounds_of(params) for each in _attempts(round)])


def _attempts(round: RoundOfParams) -> list[ScoredTrajectory]:
    """As they were before anything was trained on them."""
    return read_jsonl(VALIDATED / round.name / "scored.jsonl.gz", ScoredTrajectory)


def _trained(params: Params) -> list[str]:
    return [arm.name for arm in arms_of(params) if arm.method is not None]


def _settings(params: Params) -> str:
    """The settings that decide about results, as YAML."""
    text = StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(params.model_dump(mode="json", by_alias=True, exclude=NOT_SHOWN), text)
    return text.getvalue()


def _judged(evaluation: Evaluation, tasks: list[Task]) -> list[ScoredTrajectory]:
    """The attempts that an evaluation was made of."""
    path = EVALUATION / f"{evaluation.name}{JUDGED}"
    scored = read_jsonl(path, ScoredTrajectory)
    try:
        attempts_by_task(
            scored,
            tasks,
            policy=evaluation.policy,
            conditions=evaluation.conditions,
            annotator=evaluation.annotator,
            attempts=evaluation.attempts,
        )
    except DataError as error:
        raise DataError(f"{error.where}: {error.found}", where=str(path), fix=error.fix) from error
    return scored


def _read_training(arm: str) -> Trained:
    training = read_record(MODELS / arm / TRAINING, Training)
    found = {key: _ADVANTAGE.fullmatch(key) for key in training.summary}
    advantages = sorted((int(match[1]), training.summary[key]) for key, match in found.items() if match)
    return Trained(steps=training.steps, advantage_by_step=tuple(value for _, value in advantages))


def _describe(round: RoundOfParams, form: RewardForm) -> Round:
    scored = _attempts(round)
    rewards = rewards_of(form, scored)
    longest = max(map(len, rewards), default=0)
    by_step = [[row[k] for row in rewards if len(row) > k] for k in range(longest)]
    return Round(
        sampled_from=round.origin,
        solve_rate=_mean([each.solved for each in scored]),
        call_success=_mean([judgement.success for each in scored for judgement in each.judgements]),
        reward_by_step=tuple(sum(values) / len(values) for values in by_step),
    )


def _mean(scores: list[float | None]) -> float | None:
    """Of those that there are."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None
