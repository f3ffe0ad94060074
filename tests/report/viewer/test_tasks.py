from __future__ import annotations

import json
from pathlib import Path

from steptool.core.storage import write_jsonl
from steptool.report.viewer.sources import sources_of
from steptool.report.viewer.tasks import OfferedTool, Tasks
from tests.report.viewer import project


def test_tasks_of_every_split_are_known_with_their_tools(tmp_path: Path) -> None:
    found = Tasks(project.write(tmp_path), [])
    assert set(found.tasks) == {"t1", "t2"}
    assert found.tasks["t1"].tools == (OfferedTool(name="find", description="finds the number of a thing"),)
    assert (found.query("t2"), found.group("t1")) == ("Which number has <b>coffee</b>?", "numbers")
    assert (found.query("t9"), found.group("t9")) == ("", "")
    assert found.references["t1"].relevant_tools == ("find",)


def test_tasks_of_an_import_have_the_tools_that_they_name_or_all(tmp_path: Path) -> None:
    folder = tmp_path / "traces/shop"
    write_jsonl(folder / "trajectories.jsonl.gz", [])
    tools = [{"name": name, "description": f"does {name}", "parameters": {}} for name in ("find", "buy")]
    (folder / "tools.json").write_text(json.dumps(tools))
    lines = [
        {"id": "a", "query": "?", "tools": ["buy", "gone"], "check": "is_bought"},
        {"id": "b", "query": "?", "system": "Be kind."},
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Tasks(tmp_path, sources_of(tmp_path)).tasks
    assert found["a"].tools == (OfferedTool(name="buy", description="does buy"), OfferedTool(name="gone"))
    assert [tool.name for tool in found["b"].tools] == ["find", "buy"]
    assert (found["a"].system, found["b"].system) == ("", "Be kind.")


def test_what_is_no_task_is_left_out(tmp_path: Path) -> None:
    (project.write(tmp_path) / "data/tasks/dev.jsonl").write_text(
        '{"query": "no id"}\nnothing\n{"id": "t3", "query": "?"}\n'
    )
    assert set(Tasks(tmp_path, []).tasks) == {"t1", "t2", "t3"}
