"""Supervised fine-tuning learns the action tokens, and nothing else.

stream   <prompt 1 2 3> <action 4 5> <observation 6 7> <action 8>
loss     .      .  .  .          x x               .  .          x
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from steptool.core.errors import DataError, ModelError
from steptool.formats.json_call import JsonCall
from steptool.methods.sft import Example, Sft, fine_tune
from steptool.policies import tiny_model
from steptool.policies.base_models import fetch_base
from steptool.rewards.paper import Paper
from steptool.testing import call, finish, message, step, task, tool, trajectory
from steptool.training.job import Data, Job

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
    fine_tune(
        base,
        out,
        [Example(ids, own)],
        Sft.Config.model_validate({"learning_rate": 1e-3, "epochs": 1, "batch_size": 1, "frozen_layers": 1} | settings),
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
    with pytest.raises(ModelError, match=r"none above 9 frozen ones(?s:.*)methods\.sft\.frozen_layers below"):
        fit(base, tmp_path / "out", IDS, OWN, frozen_layers=9)


def test_a_base_without_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((base / name).read_bytes())
    with pytest.raises(ModelError, match="tokenizer"):
        fit(broken, tmp_path / "out", IDS, OWN)


FIND = tool("find", needs={"name": "string"})
TASK = task("t1", "Where is it?", FIND)
DEMONSTRATION = trajectory(step(call("find", name="tea"), {"id": 7}), finish("7"), of=TASK, conditions=None)


@pytest.fixture
def data() -> Data:
    chat = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    return Data(chat, Paper(Paper.Config()), demonstrations=[DEMONSTRATION], tasks={TASK.id: TASK})


def test_a_demonstration_is_the_stream_that_a_rollout_with_its_actions_would_be(data: Data) -> None:
    (example,) = Sft(Sft.Config()).examples(data)
    rendered = [data.format.render(each.action) for each in DEMONSTRATION.steps]
    assert [t for t, own in zip(example.ids, example.own, strict=True) if own] == [*rendered[0], *rendered[1]]
    assert tuple(example.ids[: len(data.format.prompt(TASK))]) == data.format.prompt(TASK)


def test_a_job_writes_a_plain_model_and_says_how_it_went(base: Path, tmp_path: Path, data: Data) -> None:
    summary = Sft(Sft.Config(frozen_layers=1)).train(Job(base, tmp_path, data, 1, "float32", 64))
    assert summary["demonstrations"] == 1
    assert summary["loss"] > 0
    assert (tmp_path / "model.safetensors").exists()


def test_what_the_format_cannot_write_is_counted_and_refused_where_nothing_is_left(
    base: Path, tmp_path: Path, data: Data
) -> None:
    """A format of one call an action has no messages to the user."""
    asks = trajectory(step(message("Which one?"), "The tea."), finish("7"), of=TASK, conditions=None)
    summary = Sft(Sft.Config(frozen_layers=1)).train(
        Job(base, tmp_path, replace(data, demonstrations=[DEMONSTRATION, asks]), 1, "float32", 64)
    )
    assert (summary["demonstrations"], summary["unwritable"]) == (1, 1)
    with pytest.raises(DataError, match="can write none of 1 demonstrations") as refused:
        Sft(Sft.Config()).examples(replace(data, demonstrations=[asks]))
    assert "{use: native}" in str(refused.value.fix)


def test_no_demonstration_and_one_of_no_task_are_refused(data: Data) -> None:
    with pytest.raises(DataError, match="no demonstrations to learn from"):
        Sft(Sft.Config()).examples(replace(data, demonstrations=[]))
    with pytest.raises(
        DataError, match=f"1 demonstrations are of no training task, first {DEMONSTRATION.id} of task t1"
    ):
        Sft(Sft.Config()).examples(replace(data, tasks={}))
