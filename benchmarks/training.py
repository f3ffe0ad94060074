"""How fast step-grained PPO trains, and in how much memory: a model's shape with random weights, made-up trajectories.

    python -m benchmarks.training smollm2 float32 bfloat16               # two cores
    python -m benchmarks.training qwen2.5-7b bfloat16 --profile profiles/qwen2.5-7b-gpu.yaml

Speed does not depend on what weights and tokens are, so no download is needed. `train_ppo` itself runs, with the
settings of params.yaml and those of a profile over them. Types are compared in one run, each against the first, the
last of them measured once more at the end to show how much the machine changed meanwhile.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from ruamel.yaml import YAML
from transformers import AutoConfig, AutoModelForCausalLM

from steptool.allocator import keep_freed_memory
from steptool.errors import InputError, StepToolError
from steptool.params import Params, apply_profile, parse_params
from steptool.quiet import be_quiet
from steptool.training.model import PolicyWithValue
from steptool.training.ppo import train_ppo
from steptool.training.precision import Dtype
from steptool.types import Judgement, Observation, Revision, Sampling, ScoredTrajectory, Step, StopReason, Trajectory

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


def measure(shape: str, dtype: Dtype, params: Params, made: list[ScoredTrajectory]) -> float:
    """Print what one training takes; returns its seconds an optimiser step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = dict(SHAPES[shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    policy = PolicyWithValue.wrap(model, params.train, base=Path("models/base"), dtype=dtype).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []
    started = time.perf_counter()
    rewards = [[0.0] * (STEPS - 1) + [float(item.solved)] for item in made]
    summary = train_ppo(
        policy, made, rewards, params.train, seed=0, on_metrics=lambda step, metrics: ends.append(time.perf_counter())
    )
    steps = [after - before for before, after in pairwise(ends)]
    rows = sum(len(item.trajectory.steps) for item in made) / STEPS
    if device.type == "cuda":
        where, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    else:
        where, peak = f"{torch.get_num_threads()} threads", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    step = statistics.median(steps)
    print(
        f"{shape} {dtype} on {where}: {rows:.0f} trajectories in {summary['rows']:.0f} rows, "
        f"{ends[-1] - started:.1f} s in all; an optimiser step {step:.2f} s [{min(steps):.2f}, {max(steps):.2f}], "
        f"{summary['tokens'] * params.train.epochs / (ends[-1] - ends[0]):.0f} sampled tokens a second; "
        f"peak memory {peak / 2**30:.1f} GiB",
        flush=True,
    )
    return step


def main(
    shape: Annotated[str, typer.Argument(help=f"One of {', '.join(SHAPES)}.")],
    dtypes: Annotated[list[str], typer.Argument(help="float32, bfloat16: one after the other.")],
    profile: Annotated[Path | None, typer.Option(help="Settings over those of params.yaml.")] = None,
    tasks: Annotated[int, typer.Option(help="Tasks that were attempted.")] = 16,
) -> None:
    """Time PPO's optimiser steps."""
    if shape not in SHAPES:
        raise InputError(f"no shape {shape!r}", where="benchmarks.training", fix=f"name one of {', '.join(SHAPES)}")
    text = apply_profile(Path("params.yaml"), profile) if profile else Path("params.yaml").read_text(encoding="utf-8")
    params = parse_params(Path("params.yaml"), YAML(typ="safe").load(text))
    made = trajectories(tasks, params.sample.attempts, SHAPES[shape]["vocab_size"])
    wanted: list[Dtype] = [params.model.model_copy(update={"dtype": name}).dtype for name in dtypes]  # type: ignore[misc]
    seconds = {name: measure(shape, name, params, made) for name in wanted}
    if len(wanted) > 1:
        again = measure(shape, wanted[0], params, made)
        for name in wanted[1:]:
            faster = [seconds[wanted[0]] / seconds[name], again / seconds[name]]
            print(f"{name} is {min(faster):.2f} to {max(faster):.2f} times as fast as {wanted[0]}")


if __name__ == "__main__":
    be_quiet()
    keep_freed_memory()
    try:
        typer.run(main)
    except StepToolError as error:
        print(f"steptool: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
