"""One attempt at one long task: the replies of its trail, with what fails at first in their way."""

from __future__ import annotations

from steptool.core.types import Observation, ToolCall, content_hash
from steptool.worlds.mini.execute import CallError, check_arguments, compact, failure
from steptool.worlds.mini.long.catalog import SERVICES
from steptool.worlds.mini.long.trails import FIND, Key, Trail
from steptool.worlds.mini.plans import Case
from steptool.worlds.mini.session import CaseSession

APIS = {service.full(api): (service, api) for service in SERVICES.values() for api in service.apis}


class LongSession(CaseSession):
    """A session of a long task."""

    def __init__(self, case: Case, trail: Trail) -> None:
        super().__init__(case)
        self._trail = trail
        self._called: set[Key] = set()

    def fork(self) -> LongSession:
        twin = LongSession(self._case, self._trail)
        twin._called |= self._called
        return twin

    def state(self) -> str:
        """What later replies depend on: the calls that no longer fail."""
        return " ".join(sorted(f"{api}({key})" for api, key in self._called & set(self._trail.passing)))

    def _reply(self, call: ToolCall) -> Observation:
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
