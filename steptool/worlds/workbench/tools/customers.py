"""Customers: the CRM."""

from __future__ import annotations

from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.tools.base import (
    DATE,
    MOST_FOUND,
    Argument,
    Given,
    OfficeTool,
    Refused,
    Reply,
    delete,
    found,
    need,
    one_of,
    sought,
    to_update,
)

STATUSES = ("Qualified", "Won", "Lost", "Lead", "Proposal")
PRODUCTS = ("Software", "Hardware", "Services", "Consulting", "Training")
FIELDS = (
    "customer_name",
    "assigned_to_email",
    "customer_email",
    "customer_phone",
    "last_contact_date",
    "product_interest",
    "status",
    "notes",
    "follow_up_by",
)
HELD = ("customer_name", "customer_email", "product_interest", "status", "assigned_to_email")
"""Arguments of a search that a field must hold, capitals apart."""
BOUNDED = ("last_contact_date", "follow_up_by")
NOTHING_ASKED = "No search parameters provided. Please provide at least one parameter."


def search_customers(office: Office, given: Given) -> Reply:
    least, most = ([(name, f"{name}_{end}") for name in BOUNDED if f"{name}_{end}" in given] for end in ("min", "max"))
    held = [name for name in HELD if name in given]
    if not (held or least or most):
        raise Refused(NOTHING_ASKED, "missing_argument")
    return [
        row
        for row in office.rows("customers")
        if all(given[name].lower() in (row[name] or "").lower() for name in held)
        and all((row[name] or "") >= given[bound] for name, bound in least)
        and all(row[name] is not None and (row[name] or "") <= given[bound] for name, bound in most)
    ][:MOST_FOUND]


def update_customer(office: Office, given: Given) -> Reply:
    key, field, value = to_update(given, "Customer")
    if field == "status":
        one_of(value, STATUSES, "Status")
    if field == "product_interest":
        one_of(value, PRODUCTS, "Product interest")
    found(office, "customers", "Customer", key)
    one_of(field, FIELDS, "Field")
    office.change("customers", key, field, value.lower() if field.endswith("_email") else value)
    return "Customer updated successfully."


def add_customer(office: Office, given: Given) -> Reply:
    need(
        given,
        *("customer_name", "assigned_to_email", "status"),
        text="Please provide all required fields: customer_name, assigned_to_email, status.",
    )
    row = {field: given.get(field) for field in FIELDS} | {"notes": given.get("notes", "")}
    emails = {field: (row[field] or "").lower() for field in FIELDS if field.endswith("_email") and row[field]}
    return office.add("customers", {**row, **emails})


def delete_customer(office: Office, given: Given) -> Reply:
    return delete(office, "customers", "Customer", given)


ID = Argument("customer_id", "8 digits")
DETAILS = (
    Argument("customer_email", optional=True),
    Argument("customer_phone", optional=True),
    Argument("last_contact_date", DATE, optional=True),
    Argument("product_interest", choices=PRODUCTS, optional=True),
    Argument("notes", optional=True),
    Argument("follow_up_by", DATE, optional=True),
)
TOOLS = (
    OfficeTool(
        "customer_relationship_manager.update_customer",
        "Changes a field of a customer.",
        (ID, Argument("field", choices=FIELDS), Argument("new_value")),
        update_customer,
    ),
    OfficeTool(
        "customer_relationship_manager.add_customer",
        "Adds a customer.",
        (
            Argument("customer_name"),
            Argument("assigned_to_email"),
            Argument("status", choices=STATUSES),
            *DETAILS,
        ),
        add_customer,
    ),
    OfficeTool("customer_relationship_manager.delete_customer", "Deletes a customer.", (ID,), delete_customer),
    OfficeTool(
        "customer_relationship_manager.search_customers",
        "Returns at most 5 customers.",
        (
            Argument("customer_name", optional=True),
            Argument("customer_email", optional=True),
            sought(Argument("product_interest", choices=PRODUCTS)),
            sought(Argument("status", choices=STATUSES)),
            Argument("assigned_to_email", optional=True),
            *(Argument(f"{name}_{end}", DATE, optional=True) for name in BOUNDED for end in ("min", "max")),
        ),
        search_customers,
    ),
)
