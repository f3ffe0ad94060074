"""The calendar: events with one participant, a start and a duration in minutes."""

from __future__ import annotations

from steptool.worlds.workbench.office import Office
from steptool.worlds.workbench.tools.base import (
    MOST_FOUND,
    TIME,
    Argument,
    Given,
    OfficeTool,
    Reply,
    delete,
    field_of,
    found,
    moment,
    need,
    to_update,
)

FIELDS = ("event_name", "participant_email", "event_start", "duration")


def create_event(office: Office, given: Given) -> Reply:
    [name] = need(given, "event_name", text="Event name not provided.")
    [participant] = need(given, "participant_email", text="Participant email not provided.")
    [start] = need(given, "event_start", text="Event start not provided.")
    [duration] = need(given, "duration", text="Event duration not provided.")
    event = {"event_name": name, "participant_email": participant.lower(), "event_start": start, "duration": duration}
    return office.add("events", event)


def delete_event(office: Office, given: Given) -> Reply:
    return delete(office, "events", "Event", given)


def update_event(office: Office, given: Given) -> Reply:
    key, field, value = to_update(given, "Event")
    found(office, "events", "Event", key)
    office.change("events", key, field, value.lower() if field == "participant_email" else value)
    return "Event updated successfully."


def get_event(office: Office, given: Given) -> Reply:
    return field_of(office, "events", "Event", given)


def search_events(office: Office, given: Given) -> Reply:
    """Events whose name or participant holds the query and whose start is within the bounds."""
    query = given.get("query", "").lower()
    least, most = (moment(given[name]) if name in given else None for name in ("time_min", "time_max"))
    events = [
        event
        for event in office.rows("events")
        if (query in (event["event_name"] or "").lower() or query in (event["participant_email"] or "").lower())
        and (least is None or moment(event["event_start"] or "") >= least)
        and (most is None or moment(event["event_start"] or "") <= most)
    ]
    return events[:MOST_FOUND] or "No events found."


ID = Argument("event_id", "8 digits")
TOOLS = (
    OfficeTool(
        "calendar.create_event",
        "Creates an event.",
        (
            Argument("event_name"),
            Argument("participant_email"),
            Argument("event_start", TIME),
            Argument("duration", "minutes"),
        ),
        create_event,
    ),
    OfficeTool("calendar.delete_event", "Deletes an event.", (ID,), delete_event),
    OfficeTool(
        "calendar.update_event",
        "Changes a field of an event.",
        (ID, Argument("field", choices=FIELDS), Argument("new_value")),
        update_event,
    ),
    OfficeTool(
        "calendar.get_event_information_by_id",
        "Returns a field of an event.",
        (ID, Argument("field", choices=("event_id", *FIELDS))),
        get_event,
    ),
    OfficeTool(
        "calendar.search_events",
        "Returns at most 5 events.",
        (
            Argument("query", "in the name or the participant's email", optional=True),
            Argument("time_min", f"{TIME}, earliest start", optional=True),
            Argument("time_max", f"{TIME}, latest start", optional=True),
        ),
        search_events,
    ),
)
