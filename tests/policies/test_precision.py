"""The type of the computation: what is asked for, or what the machine is faster with; masters stay exact.

model.dtype   GPU      bfloat16 against float32     computes in
float32       any      any                          float32
bfloat16      any      any                          bfloat16
auto          knows    -                            bfloat16
auto          not      -                            float32
auto          none     2.2 times as fast            bfloat16
auto          none     half as fast                 float32
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steptool.config.settings import ModelParams
from steptool.methods.sft import Example, Sft, fine_tune
from steptool.methods.step_ppo import StepPpo
from steptool.policies import precision
from steptool.policies.base_models import fetch_base
from steptool.policies.precision import compute_dtype
from steptool.training.batch import Row, pack
from steptool.training.episode import episode
from steptool.training.model import PolicyWithValue
from tests.training.conftest import MakeScored, tiny_llama


@pytest.mark.parametrize(
    ("wanted", "gpu", "speedup", "expected"),
    [
        ("float32", True, 9.0, "float32"),
        ("bfloat16", None, 0.1, "bfloat16"),
        ("auto", True, 0.1, "bfloat16"),
        ("auto", False, 9.0, "float32"),
        ("auto", None, 2.2, "bfloat16"),
        ("auto", None, 0.5, "float32"),
    ],
)
def test_the_type_is_what_is_asked_for_or_what_is_faster(
    monkeypatch: pytest.MonkeyPatch, wanted: str, gpu: bool | None, speedup: float, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)
    assert compute_dtype(ModelParams.model_validate({"dtype": wanted})) == expected


def test_the_processor_is_timed_and_the_answer_kept() -> None:
    first = precision.bfloat16_speedup()
    assert 0.01 < first < 100
    assert precision.bfloat16_speedup() == first


def test_updates_too_small_for_bfloat16_add_up(tmp_path: Path) -> None:
    """20 updates of 1e-4 move a weight of .02 by up to 2e-3; one alone is lost between 2 bfloat16 numbers (1.2e-4)."""
    fetch_base("tiny-random", tmp_path / "base")
    (tmp_path / "out").mkdir()
    row = Example([11, 12, 13, 14, 15, 16], [False, False, False, True, True, True])
    settings = Sft.Config(learning_rate=2e-5, epochs=20, batch_size=1, frozen_layers=1)
    fine_tune(
        tmp_path / "base", tmp_path / "out", [row], settings, dtype="bfloat16", seed=0, on_metrics=lambda *_: None
    )
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("base", "out"))
    name = "model.layers.1.mlp.gate_proj.weight"
    moved = (before[name] != after[name]).float().mean()
    assert moved > 0.5


@pytest.fixture
def rounded(config: StepPpo.Config, make_scored: MakeScored) -> tuple[PolicyWithValue, Row]:
    """A policy that computes in bfloat16, and a row with one trajectory."""
    model = tiny_llama().to(torch.bfloat16)
    policy = PolicyWithValue.wrap(model, config, base=Path("models/sft"))
    item = episode(make_scored([((1, 2, 3), (4, 5)), ((6,), (7, 8))], solved=1), [0.0, 1.0])
    assert item is not None
    return policy, pack([item], 64).rows[0]


def test_a_policy_in_bfloat16_trains_an_adapter_in_float32(rounded: tuple[PolicyWithValue, Row]) -> None:
    policy, row = rounded
    output = policy(row)
    output.logprobs.sum().backward()
    assert {p.dtype for p in policy.policy_parameters().values()} == {torch.float32}
    assert output.logprobs.dtype == torch.float32
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.policy_parameters().values())


def test_a_policy_in_bfloat16_is_at_distance_0_from_itself(rounded: tuple[PolicyWithValue, Row]) -> None:
    """Twice the same rounding: the ratio of a policy to itself is 1, its divergence 0, exactly."""
    policy, row = rounded
    lower = policy.lower(row)
    first = policy.upper(row, lower)
    again = policy.upper(row, lower, reference_features=first.features)
    assert torch.equal(first.logprobs, again.logprobs)
    assert again.divergence is not None
    assert torch.equal(again.divergence, torch.zeros_like(again.divergence))
