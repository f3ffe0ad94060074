"""The world of the operations of a service."""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from steptool.core.fields import Text, not_an_output
from steptool.core.types import content_hash
from steptool.worlds.openapi.document import Document, fetch, is_address
from steptool.worlds.openapi.toolbox import OpenApiToolbox
from steptool.worlds.project.secrets import Variable
from steptool.worlds.project.world import ProjectSettings, ProjectWorld


def _document(text: str) -> str:
    return text if is_address(text) else not_an_output(text)


def _base_url(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"is the address of a service, http://… or https://…, got {text[:80]!r}")
    return text


class OpenApiWorld(ProjectWorld):
    """Reads the document and the tasks when it is created.

    Raises InputError for a document that cannot be used, and DataError for a task that cannot be one.
    """

    name: ClassVar[str] = "openapi"

    class Config(ProjectSettings):
        document: Annotated[Text, AfterValidator(_document)] = "openapi.json"
        """A file (JSON or YAML) in the folder of the project, or an address."""
        base_url: Annotated[Text, AfterValidator(_base_url)] | None = None
        """Where the service is; without it the document says so."""
        allow: list[Text] = Field(default_factory=list, max_length=10_000)
        """Operations beside those that read, as `createOrder` or `POST /orders`."""
        leave_out: list[Text] = Field(default_factory=list, max_length=10_000)
        """Operations that are not offered."""
        auth: dict[Text, Variable] = Field(default_factory=dict)
        """Environment variable of a security scheme; without it STEPTOOL_AUTH_ and the scheme's name in capitals."""

    @staticmethod
    def content(config: OpenApiWorld.Config) -> str:
        """Hashes of the tasks and of the document. Raises InputError where either cannot be read."""
        return f"{ProjectWorld.tasks_content(config)}, document {content_hash(_text(config.document))}"

    def __init__(self, config: Config, seed: int) -> None:
        document = Document(_text(config.document), config.document)
        toolbox = OpenApiToolbox(
            document, base_url=config.base_url, allow=config.allow, leave_out=config.leave_out, auth=config.auth
        )
        super().__init__(config, seed, toolbox)


def _text(document: str) -> str:
    return _fetched(document) if is_address(document) else fetch(document)


@cache
def _fetched(address: str) -> str:
    """A command asks once: what it hashes is what it uses."""
    return fetch(address)
