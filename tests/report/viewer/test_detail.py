from __future__ import annotations

from typing import Any

import pytest

from steptool.report.viewer.credit import Earned
from steptool.report.viewer.detail import as_text, attempt, histories
from steptool.testing import call, finish, give_up, judgement, message, scored, step, trajectory, unreadable
from tests.report.viewer.project import PPO, ROUND, SFT


def test_a_step_has_its_calls_with_their_replies_scores_and_credit() -> None:
    shown = attempt(SFT[0], Earned((0.75, 0.0), (0.75, 0.0), ((0.5, 0.0, 0.0), (0.0, 0.0))))
    first, last = shown["steps"]
    assert first["calls"] == [
        {"name": "find", "finish": False, "arguments": [("name", "tea")], "answer": None, "reply": "7", "error": None}
    ]
    assert first["scores"] == [("success", 1.0), ("contribution", 0.5)]
    assert (first["reward"], first["return"], first["advantages"]) == (0.75, 0.75, (0.5, 0.0, 0.0))
    assert (first["sampled"], first["logprob"]) == (3, -0.5)
    assert last["scores"] == [("solved", 0.0)]
    assert last["calls"][0]["finish"] and last["calls"][0]["reply"] is None and last["calls"][0]["answer"] == "6"
    assert (shown["solved"], shown["answer"], shown["stop"]) == (0.0, "6", "finished")


def test_calls_at_once_messages_and_what_could_not_be_read() -> None:
    both = step([call("find", name="a"), call("find", name="b")], [1, 2])
    talk, lost = step(message("Which?"), "This."), step(unreadable("no call"), "write JSON", error="parse_error")
    several, said, broken, _ = attempt(trajectory(both, talk, lost, give_up()), None)["steps"]
    assert [each["reply"] for each in several["calls"]] == ["1", "2"]
    assert (said["message"], said["reply"], said["calls"]) == ("Which?", "This.", [])
    assert (broken["unreadable"], broken["hint"], broken["scores"]) == ("no call", "write JSON", [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(("tea", "tea"), ("5", '"5"'), (5, "5"), ("null", '"null"'), (None, "null"), ("", ""), ("[1", "[1")),
        (12345678901234567890, "12345678901234567890"),  # which JavaScript would round
        ({"a": ["ü", True]}, '{"a": ["ü", true]}'),
    ],
)
def test_values_are_texts_that_say_which_value_it_was(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_scores_of_an_annotator_come_after_those_that_rewards_read() -> None:
    judged = scored(trajectory(finish("7")), judgement("well", tone=0.5, solved=1.0))
    (last,) = attempt(judged, None)["steps"]
    assert last["scores"] == [("solved", 1.0), ("tone", 0.5)]
    assert last["reason"] == "well"


def test_histories_are_equal_as_far_as_all_that_was_done_and_came_back_is() -> None:
    """sft: find → 7, answers 6     ppo: find → 7, answers 7     other: find → none"""
    sft, ppo, other = (histories(each.trajectory.steps) for each in (SFT[0], PPO[0], ROUND[1]))
    assert sft[0] == ppo[0] != other[0]
    assert sft[1] != ppo[1]
    again = trajectory(*SFT[0].trajectory.steps[:1], *SFT[0].trajectory.steps)
    assert len(set(histories(again.steps))) == 3
