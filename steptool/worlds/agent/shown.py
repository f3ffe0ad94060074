"""What an agent shows the model in each attempt: its system message and its tools.

It is read from a file, or seen when the agent runs without a policy:

    agent ── request with its tools ──▶ a gateway without a policy ── "I cannot answer this." ──▶ agent

What was seen is kept under `.steptool/agent`, by the hash of the agent, and not asked again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steptool.core.errors import DataError, InputError, reason
from steptool.core.messages import GAVE_UP, tool_of
from steptool.core.storage import parse_text, read_text, write_bytes
from steptool.core.types import FINISH, Frozen, Tool
from steptool.gateway.base import ChatReply, ChatRequest, Refused
from steptool.gateway.server import Gateway
from steptool.system.own_loop import OwnLoop
from steptool.worlds.agent.agents import Agents
from steptool.worlds.base import AgentFailed

MOST_REQUESTS = 20
"""How many of its requests are answered; those behind them are refused."""
DRY_RUN_S = 60.0
"""How long it may take."""
FOLDER = Path(".steptool", "agent")
FIX = 'write a list of tools as OpenAI has them: [{"type": "function", "function": {"name": "find", "parameters": {}}}]'

RENAME = "give it another name in the agent"


class Shown(Frozen):
    system: str = ""
    tools: tuple[Tool, ...]


@dataclass
class DryRun:
    """An agent that ran without a policy."""

    requests: int = 0
    tools: dict[str, Tool] = field(default_factory=dict)
    """What it offered, by name, in the order in which it did."""
    system: str = ""
    """The system message of its first request."""
    failure: str | None = None
    """How it failed, where it did."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.requests += 1
        if self.requests == 1:
            self.system = "\n".join(message.text for message in request.messages if message.role == "system")
        for tool in request.tools:
            self.tools.setdefault(tool.name, tool)
        if self.requests > MOST_REQUESTS:
            raise Refused("this is a dry run, and it has made enough requests", code="dry_run")
        return ChatReply(text=GAVE_UP)


def dry_run(agents: Agents, query: str, log: Path) -> DryRun:
    """Run an agent once, with a model that answers nothing. Raises WorldError where no process can be started."""
    found, gateway, loop = DryRun(), Gateway(), OwnLoop("dry run of an agent")
    try:
        base_url = gateway.start()
        loop.wait(agents.run(query, base_url, gateway.open(found.complete), log=log))
    except AgentFailed as failed:
        found.failure = str(failed)
    finally:
        gateway.close()
        loop.close()
    return found


def ask(agents: Agents, query: str, name: str) -> Shown:
    """What an agent shows in a dry run. Raises InputError where it offers no tool, and says why."""
    log = FOLDER / "dry-run.log"
    found = dry_run(agents, query, log)
    if FINISH in found.tools:
        raise InputError(f"it offers a tool called {FINISH}, which is how an attempt ends here", where=name, fix=RENAME)
    if found.tools:
        return Shown(system=found.system, tools=tuple(found.tools.values()))
    if found.failure is not None:
        what, fix = (
            f"the agent failed before it offered the model a tool: {found.failure}",
            "run it by hand, and mend it",
        )
    elif not found.requests:
        what = "the agent ended and never asked the model"
        fix = "let it ask OPENAI_BASE_URL, with the key in OPENAI_API_KEY, as OpenAI's client does by itself"
    else:
        what = "the agent offers the model no tool in its requests"
        fix = (
            "pass them as `tools` of a request: calls of tools are what is learned; or list them in a file, world.tools"
        )
    raise InputError(f"{what} (what it printed: {log})" if log.is_file() else what, where=name, fix=fix)


def keep(path: Path, shown: Shown) -> None:
    """Write it as `read` reads it."""
    tools = [{"type": "function", "function": tool.model_dump(mode="json")} for tool in shown.tools]
    text = json.dumps({"system": shown.system, "tools": tools}, indent=2)  # in their order, which the model sees
    write_bytes(path, text.encode())


def read(path: Path) -> Shown:
    """What a file holds: tools in OpenAI's form or as StepTool writes them, as a list or beside the system message.

    Raises DataError that says which is wrong.
    """
    if not path.is_file():
        raise DataError("no such file", where=str(path), fix="set world.tools in params.yaml to a file that is there")
    value = parse_text(read_text(path), str(path), fix=FIX)
    listed = value.get("tools") if isinstance(value, dict) else value
    system = value.get("system", "") if isinstance(value, dict) else ""
    if not isinstance(system, str):
        raise DataError("its `system` is no text", where=str(path), fix="let it be a text, the system message")
    if not isinstance(listed, list) or not listed:
        raise DataError("holds no list of tools", where=str(path), fix=FIX)
    tools: dict[str, Tool] = {}
    for number, entry in enumerate(listed, start=1):
        tool = _tool(entry, f"{path}, tool {number}")
        if tool.name == FINISH:
            raise DataError(f"lists {FINISH}, which is how an attempt ends here", where=str(path), fix=RENAME)
        if tool.name in tools:
            raise DataError(f"lists {tool.name} twice", where=str(path), fix="give each tool its own name")
        tools[tool.name] = tool
    return Shown(system=system, tools=tuple(tools.values()))


def _tool(entry: Any, where: str) -> Tool:
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        raise DataError("is no tool with a name", where=where, fix=FIX)
    try:
        return tool_of(function)
    except ValidationError as error:
        raise DataError(f"is no tool: {reason(error)}", where=where, fix=FIX) from error
