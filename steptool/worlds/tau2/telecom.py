"""The telecom domain, solved alone: the agent holds the tools of its own desk and of the user's phone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar

from steptool.core.storage import read_text
from steptool.worlds.tau2.package import SPLITS_FILE, TASKS, imported, read_database

DATABASE, PHONE = "db.toml", "user_db.toml"
RULES = "main_policy_solo.md"
SUPPORT = {"manual": "tech_support_manual.md", "workflow": "tech_support_workflow_solo.md"}
"""How technical support is described to the agent."""


class Telecom:
    """The domain of one folder. Raises InputError where a package is missing, DataError for a broken file."""

    instructions: ClassVar[str] = (
        "You are an agent of customer service. The request is a ticket. Solve it by calling tools, in keeping with the"
        " policy below; there is nobody to talk to, and the tools of the user's phone are yours, too. End the attempt"
        " once the ticket is solved."
    )
    judged: ClassVar[frozenset[str]] = frozenset({"ENV_ASSERTION", "ACTION"})
    """What a verdict may rest on."""

    def __init__(self, folder: Path, policy: str) -> None:
        environment = imported("domains.telecom.environment")
        self._environment, self._tools = environment.TelecomEnvironment, environment.TelecomTools
        self._user_tools = environment.TelecomUserTools
        desk, phone = environment.TelecomDB, environment.TelecomUserDB
        self._database = read_database(folder / DATABASE, lambda text: desk.model_validate(tomllib.loads(text)))
        self._phone = read_database(folder / PHONE, lambda text: phone.model_validate(tomllib.loads(text)))
        main, support = read_text(folder / RULES), read_text(folder / SUPPORT[policy])
        self.rules = f"<main_policy>\n{main}\n</main_policy>\n<tech_support_policy>\n{support}\n</tech_support_policy>"

    @staticmethod
    def files(folder: Path) -> list[Path]:
        return [folder / name for name in (TASKS, SPLITS_FILE, DATABASE, PHONE, RULES, *SUPPORT.values())]

    def tools(self) -> list[Any]:
        """What is offered to the agent."""
        made = self.environment()
        return [*made.get_tools(), *made.get_user_tools()]

    def environment(self) -> Any:
        """One with databases of its own."""
        tools = self._tools(self._database.model_copy(deep=True))
        user_tools = self._user_tools(self._phone.model_copy(deep=True))
        made = self._environment(domain_name="telecom", policy="", tools=tools, user_tools=user_tools)
        made.solo_mode = True  # `set_solo_mode` describes all tools anew, to see whether two have one name
        return made

    def changes(self, environment: Any) -> dict[str, str]:
        """None: no verdict rests on the databases."""
        return {}
