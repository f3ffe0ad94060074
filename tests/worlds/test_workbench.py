"""WorkBench: an office of a few rows made here, and the real pack where STEPTOOL_WORKBENCH names it.

events   00000001  standup   ann@atlas.com   2023-11-29 09:00:00   30
         00000002  review    bob@atlas.com   2023-12-01 10:00:00   60
emails   00000007  from ann  "Budget"  2023-11-20 08:00:00
tasks    00000003  Fix login  ann@atlas.com  In Progress  2023-12-04  Back end
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.types import ToolCall
from steptool.traces.workbench import WorkBenchRuns
from steptool.worlds.checks import check_demonstrations, check_tasks
from steptool.worlds.workbench import pack
from steptool.worlds.workbench.replay import main, replay, solved_by_nothing
from steptool.worlds.workbench.session import WorkBenchSession
from steptool.worlds.workbench.toolbox import TOOLS, after, as_call
from steptool.worlds.workbench.world import WorkBench, _split

REAL = Path(os.environ.get(pack.VARIABLE, ""))
needs_pack = pytest.mark.skipif(
    not (REAL / pack.QUERIES).is_file(), reason=f"{pack.VARIABLE} names no folder of WorkBench"
)
ROWS = {
    "calendar_events.csv": [
        "00000001,standup,ann@atlas.com,2023-11-29 09:00:00,30",
        "00000002,review,bob@atlas.com,2023-12-01 10:00:00,60",
    ],
    "emails.csv": ["00000007,inbox,ann@atlas.com,Budget,2023-11-20 08:00:00,Please read the numbers"],
    "analytics_data.csv": ["2023-11-28,0001,3,10,direct,True", "2023-11-28,0002,1,20,referral,False"],
    "customer_relationship_manager_data.csv": [
        "00000005,ann@atlas.com,Kim Lee,kim@lee,,2023-11-01,Software,Lead,2023-12-02,",
    ],
    "project_tasks.csv": ["00000003,Fix login,ann@atlas.com,In Progress,2023-12-04,Back end"],
}


def request(name: str, template: str, *calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    given = [{"name": tool, "arguments": arguments} for tool, arguments in calls]
    return {
        "id": name,
        "domain": "calendar",
        "query": f"Please do {name}",
        "base_template": template,
        "toolkits": ["calendar", "email", "analytics", "project_management", "crm"],
        "calls": given,
    }


REQUESTS = [
    request("cancel", "Cancel {x}", ("calendar.delete_event", {"event_id": "00000001"})),
    request("nothing", "If not {x}"),
]
RUN = {
    "query_id": "cancel",
    "steps": [
        {"name": "calendar.delete_event", "arguments": {"#0": "00000001"}, "reply": "Event deleted successfully."}
    ],
    "answer": "I have cancelled it.",
    "correct": True,
}


def test_another_fold_holds_out_other_templates_for_dev_and_test_stays() -> None:
    templates = [f"Do {n}" for n in range(400)]
    splits = [
        {each: _split(each, WorkBench.Config(fold=fold)) for each in templates}
        for fold in range(5)  # five times 0.15 is less than the 0.8 that are not for test
    ]
    held_out = [{each for each, split in found.items() if split == "dev"} for found in splits]
    assert len(set[str]().union(*held_out)) == sum(map(len, held_out))
    assert all(0.1 < len(each) / len(templates) < 0.2 for each in held_out)
    tests = [{each for each, split in found.items() if split == "test"} for found in splits]
    assert all(each == tests[0] for each in tests)
    assert {_split(each, WorkBench.Config(test=1.0, dev=0.0, fold=3)) for each in templates} == {"test"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "databases").mkdir()
    (tmp_path / "runs").mkdir()
    for name, columns in pack.FILES.values():
        (tmp_path / "databases" / name).write_text("\n".join([",".join(columns), *ROWS[name]]) + "\n")
    (tmp_path / "databases" / pack.DIRECTORY).write_text("ann@atlas.com\nbob@atlas.com\n")
    (tmp_path / pack.QUERIES).write_text("".join(json.dumps(row) + "\n" for row in REQUESTS))
    with gzip.open(tmp_path / "runs" / "gpt-4_domains.jsonl.gz", "wt") as file:
        file.write(json.dumps(RUN) + "\n")
    return tmp_path


def world_of(folder: Path, **settings: Any) -> WorkBench:
    return WorkBench(WorkBench.Config(path=str(folder), **settings), seed=0)


def session_of(folder: Path, name: str) -> WorkBenchSession:
    world = world_of(folder, dev=0.0, test=0.0)
    return world.open(next(task for task in world.tasks("train") if task.id == name), seed=0)


def say(session: WorkBenchSession, tool: str, **arguments: Any) -> str:
    return session.reply(ToolCall(name=tool, arguments=arguments)).text


def test_has_27_tools() -> None:
    assert len(TOOLS) == 27


CALENDAR, EMAIL, PROJECTS = "calendar", "email", "project_management"
CRM = "customer_relationship_manager"


@pytest.mark.parametrize(
    ("tool", "arguments", "text", "error"),
    [
        (f"{CALENDAR}.search_events", {"query": "STAND"}, '"event_id": "00000001"', None),
        (f"{CALENDAR}.search_events", {"time_min": "2023-11-30"}, '"event_id": "00000002"', None),
        (
            f"{CALENDAR}.search_events",
            {"time_min": "2023-11-29 09:15:00", "time_max": "2023-11-30"},
            "No events f",
            None,
        ),
        (f"{CALENDAR}.search_events", {"time_min": "tomorrow"}, "'tomorrow' is not a date", "invalid_argument"),
        (f"{CALENDAR}.get_event_information_by_id", {"event_id": "00000001", "field": "duration"}, '"30"', None),
        (f"{CALENDAR}.get_event_information_by_id", {"event_id": "1", "field": "duration"}, "Event not", "unknown_id"),
        (f"{CALENDAR}.delete_event", {}, "Event ID not provided.", "missing_argument"),
        (f"{EMAIL}.search_emails", {"query": "numbers budget"}, '"00000007"', None),
        (f"{EMAIL}.search_emails", {"query": "budget", "date_max": "2023-11-19"}, "No emails found.", None),
        (f"{EMAIL}.send_email", {"recipient": "ann", "subject": "a", "body": "b"}, "Invalid recip", "invalid_argument"),
        ("analytics.engaged_users_count", {}, '{"2023-11-28": 1}', None),
        ("analytics.get_average_session_duration", {}, '{"2023-11-28": 15.0}', None),
        (f"{PROJECTS}.search_tasks", {"list_name": "in progress"}, '"00000003"', None),
        (
            f"{PROJECTS}.update_task",
            {"task_id": "00000003", "field": "board", "new_value": "x"},
            "Board not",
            "invalid_argument",
        ),
        (f"{CRM}.search_customers", {}, "No search parameters provided.", "missing_argument"),
        (f"{CRM}.search_customers", {"customer_name": "kim"}, '"customer_phone": null', None),
        ("company_directory.find_email_address", {"name": "Ann"}, '["ann@atlas.com"]', None),
        ("calendar.rename", {}, "calendar.rename is not a valid tool, try one of [email.send", "unknown_tool"),
    ],
)
def test_a_tool_replies(folder: Path, tool: str, arguments: dict[str, str], text: str, error: str | None) -> None:
    observation = session_of(folder, "nothing").reply(ToolCall(name=tool, arguments=arguments))
    assert text in observation.text
    assert observation.error == error


def test_new_rows_get_the_next_id(folder: Path) -> None:
    session = session_of(folder, "nothing")
    event = {
        "event_name": "a",
        "participant_email": "ANN@atlas.com",
        "event_start": "2023-12-01 09:00:00",
        "duration": 30,
    }
    assert say(session, "calendar.create_event", **event) == "00000003"
    assert '"ann@atlas.com"' in say(session, "calendar.search_events", query="a", time_min="2023-12-01")
    assert say(session, "email.reply_email", email_id="00000007", body="Thanks") == "Email replied successfully."
    assert '"8"' in say(session, "email.search_emails", query="thanks")


def test_an_id_that_a_policy_overwrote_breaks_nothing(folder: Path) -> None:
    session = session_of(folder, "nothing")
    for key, value in (("00000001", "first"), ("00000002", "9" * 5000)):
        say(session, "calendar.update_event", event_id=key, field="event_id", new_value=value)
    event = {"event_name": "a", "participant_email": "b", "event_start": "2023-12-01 09:00:00", "duration": "30"}
    assert say(session, "calendar.create_event", **event) == "00000000"


def test_the_office_that_is_left_decides(folder: Path) -> None:
    session = session_of(folder, "cancel")
    assert session.outcome("done").solved == 0
    say(session, "calendar.delete_event", event_id="00000009")  # fails, and changes nothing
    say(session, "calendar.delete_event", event_id="00000001")
    assert session.outcome("done").solved == 1
    assert session.outcome(None).solved == 0
    say(session, "calendar.delete_event", event_id="00000002")
    assert session.outcome("done").solved == 0
    assert "differs in events" in session.outcome("done").evidence


def test_to_do_nothing_can_be_right(folder: Path) -> None:
    session = session_of(folder, "nothing")
    say(session, "calendar.search_events", query="standup")
    assert session.outcome("done").solved == 1


def test_a_call_with_an_argument_that_its_tool_lacks_is_not_counted(folder: Path) -> None:
    """The recorded agents dropped such an argument, and the benchmark's check ran the call with it, which failed."""
    session = session_of(folder, "cancel")
    assert say(session, "calendar.delete_event", event_id="00000001", why="ill") == "Event deleted successfully."
    assert session.outcome("done").solved == 0


@pytest.mark.parametrize(("field", "value", "solved"), [("event_name", "STANDUP", 1), ("event_name", "other", 0)])
def test_capitals_do_not_count_in_most_columns(folder: Path, field: str, value: str, solved: int) -> None:
    session = session_of(folder, "nothing")
    say(session, "calendar.update_event", event_id="00000001", field=field, new_value=value)
    assert session.outcome("done").solved == solved


def test_a_fork_goes_its_own_way(folder: Path) -> None:
    session = session_of(folder, "cancel")
    before = session.state()
    fork = session.fork()
    say(fork, "calendar.delete_event", event_id="00000001")
    assert (session.state(), session.outcome("done").solved) == (before, 0)
    assert fork.state() != before
    assert fork.outcome("done").solved == fork.fork().outcome("done").solved == 1


def test_demonstrations_are_recorded_attempts_that_solved_training_tasks(folder: Path) -> None:
    world = world_of(folder, dev=0.0, test=0.0)
    source = WorkBenchRuns(WorkBenchRuns.Config(path=str(folder), runs=["gpt-4_domains"], answer="done"))
    [shown] = source.read(world, {}, seed=0)
    assert [step.action.calls[0].name for step in shown.steps] == ["calendar.delete_event", "Finish"]
    assert (shown.answer, shown.outcome.solved) == ("done", 1)
    assert not list(source.read(world_of(folder, dev=0.0, test=1.0), {}, seed=0))


def test_a_missing_folder_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pack.VARIABLE, raising=False)
    for path in ("", str(tmp_path)):
        with pytest.raises(InputError, match=pack.VARIABLE):
            WorkBench(WorkBench.Config(path=path), seed=0)


def test_what_is_broken_is_named(folder: Path) -> None:
    events = folder / "databases" / "calendar_events.csv"
    for text in ("a,b\n1,2\n", events.read_text() + "x,y,z,2023,1\n", events.read_text() + "00000004,short\n"):
        events.write_text(text)
        with pytest.raises(DataError, match="calendar_events"):
            world_of(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("emails.csv", "email_id", '"email_id"x', "emails.csv:[01]: is no table: "),
        ("emails.csv", "email_id", "id", "emails.csv:1: its columns are not email_id"),
        ("analytics_data.csv", ",10,", ",ten,", "analytics_data.csv:2: session_duration_seconds is no number"),
    ],
)
def test_a_broken_database_is_named_by_its_line(folder: Path, name: str, old: str, new: str, found: str) -> None:
    file = folder / "databases" / name
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=found):
        pack.office(folder)


@pytest.mark.parametrize("call", [("calendar.cancel", {}), ("calendar.delete_event", {"id": "00000001"})])
def test_a_true_call_that_cannot_be_made_is_refused(folder: Path, call: tuple[str, dict[str, Any]]) -> None:
    (folder / pack.QUERIES).write_text(json.dumps(request("cancel", "Cancel {x}", call)) + "\n")
    with pytest.raises(DataError, match=f"request cancel: {call[0]} is no tool"):
        world_of(folder)


def test_a_run_at_an_unknown_request_is_refused(folder: Path) -> None:
    with gzip.open(folder / "runs" / "other.jsonl.gz", "wt") as file:
        file.write(json.dumps({**RUN, "query_id": "gone"}) + "\n")
    with pytest.raises(DataError, match="attempts 'gone', which is no request"):
        replay(folder, "other")


def test_the_command_says_in_a_line_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "steptool.worlds.workbench.replay", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "no queries.jsonl in it" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_run_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="gpt-4_domains"):
        WorkBenchRuns.content(WorkBenchRuns.Config(path=str(folder), runs=["gpt-5"]))


def test_the_requests_of_a_template_are_one_cluster(folder: Path) -> None:
    world = world_of(folder, dev=0.0, test=0.0)
    clusters = {task.id: world.reference(task).cluster for task in world.tasks("train")}
    assert clusters == {"cancel": "Cancel {x}", "nothing": "If not {x}"}


def test_a_task_of_another_world_is_refused(folder: Path) -> None:
    world = world_of(folder, dev=0.0, test=0.0)
    with pytest.raises(WorldError, match="not one of"):
        world.open(world.tasks("train")[0].model_copy(update={"id": "other"}), seed=0)


@needs_pack
def test_the_true_calls_pass_and_no_calls_pass_where_there_is_nothing_to_do() -> None:
    world = world_of(REAL, dev=0.0, test=1.0)
    requests = {request.id: request for request in pack.requests(REAL)}
    assert len(world.tasks("test")) == 590
    for task in world.tasks("test"):
        untouched, done = world.open(task, seed=0), world.open(task, seed=0)
        for call in map(as_call, requests[task.id].calls):
            assert done.reply(call).error is None
        assert done.outcome("done").solved == 1
        changes = bool(after(world.office, map(as_call, requests[task.id].calls)).differs(world.office))
        assert untouched.outcome("done").solved == float(not changes)


@needs_pack
def test_no_template_is_in_two_splits_and_every_domain_in_all() -> None:
    world = world_of(REAL)
    template = {request.id: request.base_template for request in pack.requests(REAL)}
    splits = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert [len(tasks) for tasks in splits.values()] == [360, 110, 120]
    check_tasks(splits, {task.id: world.reference(task) for tasks in splits.values() for task in tasks}, "workbench")
    templates = [{template[task.id] for task in tasks} for tasks in splits.values()]
    assert sum(map(len, templates)) == len(set.union(*templates)) == 59
    assert all(len({task.group for task in tasks}) == 6 for tasks in splits.values())


def test_the_command_prints_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {**RUN, "correct": False, "steps": [{**RUN["steps"][0], "reply": "Gone."}]}
    with gzip.open(folder / "runs" / "other.jsonl.gz", "wt") as file:
        file.write(json.dumps(wrong) + "\n")
    main([str(folder)])
    printed = capsys.readouterr().out
    assert "gpt-4_domains: 0 of 1 verdicts and 0 of 1 replies differ" in printed
    assert "other: 1 of 1 verdicts and 1 of 1 replies differ\n  verdict cancel\n  cancel step 0: calendar" in printed


@needs_pack
def test_what_an_attempt_without_a_call_solves() -> None:
    assert solved_by_nothing(REAL) == {"train": "62 of 360", "dev": "23 of 110", "test": "17 of 120"}


@needs_pack
@pytest.mark.slow
def test_gpt_4_shows_how_to_solve_training_tasks() -> None:
    world = world_of(REAL)
    shown = list(WorkBenchRuns(WorkBenchRuns.Config(path=str(REAL), answer="done")).read(world, {}, seed=0))
    assert len(shown) == 266
    check_demonstrations(shown, {"train": world.tasks("train")}, "demonstrations")


@needs_pack
@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "replies"),
    [
        ("gpt-4_domains", 0),
        ("gpt-4_all", 0),
        ("gpt-3.5_domains", 0),
        ("claude-2_domains", 2),
        ("llama2-70b_domains", 3),
        ("mistral-8x7B_domains", 14),
    ],
)
def test_a_recorded_run_reads_and_ends_the_same(run: str, replies: int) -> None:
    """The replies that differ are explained in docs/worlds/workbench.md."""
    found = replay(REAL, run)
    assert (found.attempts, found.verdicts) == (590, [])
    assert len(found.replies) == replies
