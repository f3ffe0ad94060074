"""A random three-layer Llama, and trajectories with given tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from steptool.core.types import ScoredTrajectory, StopReason
from steptool.methods.step_ppo import StepPpo
from steptool.testing import call, conditions, finish, judgement, scored, step, trajectory
from steptool.training.model import AdapterSettings, PolicyWithValue

VOCABULARY = 40

Piece = tuple[Sequence[int], Sequence[int]]
"""Context tokens and action tokens of a step."""
MakeScored = Callable[..., ScoredTrajectory]
MakePolicy = Callable[..., PolicyWithValue]


def tiny_llama(layers: int = 3) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.3,  # attention sharp enough that a wrong mask or position shows
        )
        return LlamaForCausalLM(config)


@pytest.fixture
def config() -> StepPpo.Config:
    return StepPpo.Config(
        baseline="critic",
        clip_low=0.2,
        clip_high=0.28,
        kl_in="none",
        kl_coef=0.0,
        epochs=2,
        minibatches=4,
        lora_first_layer=1,
        lora_rank=2,
        lora_alpha=4,
        value_warmup=3,
        learning_rate=1e-2,
        max_engine_kl=1e6,  # the log-probabilities of made-up trajectories are nobody's
    )


@pytest.fixture
def make_policy(config: StepPpo.Config) -> MakePolicy:
    """A policy whose adapter is not the identity, so that every LoRA weight has a gradient."""

    def make(adapter: AdapterSettings = config, *, seed: int = 5) -> PolicyWithValue:
        policy = PolicyWithValue.wrap(tiny_llama(), adapter, base=Path("models/sft"), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in policy.policy_parameters().values():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return policy

    return make


@pytest.fixture
def make_scored() -> MakeScored:
    """Build a scored trajectory from (context, action) token pieces."""

    def make(
        pieces: Sequence[Piece],
        *,
        task: str = "task",
        attempt: int = 0,
        solved: float | None = 0.0,
        stop: StopReason = StopReason.finished,
        temperature: float = 1.0,
        logprob: float = -3.5,
    ) -> ScoredTrajectory:
        steps = []
        for index, (context, action) in enumerate(pieces):
            last = index == len(pieces) - 1
            tokens: dict[str, Any] = {"context_ids": context, "action_ids": action, "logprobs": logprob}
            if last and stop is StopReason.finished:
                steps.append(finish("yes", **tokens))
            else:
                steps.append(step(call("look"), None if last else "seen", **tokens))
        made = trajectory(
            *steps, of=task, stop=stop, attempt=attempt, conditions=conditions(temperature=temperature, max_tokens=512)
        )
        verdicts = [judgement(success=1, contribution=0) for _ in steps[:-1]]
        return scored(made, *verdicts, *([judgement(solved=solved)] if steps else []))

    return make


@pytest.fixture
def group(make_scored: MakeScored) -> list[ScoredTrajectory]:
    """Two tasks: three attempts that share a prompt, and two that share another."""
    generator = torch.Generator().manual_seed(11)

    def ids(count: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (count,), generator=generator).tolist()

    first, second = ids(7), ids(5)
    return [
        make_scored([(first, ids(3)), (ids(4), ids(2)), (ids(1), ids(3))], task="a", attempt=0, solved=1),
        make_scored([(first, ids(2))], task="a", attempt=1, solved=0),
        make_scored([(first, ids(4)), (ids(6), ids(1))], task="a", attempt=2, solved=1),
        make_scored([(second, ids(2)), (ids(3), ids(2))], task="b", attempt=0, solved=0),
        make_scored([(second, ids(5))], task="b", attempt=1, solved=1),
    ]
