"""A random three-layer Llama, and trajectories with given tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from steptool.config.settings import TrainParams
from steptool.core.types import (
    Judgement,
    Observation,
    Revision,
    Sampling,
    ScoredTrajectory,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
)
from steptool.training.model import PolicyWithValue

VOCABULARY = 40
REVISION = Revision(name="test", revision="0")

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
def train_params() -> TrainParams:
    return TrainParams(
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
        row_tokens=64,
        value_warmup=3,
        learning_rate=1e-2,
        max_engine_kl=1e6,  # the log-probabilities of made-up trajectories are nobody's
    )


@pytest.fixture
def make_policy(train_params: TrainParams) -> MakePolicy:
    """A policy whose adapter is not the identity, so that every LoRA weight has a gradient."""

    def make(params: TrainParams = train_params, *, seed: int = 5) -> PolicyWithValue:
        policy = PolicyWithValue.wrap(tiny_llama(), params, base=Path("models/sft"), seed=seed)
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
        solved: float = 0.0,
        stop: StopReason = StopReason.finished,
        temperature: float = 1.0,
        logprob: float = -3.5,
    ) -> ScoredTrajectory:
        steps = []
        for index, (context, action) in enumerate(pieces):
            last = index == len(pieces) - 1
            steps.append(
                Step(
                    call=ToolCall(name="Finish" if last and stop is StopReason.finished else "look", arguments={}),
                    observation=None if last else Observation(text="seen"),
                    context_ids=tuple(context),
                    action_ids=tuple(action),
                    action_logprobs=(logprob,) * len(action),
                )
            )
        trajectory = Trajectory.create(
            task_id=task,
            subset="G1_instruction",
            steps=tuple(steps),
            stop_reason=stop,
            answer="yes" if stop is StopReason.finished else None,
            policy=REVISION,
            world=REVISION,
            sampling=Sampling(temperature=temperature, top_p=1, max_calls=8, max_step_tokens=64, max_tokens=512),
            seed=0,
            attempt=attempt,
            error=None,
        )
        judgements = [Judgement(success=1, contribution=0) for _ in steps[:-1]]
        if steps:
            judgements.append(Judgement(solved=solved))
        return ScoredTrajectory(trajectory=trajectory, judgements=tuple(judgements), annotator=REVISION)

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
