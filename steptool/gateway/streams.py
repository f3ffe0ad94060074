"""The token streams of one attempt, found from the messages that its agent sends. Pure.

    request   system, user                                  a new stream: what the format writes of a conversation
    action    look_up({"id": "b1"})                         sampled
    request   system, user, look_up(…), its reply           the same stream: the action's own tokens, and the reply's
    action    It costs 9.5.

A request continues a stream where its messages begin with all that the agent has seen of it and what follows is what
answers its last action: one reply a call, or one message of the user. Anything else begins another stream, and the old
one ends where the agent left it. Text is never tokenised again within a stream. Several may be alive, as those of
sub-agents that run side by side are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from steptool.core.failures import error_of
from steptool.core.messages import GAVE_UP, Message, MessageCall
from steptool.core.types import FINISH, Action, Observation, Step, StopReason, Task, Tool, ToolCall
from steptool.formats.base import Converses, Format
from steptool.formats.text import shorten
from steptool.gateway.base import ChatReply, ChatRequest, Refused

NO_FINISH = f"a tool is called {FINISH}, which is how an attempt ends here; give it another name"
MOST_OF_A_TOKEN = 64
"""Characters that the tokens of a long text have in the mean, at most."""

Key = tuple[Any, ...]
"""What two messages must have in common to be the same."""


@dataclass(eq=False)
class Stream:
    """One token stream, from its first request on."""

    number: int
    """In the order in which the streams of an attempt began."""
    task: Task
    """With the tools that the agent offered."""
    first: tuple[Key, ...]
    """The messages of its first request."""
    seen: tuple[Key, ...] = ()
    """All messages that the agent has seen of it, the last action included."""
    ids: tuple[int, ...] = ()
    """Its tokens, up to the end of the last action."""
    steps: list[Step] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    """Which of the attempt's actions each step is."""
    replies: list[ChatReply] = field(default_factory=list)
    """What the agent was given for each."""
    is_acting: bool = False
    """Whether its next action is being sampled."""

    @property
    def last(self) -> Step:
        return self.steps[-1]

    @property
    def said(self) -> str:
        """The text of its last message."""
        return self.replies[-1].text

    @property
    def beginning(self) -> tuple[Key, ...]:
        """The messages of its first request up to the first of a user."""
        place = next((index for index, key in enumerate(self.first) if key[0] == "user"), len(self.first) - 1)
        return self.first[: place + 1]


@dataclass(frozen=True)
class Turn:
    """The place of a request: the stream that it continues or begins, and what stands before the next action."""

    stream: Stream
    seen: tuple[Key, ...]
    context: tuple[int, ...]
    ids: tuple[int, ...]
    """All tokens of the stream up to the action."""


@dataclass(frozen=True)
class Ended:
    """How a stream ended."""

    reason: StopReason
    answer: str | None = None


class Streams:
    """`task` is the attempt's; each stream has it with the tools of its requests. `format` must write conversations."""

    def __init__(self, format: Format, task: Task) -> None:
        assert isinstance(format, Converses), "whoever begins an attempt has looked"
        self._format: Any = format
        self._task = task
        self._all: list[Stream] = []
        self._orders = count()
        self._answers: dict[str, str] = {}
        """Id of a call → what its tool replied, wherever the agent said so."""

    def least(self, messages: Sequence[Message]) -> int:
        """Tokens that `messages` have at least. It is told at once, while to write some MiB of them takes many seconds,
        in which no other attempt goes on."""
        asked = next((place for place, message in enumerate(messages) if message.role != "system"), 0)
        characters = 0
        for place, message in enumerate(messages):
            is_cut = place > asked and message.role != "assistant"
            length = len(message.text.strip())
            characters += min(length, self._format.max_observation) if is_cut else length
            characters += sum(len(call.arguments) for call in message.calls)
        return len(messages) + characters // MOST_OF_A_TOKEN

    def turn(self, request: ChatRequest) -> Turn:
        """Where a request belongs; its stream takes no other until `acted` or `left`.

        Raises Refused where the format cannot write its messages, or a tool is called as what ends an attempt.
        """
        if any(tool.name == FINISH for tool in request.tools):
            raise Refused(NO_FINISH, code="invalid_request", param="tools")
        self._note_answers(request.messages)
        keys = tuple(map(_key, request.messages))
        candidates = [stream for stream in self._all if self._may_continue(stream, request.tools, keys)]
        for stream in sorted(candidates, key=lambda each: len(each.seen), reverse=True):
            context = self._extended(stream, request.messages)
            if context is not None:
                stream.is_acting = True
                return Turn(stream, keys, context, (*stream.ids, *context))
        try:
            context = self._format.conversation(request.messages, request.tools)
        except Exception as error:  # templates and schemas are others', and raise whatever they like
            raise Refused(f"the messages cannot be written: {error!s:.300}", code="invalid_request") from error
        task = self._task.model_copy(update={"tools": request.tools})
        return Turn(Stream(len(self._all), task, keys, is_acting=True), keys, context, context)

    def answered(self, request: ChatRequest) -> None:
        """Take what a request says of earlier actions, where it gets no action of its own."""
        self._note_answers(request.messages)
        keys = tuple(map(_key, request.messages))
        for stream in self._all:
            if self._may_continue(stream, request.tools, keys):
                self._extended(stream, request.messages)

    def left(self, turn: Turn) -> None:
        """No action came of the turn."""
        turn.stream.is_acting = False

    def acted(self, turn: Turn, step: Step, *, stopped: bool) -> ChatReply:
        """Append what was sampled, and whether it stopped by itself; the reply for the agent."""
        stream = turn.stream
        if not stream.steps:
            stream.number = len(self._all)
            self._all.append(stream)
        reply = _reply(stream, step, prompt_tokens=len(turn.ids), stopped=stopped)
        stream.ids = (*turn.ids, *step.action_ids)
        stream.steps.append(step)
        stream.orders.append(next(self._orders))
        stream.replies.append(reply)
        stream.seen = (*turn.seen, _key(reply.message))
        stream.is_acting = False
        return reply

    # At the end

    def all(self) -> list[Stream]:
        """The stream of the last action first, then the others as they began."""
        last = max(self._all, key=lambda stream: stream.orders[-1], default=None)
        return [] if last is None else [last, *(stream for stream in self._all if stream is not last)]

    def calls(self) -> list[tuple[ToolCall, Observation]]:
        """The calls of all streams and what their tools replied, in the order of the actions."""
        steps = sorted((order, step) for stream in self._all for order, step in self._complete(stream))
        return [pair for _, step in steps for pair in zip(step.action.calls, step.observations, strict=False)]

    def steps(self, stream: Stream) -> tuple[Step, ...]:
        return tuple(step for _, step in self._complete(stream))

    def ended(self, stream: Stream, attempt: StopReason) -> Ended:
        """How a stream ended that is not the last one of an attempt that ended so.

        Rewritten, where the agent went on in another that begins like it; as its own last action says, where that ends
        something; else as the attempt did, as of an agent that has handed over to another.
        """
        for other in self._all:
            is_later = other.orders[0] > stream.orders[-1]
            if is_later and other.first[: len(stream.beginning)] == stream.beginning:
                return Ended(StopReason.rewritten)
        action = stream.last.action
        if action.is_finish and action.answer is None:
            return Ended(StopReason.gave_up)
        is_open = stream.last.is_answered or (bool(action.calls) and not action.is_finish)
        if is_open and attempt not in (StopReason.finished, StopReason.gave_up):
            return Ended(attempt)
        return Ended(StopReason.finished, stream.said)

    # Continuing

    def _may_continue(self, stream: Stream, tools: Sequence[Tool], keys: tuple[Key, ...]) -> bool:
        is_longer = len(keys) > len(stream.seen)
        begins = is_longer and all(map(_is_same, stream.seen, keys))
        return begins and not stream.is_acting and not stream.last.is_finish and stream.task.tools == tuple(tools)

    def _extended(self, stream: Stream, messages: Sequence[Message]) -> tuple[int, ...] | None:
        """The tokens between the last action and the next, where `messages` answer it exactly; they are noted."""
        action, said = stream.last.action, messages[len(stream.seen) - 1]
        answers = messages[len(stream.seen) :]
        observations, reply = self._answer(action, said, answers) or ((), None)
        if not observations and reply is None:
            return None
        try:
            context: tuple[int, ...] | None = self._format.reply(stream.last.action_ids, observations, reply)
        except ValueError:  # the format has no such answer, as one of one call a turn has no message
            return None
        if context is not None:
            stream.steps[-1] = stream.last.model_copy(update={"observations": observations, "reply": reply})
        return context

    def _answer(
        self, action: Action, said: Message, answers: Sequence[Message]
    ) -> tuple[tuple[Observation, ...], str | None] | None:
        """What came back of an action: an observation a call, or the user's message. `said` is the agent's own copy of
        the action, whose ids the replies name."""
        if action.calls:
            replies = _in_order(said.calls, answers)
            return None if replies is None else (tuple(map(self._observation, replies)), None)
        if len(answers) != 1 or answers[0].role != "user":
            return None
        text = shorten(answers[0].text, self._format.max_observation)
        if action.unreadable is not None:
            return (Observation(text=text, error="parse_error"),), None
        return (), text

    def _observation(self, text: str) -> Observation:
        return Observation(text=shorten(text, self._format.max_observation), error=error_of(text))

    def _note_answers(self, messages: Sequence[Message]) -> None:
        self._answers |= {each.call_id: each.text for each in messages if each.role == "tool"}

    def _complete(self, stream: Stream) -> Iterator[tuple[int, Step]]:
        """The steps with what is known of them: the replies to the last calls may stand in another stream's request."""
        for order, step, reply in zip(stream.orders, stream.steps, stream.replies, strict=True):
            texts = [self._answers.get(call.id) for call in reply.calls]
            if step is stream.last and not step.is_answered and texts and None not in texts:
                observations = tuple(self._observation(text) for text in texts if text is not None)
                step = step.model_copy(update={"observations": observations})
            yield order, step


def _reply(stream: Stream, step: Step, *, prompt_tokens: int, stopped: bool) -> ChatReply:
    """The next step of a stream as the agent is given it; what could not be read is given as it stands."""
    action = step.action
    calls: tuple[MessageCall, ...] = ()
    if action.is_finish:
        text = GAVE_UP if action.answer is None else action.answer
    elif action.calls:
        text, place = action.thought, f"{stream.number}_{len(stream.steps)}"
        calls = tuple(
            MessageCall(
                id=f"call_{place}_{number}", name=call.name, arguments=json.dumps(call.arguments, ensure_ascii=False)
            )
            for number, call in enumerate(action.calls)
        )
    else:
        text = action.thought if action.message is None else action.message
    return ChatReply(
        text=text,
        calls=calls,
        prompt_tokens=prompt_tokens,
        tokens=len(step.action_ids),
        finish="tool_calls" if calls else "stop" if stopped else "length",
    )


def _key(message: Message) -> Key:
    """Spaces around a text do not count, nor how arguments are written, nor ids: clients write them anew."""
    return message.role, message.text.strip(), tuple((call.name, _value(call.arguments)) for call in message.calls)


def _value(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments.strip()


def _is_same(ours: Key, theirs: Key) -> bool:
    """Some agents drop the text beside calls from their history, as servers with a parser of reasoning do."""
    return ours == theirs or (bool(ours[2]) and theirs == (ours[0], "", ours[2]))


def _in_order(calls: Sequence[MessageCall], answers: Sequence[Message]) -> list[str] | None:
    """The replies in the order of the calls that they name; None where they are not one each, and nothing else."""
    if len(answers) != len(calls) or any(answer.role != "tool" for answer in answers):
        return None
    ids = [call.id for call in calls]
    if len(set(ids)) < len(ids) or {answer.call_id for answer in answers} != set(ids):
        is_unnamed = all(not answer.call_id for answer in answers)
        return [answer.text for answer in answers] if is_unnamed else None
    by_id = {answer.call_id: answer.text for answer in answers}
    return [by_id[id] for id in ids]
