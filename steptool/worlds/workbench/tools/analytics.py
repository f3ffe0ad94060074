"""Visits to a web site, counted by day, and plots of them."""

from __future__ import annotations

from collections.abc import Callable

from steptool.worlds.workbench.office import Office, Row
from steptool.worlds.workbench.tools.base import DATE, Argument, Given, OfficeTool, Refused, Reply, need

SOURCES = ("direct", "referral", "search engine", "social media")
NUMBERS = ("total_visits", "session_duration_seconds", "user_engaged")
PLOTTED = (*NUMBERS, "visits_direct", "visits_referral", "visits_search_engine", "visits_social_media")
NAMED = (*NUMBERS, *SOURCES)
"""What the benchmark's error names instead: it takes `visits_direct` and says `direct`."""
KINDS = ("bar", "line", "scatter", "histogram")


def create_plot(office: Office, given: Given) -> Reply:
    [start] = need(given, "time_min", text="Start date not provided.")
    [end] = need(given, "time_max", text="End date not provided.")
    value, kind = given.get("value_to_plot", ""), given.get("plot_type", "")
    if value not in PLOTTED:
        raise Refused(f"Value to plot must be one of {', '.join(map(repr, NAMED))}")
    if kind not in KINDS:
        raise Refused("Plot type must be one of 'bar', 'line', 'scatter', or 'histogram'")
    path = f"plots/{start}_{end}_{value}_{kind}.png"
    office.rows("plots").append({"file_path": path})
    return path


def get_visitor(office: Office, given: Given) -> Reply:
    [visitor] = need(given, "visitor_id", text="Visitor ID not provided.")
    visits = [row for row in office.rows("visits") if row["visitor_id"] == visitor]
    if not visits:
        raise Refused("Visitor not found.", "unknown_id")
    return visits


def total_visits(office: Office, given: Given) -> Reply:
    return _counts(office, given, lambda row: True)


def engaged_users(office: Office, given: Given) -> Reply:
    return _counts(office, given, lambda row: row["user_engaged"] == "True")


def traffic_source(office: Office, given: Given) -> Reply:
    source = given.get("traffic_source")
    return _counts(office, given, lambda row: source is None or row["traffic_source"] == source)


def average_duration(office: Office, given: Given) -> Reply:
    lengths = {
        day: [float(row["session_duration_seconds"] or 0) for row in rows] for day, rows in _days(office, given).items()
    }
    return {day: sum(found) / len(found) for day, found in lengths.items()}


def _counts(office: Office, given: Given, is_counted: Callable[[Row], bool]) -> dict[str, int]:
    """How many visits of each day are counted. A day of visits of which none is counted has 0."""
    return {day: sum(map(is_counted, rows)) for day, rows in _days(office, given).items()}


def _days(office: Office, given: Given) -> dict[str, list[Row]]:
    """The visits by day. Bounds are compared as texts, both included."""
    least, most = given.get("time_min", ""), given.get("time_max")
    days: dict[str, list[Row]] = {}
    for row in sorted(office.rows("visits"), key=lambda row: row["date_of_visit"] or ""):
        day = row["date_of_visit"] or ""
        if day >= least and (most is None or day <= most):
            days.setdefault(day, []).append(row)
    return days


BOUNDS = (Argument("time_min", DATE, optional=True), Argument("time_max", DATE, optional=True))
TOOLS = (
    OfficeTool(
        "analytics.create_plot",
        "Plots a value over time.",
        (
            Argument("time_min", DATE),
            Argument("time_max", DATE),
            Argument("value_to_plot", choices=PLOTTED),
            Argument("plot_type", choices=KINDS),
        ),
        create_plot,
    ),
    OfficeTool("analytics.engaged_users_count", "Counts the engaged users of each day.", BOUNDS, engaged_users),
    OfficeTool(
        "analytics.get_visitor_information_by_id",
        "Returns the visits of a visitor.",
        (Argument("visitor_id", "4 digits"),),
        get_visitor,
    ),
    OfficeTool(
        "analytics.traffic_source_count",
        "Counts the visits of each day from a source.",
        (*BOUNDS, Argument("traffic_source", choices=SOURCES, optional=True)),
        traffic_source,
    ),
    OfficeTool("analytics.total_visits_count", "Counts the visits of each day.", BOUNDS, total_visits),
    OfficeTool(
        "analytics.get_average_session_duration",
        "Returns the average session of each day in seconds.",
        BOUNDS,
        average_duration,
    ),
)
