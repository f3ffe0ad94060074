from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from steptool.commands.view import find, root_of
from steptool.core.errors import InputError
from steptool.core.storage import write_jsonl
from steptool.core.types import ScoredTrajectory
from steptool.report.viewer.server import HEADERS, Viewer, application
from tests.report.viewer import project
from tests.report.viewer.project import HOSTILE

KEY = "secret"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project.write(tmp_path))
    return tmp_path


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(
        application(Viewer(Path(), lambda: find([])), KEY),
        base_url="http://127.0.0.1:8000",
        raise_server_exceptions=False,
    )


def got(client: TestClient, path: str, **values: Any) -> Any:
    answer = client.get(f"/{KEY}/api/{path}", params=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(client: TestClient, source: str = "evaluation") -> list[list[Any]]:
    lines = client.get(f"/{KEY}/api/rows", params={"source": source}).text.splitlines()
    blocks = [json.loads(line) for line in lines]
    assert blocks[-1] == {"problems": []}
    return [row for block in blocks[1:-1] for row in block["rows"]]


def test_the_project_names_its_sources_and_which_arms_to_compare_first(client: TestClient, root: Path) -> None:
    found = got(client, "project")
    assert found["name"] == root.name
    assert [source["key"] for source in found["sources"]] == ["evaluation", "scored", "sampled", "demonstrations"]
    assert [part["name"] for part in found["sources"][0]["parts"]] == ["sft", "ppo"]
    assert found["pairs"] == [["ppo", "sft"]]


def test_all_attempts_at_a_task_come_with_what_is_known_of_it(client: TestClient) -> None:
    assert [row[1] for row in rows(client)] == ["t1", "t2", "t1", "t2"]
    found = got(client, "task", source="evaluation", task="t1")
    assert [(each["row"], each["part"], each["solved"]) for each in found["attempts"]] == [(0, 0, 0.0), (2, 1, 1.0)]
    assert found["task"]["query"] == "Which number has tea?"
    assert found["task"]["expected"] == "7 (number)"
    assert found["task"]["tools"] == [{"name": "find", "description": "finds the number of a thing"}]
    assert found["task"]["relevant"] == ["find"]
    assert found["notes"]["ppo"] == ["Rewards by paper, gamma 1."]
    assert found["is_whole"] and found["all"] == 2


def test_a_round_comes_with_advantages_and_what_nobody_judged_without_rewards(client: TestClient) -> None:
    assert len(rows(client, "scored")) == len(rows(client, "sampled")) == 2
    scored = got(client, "task", source="scored", task="t1")["attempts"]
    assert [each["steps"][0]["advantages"] for each in scored] == [[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]
    sampled = got(client, "task", source="sampled", task="t1")
    assert sampled["attempts"][0]["steps"][0]["reward"] is None
    assert sampled["notes"]["r1"] == ["No rewards: no annotator has judged these steps."]


def test_where_nobody_judged_arms_are_compared_by_their_grounded_answers(client: TestClient, root: Path) -> None:
    (root / "metrics/evaluation/ppo.json").write_text('{"name": "ppo", "grounded": {"t1": 1.0, "t2": 0.0}}')
    first = client.get(f"/{KEY}/api/rows", params={"source": "evaluation"}).text.splitlines()[0]
    assert json.loads(first) == {"grounded": [{}, {"t1": 1.0, "t2": 0.0}]}
    of_round = client.get(f"/{KEY}/api/rows", params={"source": "scored"}).text.splitlines()[0]
    assert json.loads(of_round) == {"grounded": []}


def test_the_search_and_the_tokens_of_a_row(client: TestClient) -> None:
    assert len(rows(client)) == 4
    assert got(client, "search", source="evaluation", text="onerror") == {"rows": [3]}
    found = got(client, "tokens", source="evaluation", row=0)
    assert [len(step["sampled"]) for step in found["steps"]] == [3, 2]
    assert "tokenizer.json" in found["missing"]


def test_a_page_that_is_loaded_again_knows_new_files_and_new_settings(client: TestClient, root: Path) -> None:
    assert len(rows(client)) == 4
    (root / "params.yaml").write_text(project.PARAMS.replace("alpha: 0.5", "alpha: 1.0"))
    write_jsonl(root / "metrics/evaluation/rft.trajectories.jsonl.gz", project.PPO)
    assert [part["name"] for part in got(client, "project")["sources"][0]["parts"]] == ["sft", "ppo", "rft"]
    assert len(rows(client)) == 6
    assert got(client, "task", source="evaluation", task="t1")["attempts"][2]["steps"][0]["reward"] == 1.5


def test_files_that_changed_are_read_again_with_the_next_list(client: TestClient, root: Path) -> None:
    assert len(rows(client)) == 4
    write_jsonl(root / "metrics/evaluation/ppo.trajectories.jsonl.gz", list[ScoredTrajectory]())
    assert got(client, "task", source="evaluation", task="t1")["all"] == 2  # of the list that the page has
    assert len(rows(client)) == 2
    assert got(client, "task", source="evaluation", task="t1")["all"] == 1


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("rows?source=nothing", 404, "there is no source nothing"),
        ("task?source=nothing&task=t1", 404, "there is no source nothing"),
        ("task?source=evaluation&task=nothing", 404, "there is no attempt at task nothing"),
        ("tokens?source=evaluation&row=99", 404, "there is no row 99"),
        ("tokens?source=evaluation&row=-1", 404, "there is no row -1"),
        ("tokens?source=evaluation&row=x", 422, "row"),
        ("rows?source=../../etc/passwd", 404, "there is no source"),
        (f"search?source=evaluation&text={'x' * 1001}", 422, "1000"),
    ],
)
def test_what_is_not_there_is_refused_by_name(client: TestClient, path: str, status: int, said: str) -> None:
    assert len(rows(client)) == 4
    answer = client.get(f"/{KEY}/api/{path}")
    assert answer.status_code == status and said in answer.text


def test_a_broken_record_is_said_where_it_stands(client: TestClient, root: Path) -> None:
    file = root / "data/tasks/demonstrations.jsonl"
    file.write_text(file.read_text().replace('"seed":0', '"seed":1'))
    assert len(rows(client, "demonstrations")) == 1
    answer = client.get(f"/{KEY}/api/task", params={"source": "demonstrations", "task": "t1"})
    assert answer.status_code == 422 and "demonstrations.jsonl:2" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/api/project", "/wrong/api/project", "/wrong/", "/app.js", f"/{KEY}/../cli.py"])
def test_without_the_key_there_is_nothing(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8000"])
def test_a_page_that_calls_itself_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get(f"/{KEY}/api/project", headers={"Host": host}).status_code == 400
    assert client.get(f"/{KEY}/api/project", headers={"Host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize("path", ["", "app.js", "style.css", "api/project", "nothing"])
def test_every_answer_lets_the_page_load_nothing_but_its_own_files(client: TestClient, path: str) -> None:
    answer = client.get(f"/{KEY}/{path}")
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client: TestClient, method: str) -> None:
    assert client.request(method, f"/{KEY}/api/project").status_code == 405


def test_what_a_tool_replied_travels_as_json_and_is_never_a_page(client: TestClient) -> None:
    assert len(rows(client)) == 4
    answer = client.get(f"/{KEY}/api/task", params={"source": "evaluation", "task": "t2"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["attempts"][1]["steps"][0]["calls"][0]["reply"] == HOSTILE


def test_the_project_is_the_one_above_the_first_path(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert root_of([root / "metrics" / "evaluation"]) == root
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert root_of([elsewhere]) == Path.cwd()
    assert root_of([]) == Path.cwd()


def test_a_project_without_attempts_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"(?s)there are no attempts yet.*steptool run"):
        find([])
