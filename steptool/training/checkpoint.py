"""State of an interrupted training run: one safetensors file, replaced atomically after each optimiser step.

    meta     fingerprint of what determines the run, cursor, metrics so far
    tensors  adapter and value head, optimizer state, and what was measured before the first step

It holds no random state because none is carried: every draw comes from a generator seeded by (seed, epoch).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from steptool.core.errors import ModelError
from steptool.core.storage import write_bytes
from steptool.core.types import content_hash
from steptool.policies.model_folder import require_finite

FILE = "checkpoint.safetensors"


@dataclass
class Snapshot:
    """`step` optimiser steps are done; `metrics[i]` are those of step i + 1."""

    step: int
    metrics: list[dict[str, float]]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix.`, without it."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}


def fingerprint_of(**parts: Any) -> str:
    """What determines a run, as `name:hash` of each part."""
    return " ".join(f"{name}:{content_hash(value)}" for name, value in parts.items())


def save_snapshot(folder: Path, fingerprint: str, snapshot: Snapshot) -> None:
    meta = {"fingerprint": fingerprint, "step": snapshot.step, "metrics": snapshot.metrics}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()}
    write_bytes(folder / FILE, save(tensors, metadata={"state": json.dumps(meta)}))


def load_snapshot(folder: Path, fingerprint: str) -> Snapshot | None:
    """The snapshot of the same run, or None where there is none, it is of another run, or is broken.

    In each of these cases the run starts over and gives the same result. Of another run, it says what differs.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("state", "{}"))
            if (found := meta.get("fingerprint")) != fingerprint:
                print(f"{path} is of another run ({_differences(found, fingerprint)}): starting over", file=sys.stderr)
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            require_finite(tensors.items(), str(path), "")
            return Snapshot(meta["step"], meta["metrics"], tensors)
    except (SafetensorError, OSError, ModelError, AttributeError, KeyError, ValueError, RecursionError):
        return None


def _differences(found: object, wanted: str) -> str:
    """`other code, other data`, by two fingerprints."""
    kept = set(str(found).split())
    return ", ".join(f"other {part.partition(':')[0]}" for part in wanted.split() if part not in kept)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Adam's state as flat tensors: `<parameter>/<slot>`."""
    return {
        f"{name}/{slot}": torch.as_tensor(value)
        for name, parameter in names.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = names[name]
        state: dict[str, Any] = optimizer.state[parameter]
        state[slot] = value if slot == "step" else value.to(parameter.device)
