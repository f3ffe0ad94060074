"""One line of actions from a task's prompt to an ending, in a session of its own: what every search is made of.

    async with Branch(attempt) as branch:
        ending = branch.begin()                   a fresh session, and the prompt
        while ending is None:
            ending = await branch.act(n)          action → observation
        trajectory = await branch.end(ending)     the session is closed, and judges

    prompt → action → observation → action → … → Finish, or a message that nobody answers, or a budget, or a fault

A search that comes back to a place keeps a twin of the branch there: `twin`, and later `begin_again`.

A bad attempt is a record with a stop reason, never an exception: a call that cannot be read and a tool that fails or
hangs are observations that the policy learns from; a broken engine or world ends the trajectory.
"""

from __future__ import annotations

import asyncio

from steptool.core.errors import describe
from steptool.core.types import Action, Observation, Step, StopReason, Trajectory
from steptool.rollouts.base import Attempt
from steptool.rollouts.beside import reply_and, task_and
from steptool.rollouts.ending import Ending, judged, recorded
from steptool.rollouts.guard import GuardedSession
from steptool.rollouts.sampled import seed_of, step_of


class Branch:
    """Its steps and the token stream that they add up to. Where the block is left early, the session is closed.

    Nothing raises but cancellation, Ctrl-C and a defect of this package.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.steps: list[Step] = []
        self._attempt = attempt
        self._stream: list[int] = []
        self._context: tuple[int, ...] = ()
        """Tokens between the last action and the next."""
        self._session: GuardedSession | None = None
        """None before it is opened, and once it is closed."""

    async def __aenter__(self) -> Branch:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Close the session without an attempt to be judged, if one is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.leave()

    def begin(self) -> Ending | None:
        """Open the session and write the prompt. None where an action can follow."""
        attempt = self._attempt
        most = attempt.format.max_observation
        try:
            self._session = GuardedSession(attempt.open(), timeout_s=attempt.tool_timeout_s, most=most)
            self._context = attempt.format.prompt(attempt.task)
        except KeyboardInterrupt:  # a person's, not the world's
            raise
        except BaseException as fault:  # noqa: BLE001 - whatever it is, it is this attempt's alone
            return Ending(StopReason.world_error, error=describe(fault))
        return None

    async def act(self, number: int, note: str = "") -> Ending | None:
        """Sample an action and carry it out. None where another can follow.

        `number`: which of the search's actions it is; it decides the random numbers. The last allowed action is carried
        out like any other, so that a judge can see what came of it. `note`: what the search tells the policy before
        this action, behind what came back last. It is part of the token stream, and stays in it.
        """
        sampling = self._attempt.conditions.sampling
        if note and (ending := self._write(note)) is not None:
            return ending
        room = sampling.max_tokens - len(self._stream) - len(self._context)
        if room < 1:
            return Ending(StopReason.token_budget)
        assert self._session is not None, "begin() comes first"
        try:
            state = self._session.state()
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001 - the world's
            return Ending(StopReason.world_error, error=describe(fault))
        try:
            generation = await self._attempt.act(
                (*self._stream, *self._context), min(room, sampling.max_step_tokens), self._seed(number)
            )
            step = step_of(generation, self._context, self._attempt.format, self._attempt.task, state)
        except Exception as fault:  # noqa: BLE001 - whatever the engine raises ends this trajectory alone
            return Ending(StopReason.engine_error, error=describe(fault))
        self._stream += (*self._context, *generation.ids)
        self.steps.append(step)
        if step.is_finish:
            answer = step.action.answer
            return Ending(StopReason.gave_up if answer is None else StopReason.finished, answer)
        try:
            observations, reply = await self._carry_out(step.action)
        except (KeyboardInterrupt, asyncio.CancelledError):  # a tool's own cancellation is a WorldError by now
            raise
        except BaseException as fault:  # noqa: BLE001 - a tool's failure is an observation; this is the world's
            return Ending(StopReason.world_error, error=describe(fault))
        if step.action.message is not None and reply is None:
            return Ending(StopReason.finished, step.action.message)
        self.steps[-1] = step.model_copy(update={"observations": observations, "reply": reply})
        if len(self.steps) == sampling.max_calls:
            return Ending(StopReason.call_budget)
        return self._write()

    def twin(self) -> Branch | Ending:
        """The same steps for another branch, in a session that is forked from this one's; without a session where the
        world cannot fork it. An ending where the world breaks."""
        assert self._session is not None, "begin() comes first"
        other = Branch(self._attempt)
        try:
            other._session = self._session.fork()
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001 - the world's
            return Ending(StopReason.world_error, error=describe(fault))
        other.steps, other._stream, other._context = [*self.steps], [*self._stream], self._context
        return other

    @property
    def calls_again(self) -> int:
        """How many actions `begin_again` carries out."""
        if self._session is not None:
            return 0
        return sum(step.action.unreadable is None for step in self.steps)

    async def begin_again(self) -> Ending | None:
        """Open a session for a twin that has none, and carry its actions out there. None where another can follow.

        Where the world replies otherwise than it did, the branch ends with that action and the new reply: what the
        policy did next, it did on another reply.
        """
        if self._session is not None:
            return None
        before = self.steps
        if (ending := self.begin()) is not None:
            return ending
        try:
            for index, step in enumerate(before):
                observations, reply = await self._carry_out(step.action)
                if (observations, reply) != (step.observations, step.reply):
                    changed = step.model_copy(update={"observations": observations, "reply": reply})
                    self.steps = [*before[:index], changed]
                    break
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as fault:  # noqa: BLE001 - the world's
            return Ending(StopReason.world_error, error=describe(fault))
        self._stream = [token for step in self.steps for token in (*step.context_ids, *step.action_ids)]
        if self.steps and not self.steps[-1].is_answered:  # a user who had replied, and now does not
            return Ending(StopReason.finished, self.steps[-1].action.message)
        return self._write() if self.steps else None

    def _write(self, note: str = "") -> Ending | None:
        """The tokens between the last action and the next, the prompt before the first. None where it can follow."""
        format, task = self._attempt.format, self._attempt.task
        try:
            last = self.steps[-1] if self.steps else None
            context = format.prompt(task_and(note, task)) if last is None else reply_and(note, format, last)
        except Exception as fault:  # noqa: BLE001 - a format may be somebody else's, too
            return Ending(StopReason.engine_error, error=describe(fault))
        if context is None:
            return Ending(StopReason.rewritten)
        self._context = context
        return None

    async def end(self, ending: Ending) -> Trajectory:
        """Close the session, which judges the attempt, and write everything down."""
        session, self._session = self._session, None
        ending, outcome = await judged(session, ending)
        return recorded(self._attempt, self.steps, self._stream, ending, outcome)

    def _seed(self, number: int) -> int:
        attempt = self._attempt
        return seed_of(attempt.seed, attempt.task.id, attempt.number, number)

    async def _carry_out(self, action: Action) -> tuple[tuple[Observation, ...], str | None]:
        """What came back: an observation of each call, made one after the other, or the user's reply to a message."""
        assert self._session is not None, "begin() comes first"
        if action.unreadable is not None:
            hint = self._attempt.format.hint(action.unreadable)
            return (Observation(text=hint, error="parse_error"),), None
        if action.message is not None:
            return (), await self._session.say(action.message)
        return tuple([await self._session.call(call) for call in action.calls]), None
