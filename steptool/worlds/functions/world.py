"""The world of a project's own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from steptool.core.fields import Text
from steptool.core.revision import MEANS_NOTHING, words_revision
from steptool.worlds.functions.toolbox import FunctionsToolbox, module_file, names_of
from steptool.worlds.project.tasks import read_tasks
from steptool.worlds.project.world import ProjectSettings, ProjectWorld


class FunctionsWorld(ProjectWorld):
    """Reads the functions and the tasks when it is created.

    Raises InputError for a function that cannot be a tool, and DataError for a task that cannot be one; both name it.
    """

    name: ClassVar[str] = "functions"

    class Config(ProjectSettings):
        module: Annotated[Text, AfterValidator(module_file)] = "tools.py"
        """File of the functions in the folder of the project; `FILE.py:Class` for the methods of a class."""

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
        return [names_of(config.module)[0]]

    def __init__(self, config: Config, seed: int) -> None:
        lines = read_tasks(Path(config.tasks))
        checks = {line.check: where for where, line in lines.items() if isinstance(line.check, str)}
        super().__init__(config, seed, FunctionsToolbox(config.module, checks))
