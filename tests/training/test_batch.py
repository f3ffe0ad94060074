"""What a packed row holds, drawn token by token."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steptool.core.errors import DataError
from steptool.core.types import ScoredTrajectory, StopReason
from steptool.training.batch import Row, Span, pack
from steptool.training.credit import Discounts, token_gae
from steptool.training.episode import Episode, episode

MakeScored = Callable[..., ScoredTrajectory]


def stream(scored: ScoredTrajectory) -> Episode:
    made = episode(scored, [0.0] * len(scored.judgements))
    assert made is not None
    return made


def test_attempts_share_their_prompt_in_a_row(make_scored: MakeScored) -> None:
    """Prompt 1 2 3; attempt 0 acts 10 11, sees 4 5, acts 12; attempt 1 acts 20.

    row       1  2  3 | 10 11  4  5 12 | 20
    position  0  1  2 |  3  4  5  6  7 |  3
    predicts       10   11        12
                   20                          (the last prompt position predicts both first tokens)
    token           0    1         2
                    3
    """
    first = make_scored([([1, 2, 3], [10, 11]), ([4, 5], [12])], attempt=0)
    second = make_scored([([1, 2, 3], [20])], attempt=1)
    batch = pack([stream(first), stream(second)], row_tokens=100)
    (row,) = batch.rows
    assert row.input_ids.tolist() == [1, 2, 3, 10, 11, 4, 5, 12, 20]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 3]
    assert row.spans == (Span(0, 8), Span(8, 9, ((0, 3),)))
    assert row.predict.tolist() == [2, 3, 6, 2]
    assert row.targets.tolist() == [10, 11, 12, 20]
    assert row.tokens.tolist() == [0, 1, 2, 3]
    assert row.ends.tolist() == [7, 8]
    assert batch.weights(by_step=False).tolist() == [1, 1, 1, 1]
    assert batch.weights(by_step=True).tolist() == [0.5, 0.5, 1, 1]
    assert batch.first_tokens().tolist() == [1, 0, 1, 1]


def test_what_attempts_begin_with_alike_is_stored_once(make_scored: MakeScored) -> None:
    """All see 4 after acting 10, and act again.

    attempt 0  1 2 | 10 | 4 | 11 12        row       1 2 10 4 11 12 | 13 | 20
    attempt 1  1 2 | 10 | 4 | 11 12        position  0 1  2 3  4  5 |  5 |  2
    attempt 2  1 2 | 10 | 4 | 11 13        index     0 1  2 3  4  5    6    7
    attempt 3  1 2 | 20
    """
    steps = [[([1, 2], [10]), ([4], [11, last])] for last in (12, 12, 13)] + [[([1, 2], [20])]]
    batch = pack([stream(make_scored(each, attempt=i)) for i, each in enumerate(steps)], row_tokens=8)
    (row,) = batch.rows
    assert row.input_ids.tolist() == [1, 2, 10, 4, 11, 12, 13, 20]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 5, 2]
    assert row.spans == (Span(0, 6), Span(6, 7, ((0, 5),)), Span(7, 8, ((0, 2),)))
    assert row.predict.tolist() == [1, 3, 4, 1, 3, 4, 1, 3, 4, 1]
    assert row.targets.tolist() == [10, 11, 12, 10, 11, 12, 10, 11, 13, 20]
    assert row.tokens.tolist() == list(range(10))
    assert row.ends.tolist() == [5, 5, 6, 7]


def test_prefix_may_lie_in_several_places_of_a_row(make_scored: MakeScored) -> None:
    """Attempts 1 | 2 2, 1 | 2 3 3, 1 | 2 3 4: the last one goes on from the branch of the one before."""
    attempts = [
        stream(make_scored([([1], action)], attempt=i)) for i, action in enumerate([[2, 2], [2, 3, 3], [2, 3, 4]])
    ]
    (row,) = pack(attempts, row_tokens=9).rows
    assert row.input_ids.tolist() == [1, 2, 2, 3, 3, 4]
    assert row.spans == (Span(0, 3), Span(3, 5, ((0, 2),)), Span(5, 6, ((0, 2), (3, 4))))


def test_second_task_starts_again_at_position_zero(make_scored: MakeScored) -> None:
    batch = pack([stream(make_scored([([1, 2], [10])])), stream(make_scored([([3], [11])], task="b"))], row_tokens=9)
    (row,) = batch.rows
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert row.spans == (Span(0, 3), Span(3, 5))


def test_group_longer_than_a_row_is_split_and_its_prompt_repeated(make_scored: MakeScored) -> None:
    attempts = [stream(make_scored([([1, 2, 3], [10 + i, 20])], attempt=i)) for i in range(3)]
    batch = pack(attempts, row_tokens=7)
    assert [row.input_ids.tolist() for row in batch.rows] == [[1, 2, 3, 10, 20, 11, 20], [1, 2, 3, 12, 20]]


def test_trajectory_longer_than_a_row_gets_its_own(make_scored: MakeScored) -> None:
    long, short = make_scored([([1] * 20, [2])]), make_scored([([3], [4])], task="b")
    assert [len(row) for row in pack([stream(short), stream(long)], row_tokens=4).rows] == [21, 2]


pieces = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), min_size=1, max_size=4), st.lists(st.integers(10, 19), min_size=1, max_size=3)
    ),
    min_size=1,
    max_size=3,
)


@given(streams=st.lists(st.tuples(st.sampled_from("ab"), pieces), min_size=1, max_size=6), limit=st.integers(1, 40))
def test_every_sampled_token_is_in_exactly_one_row_after_its_own_context(
    streams: list[tuple[str, list[tuple[list[int], list[int]]]]], limit: int
) -> None:
    items = [item(task, index, steps) for index, (task, steps) in enumerate(streams)]
    batch = pack(items, limit)
    tokens = torch.cat([row.tokens for row in batch.rows])
    assert sorted(tokens.tolist()) == list(range(batch.tokens))
    for row in batch.rows:
        assert len(row) <= limit or len(row.episodes) == 1
        seen = 0
        for index in row.episodes:
            own, count = batch.episodes[index], len(batch.episodes[index].predict)
            assert tuple(row.input_ids[visible(row, int(row.ends[row.episodes.index(index)]))].tolist()) == own.ids
            assert tuple(row.targets[seen : seen + count].tolist()) == own.targets
            assert row.position_ids[row.predict[seen : seen + count]].tolist() == list(own.predict)
            seen += count


def visible(row: Row, end: int) -> list[int]:
    """Indices of the tokens that the token at `end` attends to."""
    span = next(span for span in row.spans if span.start <= end < span.stop)
    return [i for start, stop in span.prefix for i in range(start, stop)] + list(range(span.start, end + 1))


def item(task: str, index: int, steps: list[tuple[list[int], list[int]]]) -> Episode:
    ids: list[int] = []
    predict: list[int] = []
    step_ids: list[int] = []
    for k, (context, action) in enumerate(steps):
        ids += context
        predict += range(len(ids) - 1, len(ids) - 1 + len(action))
        step_ids += [k] * len(action)
        ids += action
    zeros = (0.0,) * len(predict)
    return Episode(
        str(index), task, tuple(ids), len(steps[0][0]), tuple(predict), tuple(step_ids), zeros, (0.0,), 1.0, False
    )


@pytest.mark.parametrize("inserted", [0, 1, 500])
def test_environment_tokens_change_no_advantage(make_scored: MakeScored, inserted: int) -> None:
    """Values are drawn for every position of the stream; only those that predict sampled tokens count."""
    noise = torch.Generator().manual_seed(inserted)
    scored = make_scored([([1], [10, 11]), ([2] + [3] * inserted, [12]), ([4], [13, 14])])
    made = stream(scored)
    values = torch.randn(len(made.ids), generator=noise) * 100
    values[list(made.predict)] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    credit = token_gae([1.0, 0.0, 2.0], values[list(made.predict)], torch.tensor(made.step_ids), Discounts())
    alone = token_gae(
        [1.0, 0.0, 2.0], torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), torch.tensor([0, 0, 1, 2, 2]), Discounts()
    )
    assert torch.equal(credit.advantages, alone.advantages)


def test_reward_of_a_trajectory_that_ends_in_tool_output_is_kept(make_scored: MakeScored) -> None:
    """Out of calls: the last step is no Finish. Its reward lands on its last sampled token all the same."""
    made = episode(make_scored([([1], [10]), ([2], [11, 12])], stop=StopReason.call_budget), [0.0, 5.0])
    assert made is not None
    credit = token_gae(made.rewards, torch.zeros(3), torch.tensor(made.step_ids), Discounts(0, 0, 0, 0))
    assert credit.advantages.tolist() == [0, 0, 5]
    assert not made.truncated


def test_context_after_the_last_action_is_kept_for_a_truncation_only(make_scored: MakeScored) -> None:
    broken = make_scored([([1], [10]), ([2, 3], [])], stop=StopReason.engine_error)
    made = episode(broken, [1.0, 0.0])
    assert made is not None
    assert (made.ids, made.truncated, made.rewards) == ((1, 10, 2, 3), True, (1.0,))
    assert pack([made], 9).rows[0].ends.tolist() == [3]


def test_trajectory_that_failed_before_its_first_token_is_none(make_scored: MakeScored) -> None:
    assert episode(make_scored([], stop=StopReason.engine_error), []) is None
    assert episode(make_scored([([1, 2], [])], stop=StopReason.engine_error), [0.0]) is None


@pytest.mark.parametrize(
    ("steps", "rewards", "found"),
    [
        ([([1], [])], [0.0], "no sampled tokens"),
        ([([1], []), ([2], [3])], [0.0, 0.0], "no sampled tokens"),
        ([([], [3])], [0.0], "no prompt tokens"),
        ([([1], [3])], [0.0, 1.0], "2 rewards for 1 steps"),
    ],
)
def test_trajectory_that_cannot_be_trained_on_is_named(
    make_scored: MakeScored, steps: list[tuple[list[int], list[int]]], rewards: list[float], found: str
) -> None:
    scored = make_scored(steps)
    with pytest.raises(DataError, match=f"trajectory {scored.trajectory.id}: .*{found}"):
        episode(scored, rewards)


def test_units_are_not_parted_where_a_group_is_split(make_scored: MakeScored) -> None:
    """Four attempts 1 2 3 1x of four tokens that share three: two fit into a row of 5, three do not.

    alone             0 1 | 2 3       together 0 3, 1, 2     0 3 | 1 2
    """
    attempts = [stream(make_scored([([1, 2, 3], [10 + i])], attempt=i)) for i in range(4)]
    assert [row.episodes for row in pack(attempts, 5).rows] == [(0, 1), (2, 3)]
    batch = pack(attempts, 5, [(0, 3), (1,), (2,)])
    assert [row.episodes for row in batch.rows] == [(0, 3), (1, 2)]
    assert batch.groups == (((0, 3), (1,), (2,)),)


def test_unit_longer_than_a_row_gets_its_own(make_scored: MakeScored) -> None:
    attempts = [stream(make_scored([([1, 2, 3], [10 + i])], attempt=i)) for i in range(3)]
    assert [row.episodes for row in pack(attempts, 4, [(0, 2), (1,)]).rows] == [(0, 2), (1,)]


@pytest.mark.parametrize("units", [[(0,)], [(0, 1), (1,)], [(0, 1, 2)], [(0, 1), ()]])
def test_units_that_do_not_hold_every_trajectory_once_are_refused(
    make_scored: MakeScored, units: list[tuple[int, ...]]
) -> None:
    attempts = [stream(make_scored([([1], [10 + i])], attempt=i)) for i in range(2)]
    with pytest.raises(ValueError, match="every one of 2 trajectories once"):
        pack(attempts, 9, units)


def test_tokens_know_their_trajectory(make_scored: MakeScored) -> None:
    batch = pack([stream(make_scored([([1], [10, 11])])), stream(make_scored([([1], [12])], attempt=1))], 9)
    assert batch.owners().tolist() == [0, 0, 1]
