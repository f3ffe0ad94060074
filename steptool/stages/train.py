"""Stage `train`: an arm's method trains the policy that it starts from on the data that the arm names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from steptool.config.arms import Arm, arm_of, check_method
from steptool.config.places import DEMONSTRATIONS, PARAMS, TASKS, VALIDATED, WORK
from steptool.config.plugins import Use
from steptool.config.settings import DEMONSTRATIONS as SHOWN
from steptool.config.settings import Params, load_params
from steptool.core.errors import ParamsError
from steptool.core.storage import read_jsonl, write_json
from steptool.core.types import ScoredTrajectory, Trajectory, content_hash
from steptool.policies.model_folder import load_tokenizer
from steptool.policies.precision import compute_dtype
from steptool.stages.common import stage
from steptool.stages.rounds import read_references, read_tasks
from steptool.training.job import Data, Job

CHECKPOINTS = WORK / "checkpoints"


def main(arm: str) -> None:
    params = load_params(PARAMS)
    wanted = arm_of(params, arm)
    method = method_of(wanted)
    rounds = {name: VALIDATED / name / "scored.jsonl.gz" for name in wanted.data if name != SHOWN}
    dtype = compute_dtype(params.model)
    uses: dict[str, Any] = {"method": {"use": method.name, **method.config.model_dump(mode="json")}}
    uses |= {"format": params.format, "dtype": dtype} | ({"reward": params.reward} if rounds else {})
    policies = {f"policy {name}": folder for name, folder in wanted.ancestors}
    inputs = {"tasks": TASKS, **{f"validated {name}": path for name, path in rounds.items()}, **policies}
    with stage("train", wanted.weights, params, uses=uses, inputs=inputs, argument=arm) as running:
        steps: list[dict[str, float]] = []

        def on_metrics(step: int, metrics: dict[str, float]) -> None:
            steps.append({"step": step, **metrics})
            running.run.metrics(step, metrics)

        job = Job(
            start=wanted.start_folder,
            out=running.out,
            data=read_data(params, wanted, list(rounds.values())),
            seed=params.seed + wanted.generation,
            dtype=dtype,
            row_tokens=params.machine.row_tokens,
            on_metrics=on_metrics,
            checkpoint_dir=CHECKPOINTS / f"{arm}-{content_hash(running.determines)}",
        )
        summary: dict[str, float] = method.build().train(job)
        write_json(running.out / "training.json", {"summary": summary, "steps": steps})
        running.run.summary(summary)
        running.says(f"{method.name} on {', '.join(wanted.data)}, {len(steps)} updates")
    forget_checkpoints(arm)


def method_of(arm: Arm) -> Use:
    """The method that trains an arm, with settings that are checked.

    Raises ParamsError where the arm is not trained, the method refuses a setting, or needs what the arm's data does
    not give.
    """
    where = f"{PARAMS}: arms.{arm.name}"
    if arm.method is None:
        raise ParamsError("has a `folder`: it is evaluated, not trained", where=where, fix="name an arm with a method")
    check_method(arm)
    return arm.method


def read_data(params: Params, arm: Arm, scored: list[Path]) -> Data:
    """What the method of an arm learns from; `scored` are the files of its rounds."""
    tasks, references = {task.id: task for task in read_tasks("train")}, read_references()
    return Data(
        format=params.format.build(load_tokenizer(arm.start_folder)),
        reward=params.reward.build(),
        scored=[item for path in scored for item in read_jsonl(path, ScoredTrajectory)],
        demonstrations=read_jsonl(DEMONSTRATIONS, Trajectory) if SHOWN in arm.data else [],
        tasks=tasks,
        references={id: references[id] for id in tasks if id in references},
    )


def forget_checkpoints(arm: str) -> None:
    """Remove the checkpoints of an arm, those of earlier settings too: its policy is in place."""
    for folder in CHECKPOINTS.glob(f"{arm}-*"):
        shutil.rmtree(folder)
