"""Stage `rft`: the baseline arm. Rejection-sampling fine-tuning on the solved trajectories of every round."""

from __future__ import annotations

from steptool.config.places import PARAMS, RFT, SFT, VALIDATED
from steptool.config.settings import load_params
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.methods.rft import train_rft
from steptool.policies.precision import compute_dtype
from steptool.stages.common import stage
from steptool.stages.fitting import Fitting
from steptool.training.model import PolicyWithValue


def main() -> None:
    params = load_params(PARAMS)
    dtype = compute_dtype(params.model)
    uses = {"rft": params.rft, "train": params.train, "dtype": dtype, "rounds": list(params.rounds)}
    sources = {f"validated {key}": VALIDATED / key / "scored.jsonl.gz" for key in params.rounds}
    with stage("rft", RFT, params, uses=uses, inputs={**sources, "policy": SFT}) as running:
        scored = [s for source in sources.values() for s in read_jsonl(source, ScoredTrajectory)]
        model = PolicyWithValue.load(SFT, params.train, dtype=dtype, seed=params.seed)
        fitting = Fitting(running, "rft")
        summary: dict[str, float] = {"solved": 0}
        if any(item.solved == 1 for item in scored):  # else the arm is what it started from: SFT
            summary = train_rft(
                model,
                scored,
                params.rft,
                params.train,
                seed=params.seed,
                on_metrics=fitting.on_metrics,
                checkpoint_dir=fitting.checkpoint_dir,
            )
        fitting.save(model, summary)
        running.says(
            f"RFT on {summary['solved']:.0f} solved of {len(scored)} trajectories, {len(fitting.steps)} updates"
        )
    fitting.forget()
