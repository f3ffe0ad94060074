"""What `train` and `rft` share around their trainers: metrics, checkpoints, and the folder that they write."""

from __future__ import annotations

import shutil
from pathlib import Path

from steptool.config.places import WORK
from steptool.core.storage import write_json
from steptool.core.types import content_hash
from steptool.stages.common import Stage
from steptool.training.model import PolicyWithValue


class Fitting:
    """The record of one training; `label` names its checkpoints."""

    def __init__(self, running: Stage, label: str) -> None:
        self._label = label
        self.checkpoint_dir: Path = WORK / "checkpoints" / f"{label}-{content_hash(running.determines)}"
        self.steps: list[dict[str, float]] = []
        self._running = running

    def on_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append({"step": step, **metrics})
        self._running.run.metrics(step, metrics)

    def save(self, model: PolicyWithValue, summary: dict[str, float]) -> None:
        """Write the policy folder, and training.json with the summary and one row an optimiser step."""
        model.save(self._running.out)
        write_json(self._running.out / "training.json", {"summary": summary, "steps": self.steps})
        self._running.run.summary(summary)

    def forget(self) -> None:
        """Remove the checkpoints of this training, those of earlier settings too, once its output is in place."""
        for folder in self.checkpoint_dir.parent.glob(f"{self._label}-*"):
            shutil.rmtree(folder)
