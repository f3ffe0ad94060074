"""Stage `train`: step-grained PPO on the validated trajectories of a round."""

from __future__ import annotations

from pathlib import Path

from steptool.params import load_params
from steptool.rewards.shaping import step_rewards
from steptool.stages.common import MODELS, PARAMS, SFT, VALIDATED, WORK, round_of, stage
from steptool.storage import read_jsonl, write_json
from steptool.training.model import PolicyWithValue
from steptool.training.ppo import train_ppo
from steptool.types import ScoredTrajectory, content_hash


def main(round: str) -> None:
    params = load_params(PARAMS)
    index, settings = round_of(params, round)
    policy, source = Path(settings.policy), VALIDATED / round / "scored.jsonl.gz"
    uses = {"train": params.train, "reward": params.reward, "dtype": params.model.dtype}
    inputs = {"validated": source, "policy": policy, "reference": SFT}
    with stage("train", MODELS / round, params, uses=uses, inputs=inputs, round=round) as running:
        scored = read_jsonl(source, ScoredTrajectory)
        rewards = [step_rewards(s, params.reward, params.train.gamma_step) for s in scored]
        model = PolicyWithValue.load(policy, params.train, dtype=params.model.dtype, seed=params.seed)
        rows: list[dict[str, float]] = []

        def on_metrics(step: int, metrics: dict[str, float]) -> None:
            rows.append({"step": step, **metrics})
            running.run.metrics(step, metrics)

        summary = train_ppo(
            model,
            scored,
            rewards,
            params.train,
            seed=params.seed + index,
            on_metrics=on_metrics,
            checkpoint_dir=WORK / "checkpoints" / f"train-{round}-{content_hash(running.determines)}",
        )
        model.save(running.out)
        write_json(running.out / "training.json", {"summary": summary, "steps": rows})
        running.run.summary(summary)
        running.says(f"PPO on {len(scored)} trajectories, {len(rows)} updates")
