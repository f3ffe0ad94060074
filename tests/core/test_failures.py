"""A reply that says it failed is an error of a kind; one that mentions errors is none."""

from __future__ import annotations

import pytest

from steptool.core.failures import error_of


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ('{"error": "no such book"}', "tool_error"),
        ('{"error": "unknown_id", "message": "x"}', "unknown_id"),
        ('{"error": {"type": "rate_limit", "message": "slower"}}', "rate_limit"),
        ('{"error": {"message": "slower"}}', "tool_error"),
        ('{"errors": ["a", "b"]}', "tool_error"),
        ('{"error": true}', "tool_error"),
        ('{"status": "error"}', "tool_error"),
        ('{"status": 404, "body": ""}', "tool_error"),
        ('{"success": false}', "tool_error"),
        ('  {"isError": true, "content": []}\n', "tool_error"),
        ("Error: no such book", "tool_error"),
        ("ERROR no such book", "tool_error"),
        ("Error 404", "tool_error"),
        ("error executing tool find", "tool_error"),
        ("Failed to connect", "tool_error"),
        ("ValueError: no such book", "ValueError"),
        ("requests.exceptions.HTTPError: 404", "HTTPError"),
        ('Traceback (most recent call last):\n  File "a.py", line 1\nshop.errors.NotFoundError: Dune', "NotFoundError"),
        ("Traceback (most recent call last):\n  cut off", "tool_error"),
        ("Event not found.", "tool_error"),
        ('"Event not found."', "tool_error"),
        ("Board not valid. Please choose from: 'Back end', 'Front end'.", "tool_error"),
        ("Participant email not provided.", "tool_error"),
        ("Invalid recipient email address.", "tool_error"),
        ("Missing task details.", "tool_error"),
        ("Value to plot must be one of 'total_visits', 'direct'", "tool_error"),
        ("sleep is not a valid tool, try one of [calendar.create_event]", "tool_error"),
        ("The parameter `title` is required.", "tool_error"),
        ("The file a.txt does not exist", "tool_error"),
        ("Permission denied", "tool_error"),
    ],
)
def test_a_failure_has_a_kind(reply: str, kind: str) -> None:
    assert error_of(reply) == kind


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "There were no errors.",
        "No events found.",
        "Event deleted successfully.",
        "The ring was not found until 1998.",
        "A passport is required.",
        "An unknown author wrote it.",
        "Unknown Pleasures, by Joy Division",
        "Missing, a novel",
        "It is valid.",
        "All that glitters, so an old book says, is not found.",
        "Errors and Omissions, a novel",
        "Error handling in Rust, 2nd edition",
        "Exceptional weather in Oslo",
        '{"error": null, "price": 9.5}',
        '{"error": "", "response": "ok"}',
        '{"errors": []}',
        '{"error": "none"}',
        '{"status": "ok"}',
        '{"status": 200}',
        '{"status": true}',
        '{"success": true}',
        '{"title": "error"}',
        '[{"error": "a row of a table"}]',
        '{"error": "cut o',
        "9.5",
    ],
)
def test_any_other_reply_has_none(reply: str) -> None:
    assert error_of(reply) is None
