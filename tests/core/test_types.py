"""The records refuse what cannot have happened.

step   call      observation
0      search    {"id": 7}
1      Finish    (none: it ends the trajectory)
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steptool.core.types import (
    FINISH,
    Judgement,
    Observation,
    Revision,
    Sampling,
    ScoredTrajectory,
    Step,
    StopReason,
    Task,
    Tool,
    ToolCall,
    Trajectory,
    content_hash,
)

SEARCH = Step(
    call=ToolCall(name="search", arguments={"query": "x"}),
    observation=Observation(text='{"id": 7}', latency_s=0.25),
    context_ids=(1, 2, 3),
    action_ids=(4, 5),
    action_logprobs=(-0.5, -0.25),
)
ANSWER = Step(
    call=ToolCall(name=FINISH, arguments={"answer": "7"}), context_ids=(6,), action_ids=(7,), action_logprobs=(-1.0,)
)
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_calls=4, max_step_tokens=16, max_tokens=256)


def trajectory(**changes: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "task_id": "t",
        "subset": "G1_tool",
        "steps": (SEARCH, ANSWER),
        "stop_reason": StopReason.finished,
        "answer": "7",
        "policy": Revision(name="p", revision="1"),
        "world": Revision(name="w", revision="1"),
        "sampling": SAMPLING,
        "seed": 17,
    }
    return Trajectory.create(**{**fields, **changes})


def with_latency(step: Step, latency_s: float) -> Step:
    assert step.observation is not None
    return step.model_copy(update={"observation": Observation(text=step.observation.text, latency_s=latency_s)})


# Identity


def test_id_is_a_hash_of_the_content() -> None:
    assert trajectory().id == trajectory().id
    assert trajectory().id != trajectory(seed=18).id
    assert trajectory().id != trajectory(attempt=1).id


def test_latency_is_not_part_of_the_identity() -> None:
    slow = (with_latency(SEARCH, 9.0), ANSWER)
    assert trajectory(steps=slow).id == trajectory().id


def test_a_changed_record_no_longer_matches_its_id() -> None:
    record = trajectory().model_dump(mode="json")
    record["answer"] = "8"
    with pytest.raises(ValidationError, match="does not match the content"):
        Trajectory.model_validate(record)


@given(
    st.integers(min_value=0, max_value=2**31 - 1),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.tuples(st.integers(0, 60000), st.floats(-50, 0)), max_size=5),
    st.floats(0, 1e6),
)
def test_a_trajectory_survives_json(seed: int, text: str, tokens: list[tuple[int, float]], latency_s: float) -> None:
    step = Step(
        call=ToolCall(name="f", arguments={"x": text}),
        observation=Observation(text=text, latency_s=latency_s),
        action_ids=tuple(token for token, _ in tokens),
        action_logprobs=tuple(logprob for _, logprob in tokens),
    )
    made = trajectory(steps=(step, ANSWER), seed=seed)
    assert Trajectory.model_validate_json(made.model_dump_json()) == made


def test_content_hash_ignores_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash([1, 2]) != content_hash([2, 1])
    assert len(content_hash({}, length=8)) == 8


# Invariants


def test_token_ids_are_the_whole_stream_in_order() -> None:
    assert trajectory().token_ids == (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": (ANSWER, SEARCH), "stop_reason": StopReason.call_budget}, "step 0 is Finish but not the last of 2"),
        ({"steps": (SEARCH.model_copy(update={"observation": None}), ANSWER)}, "step 0 has no observation"),
        ({"steps": (SEARCH,)}, "stop_reason finished but the last step is not Finish"),
        ({"steps": ()}, "stop_reason finished but the last step is not Finish"),
        ({"steps": (SEARCH,), "stop_reason": StopReason.gave_up}, "stop_reason gave_up but the last step is not"),
        ({"answer": None}, "stop_reason finished but no answer"),
    ],
)
def test_a_trajectory_that_cannot_have_happened_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        trajectory(**changes)


def test_a_step_has_a_call_or_a_parse_error() -> None:
    with pytest.raises(ValidationError, match="either a call or a parse_error"):
        Step()
    with pytest.raises(ValidationError, match="either a call or a parse_error"):
        Step(call=ToolCall(name="f", arguments={}), parse_error="no call")


def test_every_sampled_token_has_its_logprob() -> None:
    with pytest.raises(ValidationError, match="2 action_ids but 1 action_logprobs"):
        Step(parse_error="no call", action_ids=(1, 2), action_logprobs=(-0.5,))


@pytest.mark.parametrize("token", [-1, 2**31, 10**400, 1.5, "x"])
def test_a_token_is_an_index_of_a_vocabulary(token: Any) -> None:
    with pytest.raises(ValidationError, match="action_ids"):
        Step(parse_error="no call", action_ids=(token,), action_logprobs=(-0.5,))
    with pytest.raises(ValidationError, match="context_ids"):
        Step(parse_error="no call", context_ids=(token,))


def test_a_bad_rollout_is_a_record() -> None:
    assert trajectory(steps=(), stop_reason=StopReason.engine_error, answer=None, error="out of memory").error
    assert trajectory(steps=(SEARCH,), stop_reason=StopReason.call_budget, answer=None).answer is None


@pytest.mark.parametrize("reason", list(StopReason))
def test_only_faults_are_truncations(reason: StopReason) -> None:
    assert reason.terminated == (reason not in {StopReason.engine_error, StopReason.world_error})


def test_records_are_frozen_and_know_their_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SAMPLING.temperature = 0.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Revision.model_validate({"name": "p", "revision": "1", "version": "2"})


def test_a_task_finds_its_tools_by_name() -> None:
    tool = Tool(name="search", description="", parameters={})
    task = Task(id="t", subset="G1_tool", query="?", tools=(tool,))
    assert task.tool("search") is tool
    assert task.tool("Search") is None


# Judgements: every step but the last has success and contribution, the last has solved


def scored(*judgements: Judgement, **changes: Any) -> ScoredTrajectory:
    annotator = Revision(name="rules", revision="1")
    return ScoredTrajectory(trajectory=trajectory(**changes), judgements=judgements, annotator=annotator)


MIDDLE, LAST = Judgement(success=1, contribution=0.5), Judgement(solved=1)


def test_solved_is_read_off_the_last_step() -> None:
    assert scored(MIDDLE, LAST).solved == 1
    assert scored(MIDDLE, Judgement(solved=0)).solved == 0


def test_a_trajectory_without_steps_is_unsolved() -> None:
    assert scored(steps=(), stop_reason=StopReason.engine_error, answer=None).solved == 0


@pytest.mark.parametrize(
    ("judgements", "says"),
    [
        ((LAST,), "2 steps but 1 judgements"),
        ((MIDDLE, MIDDLE), r"the last step \(1\) needs solved"),
        ((LAST, LAST), "step 0 needs success and contribution"),
        ((Judgement(success=1), LAST), "step 0 needs success and contribution"),
        ((MIDDLE, Judgement(solved=1, success=1)), r"the last step \(1\) needs solved and nothing else"),
    ],
)
def test_judgements_that_do_not_fit_the_steps_are_refused(judgements: tuple[Judgement, ...], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        scored(*judgements)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_scores_lie_between_0_and_1(score: float) -> None:
    with pytest.raises(ValidationError):
        Judgement(solved=score)
