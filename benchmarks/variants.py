"""Compare settings of a round's training on the dev tasks, from the same trajectories.

    python -m benchmarks.variants ppo ppo:baseline=attempts ppo:kl_coef=0.5,learning_rate=5e-4 rft

Samples the first round's tasks once, trains a policy for each variant, and prints each one's pass rate on the
dev tasks, with the paired difference to the policy that all started from and to the first variant. What decides on
settings should be seen here: the test tasks are looked at once, by the pipeline. Needs models/sft and data/tasks
(`dvc repro sft`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from benchmarks import run
from steptool.config.settings import Params, load_params, parse_params
from steptool.core.errors import InputError
from steptool.system.environment import be_quiet

OUT = Path(".steptool/variants")
SECTIONS = {"ppo": "train", "rft": "rft"}


def with_settings(params: Params, variant: str) -> tuple[str, Params]:
    """`arm:key=value,…` as the arm and its params: keys of `train` or `rft`, or others with their section."""
    arm, _, rest = variant.partition(":")
    if arm not in SECTIONS:
        raise InputError(f"no arm {arm!r}", where=variant, fix=f"begin it with one of {', '.join(SECTIONS)}")
    data = params.model_dump(by_alias=True)
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        section, _, name = key.rpartition(".")
        try:
            data.setdefault(section or SECTIONS[arm], {})[name] = YAML(typ="safe").load(value)
        except (TypeError, YAMLError) as error:
            raise InputError(f"no setting {pair!r}", where=variant, fix="write section.key=value") from error
    return arm, parse_params(Path(variant), data)


def main(
    variants: Annotated[list[str], typer.Argument(help="Such as ppo:kl_coef=0.5, or rft.")],
    policy: Annotated[Path, typer.Option(help="What all start from.")] = Path("models/sft"),
) -> None:
    """Train each variant from one sample and compare on dev."""
    from steptool.evaluation.compare import compare
    from steptool.evaluation.metrics import Evaluation
    from steptool.methods.rft import train_rft
    from steptool.methods.step_ppo import train_ppo
    from steptool.policies.precision import compute_dtype
    from steptool.report.wording import comparison_text
    from steptool.rewards.shaping import step_rewards
    from steptool.rollouts.collect import generate
    from steptool.stages.annotate import judge
    from steptool.stages.evaluate import evaluate_policy
    from steptool.stages.rounds import read_tasks, sampling_of, tasks_of_round
    from steptool.stages.sample import MAX_BROKEN
    from steptool.training.model import PolicyWithValue

    params = load_params()
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"split": "dev"})})
    wanted = [(variant, *with_settings(params, variant)) for variant in variants]  # mistakes show before the work
    dev = read_tasks("dev")
    with generate(params, policy, seed=params.seed + 1) as sampler:
        OUT.mkdir(parents=True, exist_ok=True)
        before = evaluate_policy(params, "start", sampler, dev, OUT)
        print(f"start: {before.pass_rate:.1%} of {len(dev)} dev tasks", flush=True)
        tasks = tasks_of_round(params, 0)
        made = sampler.attempts(
            tasks, sampling_of(params), params.sample.attempts, what="sample", max_broken=MAX_BROKEN
        )
        scored = judge(params, made, tasks, source=OUT / "sample")
        first: Evaluation | None = None
        for variant, arm, settings in wanted:
            started = time.monotonic()
            model = PolicyWithValue.load(
                policy, settings.train, dtype=compute_dtype(settings.model), seed=settings.seed
            )
            if arm == "ppo":
                rewards = [step_rewards(item, settings.reward, settings.train.gamma_step) for item in scored]
                train_ppo(model, scored, rewards, settings.train, seed=settings.seed)
            else:
                train_rft(model, scored, settings.rft, settings.train, seed=settings.seed)
            seconds = time.monotonic() - started
            folder = OUT / variant.replace(":", "-").replace(",", "-").replace("/", "-")
            folder.mkdir(exist_ok=True)
            model.save(folder)
            del model
            sampler.load(folder)
            after = evaluate_policy(params, folder.name, sampler, dev, OUT)
            print(f"{variant}: {after.pass_rate:.1%}, after {seconds:.0f} s of training")
            for other in filter(None, (before, first)):
                found = compare(
                    after, other, resamples=params.evaluate.resamples, confidence=params.evaluate.confidence, seed=0
                )
                print(f"  {comparison_text(found)}", flush=True)
            first = first or after


if __name__ == "__main__":
    be_quiet()
    run(main)
