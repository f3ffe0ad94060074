"""The domains airline and retail: an agent of customer service, who talks with a user and changes a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from steptool.core.storage import read_text
from steptool.core.types import Tool
from steptool.worlds.tau2.arithmetic import calculate
from steptool.worlds.tau2.package import SPLITS_FILE, TASKS, imported, package_folder, read_database
from steptool.worlds.tau2.tables import Table

CLASSES = {"airline": ("FlightDB", "AirlineTools"), "retail": ("RetailDB", "RetailTools")}
DATABASE, RULES = "db.json", "policy.md"
BY_CALL = " The user reads nothing but what you say with the tool `talk_to_user`."
TALK = Tool(
    name="talk_to_user",
    description="Say something to the user. The reply is what the user says next, or that the conversation is over.",
    parameters={"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
)
"""What a policy calls to talk where it cannot send a message."""


def guidelines_file() -> Path:
    """What the benchmark tells the model that plays a user, whoever it is."""
    return package_folder() / "data" / "tau2" / "user_simulator" / "simulation_guidelines.md"


class Service:
    """One of the domains, of one folder. Raises InputError where a package is missing, DataError for a broken file."""

    instructions: ClassVar[str] = (
        "You are an agent of customer service. Help the user in keeping with the policy below. In each turn either call"
        " a tool or talk to the user, never both."
    )
    judged: ClassVar[frozenset[str]] = frozenset({"DB", "COMMUNICATE", "ENV_ASSERTION", "ACTION", "NL_ASSERTION"})
    """What a verdict may rest on; the last needs a judge."""

    def __init__(self, folder: Path, domain: str) -> None:
        database, tools = CLASSES[domain]
        self._domain = domain
        self._tools = getattr(imported(f"domains.{domain}.tools"), tools)
        self._environment = imported("environment.environment").Environment
        kind = getattr(imported(f"domains.{domain}.data_model"), database)
        self._database = read_database(folder / DATABASE, kind.model_validate_json)
        self.rules = read_text(folder / RULES)

    @staticmethod
    def files(folder: Path) -> list[Path]:
        return [*(folder / name for name in (TASKS, SPLITS_FILE, DATABASE, RULES)), guidelines_file()]

    def tools(self) -> list[Any]:
        """What is offered to the agent."""
        return list(self._tools(self._database).get_tools().values())

    def environment(self) -> Any:
        """One with a database of its own."""
        tables = {name: Table(records) for name, records in self._database if isinstance(records, dict)}
        tools = self._tools(self._database.model_copy(update=tables))
        tools.calculate = calculate
        return self._environment(domain_name=self._domain, policy="", tools=tools)

    def changes(self, environment: Any) -> dict[str, str]:
        """Table and key of each record that is not as it was in the beginning → the record as JSON."""
        return {
            f"{name} {key}": text
            for name, table in environment.tools.db
            if isinstance(table, Table)
            for key, text in table.changes().items()
        }
