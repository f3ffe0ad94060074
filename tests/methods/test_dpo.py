"""Direct preference optimisation learns from pairs alone, and to where its closed form says.

`group` (tests/training/conftest.py)    task a: attempts 0 and 2 solved, 1 not      task b: attempt 1 solved, 0 not
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.formats.episode import encode
from steptool.formats.json_call import JsonCall
from steptool.methods.dpo import Dpo, spread, where_they_part
from steptool.policies import tiny_model
from steptool.rewards.paper import Paper
from steptool.testing import call, finish, scored, step, task, tool, trajectory
from steptool.training.batch import pack
from steptool.training.episode import Episode
from steptool.training.job import Data
from steptool.training.model import PolicyWithValue
from tests.training.jobs import data_of, fit

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]
TINY = {"lora_first_layer": 1, "lora_rank": 2, "lora_alpha": 4}


def dpo(**settings: object) -> Dpo:
    return Dpo(Dpo.Config.model_validate({"learning_rate": 1e-2, "epochs": 4, "minibatches": 2, **TINY, **settings}))


def test_pairs_are_a_solved_and_an_unsolved_attempt_at_one_task_in_one_row(group: list[ScoredTrajectory]) -> None:
    examples = dpo().examples(data_of(group))
    solved = {item.trajectory.id: item.solved for item in group}
    assert examples.counts == {"trajectories": 5, "broken": 0, "unjudged": 0, "unwritable": 0, "pairs": 3}
    assert [solved[one.trajectory_id] for one in examples.episodes] == [1, 0, 1, 0, 1, 0]
    assert [one.task_id for one in examples.episodes] == ["a"] * 4 + ["b"] * 2
    for row_tokens in (1, 16, 512):
        for row in pack(examples.episodes, row_tokens, examples.together).rows:
            assert {index ^ 1 for index in row.episodes} == set(row.episodes)


def test_the_loss_starts_at_ln_2_and_pairs_are_told_apart_in_the_end(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    summary = fit(make_policy(), dpo(beta=0.5, minibatches=1), group)
    assert summary["loss_first"] == pytest.approx(math.log(2))
    assert summary["loss_last"] < 0.5
    assert summary["accuracy_last"] == 1


def test_the_first_gradient_is_that_of_the_difference_of_the_log_probabilities(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    """At the start σ is 1/2, so the gradient is −β/2 of that of s(better) − s(worse), plus imitation."""
    method, policy = dpo(beta=0.3, imitation=0.7), make_policy()
    examples = method.examples(data_of(group))
    batch = pack(examples.episodes, 512, examples.together)
    (row,) = batch.rows
    logprobs = policy(row).logprobs[row.tokens.argsort()]
    objective = method.objective(policy, batch, {"before": logprobs.detach()})
    loss, _ = objective.loss(row, policy(row), float(objective.weights.sum()))
    sums = [logprobs[batch.tokens_of(index)].sum() for index in range(6)]
    means = [logprobs[batch.tokens_of(index)].mean() for index in (0, 2, 4)]
    margin = (sums[0] - sums[1] + sums[2] - sums[3] + sums[4] - sums[5]) / 3
    expected = -0.3 / 2 * margin - 0.7 * sum(means) / 3
    parameters = list(policy.policy_parameters().values())
    found = torch.autograd.grad(loss, parameters)
    for mine, theirs in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["attempts", "steps"])
def test_the_policy_ends_where_the_closed_form_is(kind: str, make_policy: MakePolicy, make_scored: MakeScored) -> None:
    """Where x is preferred to y in three of four pairs, β (change of log π(x) / π(y)) = logit(3/4) = ln 3."""
    x, y = [7, 9], [8, 9]
    scored = [
        make_scored([([1, 2], action)], task=f"task {number}", attempt=attempt, solved=(action is x) == (number > 0))
        for number in range(4)
        for attempt, action in enumerate((x, y))
    ]
    policy = make_policy()
    streams = [[1, 2, *x], [1, 2, *y]]

    def odds() -> float:
        (_, *one), (_, *two) = policy.logprobs(streams)
        return sum(one) - sum(two)

    before = odds()
    fit(policy, dpo(pairs=kind, beta=0.5, epochs=150, minibatches=1), scored)
    assert 0.5 * (odds() - before) == pytest.approx(math.log(3), abs=0.02)


def test_of_steps_only_the_two_actions_where_attempts_part_are_learned_from(make_scored: MakeScored) -> None:
    """better  1 2 |3 4| 5 |6 7 9| 5 |8|       worse  1 2 |3 4| 5 |6 8|    the second action, from its second token"""
    better = make_scored([([1, 2], [3, 4]), ([5], [6, 7, 9]), ([5], [8])], solved=1)
    worse = make_scored([([1, 2], [3, 4]), ([5], [6, 8])], attempt=1)
    one, two = dpo(pairs="steps").examples(data_of([better, worse])).episodes
    assert (one.ids, one.targets, one.step_ids) == ((1, 2, 3, 4, 5, 6, 7, 9), (7, 9), (0, 0))
    assert (two.ids, two.targets, two.step_ids) == ((1, 2, 3, 4, 5, 6, 8), (8,), (0,))
    pack([one, two], 64, [(0, 1)])


def test_attempts_that_the_world_made_different_are_no_pair_of_steps(make_scored: MakeScored) -> None:
    lucky = make_scored([([1], [2]), ([3], [4])], solved=1)
    unlucky = make_scored([([1], [2]), ([5], [4])], attempt=1)
    with pytest.raises(DataError, match="part by what the world replied"):
        dpo(pairs="steps").examples(data_of([lucky, unlucky]))
    assert dpo().examples(data_of([lucky, unlucky])).counts["pairs"] == 1
    other = make_scored([([1], [6])], attempt=2)
    counts = dpo(pairs="steps").examples(data_of([lucky, unlucky, other])).counts
    assert (counts["pairs"], counts["parted_by_world"]) == (1, 1)


def test_an_attempt_that_ends_where_another_goes_on_does_not_part_from_it(make_scored: MakeScored) -> None:
    def stream(*pieces: tuple[list[int], list[int]]) -> Episode:
        return dpo().examples(data_of([make_scored(pieces, solved=1), make_scored([([1], [39])])])).episodes[0]

    assert where_they_part(stream(([1], [2])), stream(([1], [2]), ([3], [4]))) is None


def test_attempts_occur_about_equally_often_in_the_pairs_of_a_task(make_scored: MakeScored) -> None:
    scored = [make_scored([([1], [token])], solved=token < 12, attempt=token) for token in range(10, 14)]
    assert dpo(most_pairs=3).examples(data_of(scored)).counts["pairs"] == 3
    examples = dpo(most_pairs=2).examples(data_of(scored))
    assert [one.targets for one in examples.episodes] == [(10,), (12,), (11,), (13,)]
    assert spread([], 3) == []


def test_without_verdicts_returns_say_which_is_the_better_one(make_policy: MakePolicy, make_scored: MakeScored) -> None:
    scored = [make_scored([([1], [2]), ([3], [4])], solved=None), make_scored([([1], [5])], solved=None, attempt=1)]
    with pytest.raises(DataError, match="none of 2 trajectories has a verdict") as refused:
        fit(make_policy(), dpo(), scored)
    assert "prefer: return" in str(refused.value.fix)
    data = data_of(scored, [[0.5, 0.0], [0.4]])
    first, second = dpo(prefer="return").examples(data).episodes
    assert (first.targets, second.targets) == ((2, 4), (5,))
    later = data_of(scored, [[0.0, 0.5], [0.5]], gamma=0.9)
    assert dpo(prefer="return").examples(later).episodes[0].targets == (5,)
    with pytest.raises(DataError, match="at every task all came out alike"):
        dpo(prefer="return").examples(data_of(scored, [[0.25, 0.25], [0.5]], gamma=1.0))


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_where_all_came_out_alike_there_is_no_pair(verdict: float, make_scored: MakeScored) -> None:
    scored = [make_scored([([1], [token])], solved=verdict, attempt=token) for token in (2, 3)]
    with pytest.raises(
        DataError, match="no two of 2 attempts make a pair: at every task all came out alike, or there is one alone"
    ) as error:
        dpo().examples(data_of(scored))
    assert "sample.attempts" in str(error.value.fix)


def test_same_tokens_with_other_verdicts_are_no_pair(make_scored: MakeScored) -> None:
    with pytest.raises(DataError, match="no two of 2"):
        dpo().examples(data_of([make_scored([([1], [2])], solved=1), make_scored([([1], [2])], attempt=1)]))


def test_faults_that_nobody_of_the_policy_made_and_missing_verdicts_are_counted(
    group: list[ScoredTrajectory], make_scored: MakeScored
) -> None:
    broken = make_scored([([1], [2])], task="a", attempt=8, stop=StopReason.engine_error)
    unknown = make_scored([([1], [2])], task="b", attempt=9, solved=None)
    counts = dpo().examples(data_of([*group, broken, unknown])).counts
    assert counts == {"trajectories": 7, "broken": 1, "unjudged": 1, "unwritable": 0, "pairs": 3}


def test_imported_attempts_make_pairs_as_the_format_writes_them() -> None:
    asked = task("t1", "Where?", tool("find", needs={"name": "string"}))
    solved = trajectory(step(call("find", name="tea"), {"id": 7}), finish("7"), of=asked, conditions=None, solved=1)
    failed = trajectory(finish("9"), of=asked, conditions=None, solved=0)
    chat = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    data = Data(chat, Paper(Paper.Config()), scored=[scored(failed), scored(solved)], tasks={asked.id: asked})
    better, worse = dpo().examples(data).episodes
    assert (better.ids, worse.ids) == (encode(chat, asked, solved.steps)[0], encode(chat, asked, failed.steps)[0])


def test_the_temperature_of_sampling_has_no_part_in_it(make_scored: MakeScored) -> None:
    scored = [make_scored([([1], [2])], solved=1, temperature=0), make_scored([([1], [3])], temperature=0.5, attempt=1)]
    assert {one.temperature for one in dpo().examples(data_of(scored)).episodes} == {1.0}


def test_the_length_of_rows_does_not_change_what_is_learned(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    trained = []
    for row_tokens in (1, 512):
        policy = make_policy()
        fit(policy, dpo(pairs="steps"), group, row_tokens=row_tokens)
        trained.append(dict(policy.policy_parameters()))
    for name, tensor in trained[0].items():
        torch.testing.assert_close(tensor, trained[1][name], rtol=1e-3, atol=1e-5, msg=name)
