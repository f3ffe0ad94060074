"""Which recorded reply a call gets. Pure.

    the same call, in an attempt at the same question      recorded
    the same call, in attempts at other questions          of another task, where more than half of them agree
    arguments that differ in case, spaces or spelling      alike
    arguments that are near (setting `nearest`)            near
    anything else                                          none: the world replies with the error `no_recording`

A reply depends on the call and on how often the attempt has made it: a tool that was busy at first is busy at first
here. Where nobody made it so often, the last reply stays. Nothing else counts. So a call that changes something is
replied to as it was then, and changes nothing: what follows it is right only where the attempt does what the recorded
one did.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from steptool.core.types import Observation, ToolCall, Trajectory
from steptool.worlds.likeness import canonical, likeness, one_spelling

Origin = Literal["recorded", "of another task", "alike", "near"]

Replied = tuple[Observation, ...]
"""What one attempt was replied to one call, first time, second time, …"""


LAST = -1
"""The last time that a call was made: what it was replied then counts from there on."""


class Reply(NamedTuple):
    observation: Observation
    origin: Origin


class Replies:
    """`attempts`: each with its question. `nearest`: least likeness of arguments that counts as near, 1 for none."""

    def __init__(self, attempts: Iterable[tuple[str, Trajectory]], nearest: float = 1.0) -> None:
        self._nearest = nearest
        self._exact: dict[str, dict[str, list[Replied]]] = defaultdict(lambda: defaultdict(list))
        """Call as written → question → what each attempt at it was replied."""
        self._alike: dict[str, dict[str, list[Replied]]] = defaultdict(lambda: defaultdict(list))
        """The same by `key`."""
        self._of_tool: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        """Tool → key of a call → its arguments in one spelling."""
        for query, attempt in attempts:
            for table, spelled in ((self._exact, _written), (self._alike, key)):
                for text, replied in _by_call(attempt, spelled).items():
                    table[text][question(query)].append(replied)
            for call, _ in _made(attempt):
                self._of_tool[call.name][key(call)] = one_spelling(call.arguments)

    def find(self, query: str, call: ToolCall, before: int) -> Reply | None:
        """The reply to a call in an attempt at `query` that has made it `before` times; None where there is none."""
        asked = question(query)
        for table, spelled in ((self._exact, _written(call)), (self._alike, key(call))):
            own: Origin = "recorded" if table is self._exact else "alike"
            other: Origin = "of another task" if table is self._exact else "alike"
            if found := self._look_up(table.get(spelled, {}), asked, before, own, other):
                return found
        near = self._near(call) if self._nearest < 1 else None
        return self._look_up(self._alike.get(near, {}), asked, before, "near", "near") if near else None

    def _look_up(
        self, recorded: Mapping[str, list[Replied]], asked: str, before: int, own: Origin, other: Origin
    ) -> Reply | None:
        for time in (before, LAST):
            if reply := _usual(recorded.get(asked, ()), time):
                return Reply(reply, own)
            usual = Counter(reply for replied in recorded.values() if (reply := _usual(replied, time)))
            for reply, count in usual.most_common(1):
                if count * 2 > usual.total():
                    return Reply(reply, other)
        return None

    def _near(self, call: ToolCall) -> str | None:
        """Key of the recorded call of the same tool whose arguments are nearest."""
        mine = one_spelling(call.arguments)
        found = {each: likeness(mine, theirs) for each, theirs in self._of_tool.get(call.name, {}).items()}
        best = max(found, key=lambda each: found[each], default=None)
        return best if best is not None and found[best] >= self._nearest else None


def question(query: str) -> str:
    """What a query asks: equal where only case and spaces differ."""
    return " ".join(query.casefold().split())


def key(call: ToolCall) -> str:
    """The call in one spelling: equal where case, spaces, empty arguments, or the way of writing a number differ."""
    return canonical([call.name, one_spelling(call.arguments)])


def _written(call: ToolCall) -> str:
    return canonical([call.name, call.arguments])


def _made(attempt: Trajectory) -> Iterator[tuple[ToolCall, Observation]]:
    for step in attempt.steps:
        if not step.is_finish:
            yield from zip(step.action.calls, step.observations, strict=False)  # the last may have no reply


def _by_call(attempt: Trajectory, spelled: Callable[[ToolCall], str]) -> dict[str, Replied]:
    found: dict[str, list[Observation]] = defaultdict(list)
    for call, reply in _made(attempt):
        found[spelled(call)].append(reply)
    return {call: tuple(replied) for call, replied in found.items()}


def _usual(recorded: Sequence[Replied], time: int) -> Observation | None:
    """What most attempts were replied at this time, the first of them where several are as many; at the LAST time, what
    the one that asked most often was. None where nobody asked so often."""
    if time == LAST:
        return max(recorded, key=len)[-1] if recorded else None
    known = Counter(replied[time] for replied in recorded if len(replied) > time)
    return known.most_common(1)[0][0] if known else None
