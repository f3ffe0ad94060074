"""An attempt that a program of its own makes: it asks the policy through the gateway and calls tools of its own.

    session.run ─► the program ── HTTP ─► gateway ─► Recording.complete ─► its token stream ─► engine
                        └── its tools

What ends it: the program, a budget (its requests are then refused, and it has a few seconds to end by itself), a
failure of its own, or a fault of the engine or the world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from steptool.core.errors import WorldError, describe
from steptool.core.fields import Settings, Text
from steptool.core.types import StopReason, Trajectory
from steptool.gateway.server import HOST, Gateway
from steptool.rollouts.base import Attempt
from steptool.rollouts.ending import Ending, judged, recorded
from steptool.rollouts.guard import GuardedSession, read_exception, reply_of
from steptool.rollouts.recording import Recording
from steptool.worlds.base import Acts

STOPPING_S = 5.0
"""How long a world may take to end a program."""


class Agent:
    name: ClassVar[str] = "agent"

    class Config(Settings):
        host: Annotated[Text, Field(exclude=True)] = HOST
        """Address that the gateway listens on: this machine alone. Another one lets agents in containers in, such as
        the address of a bridge; whoever has the key of an attempt can then ask its policy."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._gateway = Gateway(config.host)
        """Of all attempts of this process; it starts with the first."""

    def end(self) -> None:
        """Close the gateway. May be called twice."""
        self._gateway.close()

    async def attempt(self, attempt: Attempt) -> Sequence[Trajectory]:
        """The trajectory that ended the attempt first, then those of the program's other token streams."""
        recording: Recording | None = None
        session: GuardedSession | None = None
        try:
            opened = attempt.open()
            session = GuardedSession(opened, timeout_s=attempt.tool_timeout_s, most=attempt.format.max_observation)
            if not isinstance(opened, Acts):
                raise WorldError("this world has no program that makes attempts", fix="use search: {use: chain}")
            recording = Recording(attempt)
            ending = await self._run(opened, recording)
            opened.saw(recording.calls())
        except (KeyboardInterrupt, asyncio.CancelledError):
            if session is not None:
                await session.leave()
            raise
        except BaseException as fault:  # noqa: BLE001 - whatever it is, it is this attempt's alone
            ending = Ending(StopReason.world_error, error=describe(fault))
        ending, outcome = await judged(session, ending)
        found = [] if recording is None else recording.trajectories(ending, outcome)
        return found or [recorded(attempt, (), (), ending, outcome)]

    async def _run(self, session: Acts, recording: Recording) -> Ending:
        base_url = self._gateway.start()
        key = self._gateway.open(recording.complete)
        program = asyncio.create_task(reply_of("run", lambda: session.run(base_url, key)))
        program.add_done_callback(read_exception)
        over = asyncio.create_task(recording.over.wait())
        try:
            await asyncio.wait({program, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._gateway.close_key(key)
            recording.stop()
            over.cancel()
            if not program.done():
                program.cancel()
                await asyncio.wait({program}, timeout=STOPPING_S)
        return recording.ending(program)
