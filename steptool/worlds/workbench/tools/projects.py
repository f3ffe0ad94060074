"""Tasks of the projects, on boards with lists."""

from __future__ import annotations

from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.tools.base import (
    DATE,
    Argument,
    Given,
    OfficeTool,
    Refused,
    Reply,
    delete,
    field_of,
    found,
    need,
    one_of,
    sought,
    to_update,
)

LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
FIELDS = ("task_name", "assigned_to_email", "list_name", "due_date", "board")


def create_task(office: Office, given: Given) -> Reply:
    need(given, *FIELDS, text="Missing task details.")
    row = {field: given[field] for field in FIELDS} | {"assigned_to_email": given["assigned_to_email"].lower()}
    _check_member(office, row["assigned_to_email"])
    one_of(row["list_name"], LISTS, "List", ".")
    one_of(row["board"], BOARDS, "Board", ".")
    return office.add("tasks", row)


def delete_task(office: Office, given: Given) -> Reply:
    return delete(office, "tasks", "Task", given)


def update_task(office: Office, given: Given) -> Reply:
    key, field, value = to_update(given, "Task")
    if field == "board":
        one_of(value, BOARDS, "Board", ".")
    if field == "list_name":
        one_of(value, LISTS, "List", ".")
    if field == "assigned_to_email":
        value = value.lower()
        _check_member(office, value)
    found(office, "tasks", "Task", key)
    if field not in ("task_id", *FIELDS):
        raise Refused("Field not valid.")
    office.change("tasks", key, field, value)
    return "Task updated successfully."


def get_task(office: Office, given: Given) -> Reply:
    return field_of(office, "tasks", "Task", given)


def search_tasks(office: Office, given: Given) -> Reply:
    """Tasks whose fields hold what is asked, capitals apart."""
    asked = [field for field in FIELDS if field in given]
    if not asked:
        raise Refused("No search parameters provided.", "missing_argument")
    return [
        row
        for row in office.rows("tasks")
        if all(given[field].lower() in (row[field] or "").lower() for field in asked)
    ]


def _check_member(office: Office, email: str) -> None:
    if email not in {(row["assigned_to_email"] or "").lower() for row in office.rows("tasks")}:
        raise Refused("Assignee email not valid. Please choose from the list of team members.")


ID = Argument("task_id", "8 digits")


DETAILS = (
    Argument("task_name"),
    Argument("assigned_to_email"),
    Argument("list_name", choices=LISTS),
    Argument("due_date", DATE),
    Argument("board", choices=BOARDS),
)


TOOLS = (
    OfficeTool("project_management.create_task", "Creates a task.", DETAILS, create_task),
    OfficeTool("project_management.delete_task", "Deletes a task.", (ID,), delete_task),
    OfficeTool(
        "project_management.update_task",
        "Changes a field of a task.",
        (ID, Argument("field", choices=FIELDS), Argument("new_value")),
        update_task,
    ),
    OfficeTool(
        "project_management.get_task_information_by_id",
        "Returns a field of a task.",
        (ID, Argument("field", choices=("task_id", *FIELDS))),
        get_task,
    ),
    OfficeTool("project_management.search_tasks", "Returns tasks.", tuple(map(sought, DETAILS)), search_tasks),
)
