"""Compare settings of training on the dev tasks, from the same trajectories.

    python -m benchmarks.variants step_ppo step_ppo:baseline=attempts step_ppo:kl_coef=0.5,learning_rate=5e-4 rft

Samples the first round's tasks once, trains a policy for each variant, and prints each one's pass rate on the
dev tasks, with the paired difference to the policy that all started from and to the first variant. What decides on
settings should be seen here: the test tasks are looked at once, by the pipeline. Needs models/sft and data/tasks
(`dvc repro train-sft`).

    python -m benchmarks.variants --unjudged step_ppo:reward.use=auto step_ppo:reward.use=paper,reward.alpha=0.5

--unjudged: what is trained on has no verdict and no list of relevant tools, as in a world without checks. The dev tasks
keep theirs: they say what was learnt.
"""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from benchmarks import run
from benchmarks.habits import without_verdict
from steptool.config.arms import arm_of
from steptool.config.places import PARAMS
from steptool.config.plugins import Use
from steptool.config.settings import Params, parse_params
from steptool.core.errors import InputError
from steptool.core.types import Reference
from steptool.system.environment import be_quiet

OUT = Path(".steptool/variants")
VARIANT = "variant"
"""The arm that a variant adds to the params."""


def written_params(path: Path = PARAMS) -> dict[str, Any]:
    """What the params file says, without the defaults."""
    found: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return found


def with_settings(written: dict[str, Any], variant: str) -> Params:
    """`method:key=value,…` as an arm of the params: keys of its method's settings, or others with their section. One
    that names another plugin (`reward.use=paper`) stands before that plugin's settings, and replaces all others."""
    method, _, rest = variant.partition(":")
    data: dict[str, Any] = {"rounds": {"r1": {"from": "base"}}, "arms": {}} | deepcopy(written)
    settings: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        section, _, name = key.rpartition(".")
        try:
            if name == "use":
                data[section] = {}
            (data.setdefault(section, {}) if section else settings)[name] = YAML(typ="safe").load(value)
        except (TypeError, YAMLError) as error:
            raise InputError(f"no setting {pair!r}", where=variant, fix="write section.key=value") from error
    data["arms"][VARIANT] = {
        "method": method,
        "from": "base",
        "data": [next(iter(data["rounds"]))],
        "settings": settings,
    }
    return parse_params(Path(variant), data)


def method_of(params: Params) -> Use:
    """The method of the variant. Raises ParamsError for settings that it refuses, or where it needs demonstrations."""
    from steptool.stages import train

    return train.method_of(arm_of(params, VARIANT))


def main(
    variants: Annotated[list[str], typer.Argument(help="Such as step_ppo:kl_coef=0.5, or rft.")],
    policy: Annotated[Path, typer.Option(help="What all start from.")] = Path("models/sft"),
    unjudged: Annotated[bool, typer.Option("--unjudged", help="Hide the verdicts from training.")] = False,
) -> None:
    """Train each variant from one sample and compare on dev."""
    from steptool.annotators.annotate import annotate_all, opened
    from steptool.evaluation.compare import compare
    from steptool.evaluation.metrics import Evaluation
    from steptool.policies.precision import compute_dtype
    from steptool.report.wording import comparison_text
    from steptool.rollouts.collect import open_sampler, sampling_of
    from steptool.stages.evaluate import measure_policy
    from steptool.stages.rounds import read_references, read_tasks, tasks_of_round
    from steptool.stages.sample import MAX_BROKEN
    from steptool.training.job import Data, Job

    written = written_params()
    params = parse_params(PARAMS, written)
    wanted = [(variant, with_settings(written, variant)) for variant in variants]
    methods = [method_of(settings) for _, settings in wanted]  # mistakes show before the work
    dev, references = read_tasks("dev"), read_references()
    tasks = tasks_of_round(params, 0)
    with open_sampler(params, policy, seed=params.seed + 1) as sampler:
        OUT.mkdir(parents=True, exist_ok=True)

        def evaluated(name: str) -> Evaluation:
            return measure_policy(params, name, sampler, dev, references, "dev", {}, OUT)

        before = evaluated("start")
        print(f"start: {before.pass_rate or 0.0:.1%} of {len(dev)} dev tasks", flush=True)
        attempts = params.sample.attempts
        made = sampler.attempts(tasks, sampling_of(params), attempts, what="sample", max_broken=MAX_BROKEN)
        known = references
        if unjudged:
            made = [without_verdict(each) for each in made]
            known = {task.id: Reference(task_id=task.id) for task in tasks}
        with opened(params.annotate) as (annotator, revision):
            scored = annotate_all(
                annotator,
                revision,
                made,
                tasks,
                known,
                source=OUT / "sample",
                what="annotate",
                concurrency=params.machine.concurrency,
            )
        first: Evaluation | None = None
        for (variant, settings), method in zip(wanted, methods, strict=True):
            started = time.monotonic()
            folder = OUT / variant.replace(":", "-").replace(",", "-").replace("/", "-")
            folder.mkdir(exist_ok=True)
            data = Data(
                format=sampler.format,
                reward=settings.reward.build(),
                scored=scored,
                tasks={task.id: task for task in tasks},
                references=known,
            )
            row_tokens = settings.machine.row_tokens
            method.build().train(Job(policy, folder, data, settings.seed, compute_dtype(settings.model), row_tokens))
            seconds = time.monotonic() - started
            sampler.load(folder)
            after = evaluated(folder.name)
            print(f"{variant}: {after.pass_rate or 0.0:.1%}, after {seconds:.0f} s of training")
            for other in filter(None, (before, first)):
                found = compare(
                    after, other, resamples=params.evaluate.resamples, confidence=params.evaluate.confidence, seed=0
                )
                print(f"  {comparison_text(found)}", flush=True)
            first = first or after


if __name__ == "__main__":
    be_quiet()
    run(main)
