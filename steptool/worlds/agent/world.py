"""The world of an agent that brings its own tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from steptool.core.errors import DataError
from steptool.core.fields import Bound, Outside, Positive, Text
from steptool.core.plugins import search_here
from steptool.core.revision import MEANS_NOTHING, code_revision, imports_from_outside, words_revision
from steptool.core.types import Task, Tool, content_hash
from steptool.gateway.server import Gateway
from steptool.worlds.agent.agents import Agents
from steptool.worlds.agent.led import LedAgent
from steptool.worlds.agent.program import Program, callable_name, command_words
from steptool.worlds.agent.session import AgentSession
from steptool.worlds.agent.shown import DRY_RUN_S, FOLDER, Shown, ask, keep, read
from steptool.worlds.project.checks import StateCheck
from steptool.worlds.project.tasks import read_tasks
from steptool.worlds.project.world import ProjectSettings, ProjectWorld

BY_HAND = "Call the tools as you are told."
"""The query of an agent that is led by hand."""
NOT_IN_A_NAME = re.compile(r"[^\w.-]+")


class AgentToolbox:
    """Tools that only the agents themselves can call: here they are led to do so."""

    def __init__(self, tools: Mapping[str, Tool], agents: Agents, gateway: Gateway) -> None:
        self.tools, self._agents, self._gateway = tools, agents, gateway

    def changes_state(self, name: str) -> bool:
        return True

    def connect(self) -> LedAgent:
        self._agents.start()
        return LedAgent(self._gateway, partial(self._agents.run, BY_HAND, log=FOLDER / "by-hand.log"))

    def close(self) -> None:
        self._agents.close()
        self._gateway.close()


class AgentWorld(ProjectWorld):
    """Runs the agent once to see what it shows the model, where that is not known, and reads the tasks, when it is
    created.

    Raises InputError for an agent that cannot be used, and DataError for a task that cannot be one.
    """

    name: ClassVar[str] = "agent"
    search: ClassVar[str] = "agent"
    """How its tasks are attempted, whatever `search` in params.yaml says."""

    class Config(ProjectSettings):
        command: Text = ""
        """What starts the agent, as in a shell, in the folder of the project. `{query}` in it is the query, as one
        argument; without it the query is on standard input."""
        callable: Annotated[Text, AfterValidator(callable_name)] = ""
        """MODULE:FUNCTION that takes the query and returns the answer or None, async or not. Each attempt imports the
        module in a process of its own, and finds what that imports from other packages imported already."""
        preload: Annotated[list[Text], Field(default_factory=list, exclude=True)]
        """Further modules that are imported once for all attempts, such as one of the project that takes long."""
        answer: Literal["message", "output"] = "message"
        """What a command answers: the model's last message, or what the command prints."""
        tools: Outside = ""
        """File of the tools that the agent offers, a JSON list as OpenAI has them, or {"system": …, "tools": […]} with
        its system message. Without it the agent is run once without a model to see them."""
        files: list[Text] = Field(default_factory=list)
        """Patterns of further files that the agent consists of, such as `prompts/*.md`: where one changes, attempts
        are made again. Files and modules that the command names, with all that they import, count anyway."""
        timeout_s: Bound = 120.0
        """Longest time of one attempt, with the model's."""
        memory_mb: Positive = 4096
        """Megabytes that each process of an attempt may take."""

        @model_validator(mode="after")
        def _one_agent(self) -> Self:
            if bool(self.command) == bool(self.callable):
                raise ValueError("give either command, such as python my_agent.py, or callable, such as my_agent:run")
            if self.command and not command_words(self.command):
                raise ValueError("command names no program")
            if self.callable and self.answer == "output":
                raise ValueError("answer: output is for a command; a callable returns its answer, or None")
            if self.record != "off":
                raise ValueError("record is not for an agent: its tools run inside of it, where nothing records them")
            return self

        @property
        def program(self) -> Program:
            return Program(self.command, self.callable, self.answer)

    @staticmethod
    def modules(config: AgentWorld.Config) -> list[str]:
        """Those of the agent and of the checks: their code counts in the revision."""
        return [*config.program.modules, *ProjectWorld.modules(config)]

    @staticmethod
    def content(config: AgentWorld.Config) -> str:
        """Hashes of the tasks, of what the agent's code says, of its other files, and of what it shows.

        Raises InputError where its tools cannot be known, DataError where the file of the tasks is missing.
        """
        search_here()
        tasks = ProjectWorld.tasks_content(config)
        shown = content_hash(shown_by(config).model_dump(mode="json"))
        return f"{tasks}, {_content_of_agent(config)}, shown {shown}"

    def __init__(self, config: Config, seed: int) -> None:
        search_here()
        shown = shown_by(config)
        tools = {tool.name: tool for tool in shown.tools}
        self.system = shown.system
        self.agents, self.gateway = _agents(config), Gateway()
        super().__init__(config, seed, AgentToolbox(tools, self.agents, self.gateway))

    def open(self, task: Task, seed: int) -> AgentSession:
        """A fresh session. What the agents import is imported meanwhile."""
        self.agents.start()
        log = FOLDER / f"{NOT_IN_A_NAME.sub('-', task.id)[:80]}-{seed}.log"
        run = partial(self.agents.run, task.query, log=log)
        return AgentSession(task, *self.parts(task, LedAgent(self.gateway, run)), run=run)

    def refuse_unless_callable(self, check: StateCheck, where: str) -> None:
        """No tool can be asked once the agent has ended."""
        raise DataError(
            f"check: {check.tool} runs inside of the agent, and cannot be asked for the state once that has ended",
            where=where,
            fix="check the answer, or write a function in world.checks, which gets the calls and their replies",
        )


def shown_by(config: AgentWorld.Config) -> Shown:
    """What its file of tools holds, or what the agent was seen to show the model, now or earlier."""
    if config.tools:
        return read(Path(config.tools))
    agent = [config.command, config.callable, code_revision(config.program.modules, without=MEANS_NOTHING)]
    kept = FOLDER / f"tools-{content_hash([*agent, _content_of_agent(config)], 16)}.json"
    if not kept.is_file():
        lines = list(read_tasks(Path(config.tasks)).values())
        first = next((line for line in lines if line.split in (None, "train")), lines[0])
        with closing(_agents(config, most_s=DRY_RUN_S)) as agents:
            keep(kept, ask(agents, first.query, str(config.program)))
    return read(kept)


def _agents(config: AgentWorld.Config, most_s: float = inf) -> Agents:
    preload = [*config.preload, *imports_from_outside(config.program.modules)] if config.callable else []
    timeout_s = min(config.timeout_s, most_s)
    return Agents(config.program, timeout_s=timeout_s, preload=preload, memory_mb=config.memory_mb)


def _content_of_agent(config: AgentWorld.Config) -> str:
    words = words_revision(config.program.modules, without=MEANS_NOTHING)
    return f"words {words}, files {config.program.content(config.files)}"
