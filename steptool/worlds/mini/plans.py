"""What a task asks and how it is solved: plans of calls, and the hiccups that interrupt them.

A plan is the straight solution. A hiccup makes one API of it fail in a way that every client meets
and whose text tells what to do; `interrupted` gives the calls that a flawless client then makes:

    rate_limit, unavailable   first call of the API fails           the same call again
    moved                     the id that `find` gave is outdated   the same call with the id from the error
    missing_argument          an optional argument is required      the same call with the value from the error
    code                      `list` refuses a name                 ask for the code, list with the code
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from steptool.core.types import FINISH, Reference, Task, ToolCall
from steptool.worlds.mini.schema import OPTIONS, Api, Provider
from steptool.worlds.mini.store import Listing

HiccupKind = Literal["rate_limit", "unavailable", "moved", "missing_argument", "code"]
PASSING = {"rate_limit": "rate limit, retry", "unavailable": "service unavailable, try again"}
"""Errors of a first call that the same call again does not meet, and what they say."""


@dataclass(frozen=True)
class Hiccup:
    kind: HiccupKind
    api: str
    """Full name of the API that fails."""
    old: str = ""
    """moved: the outdated id that `find` and `list` give."""
    new: str = ""
    """moved: the id that works. code: the code of the city. missing_argument: the value to send."""
    argument: str = ""
    """code: the argument of the API that takes the code. missing_argument: the argument to add."""
    helper: ToolCall | None = None
    """code: the call that gets it."""


@dataclass(frozen=True)
class Shortcut:
    """What a careless agent does in a task with two parts: look at the first, answer from it."""

    calls: tuple[ToolCall, ...]
    answer: str


@dataclass(frozen=True)
class Plan:
    """A task before it gets an id, hiccups and distractors."""

    kind: str
    query: str
    calls: tuple[ToolCall, ...]
    answer: str | tuple[str, ...]
    check: Literal["text", "number", "set"]
    providers: tuple[Provider, ...]
    """Whose APIs the calls use, or may be tried."""
    decoy: Provider | None = None
    """A provider of the same category that is offered too."""
    shortcut: Shortcut | None = None
    also: tuple[str, ...] = ()
    """APIs that must be offered too, or else the offer would tell the answer."""


@dataclass(frozen=True)
class Case:
    """A task with everything that its client must not see."""

    task: Task
    reference: Reference
    kind: str
    calls: tuple[ToolCall, ...]
    answer: str
    hiccup: Hiccup | None
    shortcut: Shortcut | None

    def solution(self) -> list[ToolCall]:
        """The calls of a flawless client, without Finish."""
        return interrupted(self.calls, self.hiccup)


def call(provider: Provider, api: Api, key: str, **extra: Any) -> ToolCall:
    return ToolCall(name=provider.full(api), arguments={api.key: key, **extra})


def finish(answer: str | None) -> ToolCall:
    """The call that ends an attempt; None gives up."""
    return ToolCall(name=FINISH, arguments={"give_up": True} if answer is None else {"answer": answer})


def use(provider: Provider, listing: Listing, api: Api, **extra: Any) -> list[ToolCall]:
    """Call an API about an item; one that wants an id is preceded by the `find` that gives it."""
    if api.by == "name":
        return [call(provider, api, listing.name, **extra)]
    return [call(provider, provider.need("find"), listing.name), call(provider, api, listing.id, **extra)]


def interrupted(calls: tuple[ToolCall, ...], hiccup: Hiccup | None) -> list[ToolCall]:
    """The calls with the failing one and its recovery put in; a plan that never meets the hiccup is unchanged."""
    made: list[ToolCall] = []
    met = False
    for planned in calls:
        failing = recovered = planned
        first = hiccup is not None and not met and _meets(planned, hiccup)
        if hiccup is not None and hiccup.kind == "moved":
            failing = _with(
                planned, {key: hiccup.old for key, value in planned.arguments.items() if value == hiccup.new}
            )
        elif hiccup is not None and planned.name == hiccup.api and hiccup.argument:
            recovered = _with(planned, {hiccup.argument: hiccup.new})
        if first and hiccup is not None:
            met = True
            made += [failing, *([hiccup.helper] if hiccup.helper else [])]
        made.append(recovered)
    return made


def _meets(planned: ToolCall, hiccup: Hiccup) -> bool:
    return planned.name == hiccup.api and (hiccup.kind != "moved" or hiccup.new in planned.arguments.values())


def _with(planned: ToolCall, arguments: dict[str, Any]) -> ToolCall:
    return ToolCall(name=planned.name, arguments={**planned.arguments, **arguments})


def possible_hiccups(plan: Plan, codes: dict[str, str], spare_id: str) -> list[Hiccup]:
    """Every hiccup that fits a plan. `codes`: city -> code; `spare_id`: an id that names nothing."""
    apis = {provider.full(api): (provider, api) for provider in plan.providers for api in provider.apis}
    found: dict[tuple[str, str], Hiccup] = {}

    def add(hiccup: Hiccup) -> None:
        found.setdefault((hiccup.kind, hiccup.api), hiccup)

    for planned in plan.calls:
        provider, api = apis[planned.name]
        add(Hiccup("rate_limit", planned.name))
        add(Hiccup("unavailable", planned.name))
        key = str(planned.arguments[api.key])
        if api.by == "id":
            add(Hiccup("moved", planned.name, old=key[:2] + spare_id, new=key))
        if api.option and api.option not in planned.arguments:
            add(Hiccup("missing_argument", planned.name, new=OPTIONS[api.option][0], argument=api.option))
        helper = provider.first("code")
        if api.kind == "list" and helper:
            ask = call(provider, helper, key)
            add(Hiccup("code", planned.name, new=codes[key], argument=api.key, helper=ask))
    return list(found.values())
