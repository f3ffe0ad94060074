"""How fast step-grained PPO and SFT train, and in how much memory: a model's shape, random weights, made-up tokens.

    python -m benchmarks.training smollm2 float32 bfloat16               # two cores
    python -m benchmarks.training qwen2.5-7b bfloat16 --profile profiles/qwen2.5-7b-gpu.yaml
    python -m benchmarks.training qwen2.5-7b bfloat16 --profile profiles/qwen2.5-7b-gpu.yaml --trainer sft

Speed does not depend on what weights and tokens are, so no download is needed. `train_ppo` and `train_sft` themselves
run, with the settings of params.yaml and those of a profile over them. Types are compared in one run, each with the
first, which is measured once more at the end to show how much the machine changed meanwhile. Without a GPU the peak
memory is that of the process so far, so a type's own is seen by running it alone.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Annotated, Any, get_args

import torch
import typer
from ruamel.yaml import YAML
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks import run
from steptool.config.settings import Params, apply_profile, parse_params
from steptool.core.errors import InputError
from steptool.core.types import (
    Judgement,
    Observation,
    Revision,
    Sampling,
    ScoredTrajectory,
    Step,
    StopReason,
    Trajectory,
)
from steptool.methods.sft import train_sft
from steptool.methods.step_ppo import train_ppo
from steptool.policies import tiny_model
from steptool.policies.base_models import save
from steptool.policies.precision import Dtype
from steptool.system.environment import be_quiet
from steptool.system.memory import keep_freed_memory
from steptool.training.model import PolicyWithValue
from steptool.training.trainer import OnMetrics

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
}
PROMPT, ACTION, REPLY, STEPS = 135, 13, 25, 4
"""Tokens of a trajectory of the bundled world, and its actions."""
MADE_UP = Revision(name="made-up", revision="0")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trajectories(tasks: int, attempts: int, vocabulary: int) -> list[ScoredTrajectory]:
    """`attempts` at each task, which share the prompt, the first action and its reply, and part at the second."""
    rng = Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(count))

    made = []
    for task in range(tasks):
        contexts, actions = (ids(PROMPT), ids(REPLY)), (ids(ACTION),)
        for attempt in range(attempts):
            steps = tuple(
                Step(
                    parse_error="made up",
                    observation=Observation(text="") if index < STEPS - 1 else None,
                    context_ids=contexts[index] if index < len(contexts) else ids(REPLY),
                    action_ids=actions[index] if index < len(actions) else ids(ACTION),
                    action_logprobs=(-1.0,) * ACTION,
                )
                for index in range(STEPS)
            )
            trajectory = Trajectory.create(
                task_id=str(task),
                subset="G1_instruction",
                steps=steps,
                stop_reason=StopReason.call_budget,
                policy=MADE_UP,
                world=MADE_UP,
                sampling=Sampling(temperature=1.0, top_p=1.0, max_calls=STEPS, max_step_tokens=64, max_tokens=1024),
                seed=0,
                attempt=attempt,
            )
            judgements = (Judgement(success=1, contribution=0),) * (STEPS - 1) + (Judgement(solved=attempt % 2),)
            made.append(ScoredTrajectory(trajectory=trajectory, judgements=judgements, annotator=MADE_UP))
    return made


def model_of(shape: str, dtype: Dtype, device: torch.device) -> PreTrainedModel:
    settings = dict(SHAPES[shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model


def run_ppo(shape: str, dtype: Dtype, params: Params, tasks: int, tick: OnMetrics) -> tuple[str, float]:
    """What was trained on, and how many sampled tokens an optimiser step has."""
    made = trajectories(tasks, params.sample.attempts, SHAPES[shape]["vocab_size"])
    model = model_of(shape, dtype, DEVICE)
    policy = PolicyWithValue.wrap(model, params.train, base=Path("models/base")).to(DEVICE)
    rewards = [[0.0] * (STEPS - 1) + [float(item.solved)] for item in made]
    # No engine gave the log-probabilities of made-up tokens.
    train = params.train.model_copy(update={"max_engine_kl": float("inf")})
    summary = train_ppo(policy, made, rewards, train, seed=0, on_metrics=tick)
    steps = min(params.train.minibatches, int(summary["tasks"]))
    return f"{len(made)} trajectories in {summary['rows']:.0f} rows", summary["tokens"] / steps


def run_sft(shape: str, dtype: Dtype, params: Params, tasks: int, tick: OnMetrics) -> tuple[str, float]:
    """As `run_ppo`: one demonstration a task."""
    made = [item.trajectory for item in trajectories(tasks, 1, SHAPES[shape]["vocab_size"])]
    examples = [
        (
            [token for step in item.steps for token in (*step.context_ids, *step.action_ids)],
            [own for step in item.steps for own in (*(False,) * len(step.context_ids), *(True,) * ACTION)],
        )
        for item in made
    ]
    with tempfile.TemporaryDirectory() as scratch:
        base, out = Path(scratch) / "base", Path(scratch) / "out"
        save(model_of(shape, "bfloat16", DEVICE), tiny_model.tokenizer(), base)
        out.mkdir()
        train_sft(base, out, examples, params.sft, dtype=dtype, seed=0, on_metrics=tick)
    return f"{len(made)} demonstrations of {len(examples[0][0])} tokens", STEPS * ACTION * params.sft.batch_size


TRAINERS = {"ppo": run_ppo, "sft": run_sft}


def measure(trainer: str, shape: str, dtype: Dtype, params: Params, tasks: int) -> float:
    """Print what one training takes; returns its seconds an optimiser step."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []
    what, tokens = TRAINERS[trainer](
        shape, dtype, params, tasks, lambda step, metrics: ends.append(time.perf_counter())
    )
    steps = [after - before for before, after in pairwise(ends)]
    if DEVICE.type == "cuda":
        where, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    else:
        where, peak = f"{torch.get_num_threads()} threads", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    step = statistics.median(steps)
    print(
        f"{trainer} {shape} {dtype} on {where}: {what}; an optimiser step {step:.2f} s [{min(steps):.2f}, "
        f"{max(steps):.2f}], {tokens / step:.0f} action tokens a second; peak memory {peak / 2**30:.1f} GiB",
        flush=True,
    )
    return step


def main(
    shape: Annotated[str, typer.Argument(help=f"One of {', '.join(SHAPES)}.")],
    dtypes: Annotated[list[str], typer.Argument(help="float32, bfloat16: one after the other.")],
    profile: Annotated[Path | None, typer.Option(help="Settings over those of params.yaml.")] = None,
    trainer: Annotated[str, typer.Option(help=f"One of {', '.join(TRAINERS)}.")] = "ppo",
    tasks: Annotated[int, typer.Option(help="Tasks that were attempted, or demonstrated.")] = 16,
) -> None:
    """Time a trainer's optimiser steps."""
    if trainer not in TRAINERS:
        fix = f"name one of {', '.join(TRAINERS)}"
        raise InputError(f"no trainer {trainer!r}", where="benchmarks.training", fix=fix)
    if shape not in SHAPES:
        raise InputError(f"no shape {shape!r}", where="benchmarks.training", fix=f"name one of {', '.join(SHAPES)}")
    wanted = sorted((name for name in get_args(Dtype) if name in dtypes), key=dtypes.index)
    if unknown := set(dtypes) - set(wanted):
        found = f"no type {', '.join(sorted(unknown))}"
        raise InputError(found, where="benchmarks.training", fix=f"name some of {', '.join(get_args(Dtype))}")
    text = apply_profile(Path("params.yaml"), profile) if profile else Path("params.yaml").read_text(encoding="utf-8")
    params = parse_params(Path("params.yaml"), YAML(typ="safe").load(text))
    seconds = {name: measure(trainer, shape, name, params, tasks) for name in wanted}
    first, *others = wanted
    if others:
        again = measure(trainer, shape, first, params, tasks)
        for name in others:
            faster = [seconds[first] / seconds[name], again / seconds[name]]
            print(f"{name} is {min(faster):.2f} to {max(faster):.2f} times as fast as {first}")


if __name__ == "__main__":
    be_quiet()
    keep_freed_memory()
    run(main)
