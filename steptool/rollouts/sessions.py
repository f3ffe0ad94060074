"""Conversations as resumable requests of vLLM's, so that no token is computed twice.

    request a turn    prompt · action | prompt · action · reply · action | …     whole blocks come from the cache
    session           prompt · action | reply · action | …                       all that came before is there

A request that begins anew computes the last partial block of the cache again, and everything sampled in it:
with blocks of 32 tokens and actions of some 20 a sixth of an evaluation's time. A session pauses in its place.

A paused session holds its share of the cache, so there are never more than fit it at full length; further
conversations make a request a turn. So do those that draw at random: a session has one random generator, so
what it drew would depend on which conversations got one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from steptool.rollouts.pump import Request
from steptool.rollouts.rollout import Generation

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine


@dataclass
class _Session:
    first: str
    """Id of its first turn, by which vLLM reports all of them."""
    vllm_id: str
    turn: str
    """Id of the turn that is running, or was the last."""
    stream: tuple[int, ...]
    """All tokens so far. The last was sampled and never computed, so the next turn begins with it."""
    sampled: int = 0
    """Tokens sampled in the turns that have ended: vLLM reports all that a request ever sampled."""


class Sessions:
    """The open ones, at most `room`, each of at most `max_model_len` tokens. For one thread."""

    def __init__(self, llm: LLMEngine, room: int, max_model_len: int) -> None:
        self._llm = llm
        self._room = room
        self._max_model_len = max_model_len
        self._open: dict[Hashable, _Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take_turn(self, id: str, request: Request, params: SamplingParams) -> bool:
        """Queue the request as a turn of its conversation; False where it must go by itself.

        A prompt that does not continue the conversation ends it. Raises what vLLM raises for a bad request.
        """
        if request.conversation is None or request.temperature > 0 or len(request.prompt_ids) >= self._max_model_len:
            return False
        session, prompt = self._open.get(request.conversation), tuple(request.prompt_ids)
        if session is None:
            if len(self._open) >= self._room:
                return False
        elif prompt[: len(session.stream)] != session.stream:
            self.end(request.conversation)
            return False
        self._queue(id, request.conversation, session, prompt, params)
        return True

    def _queue(
        self, id: str, conversation: Hashable, session: _Session | None, prompt: tuple[int, ...], params: SamplingParams
    ) -> None:
        """What `LLMEngine.add_request` does, for a request that will be resumed."""
        import msgspec
        from vllm.inputs.engine import tokens_input

        llm = self._llm
        new = prompt if session is None else prompt[len(session.stream) - 1 :]
        turn = llm.input_processor.process_inputs(
            id, tokens_input(list(new)), params, supported_tasks=llm.get_supported_tasks(), resumable=True
        )
        if session is None:
            llm.input_processor.assign_request_id(turn)
            self._open[conversation] = _Session(id, turn.request_id, id, prompt)
        else:
            turn.external_req_id, turn.request_id = session.first, session.vllm_id
            self._open[conversation] = replace(session, turn=id, stream=prompt)
        # In one process both halves would lengthen the same list.
        llm.output_processor.add_request(msgspec.structs.replace(turn, prompt_token_ids=list(new)), None)
        llm.engine_core.add_request(turn)

    def turn_ended(self, first: str, made: Generation) -> tuple[str, Generation] | None:
        """Id and tokens of the turn that vLLM reports by its session's first; None if that is no session."""
        session = next((session for session in self._open.values() if session.first == first), None)
        if session is None:
            return None
        said = replace(made, ids=made.ids[session.sampled :], logprobs=made.logprobs[session.sampled :])
        session.stream += said.ids
        session.sampled = len(made.ids)
        return session.turn, said

    def abort(self, turns: list[str]) -> None:
        """End the sessions whose turn is one of these."""
        for conversation in [name for name, session in self._open.items() if session.turn in turns]:
            self.end(conversation)

    def end(self, conversation: Hashable) -> None:
        """Free the conversation's share of the cache, if it has one."""
        if session := self._open.pop(conversation, None):
            self._llm.abort_request([session.vllm_id], internal=True)

    def end_all(self) -> None:
        for conversation in list(self._open):
            self.end(conversation)
