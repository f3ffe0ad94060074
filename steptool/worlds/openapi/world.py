"""The world of the operations of a service."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from steptool.core.fields import Text, not_an_output
from steptool.core.secrets import Address, Variable, plain_address
from steptool.core.types import content_hash
from steptool.worlds.openapi.document import Document, fetch, is_address
from steptool.worlds.openapi.toolbox import OpenApiToolbox
from steptool.worlds.project.world import Listing, ProjectSettings, ProjectWorld, Record, recorded_listing


def _document(text: str) -> str:
    return plain_address(text) if is_address(text) else not_an_output(text)


class OpenApiWorld(ProjectWorld):
    """Reads the document and the tasks when it is created.

    Raises InputError for a document that cannot be used, and DataError for a task that cannot be one.
    """

    name: ClassVar[str] = "openapi"

    class Config(ProjectSettings):
        document: Annotated[Text, AfterValidator(_document)] = "openapi.json"
        """A file (JSON or YAML) in the folder of the project, or an address."""
        base_url: Address | None = None
        """Where the service is; without it the document says so."""
        allow: list[Text] = Field(default_factory=list, max_length=10_000)
        """Operations beside those that read, as `createOrder` or `POST /orders`."""
        leave_out: list[Text] = Field(default_factory=list, max_length=10_000)
        """Operations that are not offered."""
        auth: dict[Text, Variable] = Field(default_factory=dict)
        """Environment variable of a security scheme; without it STEPTOOL_AUTH_ and the scheme's name in capitals."""

        record: Record = "auto"

    @staticmethod
    def listing(config: OpenApiWorld.Config) -> Listing | None:
        """The document, where it is at an address."""
        address = config.document
        return Listing(address, partial(fetch, address)) if is_address(address) else None

    @staticmethod
    def content(config: OpenApiWorld.Config) -> str:
        """Hashes of the tasks and of the document. Raises InputError where either cannot be read."""
        return f"{ProjectWorld.tasks_content(config)}, document {content_hash(_text(config))}"

    @property
    def identity(self) -> str:
        """Which operations are offered changes no reply."""
        return content_hash([self.name, self.config.document, self.config.base_url])

    def __init__(self, config: Config, seed: int) -> None:
        toolbox = OpenApiToolbox(
            Document(_text(config), config.document),
            base_url=config.base_url,
            allow=config.allow,
            leave_out=config.leave_out,
            auth=config.auth,
        )
        super().__init__(config, seed, toolbox)


def _text(config: OpenApiWorld.Config) -> str:
    listing = OpenApiWorld.listing(config)
    return fetch(config.document) if listing is None else recorded_listing(config, listing)
