"""Emails, received and sent."""

from __future__ import annotations

from steptool.worlds.workbench.office import NOW, Office, Row
from steptool.worlds.workbench.tools.base import (
    DATE,
    MOST_FOUND,
    Argument,
    Given,
    OfficeTool,
    Refused,
    Reply,
    delete,
    field_of,
    found,
    moment,
    need,
)

FIELDS = ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body")


def send_email(office: Office, given: Given) -> Reply:
    text = "Recipient, subject, or body not provided."
    recipient, subject, body = need(given, "recipient", "subject", "body", text=text)
    _send(office, recipient, subject, body)
    return "Email sent successfully."


def delete_email(office: Office, given: Given) -> Reply:
    return delete(office, "emails", "Email", given)


def forward_email(office: Office, given: Given) -> Reply:
    key, recipient = need(given, "email_id", "recipient", text="Email ID or recipient not provided.")
    email = found(office, "emails", "Email", key)
    _send(office, recipient, f"FW: {email['subject']}", email["body"])
    return "Email forwarded successfully."


def reply_email(office: Office, given: Given) -> Reply:
    key, body = need(given, "email_id", "body", text="Email ID or body not provided.")
    email = found(office, "emails", "Email", key)
    _send(office, email["sender/recipient"] or "", email["subject"], body)
    return "Email replied successfully."


def get_email(office: Office, given: Given) -> Reply:
    return field_of(office, "emails", "Email", given)


def search_emails(office: Office, given: Given) -> Reply:
    """Emails, the latest first, that hold every word of the query in subject, body or address."""
    words = given.get("query", "").lower().split()
    least, most = (moment(given[name]).date() if name in given else None for name in ("date_min", "date_max"))

    def is_meant(email: Row) -> bool:
        text = f"{email['subject']} {email['body']} {email['sender/recipient']}".lower()
        day = moment(email["sent_datetime"] or "").date()
        in_time = (least is None or day >= least) and (most is None or day <= most)
        return in_time and all(word in text for word in words)

    emails = sorted(filter(is_meant, office.rows("emails")), key=lambda email: email["sent_datetime"] or "")
    return emails[::-1][:MOST_FOUND] or "No emails found."


def _send(office: Office, recipient: str, subject: str | None, body: str | None) -> None:
    if "@" not in recipient or "." not in recipient or recipient.startswith(("[", "{")):  # several are none
        raise Refused("Invalid recipient email address.")
    email = {
        "inbox/outbox": "outbox",
        "sender/recipient": recipient.lower(),
        "subject": subject,
        "sent_datetime": NOW,
        "body": body,
    }
    office.add("emails", email, digits=1)


ID = Argument("email_id", "8 digits")
TOOLS = (
    OfficeTool(
        "email.send_email",
        "Sends an email.",
        (Argument("recipient", "email address"), Argument("subject"), Argument("body")),
        send_email,
    ),
    OfficeTool("email.delete_email", "Deletes an email.", (ID,), delete_email),
    OfficeTool(
        "email.forward_email", "Forwards an email.", (ID, Argument("recipient", "email address")), forward_email
    ),
    OfficeTool("email.reply_email", "Replies to an email.", (ID, Argument("body")), reply_email),
    OfficeTool(
        "email.get_email_information_by_id",
        "Returns a field of an email.",
        (ID, Argument("field", choices=FIELDS)),
        get_email,
    ),
    OfficeTool(
        "email.search_emails",
        "Returns at most 5 emails, the latest first.",
        (
            Argument("query", "words in subject, body or address", optional=True),
            Argument("date_min", DATE, optional=True),
            Argument("date_max", DATE, optional=True),
        ),
        search_emails,
    ),
)
