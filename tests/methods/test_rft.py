"""Rejection-sampling fine-tuning raises the likelihood of what solved, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steptool.config.settings import RftParams, TrainParams
from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory
from steptool.methods.rft import train_rft
from steptool.training.batch import episode, pack
from steptool.training.model import PolicyWithValue

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]
RFT = RftParams(learning_rate=1e-2, epochs=3)


def test_only_solved_trajectories_count_and_their_likelihood_rises(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams
) -> None:
    summary = train_rft(make_policy(), group, RFT, train_params, seed=1)
    assert (summary["trajectories"], summary["solved"], summary["tokens"]) == (5, 3, 18)
    assert summary["loss_last"] < summary["loss_first"]


def test_first_loss_is_the_mean_negative_logprob(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams
) -> None:
    logged: list[dict[str, float]] = []
    params = train_params.model_copy(update={"minibatches": 1})
    train_rft(make_policy(), group, RFT, params, seed=1, on_metrics=lambda _, m: logged.append(m))
    made = [episode(item, [0.0] * len(item.judgements)) for item in group if item.solved == 1]
    policy, batch = make_policy(), pack([item for item in made if item is not None], 1)
    expected = -torch.cat([policy(row).logprobs.detach() for row in batch.rows]).mean()
    assert logged[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_value_head_is_left_alone(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams
) -> None:
    policy = make_policy()
    train_rft(policy, group, RFT, train_params, seed=1)
    assert not any(parameter.any() for parameter in policy.value_head.parameters())


def test_greedy_solutions_are_welcome(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    assert train_rft(make_policy(), [make_scored([([1], [2])], solved=1, temperature=0)], RFT, train_params, seed=1)


def test_resumed_run_equals_the_undisturbed_one(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams, tmp_path: Path
) -> None:
    def kill(step: int, metrics: dict[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    params = train_params.model_copy(update={"row_tokens": 1})
    with pytest.raises(KeyboardInterrupt):
        train_rft(make_policy(), group, RFT, params, seed=1, on_metrics=kill, checkpoint_dir=tmp_path)
    resumed, undisturbed = make_policy(), make_policy()
    train_rft(resumed, group, RFT, params, seed=1, checkpoint_dir=tmp_path)
    train_rft(undisturbed, group, RFT, params, seed=1)
    for name, parameter in undisturbed.trainable().items():
        assert torch.equal(resumed.trainable()[name], parameter), name


def test_nothing_solved_is_a_data_error(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    with pytest.raises(DataError, match="none of 1 trajectories is solved"):
        train_rft(make_policy(), [make_scored([([1], [2])])], RFT, train_params, seed=1)
