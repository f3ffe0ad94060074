"""Builders for tests: a whole record from what a test is about, with plain values for everything else.

    lookup = step(call("find", name="tea"), {"id": 7})       the tool replied {"id":7}
    refused = step(call("find", name="tea"), error="rate_limit")
    attempt = trajectory(lookup, refused, finish("7"), solved=1.0)
    judged = scored(attempt)

They need pydantic alone, and no file or model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from steptool.core.types import (
    FINISH,
    Action,
    AnswerCheck,
    Conditions,
    Judgement,
    Observation,
    Outcome,
    Reference,
    Revision,
    Sampling,
    ScoredTrajectory,
    Step,
    StopReason,
    Task,
    Tool,
    ToolCall,
    Trajectory,
)

LOGPROB = -0.5
"""Log-probability of every token that a test gives none."""
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_calls=8, max_step_tokens=64, max_tokens=1024)


def revision(name: str, content: str = "1") -> Revision:
    return Revision(name=name, revision=content)


CONDITIONS = Conditions(
    world=revision("mini"),
    format=revision("json_call"),
    engine=revision("vllm"),
    dtype="float32",
    search=revision("chain"),
    sampling=SAMPLING,
)


def conditions(**changes: Any) -> Conditions:
    """CONDITIONS with changes: of a part as a Revision or its name, of the sampling by the names of its fields."""
    sampling = {name: value for name, value in changes.items() if name in Sampling.model_fields}
    parts = {
        name: revision(value) if isinstance(value, str) and name != "dtype" else value
        for name, value in changes.items()
        if name not in sampling
    }
    fields = dict(CONDITIONS) | {"sampling": Sampling(**dict(SAMPLING) | sampling)} | parts
    return Conditions(**fields)


# What a world gives


def tool(
    name: str = "find",
    description: str = "",
    *,
    needs: Mapping[str, Any] = {},
    allows: Mapping[str, Any] = {},
    parameters: Mapping[str, Any] | None = None,
    category: str = "",
    collection: str = "",
) -> Tool:
    """`needs` and `allows`: required and optional arguments with their types, `{"name": "string"}`, or their schemas.

    `parameters` is the whole schema, in place of both.
    """
    if parameters is None:
        types = {**needs, **allows}
        schemas = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in types.items()}
        parameters = {"type": "object", "properties": schemas, "required": list(needs)}
    return Tool(
        name=name, description=description, parameters=dict(parameters), category=category, collection=collection
    )


def task(id: str = "t1", query: str = "Where is it?", *tools: Tool, group: str = "G1_instruction") -> Task:
    return Task(id=id, group=group, query=query, tools=tools)


def reference(
    of: Task | str = "t1", answer: Any = None, relevant: Sequence[str] = (), *, goal: str = "", tolerance: float = 0.0
) -> Reference:
    """`answer`: a text, a number or a list of texts, to be checked exactly; None where nothing checks it."""
    kind = "text" if isinstance(answer, str) else "number" if isinstance(answer, (int, float)) else "set"
    check = None
    if answer is not None:
        check = AnswerCheck.model_validate({"kind": kind, "expected": answer, "tolerance": tolerance})
    return Reference(task_id=_id(of), answer_check=check, relevant_tools=tuple(relevant), goal=goal)


# What a rollout gives


def call(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=arguments)


def step(
    action: Action | ToolCall | Sequence[ToolCall],
    reply: Any = None,
    *,
    error: str | None = None,
    thought: str = "",
    context_ids: Sequence[int] = (),
    action_ids: Sequence[int] = (),
    logprobs: float | Sequence[float] = LOGPROB,
) -> Step:
    """One action, and what came back.

    action   a call, several at once, or an Action (see `message` and `unreadable`)
    reply    of a call and of what could not be read: a text or a value that becomes JSON; of several calls: a list of
             them; of a message: the user's next. None: nothing came back, and the attempt ends here
    error    the kind of a failure, whose text is {"error": kind} where no `reply` is given
    """
    if not isinstance(action, Action):
        action = Action(thought=thought, calls=(action,) if isinstance(action, ToolCall) else tuple(action))
    observations: tuple[Observation, ...] = ()
    if action.message is None and not (reply is None and error is None):
        replies = reply if len(action.calls) > 1 and reply is not None else [reply] * max(1, len(action.calls))
        observations = tuple(observation(each, error) for each in replies)
    if isinstance(logprobs, (int, float)):
        logprobs = [logprobs] * len(action_ids)
    return Step(
        action=action,
        observations=observations,
        reply=reply if action.message is not None else None,
        context_ids=tuple(context_ids),
        action_ids=tuple(action_ids),
        action_logprobs=tuple(logprobs),
    )


def observation(reply: Any = None, error: str | None = None) -> Observation:
    """A text, or a value as JSON; a failure without either says its kind."""
    value = {"error": error} if reply is None else reply
    return Observation(text=value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), error=error)


def message(text: str, *, thought: str = "") -> Action:
    """What the policy says to the user."""
    return Action(thought=thought, message=text)


def unreadable(problem: str = "no call on the last line", *, thought: str = "") -> Action:
    """Text of the policy that could not be read."""
    return Action(thought=thought, unreadable=problem)


def finish(answer: Any, **options: Any) -> Step:
    """The step that answers; `options` are `step`'s."""
    return step(call(FINISH, answer=answer), **options)


def give_up(**options: Any) -> Step:
    return step(call(FINISH, give_up=True), **options)


def trajectory(
    *steps: Step,
    of: Task | str = "t1",
    stop: StopReason | None = None,
    answer: str | None = None,
    solved: float | None = None,
    policy: Revision | str = "policy",
    conditions: Conditions | None = CONDITIONS,
    seed: int = 0,
    attempt: int = 0,
    search: str | None = None,
    error: str | None = None,
) -> Trajectory:
    """Where `stop` and `answer` are not given, they follow from the last step; what ends nothing ran out of calls."""
    how, said = _ending(steps[-1]) if steps else (StopReason.call_budget, None)
    return Trajectory.create(
        task_id=_id(of),
        steps=steps,
        stop_reason=stop or how,
        answer=said if answer is None else answer,
        outcome=Outcome(solved=solved),
        policy=revision(policy) if isinstance(policy, str) else policy,
        conditions=conditions,
        seed=seed,
        attempt=attempt,
        search=search,
        error=error,
    )


# What an annotator gives


def judgement(reason: str = "", /, **scores: float | None) -> Judgement:
    """`judgement(success=1, contribution=0.5)` of a step, `judgement(solved=1)` of the last."""
    return Judgement(scores=scores, reason=reason)


def scored(of: Trajectory, *judgements: Judgement, annotator: Revision | str = "rules") -> ScoredTrajectory:
    """Without judgements a step is a success where it failed in nothing, contributes a half, and `solved` of the last
    is the outcome's.
    """
    return ScoredTrajectory(
        trajectory=of,
        judgements=judgements or _judgements(of),
        annotator=revision(annotator) if isinstance(annotator, str) else annotator,
    )


def _judgements(of: Trajectory) -> tuple[Judgement, ...]:
    if not of.steps:
        return ()
    done = [judgement(success=float(_succeeded(each)), contribution=0.5) for each in of.steps[:-1]]
    return (*done, judgement(solved=of.outcome.solved))


def _succeeded(of: Step) -> bool:
    return of.action.unreadable is None and all(each.error is None for each in of.observations)


def _ending(last: Step) -> tuple[StopReason, str | None]:
    """The stop reason and the answer of an attempt that ends with this step."""
    if last.is_finish:
        answer = last.action.answer
        return (StopReason.gave_up if answer is None else StopReason.finished), answer
    if last.action.message is not None and last.reply is None:
        return StopReason.finished, last.action.message
    return StopReason.call_budget, None


def _id(of: Task | str) -> str:
    return of if isinstance(of, str) else of.id
