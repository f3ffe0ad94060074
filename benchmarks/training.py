"""How fast step-grained PPO and SFT train, and in how much memory: a model's shape, random weights, made-up tokens.

    python -m benchmarks.training smollm2 float32 bfloat16               # two cores
    python -m benchmarks.training smollm2 bfloat16 --plain 3             and against a plain forward and backward pass
    python -m benchmarks.training qwen2.5-7b bfloat16 --profile profiles/qwen2.5-7b-gpu.yaml
    python -m benchmarks.training qwen2.5-7b bfloat16 --profile profiles/qwen2.5-7b-gpu.yaml --method sft

Speed does not depend on what weights and tokens are, so no download is needed. The methods themselves run, with the
settings of params.yaml and those of a profile over them. Types are compared in one run, each with the
first, which is measured once more at the end to show how much the machine changed meanwhile. Without a GPU the peak
memory is that of the process so far, so a type's own is seen by running it alone.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Annotated, Any, cast, get_args

import torch
import typer
from ruamel.yaml import YAML
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks import run
from steptool.config.places import PARAMS
from steptool.config.settings import Params, apply_profile, parse_params
from steptool.core.errors import InputError
from steptool.core.fields import LARGEST
from steptool.core.types import ScoredTrajectory
from steptool.methods.sft import Example, Sft, fine_tune
from steptool.methods.step_ppo import StepPpo
from steptool.policies import tiny_model
from steptool.policies.base_models import save
from steptool.policies.precision import Dtype
from steptool.rewards.paper import Paper
from steptool.system.environment import be_quiet
from steptool.system.memory import keep_freed_memory
from steptool.testing import judgement, scored, step, trajectory, unreadable
from steptool.training.batch import pack
from steptool.training.job import Data, Job, OnMetrics
from steptool.training.model import PolicyWithValue
from steptool.training.trainer import LowerCache, minibatches

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
            steps = [
                step(
                    unreadable("made up"),
                    "" if index < STEPS - 1 else None,
                    context_ids=contexts[index] if index < len(contexts) else ids(REPLY),
                    action_ids=actions[index] if index < len(actions) else ids(ACTION),
                )
                for index in range(STEPS)
            ]
            verdicts = [judgement(success=1, contribution=0)] * (STEPS - 1) + [judgement(solved=attempt % 2)]
            made.append(scored(trajectory(*steps, of=str(task), attempt=attempt), *verdicts))
    return made


def model_of(shape: str, dtype: Dtype, device: torch.device) -> PreTrainedModel:
    settings = dict(SHAPES[shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model


@dataclass(frozen=True)
class Training:
    """Step-grained PPO of a fresh adapter, ready to begin."""

    method: StepPpo
    policy: PolicyWithValue
    job: Job

    def fit(self) -> dict[str, float]:
        return self.method.fit(self.policy, self.job)

    def plain(self) -> None:
        """What no training can do without: the rows of every optimiser step forward and backward, for the
        log-probabilities alone."""
        batch = pack(self.method.examples(self.job.data).episodes, self.job.row_tokens)
        lower, config = LowerCache(self.policy), self.method.config
        for part in minibatches(batch, config.minibatches, self.job.seed, 0):
            for row in part:
                self.policy.upper(row, lower(row)).logprobs.mean().backward()


def ppo(shape: str, dtype: Dtype, params: Params, tasks: int, tick: OnMetrics = lambda step, metrics: None) -> Training:
    made = trajectories(tasks, params.sample.attempts, SHAPES[shape]["vocab_size"])
    config = params.methods["step_ppo"].config if "step_ppo" in params.methods else StepPpo.Config()
    # No engine sampled these tokens, so nothing is to be learned from their log-probabilities.
    method = StepPpo(config.model_copy(update={"max_engine_kl": LARGEST}))
    policy = PolicyWithValue.wrap(model_of(shape, dtype, DEVICE), config, base=Path("models/base")).to(DEVICE)
    verdicts = Paper(Paper.Config(alpha=0.0, step_cost=0.0, budget_cost=0.0))
    data, nowhere = Data(format=cast(Any, None), reward=verdicts, scored=made), Path("nowhere")
    return Training(method, policy, Job(nowhere, nowhere, data, 0, dtype, params.machine.row_tokens, tick))


def run_ppo(shape: str, dtype: Dtype, params: Params, tasks: int, tick: OnMetrics) -> tuple[str, float]:
    """What was trained on, and how many sampled tokens an optimiser step has."""
    training = ppo(shape, dtype, params, tasks, tick)
    summary = training.fit()
    steps = min(training.method.config.minibatches, int(summary["tasks"]))
    return f"{len(training.job.data.scored)} trajectories in {summary['rows']:.0f} rows", summary["tokens"] / steps


def against_plain(shape: str, dtype: Dtype, params: Params, tasks: int, repeats: int) -> list[float]:
    """Speed of a whole training of one epoch as a share of the speed of a plain forward and backward pass over the same
    rows, `repeats` times, the two alternating. Printed as it comes."""
    found = []
    for _ in range(repeats):
        training = ppo(shape, dtype, params, tasks)
        if training.method.config.epochs > 1:
            fix = "set methods.step_ppo.epochs: 1 in the profile, or leave --plain out"
            raise InputError("a plain pass is one epoch", where="benchmarks.training", fix=fix)
        training.plain()  # warm, and not timed
        training.policy.zero_grad(set_to_none=True)
        seconds = [timed(training.plain)]
        training.policy.zero_grad(set_to_none=True)
        seconds.append(timed(training.fit))
        found.append(seconds[0] / seconds[1])
        print(
            f"step_ppo {shape} {dtype}: {len(training.job.data.scored)} trajectories in {seconds[1]:.2f} s, a plain "
            f"forward and backward pass over their rows in {seconds[0]:.2f} s: {found[-1]:.2f} of its speed",
            flush=True,
        )
    return found


def timed(act: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    act()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def run_sft(shape: str, dtype: Dtype, params: Params, tasks: int, tick: OnMetrics) -> tuple[str, float]:
    """As `run_ppo`: one demonstration a task."""
    config = params.methods["sft"].config if "sft" in params.methods else Sft.Config()
    made = [item.trajectory for item in trajectories(tasks, 1, SHAPES[shape]["vocab_size"])]
    examples = [
        Example(
            [token for step in item.steps for token in (*step.context_ids, *step.action_ids)],
            [own for step in item.steps for own in (*(False,) * len(step.context_ids), *(True,) * ACTION)],
        )
        for item in made
    ]
    with tempfile.TemporaryDirectory() as scratch:
        base, out = Path(scratch) / "base", Path(scratch) / "out"
        save(model_of(shape, "bfloat16", DEVICE), tiny_model.tokenizer(), base)
        out.mkdir()
        fine_tune(base, out, examples, config, dtype=dtype, seed=0, on_metrics=tick)
    return f"{len(made)} demonstrations of {len(examples[0].ids)} tokens", STEPS * ACTION * config.batch_size


METHODS = {"step_ppo": run_ppo, "sft": run_sft}


def measure(method: str, shape: str, dtype: Dtype, params: Params, tasks: int) -> float:
    """Print what one training takes; returns its seconds an optimiser step."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []
    what, tokens = METHODS[method](shape, dtype, params, tasks, lambda step, metrics: ends.append(time.perf_counter()))
    steps = [after - before for before, after in pairwise(ends)]
    if DEVICE.type == "cuda":
        where, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    else:
        where, peak = f"{torch.get_num_threads()} threads", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    step = statistics.median(steps)
    print(
        f"{method} {shape} {dtype} on {where}: {what}; an optimiser step {step:.2f} s [{min(steps):.2f}, "
        f"{max(steps):.2f}], {tokens / step:.0f} action tokens a second; peak memory {peak / 2**30:.1f} GiB",
        flush=True,
    )
    return step


def main(
    shape: Annotated[str, typer.Argument(help=f"One of {', '.join(SHAPES)}.")],
    dtypes: Annotated[list[str], typer.Argument(help="float32, bfloat16: one after the other.")],
    profile: Annotated[Path | None, typer.Option(help="Settings over those of params.yaml.")] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "step_ppo",
    tasks: Annotated[int, typer.Option(help="Tasks that were attempted, or demonstrated.")] = 16,
    plain: Annotated[int, typer.Option(help="How often to time step_ppo against a plain pass, after that.")] = 0,
) -> None:
    """Time a method's optimiser steps."""
    if method not in METHODS:
        fix = f"name one of {', '.join(METHODS)}"
        raise InputError(f"no method {method!r}", where="benchmarks.training", fix=fix)
    if shape not in SHAPES:
        raise InputError(f"no shape {shape!r}", where="benchmarks.training", fix=f"name one of {', '.join(SHAPES)}")
    wanted = sorted((name for name in get_args(Dtype) if name in dtypes), key=dtypes.index)
    if unknown := set(dtypes) - set(wanted):
        found = f"no type {', '.join(sorted(unknown))}"
        raise InputError(found, where="benchmarks.training", fix=f"name some of {', '.join(get_args(Dtype))}")
    text = apply_profile(PARAMS, profile) if profile else PARAMS.read_text(encoding="utf-8")
    params = parse_params(PARAMS, YAML(typ="safe").load(text))
    seconds = {name: measure(method, shape, name, params, tasks) for name in wanted}
    first, *others = wanted
    if others:
        again = measure(method, shape, first, params, tasks)
        for name in others:
            faster = [seconds[first] / seconds[name], again / seconds[name]]
            print(f"{name} is {min(faster):.2f} to {max(faster):.2f} times as fast as {first}")
    for name in wanted if plain else ():
        shares = against_plain(shape, name, params, tasks, plain)
        print(f"step_ppo has {min(shares):.2f} to {max(shares):.2f} of the speed of a plain pass in {name}")


if __name__ == "__main__":
    be_quiet()
    keep_freed_memory()
    run(main)
