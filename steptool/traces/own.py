"""Trajectories of ours: of any stage, or of an imported folder.

An action that could not be read is imported as a message, and what came back as the user's: `steps.messages_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from steptool.core.fields import Settings, Text
from steptool.traces import stored
from steptool.traces.conversation import Conversation, Skipped
from steptool.traces.steps import messages_of


class Own:
    name: ClassVar[str] = "steptool"

    class Config(Settings):
        tasks: Text = ""
        """Folder of the tasks; by default data/tasks, and of an imported folder its own."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        return stored.is_stored(Path(source))

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        tasks = Path(self.config.tasks) if self.config.tasks else None
        for task, done in stored.read(Path(source), tasks):
            if task is None:
                yield Skipped(where=done.id, reason="its task is not known")
            elif done.stop_reason.broken:
                yield Skipped(where=done.id, reason=f"it broke: {done.stop_reason.value}")
            else:
                yield Conversation(
                    where=done.id,
                    messages=tuple(messages_of(task.query, done.steps)),
                    tools=task.tools,
                    model=done.policy.name,
                    group=task.group,
                    solved=done.outcome.solved,
                    evidence=done.outcome.evidence,
                )
