"""What comes of one attempt's requests: the actions of its token streams, its budgets, and how it ended.

A request that is sent again, as after a lost connection, gets the reply that it got. The whole attempt has `max_calls`
actions of `max_step_tokens` each, and each stream `max_tokens`: an agent whose stream is full may go on with a shorter
history.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from steptool.core.errors import StepToolError, WorldError, describe, printable, reason
from steptool.core.messages import GAVE_UP
from steptool.core.types import Observation, Outcome, StopReason, ToolCall, Trajectory, content_hash
from steptool.formats.base import Converses
from steptool.formats.text import shorten
from steptool.gateway.base import ChatReply, ChatRequest, Refused
from steptool.gateway.streams import Stream, Streams, Turn
from steptool.rollouts.base import Attempt
from steptool.rollouts.ending import Ending, recorded
from steptool.rollouts.guard import read_exception
from steptool.rollouts.sampled import seed_of, step_of
from steptool.worlds.base import AgentFailed

ENDING_S = 10.0
"""How long a program may go on by itself after its budget is used up."""
MOST_REPEATS = 20
"""How often one request is answered. Each time the reply is the same, so an agent that waits for another never ends."""
MOST_ANSWER = 10_000
"""Characters that are kept of an answer."""


class Recording:
    """Raises StepToolError where the format of the attempt writes no conversations."""

    def __init__(self, attempt: Attempt) -> None:
        if not isinstance(attempt.format, Converses):
            raise StepToolError(
                f"the format {type(attempt.format).__name__} writes no conversations, so no agent can use it",
                fix="give it a method `conversation` (steptool/formats/base.py), or set format.use to native",
            )
        self.over = asyncio.Event()
        """Set where the program is to be ended."""
        self._attempt = attempt
        self._streams = Streams(attempt.format, attempt.task)
        self._asked: dict[str, asyncio.Task[ChatReply]] = {}
        self._repeats: Counter[str] = Counter()
        self._begun = 0
        """Actions that were sampled, or are being."""
        self._running = 0
        self._budget: StopReason | None = None
        """The budget that its last request met."""
        self._refused = ""
        """What was last refused, for an agent that never gets an action."""
        self._fault: str | None = None
        self._has_stopped = False
        self._timer: asyncio.TimerHandle | None = None

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The policy's action. Raises Refused."""
        if self._has_stopped:  # it was on its way when its key was closed
            raise Refused("the attempt has ended", code="attempt_ended", status=410)
        same = content_hash(request.model_dump_json(include={"messages", "tools", "max_tokens"}))
        self._repeats[same] += 1
        try:
            if self._repeats[same] > MOST_REPEATS:
                self._exhausted(StopReason.call_budget)
                raise Refused(f"this request came {MOST_REPEATS} times before", code="repeated_request")
            if same not in self._asked:
                self._asked[same] = asyncio.create_task(self._acts_once(same, request))
                self._asked[same].add_done_callback(read_exception)
            return await asyncio.shield(self._asked[same])
        except Refused as refused:
            self._refused = refused.message
            raise

    async def _acts_once(self, same: str, request: ChatRequest) -> ChatReply:
        """A refusal is not kept: what is refused again has met its budget again."""
        try:
            return await self._act(request)
        except Refused:
            del self._asked[same]
            raise

    async def _act(self, request: ChatRequest) -> ChatReply:
        attempt, sampling = self._attempt, self._attempt.conditions.sampling
        if self._begun >= sampling.max_calls:
            self._streams.answered(request)
            self._exhausted(StopReason.call_budget)
            found = f"the budget of this attempt is used up: {sampling.max_calls} replies"
            raise Refused(found, code="insufficient_quota")
        if (least := self._streams.least(request.messages)) > sampling.max_tokens:
            self._streams.answered(request)
            raise self._too_long(f"at least {least}")
        turn = self._streams.turn(request)
        room = sampling.max_tokens - len(turn.ids)
        if room < 1:
            self._streams.left(turn)
            raise self._too_long(f"{len(turn.ids)}")
        self._begun += 1
        self._running += 1
        try:
            most = min(room, sampling.max_step_tokens, request.max_tokens or room)
            generation = await attempt.act(turn.ids, most, self._seed(turn))
            step = step_of(generation, turn.context, attempt.format, turn.stream.task)
        except Exception as fault:
            self._streams.left(turn)
            self._fault = describe(fault)
            self.over.set()
            raise Refused("the engine failed", code="engine_error", status=500) from fault
        finally:
            self._running -= 1
        self._goes_on()
        return self._streams.acted(turn, step, stopped=generation.stopped)

    def _seed(self, turn: Turn) -> int:
        """By the place in its own stream: which of two sub-agents asks first does not matter."""
        attempt, stream = self._attempt, turn.stream
        prompt = content_hash(stream.steps[0].context_ids if stream.steps else turn.context)
        return seed_of(attempt.seed, attempt.task.id, attempt.number, prompt, len(stream.steps))

    # Budgets

    def _too_long(self, tokens: str) -> Refused:
        self._exhausted(StopReason.token_budget)
        most = self._attempt.conditions.sampling.max_tokens
        found = f"the messages are {tokens} tokens, and a conversation has room for {most}"
        return Refused(found, code="context_length_exceeded", param="messages")

    def _exhausted(self, budget: StopReason) -> None:
        """The program has ENDING_S to end by itself, unless it gets another action."""
        self._budget = budget
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ENDING_S, self._late)

    def _goes_on(self) -> None:
        self._budget = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._running:  # another of its requests is being answered
            self._timer = asyncio.get_running_loop().call_later(ENDING_S, self._late)
        else:
            self.over.set()

    def stop(self) -> None:
        """The program has ended, or is being ended: nothing more is sampled for it."""
        self._has_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for asked in self._asked.values():
            asked.cancel()

    # At the end

    def calls(self) -> list[tuple[ToolCall, Observation]]:
        """The calls that the program made and what its tools replied, in the order of the actions."""
        return self._streams.calls()

    def ending(self, program: asyncio.Task[str | None]) -> Ending:
        """How the attempt ended, by the task that ran the program: it is done, or was told to end.

        Raises what a broken world raised.
        """
        if self._fault is not None:
            return Ending(StopReason.engine_error, error=self._fault)
        failed = program.exception() if program.done() and not program.cancelled() else None
        if failed is not None and not isinstance(failed, AgentFailed):
            raise failed
        if self._budget is not None:
            return Ending(self._budget)
        if failed is None and (program.cancelled() or not program.done()):
            raise WorldError("the program was cancelled, and not by its attempt")
        streams, how = self._streams.all(), f"failed: {printable(reason(failed))}" if failed else "ended"
        if not streams:
            why = f"its last request was refused: {self._refused}" if self._refused else "it sent no request"
            return Ending(StopReason.world_error, error=f"the agent {how}, without an action of the policy: {why}")
        if failed is not None:
            return Ending(StopReason.call_budget, error=f"the agent {how}")
        return _answered(streams[0], program.result())

    def trajectories(self, ending: Ending, outcome: Outcome) -> list[Trajectory]:
        """One a stream, that of the last action first; all have the outcome of the attempt."""
        found = []
        for place, stream in enumerate(self._streams.all()):
            own = self._streams.ended(stream, ending.reason)
            how = Ending(own.reason, own.answer) if place else ending
            steps = self._streams.steps(stream)
            if how.reason is StopReason.finished:  # what came back of the last action, the policy has not seen
                steps = (*steps[:-1], steps[-1].model_copy(update={"observations": (), "reply": None}))
            found.append(recorded(self._attempt, steps, stream.ids, how, outcome))
        return found


def _answered(stream: Stream, own: str | None) -> Ending:
    """The program ended by itself, with an answer of its own or with what the policy said last, in `stream`."""
    if not (own is None or isinstance(own, str)):
        raise TypeError(f"run returned {type(own).__name__}, not a text or None")
    answer = stream.said if own is None else own
    if stream.last.is_finish and stream.last.action.answer is None and answer.strip() == GAVE_UP:
        return Ending(StopReason.gave_up)
    return Ending(StopReason.finished, shorten(answer, MOST_ANSWER))
