"""PPO as a whole: what it skips, that splits and interruptions change nothing, and that it learns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from steptool.core.errors import DataError, ParamsError, StepToolError, ValidationFailed
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.methods.step_ppo import StepPpo
from steptool.rewards.paper import Paper
from steptool.rewards.potential import Potential
from steptool.testing import call, finish, judgement, step, trajectory
from steptool.testing import scored as scored_of
from steptool.training.advantages import sibling_advantages
from steptool.training.batch import pack
from steptool.training.checkpoint import FILE
from steptool.training.episode import episode
from steptool.training.model import PolicyWithValue
from steptool.training.siblings import Comparison, advantages_of_attempts
from steptool.training.trainer import LowerCache, accumulate, minibatches
from tests.training.jobs import data_of, final_rewards, fit

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]


def weights(policy: PolicyWithValue) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.trainable().items()}


def gradients(
    policy: PolicyWithValue, scored: Sequence[ScoredTrajectory], config: StepPpo.Config, row_tokens: int, parts: int
) -> dict[str, Tensor]:
    """Gradients of one optimiser step whose rows `parts` processes shared, each summing its own."""
    method, data, lower = StepPpo(config), data_of(scored), LowerCache(policy)
    batch = pack(method.examples(data).episodes, row_tokens)
    objective = method.objective(policy, batch, method.prepare(policy, batch, lower, data))
    if parts == 1:
        accumulate(policy, batch, objective, batch.rows, lower)
    else:
        total = float(objective.weights.sum())
        for part in range(parts):
            for row in batch.rows[part::parts]:
                objective.loss(row, policy(row), total)[0].backward()
    return {name: p.grad.clone() for name, p in policy.trainable().items() if p.grad is not None}


@pytest.mark.parametrize("credit", ["token", "step"])
@pytest.mark.parametrize(("row_tokens", "parts"), [(1, 1), (16, 1), (1, 2), (1, 5)])
def test_any_split_into_micro_batches_and_processes_gives_the_same_gradients(
    make_policy: MakePolicy,
    group: list[ScoredTrajectory],
    config: StepPpo.Config,
    credit: str,
    row_tokens: int,
    parts: int,
) -> None:
    config = config.model_copy(update={"credit": credit})
    whole = gradients(make_policy(), group, config, 512, 1)
    split = gradients(make_policy(), group, config, row_tokens, parts)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-5, rtol=1e-3)


def test_first_step_has_ratio_one_and_nothing_clipped(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config
) -> None:
    logged: list[dict[str, float]] = []
    fit(make_policy(), StepPpo(config), group, on_metrics=lambda _, m: logged.append(m))
    assert logged[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert logged[0]["clip_fraction"] == 0
    assert logged[0]["approx_kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kl_to", ["start", "reference"])
def test_divergence_is_from_where_the_round_starts_or_from_before_all_rounds(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config, kl_to: str
) -> None:
    """The policy starts away from its reference. A strong penalty keeps it where it started, or draws it back."""
    logged: list[dict[str, float]] = []
    config = config.model_copy(update={"kl_in": "loss", "kl_to": kl_to, "kl_coef": 30.0, "epochs": 8, "minibatches": 1})
    fit(make_policy(), StepPpo(config), group, row_tokens=512, on_metrics=lambda _, m: logged.append(m))
    found = [metrics[f"kl_to_{kl_to}"] for metrics in logged]
    if kl_to == "start":
        assert found[0] == pytest.approx(0, abs=1e-6)
        assert max(found) < 0.2
    else:
        assert found[0] > 0.05
        assert found[-1] < 0.7 * found[0]


class Killed(Exception):
    pass


@pytest.mark.parametrize("settings", [{}, {"baseline": "branches"}, {"kl_in": "loss", "kl_coef": 0.1}])
def test_killed_after_any_step_and_resumed_it_ends_bit_for_bit_the_same(
    make_policy: MakePolicy,
    group: list[ScoredTrajectory],
    config: StepPpo.Config,
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    method = StepPpo(config.model_copy(update={"minibatches": 2, "epochs": 2, **settings}))

    def run(folder: Path, kill_at: int = 0) -> tuple[dict[str, Tensor], list[dict[str, float]], dict[str, float]]:
        policy, logged = make_policy(), []

        def on_metrics(step: int, metrics: dict[str, float]) -> None:
            logged.append(metrics)
            if step == kill_at:
                raise Killed

        summary = fit(policy, method, group, row_tokens=16, seed=4, on_metrics=on_metrics, checkpoint_dir=folder)
        return weights(policy), logged, summary

    expected, history, summary = run(tmp_path / "undisturbed")
    assert len(history) == 4
    for killed_at in (1, 2, 4):
        folder = tmp_path / str(killed_at)
        with pytest.raises(Killed):
            run(folder, kill_at=killed_at)
        found, resumed, again = run(folder)
        assert resumed == history
        assert again == summary
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (killed_at, name)


CHECKPOINT_FAULTS: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], object]] = {
    "NaN in a tensor": lambda tensors, state: next(iter(tensors.values())).view(-1)[0].fill_(float("nan")),
    "no step": lambda tensors, state: state.pop("step"),
    "no metrics": lambda tensors, state: state.pop("metrics"),
}


@pytest.mark.parametrize("fault", ["another seed", "truncated", "not an object", *CHECKPOINT_FAULTS])
def test_checkpoint_of_another_run_or_a_broken_one_is_not_used(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config, tmp_path: Path, fault: str
) -> None:
    def run(seed: int, folder: Path | None) -> dict[str, Tensor]:
        policy = make_policy()
        fit(policy, StepPpo(config), group, seed=seed, checkpoint_dir=folder)
        return weights(policy)

    run(1 if fault == "another seed" else 2, tmp_path)
    if fault == "truncated":
        path = tmp_path / FILE
        path.write_bytes(path.read_bytes()[:-50])
    if fault == "not an object":
        save_file({"x": torch.ones(1)}, tmp_path / FILE, {"state": "[]"})
    if fault in CHECKPOINT_FAULTS:
        with safe_open(tmp_path / FILE, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
        tensors = load_file(tmp_path / FILE)
        CHECKPOINT_FAULTS[fault](tensors, state)
        save_file(tensors, tmp_path / FILE, {"state": json.dumps(state)})
    found, expected = run(2, tmp_path), run(2, None)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_tasks_are_dealt_once_an_epoch_and_differently_in_each(make_scored: MakeScored) -> None:
    """Five tasks with two attempts each, in two minibatches: three tasks and two, in another order every epoch."""
    made = [
        episode(make_scored([([task, 9], [attempt, 3])], task=str(task), attempt=attempt), [0.0])
        for attempt in range(2)
        for task in range(5)
    ]
    batch = pack([item for item in made if item is not None], 4)
    orders = [
        [[index for row in part for index in row.episodes] for part in minibatches(batch, 2, seed=3, epoch=epoch)]
        for epoch in range(4)
    ]
    for parts in orders:
        assert [len(part) for part in parts] == [6, 4]
        assert sorted(index for part in parts for index in part) == list(range(10))
        assert all({index % 5 for index in part} == {index for index in part if index < 5} for part in parts)
    assert len({tuple(sorted(parts[0])) for parts in orders}) > 1
    assert len(minibatches(batch, 9, seed=3, epoch=0)) == 5


@pytest.mark.parametrize("baseline", ["critic", "branches"])
def test_the_length_of_rows_does_not_change_what_is_learned(
    make_policy: MakePolicy, make_scored: MakeScored, config: StepPpo.Config, baseline: str
) -> None:
    """row_tokens    1: a row a trajectory    16: groups are split    512: a row a minibatch

    Another deal of the tasks does change it, so that the comparison can fail.
    """
    generator = torch.Generator().manual_seed(5)
    scored = []
    for task in range(4):
        prompt = torch.randint(0, 40, (5,), generator=generator).tolist()
        for attempt in range(3):
            action = torch.randint(0, 40, (4,), generator=generator).tolist()
            scored.append(make_scored([(prompt, action)], task=str(task), attempt=attempt, solved=attempt % 2))

    config = config.model_copy(update={"minibatches": 2, "epochs": 2, "baseline": baseline})

    def trained(row_tokens: int, seed: int = 4) -> dict[str, Tensor]:
        policy = make_policy()
        fit(policy, StepPpo(config), scored, row_tokens=row_tokens, seed=seed)
        return weights(policy)

    expected, shuffled = trained(512), trained(512, seed=5)
    for row_tokens in (1, 16):
        found = trained(row_tokens)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=f"{row_tokens}, {name}")
    assert any(not torch.allclose(shuffled[name], tensor, rtol=1e-3, atol=1e-5) for name, tensor in expected.items())


def test_failed_rollouts_are_skipped_and_counted(
    make_policy: MakePolicy, group: list[ScoredTrajectory], make_scored: MakeScored, config: StepPpo.Config
) -> None:
    scored = [*group, make_scored([], stop=StopReason.engine_error)]
    summary = fit(make_policy(), StepPpo(config), scored)
    assert (summary["trajectories"], summary["skipped_empty"], summary["tokens"]) == (6, 1, 24)


def test_tasks_without_contrast_are_skipped_where_attempts_are_the_baseline(
    make_policy: MakePolicy, group: list[ScoredTrajectory], make_scored: MakeScored, config: StepPpo.Config
) -> None:
    scored = [
        *group,
        make_scored([([1], [2])], task="alike", attempt=0, solved=1),
        make_scored([([1], [3])], task="alike", attempt=1, solved=1),
        make_scored([([1], [2])], task="alone", solved=1),
        make_scored([([1], [2])], task="alone", attempt=1, stop=StopReason.world_error),
    ]
    config = config.model_copy(update={"baseline": "attempts"})
    summary = fit(make_policy(), StepPpo(config), scored)
    found = [summary[f"skipped_{why}"] for why in ("empty", "truncated", "alone", "alike")]
    assert found == [0, 1, 1, 2]
    assert summary["tokens"] == 24


def test_nothing_to_learn_from_is_a_data_error(
    make_policy: MakePolicy, make_scored: MakeScored, config: StepPpo.Config
) -> None:
    scored = [make_scored([([1], [2])], attempt=i, solved=1) for i in range(2)]
    config = config.model_copy(update={"baseline": "attempts"})
    with pytest.raises(DataError, match="no trajectory carries a signal"):
        fit(make_policy(), StepPpo(config), scored)


def test_only_the_token_where_attempts_part_is_credited_where_branches_are_the_baseline(
    make_scored: MakeScored,
) -> None:
    """Both act 10, 11 and see 4; then one finishes (30, 31, solved), the other goes on (32, 31) and finishes wrong."""
    solved = make_scored([([1], [10, 11]), ([4], [30, 31])], attempt=0, solved=1)
    failed = make_scored([([1], [10, 11]), ([4], [32, 31]), ([5], [30])], attempt=1, solved=0)
    made = [episode(item, rewards) for item, rewards in ((solved, [0.0, 1.0]), (failed, [0.0, 0.0, 0.0]))]
    episodes = [item for item in made if item is not None]
    advantages = sibling_advantages(pack(episodes, 64), torch.zeros(9), Comparison(lambda_step=1.0), 1.0)
    assert advantages.tolist() == [0, 0, 1, 0, 0, 0, -1, 0, 0]


@pytest.mark.parametrize(
    ("lambda_step", "credit"),
    [
        (1.0, 0.0),  # .2 - .2: what the call earned is taken back when the attempt ends
        (0.5, 0.1),  # .2 - .5 * .2: half of it counts by itself
        (0.0, 0.2),
    ],
)
def test_below_lambda_1_a_call_that_succeeds_is_worth_more_than_none_though_both_attempts_end_wrong(
    make_scored: MakeScored, lambda_step: float, credit: float
) -> None:
    called = make_scored([([1], [10]), ([4], [30])], attempt=0, solved=0)
    answered = make_scored([([1], [30])], attempt=1, solved=0)
    reward = Potential(Potential.Config(alpha=0.2, step_cost=0.0, budget_cost=0.0, gamma=1.0))
    made = [episode(item, reward.rewards(item)) for item in (called, answered)]
    batch = pack([item for item in made if item], 64)
    advantages = sibling_advantages(batch, torch.zeros(3), Comparison(lambda_step=lambda_step), reward.gamma)
    assert advantages.tolist() == pytest.approx([credit, 0, -credit])


@pytest.mark.parametrize(("lambda_step", "sign"), [(1.0, -1), (0.9, 1)])
def test_below_lambda_1_a_potential_puts_off_its_repayment(
    make_scored: MakeScored, lambda_step: float, sign: int
) -> None:
    """The bias. After two calls that succeeded, both attempts end wrong, one of them after a third call that fails:
    -.4 - .02 = -.42 against -.004 - .02 + .891 (-.42) = -.398; at lambda 1 it is -.02 - .02 * .99 - .4 = -.44.
    """
    prefix = [([1], [10]), ([4], [11])]
    short = make_scored([*prefix, ([5], [30])], attempt=0)
    long = make_scored([*prefix, ([5], [12]), ([6], [30])], attempt=1)
    failed = (*long.judgements[:2], judgement(success=0, contribution=0), long.judgements[3])
    long = long.model_copy(update={"judgements": failed})
    reward = Potential(Potential.Config(alpha=0.2, step_cost=0.02, budget_cost=0.2, gamma=0.99))
    made = [episode(item, reward.rewards(item)) for item in (short, long)]
    items, compared = [item for item in made if item], Comparison(lambda_step=lambda_step)
    advantages = advantages_of_attempts(items, [item.rewards for item in items], compared, reward.gamma)
    assert [math.copysign(1, advantages[1][2]), math.copysign(1, advantages[0][2])] == [sign, -sign]
    if lambda_step == 0.9:
        assert advantages[1][2] == pytest.approx((-0.004 - 0.02 + 0.891 * -0.42) + 0.42)


def reads(order: Sequence[str], answer: int, solved: float, attempt: int) -> ScoredTrajectory:
    """An attempt that calls tools named by letters, token 1 for a and so on, and then says `answer`, a token."""
    steps = [step(call(name), f"{name} is read", context_ids=[9], action_ids=[ord(name) - 96]) for name in order]
    made = trajectory(*steps, finish("x", context_ids=[9], action_ids=[answer]), attempt=attempt, solved=solved)
    return scored_of(made)


@pytest.mark.parametrize("merge", ["tokens", "state"])
def test_merged_attempts_are_compared_where_they_know_the_same(merge: str) -> None:
    """A reads a, b and answers 30, solved; B reads b, a and answers 31; C reads a, a, b and answers 31.

    In the state {a, b} the returns are 1, 0, 0 for the answers 30, 31, 31: 3/2 (1 - 1/3) = 1 and 3/2 (0 - 1/3) = -1/2.
    In {a} A takes b; C takes a, then b: 3/2 of (1/2 - 1/3) for b, whose returns are 1 and 0, and of (0 - 1/3) for a.
    """
    items = [
        episode(item, [0.0] * (len(item.judgements) - 1) + [item.solved or 0.0])
        for item in (reads("ab", 30, 1.0, 0), reads("ba", 31, 0.0, 1), reads("aab", 31, 0.0, 2))
    ]
    attempts = [item for item in items if item]
    compared = Comparison.model_validate({"merge": merge, "lambda_step": 1.0})
    found = advantages_of_attempts(attempts, [item.rewards for item in attempts], compared, 1.0)
    first = 3 / 2 * (1 / 2 - 1 / 3)  # a, taken by A and C; b by B: 3/2 (0 - 1/3)
    if merge == "state":
        assert found[0] == pytest.approx([first, first, 1.0])
        assert found[1] == pytest.approx([-1 / 2, 0, -1 / 2])
        assert found[2] == pytest.approx([first, -1 / 2, first, -1 / 2])
    else:
        assert found[0] == pytest.approx([first, 1.0, 0])
        assert found[1] == pytest.approx([-1 / 2, 0, 0])
        assert found[2] == pytest.approx([first, -1.0, 0, 0])


@pytest.mark.parametrize("settings", [{"merge": "state"}, {"smoothing": 1.0}])
@pytest.mark.parametrize("baseline", ["attempts", "critic"])
def test_merging_and_smoothing_are_refused_where_no_branches_are_compared(
    settings: dict[str, Any], baseline: str
) -> None:
    with pytest.raises(ValueError, match="settings of baseline: branches"):
        StepPpo.Config.model_validate({"baseline": baseline, **settings})


def test_attempts_compared_by_step_use_lambda_returns_too(make_scored: MakeScored) -> None:
    """Rewards (.2, 0) and (0, 0), lambda .5: .2 and 0 at the first step; against the other attempt +-.2, then 0."""
    made = [
        episode(make_scored([([1], [first]), ([4], [30])], attempt=n), [reward, 1.0])
        for n, (first, reward) in enumerate([(10, 0.2), (12, 0.0)])
    ]
    items = [item for item in made if item]
    compared = Comparison(baseline="attempts", lambda_step=0.5)
    found = advantages_of_attempts(items, [item.rewards for item in items], compared, 1.0)
    assert found == [pytest.approx([0.2, 0]), pytest.approx([-0.2, 0])]
    longer = advantages_of_attempts(items, [(0.2, 1.0), (0.0, 0.0)], compared, 1.0)  # .2 + .5 against 0
    assert longer[0][0] == pytest.approx(0.7)


def sampled_by(policy: PolicyWithValue, scored: Sequence[ScoredTrajectory], gap: float) -> list[ScoredTrajectory]:
    """The trajectories with the policy's own log-probabilities, off by `gap` nats a token."""
    made = [episode(item, [0.0] * len(item.judgements)) for item in scored]
    batch = pack([item for item in made if item is not None], 512)
    with torch.no_grad():
        (row,) = batch.rows
        own = torch.zeros(batch.tokens)
        own[row.tokens] = policy(row).logprobs
    changed = []
    numbers = iter((own + gap).tolist())
    for item in scored:
        steps = [
            step.model_copy(update={"action_logprobs": tuple(next(numbers) for _ in step.action_ids)})
            for step in item.trajectory.steps
        ]
        changed.append(item.model_copy(update={"trajectory": item.trajectory.model_copy(update={"steps": steps})}))
    return changed


@pytest.mark.parametrize("gap", [-0.4, 0.4, 2.1, float("nan")])
def test_round_that_the_engine_sampled_from_another_distribution_is_not_trained_on(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config, tmp_path: Path, gap: float
) -> None:
    """Of a gap d it is exp(-d) - 1 + d: 0.09 for -0.4, 0.07 for 0.4, 1.22 for 2.1; the bar is 0.05."""
    policy, method, steps = make_policy(), StepPpo(config.model_copy(update={"max_engine_kl": 0.05})), list[int]()
    before = {name: p.detach().clone() for name, p in policy.policy_parameters().items()}
    with pytest.raises(ValidationFailed, match=r"engine_kl is .* methods\.step_ppo\.max_engine_kl = 0\.05") as caught:
        fit(
            policy,
            method,
            sampled_by(policy, group, gap),
            on_metrics=lambda step, metrics: steps.append(step),
            checkpoint_dir=tmp_path,
        )
    assert caught.value.exit_code == 3
    assert not steps
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(p, before[name]) for name, p in policy.policy_parameters().items())


@pytest.mark.parametrize("gap", [0.0, 0.1, -0.1])
def test_round_that_the_engine_sampled_from_this_policy_is_trained_on(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config, gap: float
) -> None:
    policy, method = make_policy(), StepPpo(config.model_copy(update={"max_engine_kl": 0.05}))
    found = fit(policy, method, sampled_by(policy, group, gap))["engine_kl"]
    assert found == pytest.approx(math.expm1(-gap) + gap, abs=1e-5)


def test_greedy_rollouts_are_refused(make_policy: MakePolicy, make_scored: MakeScored, config: StepPpo.Config) -> None:
    with pytest.raises(DataError, match="temperature 0"):
        fit(make_policy(), StepPpo(config), [make_scored([([1], [2])], temperature=0)])


def test_tokens_are_not_discounted_between_the_steps_of_shaped_rewards(
    group: list[ScoredTrajectory], config: StepPpo.Config
) -> None:
    method = StepPpo(config.model_copy(update={"gamma_token": 0.9}))
    shaped = Potential(Potential.Config())
    with pytest.raises(ParamsError, match=r"methods\.step_ppo\.gamma_token is 0\.9, and reward\.use is a potential"):
        method.examples(replace(data_of(group), reward=shaped))
    for reward in (Potential(Potential.Config(alpha=0.0)), Paper(Paper.Config())):
        assert len(method.examples(replace(data_of(group), reward=reward)).episodes) == 5


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"kl_in": "loss", "kl_coef": 0.0}, "kl_coef is above 0 exactly when"),
        ({"kl_in": "none", "kl_coef": 0.1}, "kl_coef is above 0 exactly when"),
        ({"kl_in": "reward", "kl_to": "start"}, "kl_in: reward needs kl_to: reference"),
    ],
)
def test_a_divergence_that_is_asked_for_counts_somewhere(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        StepPpo.Config(**settings)


def test_reward_that_is_not_a_number_names_its_trajectory(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config
) -> None:
    rewards = final_rewards(group)
    rewards[2][-1] = math.nan
    with pytest.raises(DataError, match=f"trajectory {group[2].trajectory.id}: rewards .* not all finite"):
        fit(make_policy(), StepPpo(config), group, rewards)


def test_broken_weights_name_a_trajectory(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config
) -> None:
    policy = make_policy()
    with torch.no_grad():
        next(iter(policy.policy_parameters().values())).fill_(math.nan)
    with pytest.raises(StepToolError, match=r"trajectory [0-9a-f]{16}"):
        fit(policy, StepPpo(config), group)


def test_truncated_trajectory_bootstraps_from_the_state_after_it(
    make_policy: MakePolicy, make_scored: MakeScored, config: StepPpo.Config
) -> None:
    """One token, no reward, gamma 0.5, no warm-up and a head that says 2 everywhere.

    Terminated: A = 0 - 2. Truncated: A = 0 + 0.5 * 2 - 2 = -1.
    """
    method = StepPpo(config.model_copy(update={"value_warmup": 0}))
    for stop, expected in ((StopReason.call_budget, -2.0), (StopReason.world_error, -1.0)):
        policy = make_policy()
        with torch.no_grad():
            policy.value_head.linear.bias.fill_(2)
            policy.value_head.linear.weight.fill_(1e-12)  # not fresh
        data = data_of([make_scored([([1, 2], [3])], stop=stop)], [[0.0]], gamma=0.5)
        batch = pack(method.examples(data).episodes, 64)
        found = method.prepare(policy, batch, LowerCache(policy), data)
        assert found["advantages"].tolist() == pytest.approx([expected], abs=1e-5)


def test_warm_up_explains_returns_that_depend_on_the_prompt(
    make_policy: MakePolicy, make_scored: MakeScored, config: StepPpo.Config
) -> None:
    scored = [make_scored([([p, p], [5, 6])], task=str(p), solved=float(p % 2)) for p in range(10)]
    config = config.model_copy(update={"value_learning_rate": 0.05, "epochs": 1})
    cold, warm = (
        fit(make_policy(), StepPpo(config.model_copy(update={"value_warmup": steps})), scored) for steps in (0, 300)
    )
    assert cold["value_explained_variance"] == pytest.approx(0, abs=1e-6)
    assert warm["value_explained_variance"] > 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"baseline": "attempts"},
        {"baseline": "branches"},
        {"credit": "step"},
        {"kl_in": "reward", "kl_to": "reference", "kl_coef": 0.01},
        {"kl_in": "loss", "kl_coef": 0.01},
    ],
)
def test_rewarded_tokens_become_likelier(
    make_policy: MakePolicy, make_scored: MakeScored, config: StepPpo.Config, settings: dict[str, Any]
) -> None:
    """Two attempts at a task: acting 20 is paid, acting 30 is not."""
    good = make_scored([([1, 2], [20])], attempt=0, solved=1)
    bad = make_scored([([1, 2], [30])], attempt=1, solved=0)
    config = config.model_copy(update={"epochs": 4, "minibatches": 1, **settings})
    policy = make_policy()
    made = [episode(item, [0.0]) for item in (good, bad)]
    (row,) = pack([item for item in made if item is not None], 64).rows
    before = policy(row).logprobs.detach()
    fit(policy, StepPpo(config), [good, bad], [[1.0], [0.0]])
    change = policy(row).logprobs.detach() - before
    assert change[0] > 0.05
    assert change[1] < -0.05


CHANGES: dict[str, Any] = {
    "credit": "step",
    "baseline": "branches",
    "lambda_step": 0.2,
    "gamma_token": 0.5,
    "lambda_token": 0.5,
    "whiten": False,
    "clip_low": 0.01,
    "clip_high": 0.01,
    "importance_cap": 0.5,
    "epochs": 3,
    "minibatches": 1,
    "learning_rate": 2e-2,
    "value_learning_rate": 0.1,
    "value_warmup": 9,
    "value_coef": 0.1,
    "max_grad_norm": 0.01,
    "reward.gamma": 0.5,
}


@pytest.mark.parametrize("knob", CHANGES)
def test_every_knob_changes_the_trained_weights(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config, knob: str
) -> None:
    """`dual_clip`, `kl_*` and `lora_*` have tests of their own."""
    base = config.model_copy(update={"minibatches": 2, "value_learning_rate": 1e-2})
    rewards = [[0.1 * k for k in range(len(r))][:-1] + r[-1:] for r in final_rewards(group)]
    trained = []
    for changes in ({}, {knob: CHANGES[knob]}):
        policy, gamma = make_policy(), changes.pop("reward.gamma", 0.99)
        fit(policy, StepPpo(base.model_copy(update=changes)), group, rewards, gamma=gamma)
        trained.append(weights(policy))
    assert any(not torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
