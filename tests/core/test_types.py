"""The records refuse what cannot have happened.

step   action                     came back
0      search {"query": "x"}      {"id": 7}
1      Finish {"answer": "7"}     (nothing: it ends the attempt)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steptool.core.errors import DataError
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import (
    FINISH,
    Action,
    AnswerCheck,
    Judgement,
    Observation,
    Outcome,
    Reference,
    Revision,
    ScoredTrajectory,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
    content_hash,
)
from steptool.testing import (
    CONDITIONS,
    SAMPLING,
    call,
    conditions,
    finish,
    judgement,
    message,
    observation,
    scored,
    step,
    task,
    tool,
    trajectory,
    unreadable,
)

SEARCH = step(call("search", query="x"), {"id": 7}, context_ids=(1, 2, 3), action_ids=(4, 5), logprobs=(-0.5, -0.25))
ANSWER = finish("7", context_ids=(6,), action_ids=(7,), logprobs=-1.0)
ASKED = step(message("Which one?"), "The red one.")
"""A message that the user answered."""


def record(**changes: Any) -> Trajectory:
    """The two steps above with changes, built without the help of `testing.trajectory`."""
    fields = dict(trajectory(SEARCH, ANSWER, seed=17))
    del fields["id"]
    return Trajectory.create(**fields | changes)


# Identity


def test_id_is_a_hash_of_the_content() -> None:
    assert record().id == record().id
    different = [
        record(seed=18),
        record(attempt=1),
        record(search="tree"),
        record(outcome=Outcome(solved=0)),
        record(conditions=conditions(format="react")),
        record(conditions=None),
    ]
    assert len({record().id, *(each.id for each in different)}) == 7


def test_a_changed_record_no_longer_matches_its_id() -> None:
    changed = record().model_dump(mode="json")
    changed["answer"] = "8"
    with pytest.raises(ValidationError, match="does not match the content"):
        Trajectory.model_validate(changed)


@given(
    st.integers(min_value=0, max_value=2**31 - 1),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.tuples(st.integers(0, 60000), st.floats(-50, 0)), max_size=5),
    st.none() | st.floats(0, 1),
)
def test_a_trajectory_survives_json(
    seed: int, text: str, tokens: list[tuple[int, float]], solved: float | None
) -> None:
    ids, logprobs = [token for token, _ in tokens], [logprob for _, logprob in tokens]
    two = step([call("f", x=text), call("g")], [text, 1], action_ids=ids, logprobs=logprobs)
    made = trajectory(two, step(message(text), text), ANSWER, seed=seed, solved=solved)
    assert Trajectory.model_validate_json(made.model_dump_json()) == made


def test_content_hash_ignores_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash([1, 2]) != content_hash([2, 1])
    assert len(content_hash({}, length=8)) == 8


# What cannot have happened


def test_token_ids_are_the_whole_stream_in_order() -> None:
    assert record().token_ids == (1, 2, 3, 4, 5, 6, 7)


UNANSWERED = SEARCH.model_copy(update={"observations": ()})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": (ANSWER, SEARCH), "stop_reason": StopReason.call_budget}, "step 0 is Finish but not the last of 2"),
        ({"steps": (UNANSWERED, ANSWER)}, "step 0 has no observation but is not the last of 2"),
        ({"steps": (step(message("Hm?")), ANSWER)}, "step 0 has no observation but is not the last of 2"),
        ({"steps": (SEARCH,)}, "stop_reason finished but no last step that ends the attempt"),
        ({"steps": ()}, "stop_reason finished but no last step that ends the attempt"),
        ({"steps": (SEARCH,), "stop_reason": StopReason.gave_up}, "stop_reason gave_up but the last step is neither"),
        ({"answer": None}, "stop_reason finished but no answer"),
        ({"attempt": -1}, "attempt"),
    ],
)
def test_a_trajectory_that_cannot_have_happened_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        record(**changes)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"message": "Hello.", "unreadable": "no call"},
        {"calls": (call("f"),), "message": "Hello."},
        {"calls": (call("f"),), "unreadable": "no call"},
    ],
)
def test_an_action_is_calls_or_a_message_or_unreadable(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either calls, or a message, or unreadable"):
        Action(**fields)


def test_an_empty_message_is_a_message() -> None:
    assert Action(message="").message == ""


def test_finish_stands_alone() -> None:
    assert Action(calls=(call(FINISH, answer="7"),)).is_finish
    with pytest.raises(ValidationError, match="Finish is called beside other tools"):
        Action(calls=(call("f"), call(FINISH, answer="7")))


SEEN = observation("seen")


@pytest.mark.parametrize(
    ("action", "observations", "says"),
    [
        (Action(calls=(call("f"),)), (SEEN, SEEN), "2 observations of 1 calls"),
        (Action(calls=(call("f"), call("g"))), (SEEN,), "1 observations of 2 calls"),
        (message("Hello."), (SEEN,), "1 observations of 0 calls"),
        (unreadable(), (SEEN, SEEN), "2 observations of 1 calls"),
    ],
)
def test_a_call_has_one_observation(action: Action, observations: tuple[Observation, ...], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Step(action=action, observations=observations)


def test_only_a_message_has_a_reply() -> None:
    assert ASKED.is_answered and not ASKED.observations
    with pytest.raises(ValidationError, match="a reply to an action that is no message"):
        Step(action=Action(calls=(call("f"),)), observations=(SEEN,), reply="Yes.")


def test_what_came_back_lets_another_step_follow() -> None:
    assert SEARCH.is_answered
    assert not ANSWER.is_answered
    assert step(unreadable(), "Use: name {}").is_answered
    assert not step(message("Bye.")).is_answered
    assert step(message("Well?"), "").is_answered


def test_a_message_that_nobody_answers_ends_an_attempt() -> None:
    made = record(steps=(SEARCH, ASKED, step(message("It is 7."))), answer="It is 7.")
    assert made.stop_reason is StopReason.finished


def test_every_sampled_token_has_its_logprob() -> None:
    with pytest.raises(ValidationError, match="2 action_ids but 1 action_logprobs"):
        Step(action=unreadable(), action_ids=(1, 2), action_logprobs=(-0.5,))


@pytest.mark.parametrize("token", [-1, 2**31, 10**400, 1.5, "x"])
def test_a_token_is_an_index_of_a_vocabulary(token: Any) -> None:
    with pytest.raises(ValidationError, match="action_ids"):
        Step(action=unreadable(), action_ids=(token,), action_logprobs=(-0.5,))
    with pytest.raises(ValidationError, match="context_ids"):
        Step(action=unreadable(), context_ids=(token,))


def test_a_bad_rollout_is_a_record() -> None:
    assert record(steps=(), stop_reason=StopReason.engine_error, answer=None, error="out of memory").error
    assert record(steps=(SEARCH,), stop_reason=StopReason.call_budget, answer=None).answer is None


@pytest.mark.parametrize("reason", list(StopReason))
def test_faults_and_rewritten_histories_are_truncations(reason: StopReason) -> None:
    faults = {StopReason.engine_error, StopReason.world_error}
    assert reason.broken == (reason in faults)
    assert reason.terminated == (reason not in {StopReason.rewritten, *faults})


def test_records_are_frozen_and_know_their_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SAMPLING.temperature = 0.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Revision.model_validate({"name": "p", "revision": "1", "version": "2"})


def test_a_task_finds_its_tools_by_name() -> None:
    search = tool("search")
    asked = task("t", "?", search)
    assert asked.tool("search") is search
    assert asked.tool("Search") is None


# Old files


def test_a_file_of_version_1_is_refused_by_its_version(tmp_path: Path) -> None:
    file = tmp_path / "trajectories.jsonl"
    write_jsonl(file, [record()])
    assert read_jsonl(file, Trajectory) == [record()]
    header, line = file.read_text().splitlines()
    file.write_text(json.dumps(json.loads(header) | {"schema_version": 1}) + "\n" + line + "\n")
    with pytest.raises(DataError, match="schema version 1, expected 2"):
        read_jsonl(file, Trajectory)


# Answers, outcomes and conditions


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "text", "expected": " . "}, "not a text of 1 to 500 characters"),
        ({"kind": "text", "expected": "x" * 501}, "str of 501, which is not a text"),
        ({"kind": "text", "expected": 7}, "expects 7, which is not a text"),
        ({"kind": "text", "expected": "x", "tolerance": 1}, "a check of kind text has no tolerance"),
        ({"kind": "number", "expected": "7"}, "not a finite number"),
        ({"kind": "number", "expected": True}, "not a finite number"),
        ({"kind": "number", "expected": float("nan")}, "not a finite number"),
        ({"kind": "number", "expected": 2e300}, "not a finite number"),
        ({"kind": "number", "expected": 1, "tolerance": -1}, "tolerance"),
        ({"kind": "set", "expected": []}, "not a list of short texts"),
        ({"kind": "set", "expected": "abc"}, "not a list of short texts"),
        ({"kind": "set", "expected": ["Red", " red "]}, "names one of its items twice"),
    ],
)
def test_a_check_that_nothing_or_anything_passes_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        AnswerCheck(**fields)


def test_only_an_exact_check_can_check() -> None:
    assert Reference(task_id="t", answer_check=AnswerCheck(kind="number", expected=0)).can_be_checked
    assert not Reference(task_id="t", answer_check=AnswerCheck(kind="judge")).can_be_checked
    assert not Reference(task_id="t").can_be_checked
    assert Reference(task_id="t", has_own_check=True).can_be_checked


def test_an_outcome_that_nobody_could_tell_stays_none() -> None:
    assert Outcome().solved is None
    made = trajectory(SEARCH, ANSWER, solved=None)
    assert Trajectory.model_validate_json(made.model_dump_json()).outcome.solved is None
    assert scored(made).solved is None
    assert trajectory(SEARCH, ANSWER, solved=0).id != made.id


@pytest.mark.parametrize("solved", [-0.1, 1.1, float("nan")])
def test_an_outcome_lies_between_0_and_1(solved: float) -> None:
    with pytest.raises(ValidationError):
        Outcome(solved=solved)


def test_conditions_say_what_differs() -> None:
    assert CONDITIONS.differences(conditions()) == []
    other = conditions(format=Revision(name="json_call", revision="2"), temperature=0.0)
    assert CONDITIONS.differences(other) == [
        "format: json_call 1 against json_call 2",
        "temperature: 1.0 against 0.0",
    ]
    assert conditions(world="shop").differences(CONDITIONS) == ["world: shop 1 against mini 1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"world": "x"}, {"format": "x"}, {"engine": "x"}, {"dtype": "bfloat16"}, {"search": "x"},
        {"temperature": 0.5}, {"top_p": 0.5},
        {"max_calls": 1}, {"max_step_tokens": 1}, {"max_tokens": 1},
    ],
)  # fmt: skip
def test_conditions_differ_in_every_part(changes: dict[str, Any]) -> None:
    assert len(CONDITIONS.differences(conditions(**changes))) == 1


# Judgements: every step but the last has success and contribution, the last has solved


MIDDLE, LAST = judgement(success=1, contribution=0.5), judgement(solved=1)


def test_solved_is_read_off_the_last_step() -> None:
    assert scored(record(), MIDDLE, LAST).solved == 1
    assert scored(record(), MIDDLE, judgement(solved=0)).solved == 0
    assert scored(record(), MIDDLE, judgement(solved=None)).solved is None


def test_scores_are_read_by_their_names() -> None:
    assert (MIDDLE.success, MIDDLE.contribution, MIDDLE.solved) == (1, 0.5, None)
    assert judgement(success=None, contribution=0.0).success is None


def test_an_annotator_may_add_scores_of_its_own() -> None:
    made = scored(record(), judgement(success=1, contribution=0, format=0.25), judgement(solved=1, style=0.5))
    assert made.judgements[0].scores["format"] == 0.25


@pytest.mark.parametrize("solved", [0.0, None])
def test_the_session_gives_the_verdict_on_a_trajectory_without_steps(solved: float | None) -> None:
    broken = record(steps=(), stop_reason=StopReason.engine_error, answer=None, outcome=Outcome(solved=solved))
    assert scored(broken).solved == solved


@pytest.mark.parametrize(
    ("judgements", "says"),
    [
        ((LAST,), "2 steps but 1 judgements"),
        ((MIDDLE, MIDDLE), r"the last step \(1\) needs solved"),
        ((LAST, LAST), "step 0 needs success and contribution"),
        ((judgement(success=1), LAST), "step 0 needs success and contribution"),
        ((MIDDLE, judgement(solved=1, success=1)), r"the last step \(1\) needs solved, and neither"),
        ((MIDDLE, judgement()), r"the last step \(1\) needs solved"),
    ],
)
def test_judgements_that_do_not_fit_the_steps_are_refused(judgements: tuple[Judgement, ...], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ScoredTrajectory(trajectory=record(), judgements=judgements, annotator=Revision(name="rules", revision="1"))


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_scores_lie_between_0_and_1(score: float) -> None:
    with pytest.raises(ValidationError):
        judgement(solved=score)


@pytest.mark.parametrize("fields", [{"votes": 0}, {"cost": -1}, {"cost": float("inf")}])
def test_a_judgement_has_at_least_one_vote_and_a_finite_cost(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Judgement(**fields)


# The builders of `steptool.testing`


def test_builders_read_the_ending_off_the_last_step() -> None:
    assert trajectory(SEARCH).stop_reason is StopReason.call_budget
    answered = trajectory(SEARCH, finish(["a", "b"]))
    assert (answered.stop_reason, answered.answer) == (StopReason.finished, '["a", "b"]')
    said = trajectory(step(message("It is 7.")))
    assert (said.stop_reason, said.answer) == (StopReason.finished, "It is 7.")
    assert trajectory(step(call(FINISH, give_up=True))).stop_reason is StopReason.gave_up


def test_builders_write_what_came_back() -> None:
    assert step(call("f"), error="timeout").observations == (Observation(text='{"error": "timeout"}', error="timeout"),)
    both = step([call("f"), call("g", x=1)], ["one", {"two": 2}])
    assert [each.text for each in both.observations] == ["one", '{"two": 2}']
    assert both.action.calls[1] == ToolCall(name="g", arguments={"x": 1})


def test_builders_judge_by_errors_and_the_outcome() -> None:
    failed = step(call("f"), error="timeout")
    made = scored(trajectory(SEARCH, failed, ANSWER, solved=1.0))
    assert [each.scores for each in made.judgements] == [
        {"success": 1.0, "contribution": 0.5},
        {"success": 0.0, "contribution": 0.5},
        {"solved": 1.0},
    ]
