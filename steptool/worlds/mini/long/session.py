"""One attempt at one long task: the replies of its trail, with what fails at first in their way."""

from __future__ import annotations

from steptool.core.types import Observation, Outcome, ToolCall, content_hash
from steptool.worlds.answers import outcome_of
from steptool.worlds.mini.execute import CallError, check_arguments, compact, failure
from steptool.worlds.mini.long.catalog import SERVICES
from steptool.worlds.mini.long.trails import FIND, Key, Trail
from steptool.worlds.mini.plans import Case

APIS = {service.full(api): (service, api) for service in SERVICES.values() for api in service.apis}


class LongSession:
    """Replies depend on the task and on what was called before in this session, on nothing else."""

    def __init__(self, case: Case, trail: Trail) -> None:
        self._case, self._trail = case, trail
        self._offered = {tool.name for tool in case.task.tools}
        self._called: set[Key] = set()

    async def call(self, call: ToolCall) -> Observation:
        return self.reply(call)

    async def say(self, message: str) -> str | None:
        """None: nobody answers."""
        return None

    async def close(self, answer: str | None) -> Outcome:
        return self.outcome(answer)

    def state(self) -> str:
        """What later replies depend on: the calls that no longer fail."""
        return " ".join(sorted(f"{api}({key})" for api, key in self._called & set(self._trail.passing)))

    def reply(self, call: ToolCall) -> Observation:
        """`call` for callers without an event loop."""
        if call.name not in self._offered:
            return failure("unknown_tool", "unknown tool, use one that is offered")
        service, api = APIS[call.name]
        try:
            check_arguments(api, call.arguments)
        except CallError as error:
            return failure(error.kind, error.text)
        at = (call.name, str(call.arguments[api.key]).strip())
        known = self._trail.replies.get(at)
        if known is None:
            return self._beside(at, api is service.apis[FIND])
        is_first = at not in self._called
        self._called.add(at)
        return self._trail.passing[at] if is_first and at in self._trail.passing else known

    def outcome(self, answer: str | None) -> Outcome:
        """`close` for callers without an event loop. Only the answer counts: calls change nothing here."""
        return outcome_of(self._case.reference.answer_check, answer)

    def _beside(self, at: Key, is_find: bool) -> Observation:
        """What a call off the trail shows."""
        name, key = at
        if is_find:
            return failure("empty_result", "nothing of that name")
        service, api = APIS[name]
        places = {place for of, place in self._trail.replies if of.startswith(f"{service.name}.")}
        if key not in places:
            return failure("unknown_id", f"unknown {api.key}")
        if api is service.apis[-1]:
            return Observation(text=compact({"number": int(content_hash(at), 16) % 100}))
        return failure("empty_result", "nothing here")
