"""The directory of the company."""

from __future__ import annotations

from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.tools.base import Argument, Given, OfficeTool, Reply, need


def find_email_address(office: Office, given: Given) -> Reply:
    [name] = need(given, "name", text="Name not provided.")
    addresses = [row["email_address"] or "" for row in office.rows("directory")]
    return [address for address in addresses if name.lower() in address]


TOOLS = (
    OfficeTool(
        "company_directory.find_email_address",
        "Finds the email addresses of an employee.",
        (Argument("name", "first name, or part of it"),),
        find_email_address,
    ),
)
