"""Supervised fine-tuning learns the action tokens, and nothing else.

stream   <prompt 1 2 3> <action 4 5> <observation 6 7> <action 8>
loss     .      .  .  .          x x               .  .          x
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from steptool.config.settings import SftParams
from steptool.core.errors import ModelError
from steptool.methods.sft import train_sft
from steptool.policies.base_models import fetch_base

IDS = [11, 12, 13, 14, 15, 16, 17, 18]
OWN = [False, False, False, True, True, False, False, True]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    fetch_base("tiny-random", folder)
    return folder


def fit(base: Path, out: Path, ids: list[int], own: list[bool], **settings: float) -> list[float]:
    losses: list[float] = []
    out.mkdir()
    train_sft(
        base,
        out,
        [(ids, own)],
        SftParams.model_validate({"learning_rate": 1e-3, "epochs": 1, "batch_size": 1, "frozen_layers": 1} | settings),
        dtype="float32",
        seed=0,
        on_metrics=lambda step, metrics: losses.append(metrics["loss"]),
    )
    return losses


def test_the_loss_is_the_mean_over_action_tokens(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        scores = F.log_softmax(model(torch.tensor([IDS])).logits[0].float(), -1)
    expected = -(scores[2, 14] + scores[3, 15] + scores[6, 18]) / 3
    assert fit(base, tmp_path / "out", IDS, OWN)[0] == pytest.approx(float(expected), abs=1e-3)


def test_the_loss_falls(base: Path, tmp_path: Path) -> None:
    losses = fit(base, tmp_path / "out", IDS, OWN, epochs=60, learning_rate=3e-2, frozen_layers=0)
    assert losses[-1] < losses[0] - 1  # nats a token


def test_frozen_layers_and_embeddings_stay(base: Path, tmp_path: Path) -> None:
    fit(base, tmp_path / "out", IDS, OWN, epochs=3, learning_rate=1e-2)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    moved = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert moved
    assert not any("layers.0." in name or "embed" in name for name in moved)


def test_more_frozen_layers_than_there_are_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none above 9 frozen ones(?s:.*)sft\.frozen_layers below"):
        fit(base, tmp_path / "out", IDS, OWN, frozen_layers=9)


def test_a_base_without_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((base / name).read_bytes())
    with pytest.raises(ModelError, match="tokenizer"):
        fit(broken, tmp_path / "out", IDS, OWN)
