"""The world of a project's own functions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator

from steptool.core.fields import Many, Positive, Text
from steptool.core.revision import MEANS_NOTHING, code_revision, words_revision
from steptool.core.types import content_hash
from steptool.worlds.project.world import ProjectSettings, ProjectWorld
from steptool.worlds.workers.client import Limits
from steptool.worlds.workers.code import module_file, names_of
from steptool.worlds.workers.toolbox import FunctionsToolbox


class FunctionsWorld(ProjectWorld):
    """Reads the functions and the tasks when it is created.

    Raises InputError for a function that cannot be a tool, and DataError for a task that cannot be one; both name it.
    """

    name: ClassVar[str] = "functions"

    class Config(ProjectSettings):
        module: Annotated[Text, AfterValidator(module_file)] = "tools.py"
        """File of the functions in the folder of the project; `FILE.py:Class` for the methods of a class."""
        tool_memory_mb: Positive = Limits.memory_mb
        """Megabytes that the process of one attempt may take, beside what the imported module took."""
        tool_output_kb: Many = Limits.output_kb
        """Kilobytes of a reply; what is longer is cut, and says so."""

    @staticmethod
    def content(config: FunctionsWorld.Config) -> str:
        """Hashes of the tasks, and of what the functions say: the policy reads their docstrings and errors.

        Raises DataError where the file of the tasks is missing.
        """
        words = words_revision(FunctionsWorld.modules(config), without=MEANS_NOTHING)
        return f"{ProjectWorld.tasks_content(config)}, words {words}"

    @staticmethod
    def modules(config: FunctionsWorld.Config) -> list[str]:
        """The module of the functions: its code counts in the revision."""
        return [names_of(config.module)[0], *ProjectWorld.modules(config)]

    @property
    def identity(self) -> str:
        """Other code replies otherwise."""
        return content_hash([super().identity, code_revision(self.modules(self.config), without=MEANS_NOTHING)])

    def __init__(self, config: Config, seed: int) -> None:
        limits = Limits(memory_mb=config.tool_memory_mb, output_kb=config.tool_output_kb)
        checks = self.named_checks(config)
        toolbox = FunctionsToolbox(config.module, checks, checks_file=config.checks, limits=limits)
        super().__init__(config, seed, toolbox)
