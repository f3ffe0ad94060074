"""Where replies came from, as metrics of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from steptool.core.fields import Settings
from steptool.core.plugins import NoSettings
from steptool.core.types import Reference, ScoredTrajectory, Task
from steptool.worlds.toolbench.replies import SOURCES, Source, read_mix


class RepliesFrom:
    """metrics: {replies_nearest: {use: replies_from, source: nearest}}"""

    is_rate: ClassVar[bool] = True

    class Config(Settings):
        source: Source

    def __init__(self, config: Config) -> None:
        self.config = config
        self.describes = f"share of the replies that are {config.source}"

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        counts = read_mix(scored.trajectory.outcome.evidence)
        return float(counts.get(self.config.source, 0)), float(sum(counts.values()))


class Replies:
    describes: ClassVar[str] = "replies of the world to one attempt"
    is_rate: ClassVar[bool] = False

    def __init__(self, config: NoSettings | None = None) -> None:
        """It has no settings."""

    def fraction(self, scored: ScoredTrajectory, task: Task, reference: Reference) -> tuple[float, float]:
        return float(sum(read_mix(scored.trajectory.outcome.evidence).values())), 1.0


OF_SERVERS: Mapping[str, Mapping[str, Any]] = {
    "replies": {"use": f"{__name__}:Replies"},
    **{f"replies_{source}": {"use": f"{__name__}:RepliesFrom", "source": source} for source in SOURCES},
}
"""As `metrics` of params.yaml has them."""
OF_REPLIES = {name: each for name, each in OF_SERVERS.items() if name != "replies_server"}
"""The same where no server replies."""
