"""A request of ToolBench with the functions that it offers, from whatever file it was read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steptool.core.types import AnswerCheck, Reference, Task, Tool
from steptool.worlds.toolbench.names import Api


@dataclass(frozen=True)
class Function:
    """A function as a request offers it, and where the services have it."""

    api: Api
    tool: Tool
    about: dict[str, Any]
    """What is known of it, for a model that poses as the service."""
    is_shown: bool = True
    """Whether a policy is offered it."""


@dataclass(frozen=True)
class Request:
    id: str
    subset: str
    query: str
    functions: tuple[Function, ...]
    relevant: tuple[str, ...]
    """Names of the functions that help."""

    @property
    def task(self) -> Task:
        tools = tuple(each.tool for each in self.functions if each.is_shown)
        return Task(id=self.id, group=self.subset, query=self.query, tools=tools)

    @property
    def reference(self) -> Reference:
        offered = {each.tool.name for each in self.functions if each.is_shown}
        relevant = tuple(name for name in self.relevant if name in offered)
        return Reference(task_id=self.id, answer_check=AnswerCheck(kind="judge"), relevant_tools=relevant)
