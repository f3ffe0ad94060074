"""PPO as a whole: what it skips, that splits and interruptions change nothing, and that it learns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from steptool.config.settings import RewardParams, TrainParams
from steptool.core.errors import DataError, StepToolError, ValidationFailed
from steptool.core.types import Judgement, ScoredTrajectory, StopReason
from steptool.methods.step_ppo import PpoObjective, train_ppo
from steptool.rewards.shaping import step_rewards
from steptool.training.batch import episode, pack
from steptool.training.checkpoint import FILE
from steptool.training.measure import against_siblings, compared, prepare
from steptool.training.model import PolicyWithValue
from steptool.training.trainer import LowerCache, accumulate, minibatches

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]


def final_rewards(scored: Sequence[ScoredTrajectory]) -> list[list[float]]:
    return [[0.0] * (len(s.judgements) - 1) + [s.solved] if s.judgements else [] for s in scored]


def weights(policy: PolicyWithValue) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.trainable().items()}


def gradients(
    policy: PolicyWithValue, scored: Sequence[ScoredTrajectory], params: TrainParams, parts: int
) -> dict[str, Tensor]:
    """Gradients of one optimiser step whose rows `parts` processes shared, each summing its own."""
    made = [episode(item, reward) for item, reward in zip(scored, final_rewards(scored), strict=True)]
    batch = pack([item for item in made if item is not None], params.row_tokens)
    lower = LowerCache(policy)
    objective = PpoObjective.create(policy.value_head, batch, params, prepare(policy, batch, params, lower))
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
    train_params: TrainParams,
    credit: str,
    row_tokens: int,
    parts: int,
) -> None:
    params = train_params.model_copy(update={"credit": credit, "row_tokens": 512})
    whole = gradients(make_policy(), group, params, 1)
    split = gradients(make_policy(), group, params.model_copy(update={"row_tokens": row_tokens}), parts)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-5, rtol=1e-3)


def test_first_step_has_ratio_one_and_nothing_clipped(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams
) -> None:
    logged: list[dict[str, float]] = []
    train_ppo(
        make_policy(), group, final_rewards(group), train_params, seed=1, on_metrics=lambda _, m: logged.append(m)
    )
    assert logged[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert logged[0]["clip_fraction"] == 0
    assert logged[0]["approx_kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kl_to", ["start", "reference"])
def test_divergence_is_from_where_the_round_starts_or_from_before_all_rounds(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams, kl_to: str
) -> None:
    """The policy starts away from its reference. A strong penalty keeps it where it started, or draws it back."""
    logged: list[dict[str, float]] = []
    params = train_params.model_copy(
        update={"kl_in": "loss", "kl_to": kl_to, "kl_coef": 30.0, "epochs": 8, "minibatches": 1, "row_tokens": 512}
    )
    train_ppo(make_policy(), group, final_rewards(group), params, seed=1, on_metrics=lambda _, m: logged.append(m))
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
    train_params: TrainParams,
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    params = train_params.model_copy(update={"row_tokens": 16, "minibatches": 2, "epochs": 2, **settings})

    def run(folder: Path, kill_at: int = 0) -> tuple[dict[str, Tensor], list[dict[str, float]], dict[str, float]]:
        policy, logged = make_policy(params), []

        def on_metrics(step: int, metrics: dict[str, float]) -> None:
            logged.append(metrics)
            if step == kill_at:
                raise Killed

        summary = train_ppo(
            policy, group, final_rewards(group), params, seed=4, on_metrics=on_metrics, checkpoint_dir=folder
        )
        return weights(policy), logged, summary

    expected, history, summary = run(tmp_path / "undisturbed")
    assert len(history) == 4
    for step in (1, 2, 4):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            run(folder, kill_at=step)
        found, resumed, again = run(folder)
        assert resumed == history
        assert again == summary
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (step, name)


CHECKPOINT_FAULTS: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], object]] = {
    "NaN in a tensor": lambda tensors, state: next(iter(tensors.values())).view(-1)[0].fill_(float("nan")),
    "no step": lambda tensors, state: state.pop("step"),
    "no metrics": lambda tensors, state: state.pop("metrics"),
}


@pytest.mark.parametrize("fault", ["another seed", "truncated", "not an object", *CHECKPOINT_FAULTS])
def test_checkpoint_of_another_run_or_a_broken_one_is_not_used(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams, tmp_path: Path, fault: str
) -> None:
    def run(seed: int, folder: Path | None) -> dict[str, Tensor]:
        policy = make_policy()
        train_ppo(policy, group, final_rewards(group), train_params, seed=seed, checkpoint_dir=folder)
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
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams, baseline: str
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

    def trained(row_tokens: int, seed: int = 4) -> dict[str, Tensor]:
        settings = {"row_tokens": row_tokens, "minibatches": 2, "epochs": 2, "baseline": baseline}
        params = train_params.model_copy(update=settings)
        policy = make_policy(params)
        train_ppo(policy, scored, final_rewards(scored), params, seed=seed)
        return weights(policy)

    expected, shuffled = trained(512), trained(512, seed=5)
    for row_tokens in (1, 16):
        found = trained(row_tokens)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=f"{row_tokens}, {name}")
    assert any(not torch.allclose(shuffled[name], tensor, rtol=1e-3, atol=1e-5) for name, tensor in expected.items())


def test_failed_rollouts_are_skipped_and_counted(
    make_policy: MakePolicy, group: list[ScoredTrajectory], make_scored: MakeScored, train_params: TrainParams
) -> None:
    scored = [*group, make_scored([], stop=StopReason.engine_error)]
    summary = train_ppo(make_policy(), scored, final_rewards(scored), train_params, seed=1)
    assert (summary["trajectories"], summary["skipped_empty"], summary["tokens"]) == (6, 1, 24)


def test_tasks_without_contrast_are_skipped_where_attempts_are_the_baseline(
    make_policy: MakePolicy, group: list[ScoredTrajectory], make_scored: MakeScored, train_params: TrainParams
) -> None:
    scored = [
        *group,
        make_scored([([1], [2])], task="alike", attempt=0, solved=1),
        make_scored([([1], [3])], task="alike", attempt=1, solved=1),
        make_scored([([1], [2])], task="alone", solved=1),
        make_scored([([1], [2])], task="alone", attempt=1, stop=StopReason.world_error),
    ]
    params = train_params.model_copy(update={"baseline": "attempts"})
    summary = train_ppo(make_policy(), scored, final_rewards(scored), params, seed=1)
    found = [summary[f"skipped_{why}"] for why in ("empty", "truncated", "alone", "alike")]
    assert found == [0, 1, 1, 2]
    assert summary["tokens"] == 24


def test_nothing_to_learn_from_is_a_data_error(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    scored = [make_scored([([1], [2])], attempt=i, solved=1) for i in range(2)]
    params = train_params.model_copy(update={"baseline": "attempts"})
    with pytest.raises(DataError, match="no trajectory carries a signal"):
        train_ppo(make_policy(), scored, final_rewards(scored), params, seed=1)


def test_only_the_token_where_attempts_part_is_credited_where_branches_are_the_baseline(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    """Both act 10, 11 and see 4; then one finishes (30, 31, solved), the other goes on (32, 31) and finishes wrong."""
    solved = make_scored([([1], [10, 11]), ([4], [30, 31])], attempt=0, solved=1)
    failed = make_scored([([1], [10, 11]), ([4], [32, 31]), ([5], [30])], attempt=1, solved=0)
    made = [episode(item, rewards) for item, rewards in ((solved, [0.0, 1.0]), (failed, [0.0, 0.0, 0.0]))]
    episodes = [item for item in made if item is not None]
    params = train_params.model_copy(update={"baseline": "branches", "gamma_step": 1.0, "lambda_step": 1.0})
    advantages = against_siblings(pack(episodes, 64), torch.zeros(9), params)
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
    reward = RewardParams(form="potential", alpha=0.2, step_cost=0.0, budget_cost=0.0)
    made = [episode(item, step_rewards(item, reward, 1.0)) for item in (called, answered)]
    params = TrainParams(baseline="branches", gamma_step=1.0, lambda_step=lambda_step)
    advantages = against_siblings(pack([item for item in made if item], 64), torch.zeros(3), params)
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
    failed = (*long.judgements[:2], Judgement(success=0, contribution=0), long.judgements[3])
    long = long.model_copy(update={"judgements": failed})
    reward = RewardParams(form="potential", alpha=0.2, step_cost=0.02, budget_cost=0.2)
    params = TrainParams(baseline="branches", gamma_step=0.99, lambda_step=lambda_step)
    made = [episode(item, step_rewards(item, reward, params.gamma_step)) for item in (short, long)]
    advantages = compared([item for item in made if item], [item.rewards for item in made if item], params)
    assert [math.copysign(1, advantages[1][2]), math.copysign(1, advantages[0][2])] == [sign, -sign]
    if lambda_step == 0.9:
        assert advantages[1][2] == pytest.approx((-0.004 - 0.02 + 0.891 * -0.42) + 0.42)


def test_attempts_compared_by_step_use_lambda_returns_too(make_scored: MakeScored) -> None:
    """Rewards (.2, 0) and (0, 0), lambda .5: .2 and 0 at the first step; against the other attempt +-.2, then 0."""
    made = [
        episode(make_scored([([1], [first]), ([4], [30])], attempt=n), [reward, 1.0])
        for n, (first, reward) in enumerate([(10, 0.2), (12, 0.0)])
    ]
    items = [item for item in made if item]
    params = TrainParams(baseline="attempts", gamma_step=1.0, lambda_step=0.5)
    found = compared(items, [item.rewards for item in items], params)
    assert found == [pytest.approx([0.2, 0]), pytest.approx([-0.2, 0])]
    longer = compared(items, [(0.2, 1.0), (0.0, 0.0)], params)  # .2 + .5 against 0
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
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams, tmp_path: Path, gap: float
) -> None:
    """Of a gap d it is exp(-d) - 1 + d: 0.09 for -0.4, 0.07 for 0.4, 1.22 for 2.1; the bar is 0.05."""
    policy, params, steps = make_policy(), train_params.model_copy(update={"max_engine_kl": 0.05}), []
    before = {name: p.detach().clone() for name, p in policy.policy_parameters().items()}
    with pytest.raises(ValidationFailed, match=r"engine_kl is .* train\.max_engine_kl = 0\.05") as caught:
        train_ppo(
            policy,
            sampled_by(policy, group, gap),
            final_rewards(group),
            params,
            seed=1,
            on_metrics=lambda step, metrics: steps.append(step),
            checkpoint_dir=tmp_path,
        )
    assert caught.value.exit_code == 3
    assert not steps
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(p, before[name]) for name, p in policy.policy_parameters().items())


@pytest.mark.parametrize("gap", [0.0, 0.1, -0.1])
def test_round_that_the_engine_sampled_from_this_policy_is_trained_on(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams, gap: float
) -> None:
    policy, params = make_policy(), train_params.model_copy(update={"max_engine_kl": 0.05})
    found = train_ppo(policy, sampled_by(policy, group, gap), final_rewards(group), params, seed=1)["engine_kl"]
    assert found == pytest.approx(math.expm1(-gap) + gap, abs=1e-5)


def test_greedy_rollouts_are_refused(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    with pytest.raises(DataError, match="temperature 0"):
        train_ppo(make_policy(), [make_scored([([1], [2])], temperature=0)], [[1.0]], train_params, seed=1)


def test_reward_that_is_not_a_number_names_its_trajectory(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams
) -> None:
    rewards = final_rewards(group)
    rewards[2][-1] = math.nan
    with pytest.raises(DataError, match=f"trajectory {group[2].trajectory.id}: rewards .* not all finite"):
        train_ppo(make_policy(), group, rewards, train_params, seed=1)


def test_broken_weights_name_a_trajectory(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams
) -> None:
    policy = make_policy()
    with torch.no_grad():
        next(iter(policy.policy_parameters().values())).fill_(math.nan)
    with pytest.raises(StepToolError, match=r"trajectory [0-9a-f]{16}"):
        train_ppo(policy, group, final_rewards(group), train_params, seed=1)


def test_truncated_trajectory_bootstraps_from_the_state_after_it(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    """One token, no reward, gamma 0.5, no warm-up and a head that says 2 everywhere.

    Terminated: A = 0 - 2. Truncated: A = 0 + 0.5 * 2 - 2 = -1.
    """
    params = train_params.model_copy(update={"gamma_step": 0.5, "value_warmup": 0})
    for stop, expected in ((StopReason.call_budget, -2.0), (StopReason.world_error, -1.0)):
        policy = make_policy()
        with torch.no_grad():
            policy.value_head.linear.bias.fill_(2)
            policy.value_head.linear.weight.fill_(1e-12)  # not fresh
        made = episode(make_scored([([1, 2], [3])], stop=stop), [0.0])
        assert made is not None
        batch = pack([made], 64)
        found = prepare(policy, batch, params, LowerCache(policy))
        assert found["advantages"].tolist() == pytest.approx([expected], abs=1e-5)


def test_warm_up_explains_returns_that_depend_on_the_prompt(
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams
) -> None:
    scored = [make_scored([([p, p], [5, 6])], task=str(p), solved=float(p % 2)) for p in range(10)]
    params = train_params.model_copy(update={"value_warmup": 300, "value_learning_rate": 0.05, "epochs": 1})
    cold = train_ppo(
        make_policy(), scored, final_rewards(scored), params.model_copy(update={"value_warmup": 0}), seed=1
    )
    warm = train_ppo(make_policy(), scored, final_rewards(scored), params, seed=1)
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
    make_policy: MakePolicy, make_scored: MakeScored, train_params: TrainParams, settings: dict[str, Any]
) -> None:
    """Two attempts at a task: acting 20 is paid, acting 30 is not."""
    good = make_scored([([1, 2], [20])], attempt=0, solved=1)
    bad = make_scored([([1, 2], [30])], attempt=1, solved=0)
    params = train_params.model_copy(update={"epochs": 4, "minibatches": 1, **settings})
    policy = make_policy(params)
    made = [episode(item, [0.0]) for item in (good, bad)]
    (row,) = pack([item for item in made if item is not None], 64).rows
    before = policy(row).logprobs.detach()
    train_ppo(policy, [good, bad], [[1.0], [0.0]], params, seed=1)
    change = policy(row).logprobs.detach() - before
    assert change[0] > 0.05
    assert change[1] < -0.05


CHANGES: dict[str, Any] = {
    "credit": "step",
    "baseline": "branches",
    "gamma_step": 0.5,
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
    "row_tokens": 100,
}


@pytest.mark.parametrize("knob", CHANGES)
def test_every_knob_changes_the_trained_weights(
    make_policy: MakePolicy, group: list[ScoredTrajectory], train_params: TrainParams, knob: str
) -> None:
    """`dual_clip`, `kl_*` and `lora_*` have tests of their own."""
    base = train_params.model_copy(update={"row_tokens": 16, "minibatches": 2, "value_learning_rate": 1e-2})
    rewards = [[0.1 * k for k in range(len(r))][:-1] + r[-1:] for r in final_rewards(group)]
    trained = []
    for params in (base, base.model_copy(update={knob: CHANGES[knob]})):
        policy = make_policy(params)
        train_ppo(policy, group, rewards, params, seed=1)
        trained.append(weights(policy))
    assert any(not torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
