"""A recorded conversation as an attempt at a task, and back. Pure.

    user        the query; texts of the user before the model acts are joined
    assistant   calls, made at the same time, with the text beside them as the thought; a text alone is a message,
                and the last one the answer (`Finish`, which every format can write)
    tool        the reply to the call that it names, else to the next without a reply
    user        the reply to a message

What stands between neither is kept. Messages of the system are how the agent was told to behave, not what it was asked:
they are left out, or put before the query. A greeting before the first question is left out, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import groupby

from steptool.core.failures import error_of
from steptool.core.messages import GAVE_UP, Message, MessageCall
from steptool.core.types import (
    FINISH,
    Action,
    AnswerCheck,
    Frozen,
    Observation,
    Outcome,
    Revision,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
    content_hash,
)
from steptool.formats.arguments import ends_attempt, read_arguments
from steptool.traces.conversation import Conversation, Skipped
from steptool.worlds.checks import MAX_TEXT

IMPORTED = "imported"
"""Revision of a policy of which only the name is known."""
UNKNOWN_MODEL = "unknown"


class Attempt(Frozen):
    """What one conversation shows: a task as it was asked, and what was done."""

    where: str
    known_as: str = ""
    """Id of its task where it has one already."""
    query: str
    tools: tuple[str, ...] | None
    """Names of what was offered; None where the source does not say."""
    steps: tuple[Step, ...]
    stop_reason: StopReason
    answer: str | None
    model: str = UNKNOWN_MODEL
    group: str = ""
    solved: float | None = None
    evidence: str = ""
    check: AnswerCheck | None = None

    @property
    def task_id(self) -> str:
        """The same for the same question with the same tools."""
        return (
            self.known_as or f"t-{content_hash([self.query, sorted(self.tools) if self.tools is not None else None])}"
        )

    def keys(self) -> list[int]:
        """A number for each beginning of the conversation that ends with an act of the model; the last is for all.

        They are over what was said, called and replied: not over thoughts, ids of calls, models and labels, which one
        source has and another has not.
        """
        digest, found = hashlib.blake2b(digest_size=8), list[int]()
        for message in messages_of(self.query, self.steps):
            calls = [[call.name, call.arguments] for call in message.calls]
            said = "" if calls else message.text.strip()
            digest.update(json.dumps([message.role, said, calls]).encode() + b"\n")
            if message.role == "assistant":
                found.append(int.from_bytes(digest.copy().digest(), "big"))
        return found

    def trajectory(self, number: int) -> Trajectory:
        """As the attempt `number` at its task, from 0."""
        return Trajectory.create(
            task_id=self.task_id,
            steps=self.steps,
            stop_reason=self.stop_reason,
            answer=self.answer,
            outcome=Outcome(solved=self.solved, evidence=self.evidence),
            policy=Revision(name=self.model, revision=IMPORTED),
            conditions=None,
            attempt=number,
        )


class _Unusable(Exception):
    """Why a conversation shows no attempt."""


def attempt_of(of: Conversation, *, with_system: bool = False) -> Attempt | Skipped:
    """`with_system`: whether the messages of the system are put before the query."""
    told = [message.text.strip() for message in of.messages if message.role == "system"] if with_system else []
    turns = [list(turn) for _, turn in groupby(_without_system(of.messages), key=lambda message: message.role)]
    turns = turns[1:] if turns and turns[0][0].role == "assistant" else turns  # a greeting
    try:
        if not turns or turns[0][0].role != "user":
            raise _Unusable("nothing is asked: no message of a user comes first")
        query = "\n\n".join(filter(None, [*told, _text(turns[0])]))
        if not query or len(query) > MAX_TEXT:
            raise _Unusable("its question is empty" if not query else f"its question is over {MAX_TEXT:,} characters")
        steps = _ended(_steps(turns[1:]), of.answer)
    except _Unusable as error:
        return Skipped(where=of.where, reason=str(error))
    last = steps[-1]
    reason = StopReason.call_budget
    if last.is_finish:
        reason = StopReason.gave_up if last.action.answer is None else StopReason.finished
    return Attempt(
        where=of.where,
        query=query,
        tools=tuple(sorted({tool.name for tool in of.tools if not _ends(tool.name)})) or None,
        steps=tuple(steps),
        stop_reason=reason,
        answer=last.action.answer,
        model=of.model or UNKNOWN_MODEL,
        group=of.group,
        solved=of.solved,
        evidence=of.evidence,
        check=of.check,
    )


def messages_of(query: str, steps: Sequence[Step]) -> list[Message]:
    """The conversation of an attempt: what `attempt_of` reads, but for an action that could not be read.

    Such a one is the text that the model wrote, and what came back the user's.
    """
    found = [Message(role="user", text=query)]
    for number, step in enumerate(steps):
        action = step.action
        ids = [f"call_{number}_{index}" for index in range(len(action.calls))]
        if action.is_finish:
            text = GAVE_UP if action.answer is None else action.answer
            found.append(Message(role="assistant", text=text, thought=action.thought))
        elif action.calls:
            calls = zip(ids, action.calls, strict=True)
            written = tuple(MessageCall(id=id, name=call.name, arguments=_json(call.arguments)) for id, call in calls)
            found.append(Message(role="assistant", text=action.thought, calls=written))
            found += [
                Message(role="tool", text=seen.text, call_id=id, name=call.name, error=seen.error)
                for id, call, seen in zip(ids, action.calls, step.observations, strict=False)
            ]
        elif action.message is not None:
            found.append(Message(role="assistant", text=action.message, thought=action.thought))
        else:
            found.append(Message(role="assistant", text=action.thought))
            found += [Message(role="user", text=seen.text) for seen in step.observations]
        if step.reply is not None:
            found.append(Message(role="user", text=step.reply))
    return found


def _without_system(messages: Sequence[Message]) -> Iterator[Message]:
    return (message for message in messages if message.role != "system")


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(filter(None, (message.text.strip() for message in messages)))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _ends(name: str) -> bool:
    return name.strip().casefold() == FINISH.casefold()


def _steps(turns: Sequence[Sequence[Message]]) -> list[Step]:
    """`turns`: what came after the question, each the messages of one role."""
    steps, calls = list[Step](), list[MessageCall]()
    for turn in turns:
        role = turn[0].role
        if role == "assistant":
            if steps and not steps[-1].is_answered:
                raise _Unusable(_UNANSWERED)
            calls = [call for message in turn for call in message.calls]
            if (action := _action(turn, calls)) is not None:
                steps.append(Step(action=action))
        elif not steps:
            raise _Unusable("a tool replies that nobody called" if role == "tool" else "the model says nothing")
        elif role == "tool":
            if not calls or steps[-1].is_answered:
                raise _Unusable("a tool replies that nobody called")
            observations = _observations(steps[-1].action, calls, turn)
            steps[-1] = Step(action=steps[-1].action, observations=observations)
        elif steps[-1].action.message is None:
            raise _Unusable(
                "the user speaks between a tool's reply and the model" if steps[-1].is_answered else _UNANSWERED
            )
        else:
            steps[-1] = Step(action=steps[-1].action, reply=_text(turn))
    return steps


_UNANSWERED = "a call has no reply"
_NO_END = f"a tool is called {FINISH}, which is how an attempt ends here"


def _action(turn: Sequence[Message], calls: Sequence[MessageCall]) -> Action | None:
    """None where the model said nothing at all."""
    text, thought = _text(turn), "\n\n".join(filter(None, (message.thought.strip() for message in turn)))
    if not calls:
        return Action(thought=thought, message=text) if text else None
    thought = "\n\n".join(filter(None, (thought, text)))
    read = [(call.name, read_arguments(call.arguments.strip() or "{}")) for call in calls]
    for name, arguments in read:
        if isinstance(arguments, str):
            raw = "\n".join(f"{call.name} {call.arguments}" for call in calls)
            return Action(thought=f"{thought}\n{raw}".strip(), unreadable=f"{name}: {arguments}" if name else arguments)
        if _ends(name) and not (len(calls) == 1 and ends_attempt(arguments)):
            raise _Unusable(_NO_END)
    made = tuple(ToolCall(name=name, arguments=found) for name, found in read if isinstance(found, dict))
    if len(made) == 1 and _ends(made[0].name):
        made = (ToolCall(name=FINISH, arguments=made[0].arguments),)
    return Action(thought=thought, calls=made)


def _observations(action: Action, calls: Sequence[MessageCall], replies: Sequence[Message]) -> tuple[Observation, ...]:
    """One a call, in their order; empty where one has none. Of an action that could not be read all in one."""
    by_call: dict[int, Message] = {}
    for reply in replies:
        named = [index for index, call in enumerate(calls) if reply.call_id and call.id == reply.call_id]
        free = [index for index in named or range(len(calls)) if index not in by_call]
        of_name = [index for index in free if reply.name and calls[index].name == reply.name]
        index = next(iter(of_name or free), None)
        if index is None:
            raise _Unusable("a tool replies twice, or one that nobody called")
        by_call[index] = reply
    if len(by_call) < len(calls):
        return ()
    seen = [by_call[index] for index in range(len(calls))]
    if action.unreadable is not None:
        return (Observation(text="\n".join(reply.text for reply in seen), error="parse_error"),)
    return tuple(Observation(text=reply.text, error=reply.error or error_of(reply.text)) for reply in seen)


def _ended(steps: list[Step], answer: str | None) -> list[Step]:
    """With the last message as `Finish`. `answer`: the one that the source keeps apart, if it does."""
    if not steps and not answer:
        raise _Unusable("the model says nothing")
    if any(step.is_finish for step in steps[:-1]):
        raise _Unusable(_NO_END)
    last = steps[-1] if steps else None
    if last is not None and last.is_finish:
        if last.is_answered:
            steps = [*steps[:-1], Step(action=last.action)]
        return steps
    said = last.action.message if last is not None and not last.is_answered else None
    if answer is None and said is None:
        return steps
    thought = ""
    if last is not None and not last.is_answered:  # the answer itself, or the call of a tool that takes it
        thought, steps = last.action.thought, steps[:-1]
    final = said if answer is None else answer
    arguments = {"give_up": True} if final == GAVE_UP else {"answer": final}
    return [*steps, Step(action=Action(thought=thought, calls=(ToolCall(name=FINISH, arguments=arguments),)))]
