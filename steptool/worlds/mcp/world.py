"""The world of the tools of an MCP server."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from steptool.core.fields import Text
from steptool.core.secrets import Address, Variable
from steptool.core.storage import file_hash
from steptool.core.types import content_hash
from steptool.worlds.mcp.place import Place
from steptool.worlds.mcp.toolbox import Listed, McpToolbox, list_tools
from steptool.worlds.project.world import Listing, ProjectSettings, ProjectWorld, Record, recorded_listing

SOURCES = {".py", ".js", ".mjs", ".cjs", ".ts", ".rb", ".sh"}
"""Files of these kinds in a command are the server's code, and count in the revision."""
LISTING = TypeAdapter(list[Listed])


class McpWorld(ProjectWorld):
    """Asks the server for its tools, and reads the tasks, when it is created.

    Raises InputError for a server that cannot be used, and DataError for a task that cannot be one.
    """

    name: ClassVar[str] = "mcp"

    class Config(ProjectSettings):
        command: list[Text] = Field(default_factory=list, max_length=1000)
        """Program and arguments of a server that speaks over stdin and stdout."""
        url: Address | None = None
        """Address of a server that speaks streamable HTTP."""
        env: dict[Text, Variable] = Field(default_factory=dict)
        """Environment of the command beside PATH, HOME, LOGNAME, SHELL, TERM and USER: its name, and the variable that
        holds the value here."""
        headers: dict[Text, Variable] = Field(default_factory=dict)
        """Headers for the address, each with the variable that holds its value."""
        shared: Literal["auto"] | bool = "auto"
        """Whether all attempts share a connection; auto: if every tool says that it only reads."""

        record: Record = "auto"

        @model_validator(mode="after")
        def _one_place(self) -> Self:
            if bool(self.command) == bool(self.url):
                raise ValueError("give either command, such as [python, server.py], or url")
            if (self.env and self.url) or (self.headers and self.command):
                raise ValueError("env is for a command, headers are for a url")
            return self

    @staticmethod
    def listing(config: McpWorld.Config) -> Listing:
        """The tools, as the server lists them."""
        place = _place(config)
        return Listing(str(place), partial(_listed, place))

    @staticmethod
    def content(config: McpWorld.Config) -> str:
        """Hashes of the tasks, of the tools as the server lists them, and of its code where the command names it.

        Raises InputError where the server cannot be asked, DataError where the file of the tasks is missing.
        """
        listed = recorded_listing(config, McpWorld.listing(config))
        return f"{ProjectWorld.tasks_content(config)}, tools {content_hash(listed)}, code {_code(config)}"

    @property
    def identity(self) -> str:
        """Other code replies otherwise."""
        return content_hash([self.name, self.config.command, self.config.url, _code(self.config)])

    def __init__(self, config: Config, seed: int) -> None:
        listed = LISTING.validate_json(recorded_listing(config, McpWorld.listing(config)))
        super().__init__(config, seed, McpToolbox(_place(config), listed, config.shared))


def _place(config: McpWorld.Config) -> Place:
    return Place(tuple(config.command), config.url, tuple(config.env.items()), tuple(config.headers.items()))


def _code(config: McpWorld.Config) -> str:
    files = [Path(text) for text in config.command if Path(text).suffix in SOURCES and Path(text).is_file()]
    return content_hash([file_hash(path) for path in files])


@cache
def _listed(place: Place) -> str:
    """A command starts a server for it once: what it hashes is what it uses."""
    return LISTING.dump_json(list_tools(place)).decode()
