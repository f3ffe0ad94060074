"""The world `toolbench`: requests of ToolBench and StableToolBench, and functions that reply from recordings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from steptool.core.fields import Outside
from steptool.endpoints.settings import PartSettings
from steptool.worlds.toolbench.base import RequestSettings, RequestWorld
from steptool.worlds.toolbench.desk import Desk
from steptool.worlds.toolbench.metrics import OF_REPLIES
from steptool.worlds.toolbench.simulator import Simulator


class ToolBenchWorld(RequestWorld):
    """Raises what `RequestWorld` and `Simulator` raise."""

    name: ClassVar[str] = "toolbench"
    metrics: ClassVar[Mapping[str, Mapping[str, Any]]] = OF_REPLIES

    class Config(RequestSettings):
        nearest: Annotated[float, Field(ge=0.5, le=1)] = 0.9
        """Least likeness of arguments to recorded ones, of texts by their letters, at which the reply to these is
        given; 1: only to arguments that are equal in one spelling."""
        simulator: PartSettings | None = None
        """Endpoint of a model that replies to what was never recorded; null: such a call is an error."""
        kept: Annotated[Outside, Field(min_length=1, exclude=True)] = "toolbench.db"
        """File of what this model replied."""

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing."""
        super().__init__(config)
        simulator = Simulator(config.simulator) if config.simulator else None
        self.counter = Desk(self.library, Path(config.kept), nearest=config.nearest, simulator=simulator)
