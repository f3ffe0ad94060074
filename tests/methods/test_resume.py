"""Every method, killed at a random moment and started again, ends with the same parameters to the last bit.

A method's row holds its settings beside SETTINGS; where it learns from something else than `group`, its data too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steptool.core.plugins import load_class
from steptool.core.types import ScoredTrajectory
from steptool.methods import base
from steptool.methods.base import AdapterMethod
from steptool.training import checkpoint, trainer
from steptool.training.model import PolicyWithValue
from tests.training.jobs import fit

MakePolicy = Callable[..., PolicyWithValue]

SETTINGS = {"learning_rate": 1e-2, "epochs": 2, "minibatches": 2}
ADAPTER = {"lora_first_layer": 1, "lora_rank": 2, "lora_alpha": 4}
MADE_UP = {"max_engine_kl": 1e6}
"""The log-probabilities of made-up trajectories are nobody's."""


@dataclass(frozen=True)
class Case:
    path: str
    settings: dict[str, Any] = field(default_factory=dict)
    calls_earn: float = 0.0
    """What each step but the last earns."""

    def method(self) -> AdapterMethod:
        cls = load_class(self.path)
        method: AdapterMethod = cls(cls.Config(**SETTINGS, **ADAPTER, **self.settings))
        return method

    def rewards(self, scored: list[ScoredTrajectory]) -> list[list[float]]:
        return [[self.calls_earn] * (len(item.judgements) - 1) + [item.solved or 0.0] for item in scored]


CASES = {
    "step_ppo": Case("steptool.methods.step_ppo:StepPpo", MADE_UP),
    "step_ppo, merged": Case(
        "steptool.methods.step_ppo:StepPpo", {**MADE_UP, "merge": "state", "smoothing": 1.0}, calls_earn=0.1
    ),
    "step_ppo, critic": Case("steptool.methods.step_ppo:StepPpo", {**MADE_UP, "baseline": "critic"}),
    "ppo_final": Case("steptool.methods.ppo_final:PpoFinal", MADE_UP),
    "grpo": Case("steptool.methods.grpo:Grpo", MADE_UP),
    "gigpo": Case("steptool.methods.gigpo:Gigpo", MADE_UP),
    "step_ppo_release": Case("steptool.methods.step_ppo_release:StepPpoRelease", MADE_UP, calls_earn=0.5),
    "rft": Case("steptool.methods.rft:Rft"),
    "dpo": Case("steptool.methods.dpo:Dpo"),
    "dpo, steps": Case("steptool.methods.dpo:Dpo", {"pairs": "steps", "imitation": 0.5}),
    "archer": Case("steptool.methods.archer:Archer", {**MADE_UP, "critic_updates": 20, "critic_batch": 8}),
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Killed(BaseException):
    """As Ctrl-C or a lost machine would: nothing catches it."""


def run(
    case: Case, make_policy: MakePolicy, scored: list[ScoredTrajectory], folder: Path | None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    method = case.method()
    policy = make_policy(method.config)
    summary = fit(policy, method, scored, case.rewards(scored), row_tokens=16, seed=4, checkpoint_dir=folder)
    return {name: p.detach().clone() for name, p in policy.trainable().items()}, summary


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("draw", [0, 1])
def test_killed_at_a_random_moment_and_resumed_it_ends_bit_for_bit_the_same(
    make_policy: MakePolicy,
    group: list[ScoredTrajectory],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    draw: int,
) -> None:
    """A moment is a gradient that was added up, an optimiser step or a checkpoint that was written, whichever comes."""
    case = CASES[name]
    moments = 0
    last = -1

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal moments
            result = function(*arguments, **options)
            if moments == last:
                raise Killed
            moments += 1
            return result

        return call

    for module, what in ((trainer, "accumulate"), (trainer, "save_snapshot"), (checkpoint, "write_bytes")):
        monkeypatch.setattr(module, what, counted(getattr(module, what)))
    monkeypatch.setattr(torch.optim.AdamW, "step", counted(torch.optim.AdamW.step))
    expected, summary = run(case, make_policy, group, tmp_path / "whole")
    in_all, moments = moments, 0
    assert in_all >= 12
    last = random.Random(f"{name} {draw}").randrange(in_all)
    with pytest.raises(Killed):
        run(case, make_policy, group, tmp_path / "killed")
    last = -1
    found, again = run(case, make_policy, group, tmp_path / "killed")
    assert again == summary
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), (last, key)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_of_other_code_is_not_used_and_the_run_says_so(
    make_policy: MakePolicy,
    group: list[ScoredTrajectory],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    case = CASES[name]
    with monkeypatch.context() as changed:
        changed.setattr(base, "code_revision", lambda modules, without: "of yesterday")
        changed.setattr(torch.optim.AdamW, "step", lambda *_, **__: None)  # what it has learned is other, too
        run(case, make_policy, group, tmp_path)
    assert "starting over" not in capsys.readouterr().err
    found, _ = run(case, make_policy, group, tmp_path)
    assert "is of another run (other code): starting over" in capsys.readouterr().err
    expected, _ = run(case, make_policy, group, None)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
