"""All tools by name, and how a call becomes a reply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steptool.core.types import Tool, ToolCall
from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.pack import Call
from steptool.worlds.workbench.tools import analytics, calendar, customers, directory, email, projects
from steptool.worlds.workbench.tools.base import OfficeTool, Refused, Reply

ALL = (
    *email.TOOLS,
    *calendar.TOOLS,
    *analytics.TOOLS,
    *projects.TOOLS,
    *customers.TOOLS,
    *directory.TOOLS,
)
TOOLS: dict[str, OfficeTool] = {tool.name: tool for tool in ALL}
ALWAYS = "company_directory"
"""The domain whose tools every request is offered."""
ALIASES = {"crm": "customer_relationship_manager"}
"""Names of domains that the pack has beside the first word of a tool's name."""


def offered(domains: Sequence[str] | None) -> tuple[Tool, ...]:
    """The tools of these domains, None for all, in a fixed order."""
    if domains is None:
        return tuple(tool.as_tool() for tool in ALL)
    wanted = {ALWAYS, *(ALIASES.get(domain, domain) for domain in domains)}
    return tuple(tool.as_tool() for tool in ALL if tool.domain in wanted)


def execute(office: Office, name: str, arguments: Mapping[str, Any], offered: Iterable[str] = TOOLS) -> Reply:
    """The reply of a tool. Raises Refused for a call that fails; it has then changed nothing.

    An argument that the tool does not have is ignored, as by the recorded agents. What is no text becomes one.
    """
    if name not in offered:
        raise Refused(f"{name} is not a valid tool, try one of [{', '.join(offered)}].", "unknown_tool")
    tool = TOOLS[name]
    given = {argument.name: arguments.get(argument.name) for argument in tool.arguments}
    return tool.run(office, {key: _text(value) for key, value in given.items() if value not in (None, "")})


def after(office: Office, calls: Iterable[ToolCall]) -> Office:
    """The office after these calls, as the benchmark judges them: a call that fails changes nothing, and one with an
    argument that its tool does not have fails."""
    changed = office.copy()
    for call in calls:
        if not has_own_arguments(call):
            continue
        try:
            execute(changed, call.name, call.arguments)
        except Refused:
            continue
    return changed


def has_own_arguments(call: ToolCall) -> bool:
    """Whether its tool has every argument of a call."""
    tool = TOOLS.get(call.name)
    return tool is not None and call.arguments.keys() <= {argument.name for argument in tool.arguments}


def as_call(call: Call) -> ToolCall:
    """Its arguments by name: those given by position are recorded as `#0`, `#1`."""
    tool = TOOLS.get(call.name)
    names = [argument.name for argument in tool.arguments] if tool else []
    places = {f"#{place}": name for place, name in enumerate(names)}
    return ToolCall(name=call.name, arguments={places.get(key, key): value for key, value in call.arguments.items()})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
