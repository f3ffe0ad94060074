"""Stage `train`: step-grained PPO on the validated trajectories of a round."""

from __future__ import annotations

from pathlib import Path

from steptool.config.places import MODELS, PARAMS, SFT, VALIDATED
from steptool.config.settings import TrainParams, load_params
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.methods.step_ppo import train_ppo
from steptool.policies.precision import compute_dtype
from steptool.rewards.shaping import step_rewards
from steptool.stages.common import stage
from steptool.stages.fitting import Fitting
from steptool.stages.rounds import round_of
from steptool.training.model import PolicyWithValue


def main(round: str) -> None:
    params = load_params(PARAMS)
    index, settings = round_of(params, round)
    policy, source = Path(settings.policy), VALIDATED / round / "scored.jsonl.gz"
    train, dtype = of_round(params.train, index), compute_dtype(params.model)
    uses = {"train": train, "reward": params.reward, "dtype": dtype}
    inputs = {"validated": source, "policy": policy, "reference": SFT}
    with stage("train", MODELS / round, params, uses=uses, inputs=inputs, round=round) as running:
        scored = read_jsonl(source, ScoredTrajectory)
        rewards = [step_rewards(s, params.reward, train.gamma_step) for s in scored]
        model = PolicyWithValue.load(policy, train, dtype=dtype, seed=params.seed)
        fitting = Fitting(running, f"train-{round}")
        summary = train_ppo(
            model,
            scored,
            rewards,
            train,
            seed=params.seed + index,
            on_metrics=fitting.on_metrics,
            checkpoint_dir=fitting.checkpoint_dir,
        )
        fitting.save(model, summary)
        running.says(f"PPO on {len(scored)} trajectories, {len(fitting.steps)} updates")
    fitting.forget()


def of_round(train: TrainParams, index: int) -> TrainParams:
    """The settings of a round, counted from 0."""
    return train.model_copy(update={"learning_rate": train.learning_rate * train.round_decay**index})
