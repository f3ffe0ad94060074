"""What the text of a tool says of it, where it is written as in the published files of ToolLens.

category_name:Food, tool_name:Store Groceries, api_name:Search a Grocery, api_description:Search a specific grocery,
required_params: [{"name": "grocery", "type": "string", "description": ""}], optional_params: [], return_schema: {…}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator

from steptool.core.storage import parse_json
from steptool.core.types import Tool
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.stable import Parameters, schema_of

MAX_DESCRIPTION = 1000
"""Characters of what describes a tool."""
_FIRST = "category_name:"
_AFTER = {
    "category": ", tool_name:",
    "tool": ", api_name:",
    "name": ", api_description:",
    "description": ", required_params: ",
    "required": ", optional_params: ",
    "optional": ", return_schema: ",
}
"""Field → what stands behind it."""

Written = Annotated[Parameters, BeforeValidator(parse_json)]


class Described(BaseModel):
    """A tool whose text is written so."""

    category: str
    tool: str
    name: str
    description: str
    required: Written
    optional: Written

    def as_tool(self) -> Tool:
        """Named as ToolBench names the functions of a tool: `search_a_grocery_for_store_groceries`."""
        name = Api.of(self.category, self.tool, self.name).offered
        said = f"{self.name} of {self.tool} ({self.category}): {self.description}"[:MAX_DESCRIPTION]
        schema = schema_of(self.required, self.optional)
        return Tool(name=name, description=said, parameters=schema, category=self.category)


def fields_of(text: str) -> dict[str, str] | None:
    """The parts of such a text by the fields of `Described`; None where a text is written otherwise."""
    if not text.startswith(_FIRST):
        return None
    found, rest = {}, text.removeprefix(_FIRST)
    for name, after in _AFTER.items():
        found[name], label, rest = rest.partition(after)
        if not label:
            return None
    return found
