"""Stage `sft`: supervised fine-tuning of the base model on the demonstrations."""

from __future__ import annotations

from steptool.config.places import BASE, DEMONSTRATIONS, PARAMS, SFT, TASKS
from steptool.config.settings import load_params
from steptool.core.errors import DataError
from steptool.core.storage import read_jsonl
from steptool.core.types import Trajectory
from steptool.formats.json_call import ChatFormat
from steptool.methods.sft import train_sft
from steptool.policies.base_models import load_tokenizer
from steptool.policies.precision import compute_dtype
from steptool.stages.common import stage
from steptool.stages.rounds import read_tasks


def main() -> None:
    params = load_params(PARAMS)
    dtype = compute_dtype(params.model)
    uses = {"sft": params.sft, "dtype": dtype}
    inputs = {"demonstrations": DEMONSTRATIONS, "tasks": TASKS / "train.jsonl", "base": BASE}
    with stage("sft", SFT, params, uses=uses, inputs=inputs) as running:
        tasks = {task.id: task for task in read_tasks("train")}
        chat = ChatFormat(load_tokenizer(BASE))
        demonstrations = read_jsonl(DEMONSTRATIONS, Trajectory)
        if not demonstrations:
            fix = (
                "set demonstrations.path in params.yaml to a file of your own "
                "(steptool/worlds/demonstrations.py shows a line), or world.name to mini"
            )
            raise DataError("no demonstrations to learn from", where=str(DEMONSTRATIONS), fix=fix)
        if strangers := [demo for demo in demonstrations if demo.task_id not in tasks]:
            found = f"{len(strangers)} are of no task in {inputs['tasks']}, first {strangers[0].id} of task "
            fix = "run `dvc repro`: it makes tasks and demonstrations of one world"
            raise DataError(found + strangers[0].task_id, where=str(DEMONSTRATIONS), fix=fix)
        examples = [chat.encode(tasks[demo.task_id], demo.steps) for demo in demonstrations]
        latest = train_sft(
            BASE,
            running.out,
            examples,
            params.sft,
            dtype=dtype,
            seed=params.seed,
            on_metrics=running.run.metrics,
        )
        running.run.summary(latest)
        running.says(f"{len(examples)} demonstrations, loss {latest['loss']:.3f}")
