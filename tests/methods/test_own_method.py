"""A method of a project is one file: examples/plugins/dpo.py, in a folder that is not the package.

task a    attempts 0 and 2 solved, 1 not      pairs (0, 1) (2, 1)
task b    attempt 1 solved, 0 not             pair  (1, 0)
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steptool.core.plugins import load_class
from steptool.core.types import ScoredTrajectory
from steptool.training.batch import pack
from steptool.training.model import PolicyWithValue
from tests.training.jobs import data_of, fit

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]
SETTINGS = {"learning_rate": 1e-2, "epochs": 4, "minibatches": 2, "beta": 0.5}
ADAPTER = {"lora_first_layer": 1, "lora_rank": 2, "lora_alpha": 4}


@pytest.fixture
def dpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    shutil.copyfile(Path(__file__).parents[2] / "examples" / "plugins" / "dpo.py", tmp_path / "my_dpo.py")
    monkeypatch.syspath_prepend(tmp_path)
    cls = load_class("my_dpo:Dpo")
    return cls(cls.Config(**SETTINGS, **ADAPTER))


def weights(policy: PolicyWithValue) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.policy_parameters().items()}


def test_pairs_start_at_ln_2_and_are_told_apart_in_the_end(
    dpo: Any, make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    logged: list[dict[str, float]] = []
    summary = fit(make_policy(), dpo, group, on_metrics=lambda step, metrics: logged.append(metrics))
    assert (summary["trajectories"], summary["pairs"], summary["tasks"]) == (5, 3, 2)
    assert logged[0]["loss"] == pytest.approx(math.log(2))
    assert logged[-1]["loss"] < 0.5
    assert summary["accuracy_last"] == 1


def test_both_of_a_pair_are_in_one_row_however_short_rows_are(dpo: Any, group: list[ScoredTrajectory]) -> None:
    examples = dpo.examples(data_of(group))
    for row_tokens in (1, 16, 512):
        batch = pack(examples.episodes, row_tokens, examples.together)
        for row in batch.rows:
            assert {index ^ 1 for index in row.episodes} == set(row.episodes)
        assert sorted(index for row in batch.rows for index in row.episodes) == list(range(6))


def test_the_length_of_rows_does_not_change_what_is_learned(
    dpo: Any, make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    trained = []
    for row_tokens in (1, 512):
        policy = make_policy()
        fit(policy, dpo, group, row_tokens=row_tokens)
        trained.append(weights(policy))
    for name, tensor in trained[0].items():
        torch.testing.assert_close(tensor, trained[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_training_that_was_killed_ends_with_the_same_weights(
    dpo: Any, make_policy: MakePolicy, group: list[ScoredTrajectory], tmp_path: Path
) -> None:
    """What was measured before the first step comes from the checkpoint: the policy has moved since."""

    def kill(step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_policy(), dpo, group, on_metrics=kill, checkpoint_dir=tmp_path)
    resumed, undisturbed = make_policy(), make_policy()
    fit(resumed, dpo, group, checkpoint_dir=tmp_path)
    fit(undisturbed, dpo, group)
    assert all(torch.equal(weights(resumed)[name], tensor) for name, tensor in weights(undisturbed).items())


def test_where_no_attempt_was_better_than_another_the_policy_stays_what_it_was(
    dpo: Any, make_policy: MakePolicy, make_scored: MakeScored
) -> None:
    policy = make_policy()
    assert fit(policy, dpo, [make_scored([([1], [2])], solved=1)]) == {"trajectories": 1, "pairs": 0}
    assert all(torch.equal(weights(policy)[name], tensor) for name, tensor in weights(make_policy()).items())
