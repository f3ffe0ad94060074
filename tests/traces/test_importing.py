"""From a file to a folder: whole or not at all, scrubbed, merged, added to, and told in plain words.

log.jsonl:1   q1   find {"title": "Dune"} -> 9.5          Finish 9.5     solved
log.jsonl:2   the same conversation once more, in Anthropic's form in another file
log.jsonl:3   cut off
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steptool.cli import app
from steptool.core.errors import DataError, InputError
from steptool.core.types import StopReason, Trajectory
from steptool.traces import folder as imported
from steptool.traces.kinds import import_from, name_of
from steptool.traces.report import Report
from steptool.worlds.checks import check_tasks
from tests.traces.test_readers import ANTHROPIC_MESSAGES, ANTHROPIC_TOOLS, FUNCTION, OPENAI_MESSAGES, OPENAI_TOOLS

PLANTED = "anna.lund@shop.example"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def conversation(
    query: str = "What does Dune cost?", reply: str = "9.5", answer: str | None = "9.5", **more: Any
) -> Any:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": query},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"title": "Dune"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": reply},
    ]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages, "tools": OPENAI_TOOLS, "model": "gpt", **more}


def write(name: str, *records: Any) -> str:
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    Path(name).write_text("".join(f"{line}\n" for line in lines))
    return name


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and what was printed; an error that was foreseen is told as `steptool` tells it."""
    result = CliRunner().invoke(app, ["traces", *arguments])
    if isinstance(result.exception, InputError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None, result.exception
    return result.exit_code, result.output


def everything(folder: Path) -> str:
    parts = []
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            parts.append(gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes())
    return b"\n".join(parts).decode()


def test_a_file_becomes_tasks_tools_and_trajectories() -> None:
    source = write(
        "log.jsonl",
        conversation(solved=True),
        conversation(answer="10", solved=False),
        conversation("And Emma?", answer=None),
        conversation("And Ulysses?", reply='{"error": "none"}', expected="9.5"),
    )
    folder, report = import_from(source)
    assert folder == Path("traces/log") and imported.is_imported(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("import.json", "manifest.json", "tasks.jsonl", "tools.json", "trajectories.jsonl.gz")
    ]
    done, tasks = imported.trajectories(folder), imported.tasks(folder)
    assert [each.task_id for each in done] == [tasks[0].id, tasks[0].id, tasks[1].id, tasks[2].id]
    assert [each.attempt for each in done] == [0, 1, 0, 0]
    assert [each.outcome.solved for each in done] == [1.0, 0.0, None, 1.0]
    assert [each.stop_reason for each in done] == [StopReason.finished] * 2 + [
        StopReason.call_budget,
        StopReason.finished,
    ]
    assert {(str(each.policy), each.conditions) for each in done} == {("gpt imported", None)}
    assert [task.tools for task in tasks] == [("find",)] * 3
    assert tasks[2].checks and not tasks[0].checks
    assert [tool.name for tool in imported.tools(folder)] == ["find"]
    assert (report.kept, report.tasks, report.tasks_with_a_check) == (4, 3, 1)
    assert report.labels == {"solved": 2, "not solved": 1, "unknown": 1}
    assert report == Report.model_validate(json.loads((folder / imported.REPORT).read_text()))


def test_the_tasks_are_such_as_a_world_may_have() -> None:
    folder, _ = import_from(write("log.jsonl", conversation(), conversation("And Emma?"), conversation("x", tools=[])))
    from steptool.core.types import Reference
    from steptool.traces.tasks import as_tasks

    tasks = list(as_tasks(imported.tasks(folder), imported.tools(folder)).values())
    references = {task.id: Reference(task_id=task.id) for task in tasks}
    check_tasks({"train": tasks, "dev": [], "test": []}, references, "traces")
    assert [len(task.tools) for task in tasks] == [1, 1, 1]


def test_the_same_content_gives_the_same_bytes_and_the_same_ids_from_any_source() -> None:
    source = write("log.jsonl", conversation())
    one, other = import_from(source, name="one").folder, import_from(source, name="other").folder
    assert everything(one) == everything(other)
    said = {"messages": ANTHROPIC_MESSAGES, "system": "Be brief.", "tools": ANTHROPIC_TOOLS, "model": "gpt"}
    chat = {"messages": OPENAI_MESSAGES, "tools": OPENAI_TOOLS, "model": "gpt"}
    first = import_from(write("a.jsonl", chat)).folder
    second = import_from(write("b.jsonl", said)).folder
    assert imported.trajectories(first) == imported.trajectories(second)
    assert imported.content(first) == imported.content(second)
    _, report = import_from("b.jsonl", name="a", add=True)
    assert (report.kept, report.copies, report.earlier) == (1, 1, 1)


def test_a_log_of_requests_holds_one_attempt() -> None:
    messages = conversation()["messages"]
    requests = [{"messages": messages[:length], "choices": [{"message": messages[length]}]} for length in (1, 3)]
    _, report = import_from(write("log.jsonl", *requests, conversation()))
    assert (report.kept, report.copies, report.beginnings) == (1, 1, 1)


def test_one_broken_line_is_named_and_nothing_is_written() -> None:
    source = write(
        "log.jsonl", *[conversation(f"q{number}") for number in range(50)], '{"messages": [', conversation("z")
    )
    with pytest.raises(DataError, match=r"log\.jsonl:51: not JSON: cut off\n  fix: .*--lenient"):
        import_from(source)
    assert not Path("traces").exists() or not list(Path("traces").iterdir())
    _, report = import_from(source, lenient=True)
    assert report.kept == 51
    assert report.skipped["not JSON: cut off"].first == ("log.jsonl:51",)


def test_what_is_skipped_is_counted_with_its_first_places() -> None:
    unanswered = {"messages": [*conversation()["messages"][:2], {"role": "user", "content": "?"}]}
    _, report = import_from(write("log.jsonl", conversation(), *[unanswered] * 5))
    places = report.skipped["a call has no reply"]
    assert (places.count, places.first) == (5, ("log.jsonl:2", "log.jsonl:3", "log.jsonl:4"))


def test_a_source_without_anything_to_learn_from_is_refused() -> None:
    with pytest.raises(DataError, match="no conversation to learn from: 1 × the model says nothing"):
        import_from(write("log.jsonl", {"messages": [{"role": "user", "content": "q"}]}))
    with pytest.raises(InputError, match="holds no record"):
        import_from(write("empty.jsonl"))
    with pytest.raises(DataError, match="no conversation in it"):
        import_from("empty.jsonl", kind="openai")
    assert not Path("traces").exists()


def test_another_kind_is_named_with_what_it_looks_like() -> None:
    source = write("log.jsonl", conversation())
    with pytest.raises(InputError, match=r"looks like openai, not like atif\n  fix: --from openai"):
        import_from(source, kind="atif")
    with pytest.raises(InputError, match="nothing is called 'opena', did you mean 'openai'"):
        import_from(source, kind="opena")


def test_a_folder_that_is_there_is_kept_or_added_to() -> None:
    folder, _ = import_from(write("log.jsonl", conversation()))
    before = everything(folder)
    with pytest.raises(InputError, match="is there already"):
        import_from("log.jsonl")
    assert everything(folder) == before
    with pytest.raises(InputError, match="no imported folder to add to"):
        import_from("log.jsonl", name="other", add=True)
    # what the user changed in the tasks stays
    line = json.loads((folder / "tasks.jsonl").read_text())
    (folder / "tasks.jsonl").write_text(json.dumps({**line, "split": "test", "check": "is_right"}) + "\n")
    broken = conversation(reply="x")
    broken["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{"
    source = write("more.jsonl", conversation(expected="9.5"), broken, conversation("And Emma?"))
    _, report = import_from(source, name="log", add=True)
    assert (report.kept, report.earlier, report.copies) == (3, 1, 1)
    tasks = imported.tasks(folder)
    assert (tasks[0].split, tasks[0].checks) == ("test", ("is_right",))
    once = imported.trajectories(folder)
    assert [each.attempt for each in once] == [0, 1, 0]
    _, report = import_from(source, name="log", add=True)
    assert (report.kept, report.copies) == (3, 3)
    assert imported.trajectories(folder) == once


def test_attempts_that_expect_different_answers_leave_a_task_without_a_check() -> None:
    folder, report = import_from(
        write("log.jsonl", *(conversation(answer=str(n), expected=wanted) for n, wanted in enumerate(["a", "b", "a"])))
    )
    assert report.tasks_with_a_check == 0
    assert imported.tasks(folder)[0].checks == ()


def test_the_checks_are_read_as_they_were_meant() -> None:
    records = [conversation(f"q{n}", expected=wanted) for n, wanted in enumerate(["nine", 9.5, ["a", "b"], True, ""])]
    folder, _ = import_from(write("log.jsonl", *records))
    found = [task.checks[0] if task.checks else None for task in imported.tasks(folder)]
    kinds = [(each.kind, each.strict) if each is not None and not isinstance(each, str) else None for each in found]  # type: ignore[union-attr]
    assert kinds == [("text", False), ("number", False), ("set", False), None, None]


def test_tools_are_inferred_where_no_source_describes_them() -> None:
    bare = conversation()
    del bare["tools"]
    other = conversation("q2")
    del other["tools"]
    other["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"title": "Dune", "most": 2.5, "tags": ["a"]}'
    folder, report = import_from(write("log.jsonl", bare, other))
    assert report.inferred_tools == ("find",)
    [tool] = imported.tools(folder)
    assert tool.parameters == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "most": {"type": "number"}, "tags": {"type": "array", "items": {}}},
        "required": ["title"],
    }
    assert all(task.tools is None for task in imported.tasks(folder))


def test_the_commonest_description_of_a_tool_is_kept_and_a_broken_one_is_not() -> None:
    def described(text: str, schema: Any = FUNCTION["parameters"]) -> Any:
        return [{"type": "function", "function": {"name": "find", "description": text, "parameters": schema}}]

    ways = [described("a"), described("b"), described("b"), *[described("c", {"type": "nonsense"})] * 3]
    folder, report = import_from(write("log.jsonl", *(conversation(f"q{n}", tools=way) for n, way in enumerate(ways))))
    assert imported.tools(folder)[0].description == "b"
    assert report.varied_tools == ("find",)


def test_what_no_world_may_offer_is_left_out() -> None:
    names = ["Finish", "a\x07", "n" * 201]
    odd = [{"type": "function", "function": {**FUNCTION, "name": name}} for name in names]
    folder, _ = import_from(write("log.jsonl", conversation(tools=[*OPENAI_TOOLS, *odd])))
    assert [tool.name for tool in imported.tools(folder)] == ["find"]
    assert imported.tasks(folder)[0].tools == ("find",)


@pytest.mark.parametrize("name", ["../other", "a/b", "/tmp/x", ".hidden", " "])
def test_a_folder_lies_in_traces_and_nowhere_else(name: str) -> None:
    with pytest.raises(InputError, match="no name of a folder"):
        import_from(write("log.jsonl", conversation()), name=name)


def test_planted_secrets_are_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    secret = "sk-proj-abcDEF0123456789abcDEF0123456789"
    planted = [PLANTED, "415-555-2671", secret, "Anna Lund"]
    reply = json.dumps({"name": "Anna Lund", "email": PLANTED, "phone": "415-555-2671", "note": secret})
    said = f"I am {PLANTED}, {planted[1]}, with {secret}."
    source = write(
        "log.jsonl",
        conversation(
            said, reply, "Anna Lund is in.", expected="Anna Lund", group=PLANTED, metadata={"feedback": "good"}
        ),
        {"messages": [{"role": "user", "content": said}]},
        f'{{"messages": [{{"role": "{PLANTED} {secret}"}}]}}',
        f'{{"messages": "{secret}',
    )
    for arguments in ([], ["--lenient"], ["--from", "atif"]):
        _, said = run("import", source, "--name", "x", "--drop", "name", *arguments)
        assert not any(value in said for value in planted), said
    text = everything(Path("traces")) + "".join(capfd.readouterr())
    assert "t-" in text and "redacted.invalid" in text
    assert not any(value in text for value in planted)


def test_what_happened_is_told_in_plain_words() -> None:
    records = [conversation(solved=True), conversation(solved=True), conversation("z", '{"error": "x"}')]
    status, said = run("import", write("log.jsonl", *records))
    assert status == 0
    assert said.splitlines()[0] == "traces/log: 2 attempts at 2 tasks, 1 tool (--from openai)"
    assert "merged      1 copy, 0 beginnings of others" in said
    assert "by rules    of 2 calls in 2 attempts 50% succeed" in said
    assert "they fail by: error: tool_error 1" in said
    assert run("import", "log.jsonl", "--set", "labels=x")[0] == 2
    assert run("import", "log.jsonl", "--set", "x")[1].endswith("write it as key=value")


@pytest.mark.parametrize("form", ["openai", "atif"])
def test_what_is_exported_is_imported_as_the_same_attempts(form: str) -> None:
    records = [
        conversation(solved=True),
        conversation("And Emma?", '{"error": "x"}', None),
        {"messages": OPENAI_MESSAGES, "tools": OPENAI_TOOLS, "model": "gpt", "group": "books"},
        conversation("q", answer="I cannot answer this."),
    ]
    folder, _ = import_from(write("log.jsonl", *records))
    assert run("export", str(folder), "out.jsonl", "--to", form) == (0, "out.jsonl: 4 written\n")
    back = import_from("out.jsonl", name="back")
    assert imported.trajectories(back.folder) == [_with_evidence(each, form) for each in imported.trajectories(folder)]
    assert imported.tasks(back.folder) == [
        task.model_copy(update={"group": task.group}) for task in imported.tasks(folder)
    ]
    assert imported.tools(back.folder) == imported.tools(folder)
    assert run("export", str(folder), "out.jsonl")[0] == 2
    assert run("export", str(folder), "o.jsonl", "--to", "csv")[0] == 2
    assert run("export", "nothing", "o.jsonl")[0] == 2


def _with_evidence(of: Trajectory, form: str) -> Trajectory:
    """The label then comes from the file that was exported."""
    if of.outcome.solved is None:
        return of
    fields = {name: getattr(of, name) for name in type(of).model_fields}
    evidence = "label solved of the source"
    return Trajectory.create(**{**fields, "outcome": of.outcome.model_copy(update={"evidence": evidence})})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("logs/shop-2026.jsonl.gz", "shop-2026"),
        ("traces/x/", "x"),
        ("http://mlflow:5000", "mlflow-5000"),
        ("sqlite:///mlflow.db?x=1", "mlflow-db"),
        ("http://anna:hunter22@mlflow:5000/?token=x", "mlflow-5000"),
        (".", "imported"),
    ],
)
def test_a_folder_is_called_as_its_source(source: str, name: str) -> None:
    assert name_of(source) == name


READER = """
from steptool.core.fields import Settings
from steptool.core.messages import Message
from steptool.traces.conversation import Conversation


class Notes:
    class Config(Settings):
        mark: str = "Q:"

    def __init__(self, config):
        self.config = config

    def read(self, source):
        for number, line in enumerate(open(source), start=1):
            asked, _, answer = line.removeprefix(self.config.mark).partition("A:")
            messages = (Message(role="user", text=asked), Message(role="assistant", text=answer))
            yield Conversation(where=f"{source}:{number}", messages=messages)
"""


def test_a_reader_of_ones_own_is_a_class() -> None:
    Path("own_notes.py").write_text(READER)
    Path("notes.txt").write_text("- What does Dune cost? A: 9.5\n")
    status, said = run("import", "notes.txt", "--from", "own_notes:Notes", "--set", "mark=- ", "--name", "notes")
    assert status == 0 and "(--from own_notes:Notes)" in said
    [task] = imported.tasks(Path("traces/notes"))
    assert task.query == "What does Dune cost?"
    assert imported.trajectories(Path("traces/notes"))[0].answer == "9.5"


def test_a_region_is_a_country_in_letters_of_any_case() -> None:
    source = write("log.jsonl", conversation("Call 030 23125000 now", reply="9.5"))
    assert "1 phone number" in run("import", source, "--region", "de")[1]
    for unknown in ("Germany", "XX"):
        status, told = run("import", source, "--name", "other", "--region", unknown)
        assert status == 2 and f"{unknown!r} is no country" in told and "such as US" in told


def test_options_that_name_what_nothing_has_are_told() -> None:
    source = write("log.jsonl", conversation(right=True))
    options = ("--drop", "nmae", "--drop", "title", "--set", "label=right", "--set", "expected=gold")
    told = run("import", source, *options)[1]
    assert "nothing to read there: --drop nmae, --set expected=gold\n" in told
    assert "" not in json.loads(Path("traces/log/import.json").read_text())["scrubbed"]


def test_one_of_a_kind_is_told_in_the_singular() -> None:
    told = run("import", write("log.jsonl", conversation("The password: hunter2hunter2")))[1]
    assert "scrubbed    1 key or password\n" in told


def test_an_import_that_fails_leaves_no_folder() -> None:
    assert isinstance(CliRunner().invoke(app, ["traces", "import", write("log.jsonl", "{")]).exception, InputError)
    with pytest.raises(DataError):
        import_from(write("broken.jsonl", conversation(), "{"))
    assert not Path("traces").exists()
    with pytest.raises(InputError, match="no such database"):
        import_from("sqlite:///nosuch.db")
    assert not Path("nosuch.db").exists() and not Path("traces").exists()


def test_a_server_that_refuses_is_told_in_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="MLflow does not answer: API request") as raised:
        import_from("http://127.0.0.1:9")
    assert "ConnectionPool" not in str(raised.value)
