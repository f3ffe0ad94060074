"""Rejection-sampling fine-tuning raises the likelihood of what solved, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory
from steptool.formats.episode import encode
from steptool.formats.json_call import JsonCall
from steptool.methods.rft import Rft
from steptool.policies import tiny_model
from steptool.policies.base_models import fetch_base
from steptool.rewards.paper import Paper
from steptool.testing import call, finish, message, scored, step, task, tool, trajectory
from steptool.training.batch import pack
from steptool.training.episode import episode
from steptool.training.job import Data, Job
from steptool.training.model import PolicyWithValue
from tests.training.jobs import fit

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]


@pytest.fixture
def config() -> Rft.Config:
    return Rft.Config(learning_rate=1e-2, epochs=3, minibatches=4, lora_first_layer=1, lora_rank=2, lora_alpha=4)


def test_only_solved_trajectories_count_and_their_likelihood_rises(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: Rft.Config
) -> None:
    summary = fit(make_policy(), Rft(config), group)
    assert (summary["trajectories"], summary["solved"], summary["tokens"]) == (5, 3, 18)
    assert summary["loss_last"] < summary["loss_first"]


def test_first_loss_is_the_mean_negative_logprob(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: Rft.Config
) -> None:
    logged: list[dict[str, float]] = []
    config = config.model_copy(update={"minibatches": 1})
    fit(make_policy(), Rft(config), group, on_metrics=lambda _, m: logged.append(m))
    made = [episode(item, [0.0] * len(item.judgements)) for item in group if item.solved == 1]
    policy, batch = make_policy(), pack([item for item in made if item is not None], 1)
    expected = -torch.cat([policy(row).logprobs.detach() for row in batch.rows]).mean()
    assert logged[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_value_head_is_left_alone(make_policy: MakePolicy, group: list[ScoredTrajectory], config: Rft.Config) -> None:
    policy = make_policy()
    fit(policy, Rft(config), group)
    assert not any(parameter.any() for parameter in policy.value_head.parameters())


def test_what_has_no_verdict_is_left_out(make_policy: MakePolicy, make_scored: MakeScored, config: Rft.Config) -> None:
    scored = [make_scored([([1], [2])], solved=1), make_scored([([1], [3])], solved=None)]
    assert fit(make_policy(), Rft(config), scored)["solved"] == 1


def test_without_any_verdict_there_is_nothing_to_imitate(
    make_policy: MakePolicy, make_scored: MakeScored, config: Rft.Config
) -> None:
    with pytest.raises(DataError, match="none of 1 trajectories has a verdict") as refused:
        fit(make_policy(), Rft(config), [make_scored([([1], [2])], solved=None)])
    assert "`reward: {use: auto}`" in str(refused.value.fix)


def test_imported_attempts_are_imitated_as_the_format_writes_them(config: Rft.Config, tmp_path: Path) -> None:
    asked, answer = task("t1", "Where?", tool("find", needs={"name": "string"})), finish("7")
    solved = trajectory(step(call("find", name="tea"), {"id": 7}), answer, of=asked, conditions=None, solved=1)
    asks = trajectory(step(message("Which one?"), "Tea."), answer, of=asked, conditions=None, solved=1)
    failed = trajectory(answer, of=asked, conditions=None, solved=0)
    chat = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    made = [scored(each) for each in (solved, asks, failed)]
    data = Data(chat, Paper(Paper.Config()), scored=made, tasks={asked.id: asked})
    found = Rft(config).examples(data)
    (only,) = found.episodes
    assert found.counts == {"trajectories": 3, "solved": 1, "unwritable": 1}
    assert only.ids == encode(chat, asked, solved.steps)[0]
    assert only.targets == (*chat.render(solved.steps[0].action), *chat.render(answer.action))
    assert only.step_ids == (0,) * len(chat.render(solved.steps[0].action)) + (1,) * len(chat.render(answer.action))
    assert only.prompt == chat.prompt(asked)
    fetch_base("tiny-random", tmp_path / "base")
    (tmp_path / "out").mkdir()
    summary = Rft(config).train(Job(tmp_path / "base", tmp_path / "out", data, 1, "float32", 8192))
    assert summary["loss_last"] < summary["loss_first"]
    assert (tmp_path / "out" / "canary.json").exists()


def test_greedy_solutions_are_welcome(make_policy: MakePolicy, make_scored: MakeScored, config: Rft.Config) -> None:
    assert fit(make_policy(), Rft(config), [make_scored([([1], [2])], solved=1, temperature=0)])


def test_resumed_run_equals_the_undisturbed_one(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: Rft.Config, tmp_path: Path
) -> None:
    def kill(step: int, metrics: dict[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    method = Rft(config)
    with pytest.raises(KeyboardInterrupt):
        fit(make_policy(), method, group, row_tokens=1, on_metrics=kill, checkpoint_dir=tmp_path)
    resumed, undisturbed = make_policy(), make_policy()
    fit(resumed, method, group, row_tokens=1, checkpoint_dir=tmp_path)
    fit(undisturbed, method, group, row_tokens=1)
    for name, parameter in undisturbed.trainable().items():
        assert torch.equal(resumed.trainable()[name], parameter), name


def test_where_nothing_is_solved_the_policy_stays_what_it_was(
    make_policy: MakePolicy, make_scored: MakeScored, config: Rft.Config
) -> None:
    policy = make_policy()
    assert fit(policy, Rft(config), [make_scored([([1], [2])])]) == {"trajectories": 1, "solved": 0}
    for name, parameter in make_policy().trainable().items():
        assert torch.equal(policy.trainable()[name], parameter), name
