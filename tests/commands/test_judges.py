"""`judge-agreement` and `win-rate`, over files of attempts and over judged runs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steptool.annotators.judge_script import completion, scripted_answer
from steptool.cli import app
from steptool.core.errors import InputError
from steptool.core.storage import write_jsonl
from steptool.core.types import ScoredTrajectory, StopReason, Trajectory
from steptool.evaluation.judged.files import read_runs
from steptool.testing import call, finish, give_up, judgement, reference, scored, step, task, tool, trajectory
from steptool.traces.judged import judged_attempts
from tests.endpoints.fake import Fake, fake

TASKS = [task(f"t{n}", "Where is it?", tool("find"), group="ab"[n % 2]) for n in range(8)]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Fake]:
    with fake(lambda request: completion(scripted_answer(request))) as served:
        yield served


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("data/tasks/train.jsonl"), TASKS)
    write_jsonl(Path("data/tasks/references.jsonl"), [reference(each) for each in TASKS])


def attempt(number: int, says: str) -> Trajectory:
    return trajectory(step(call("find"), {"shelf": "north"}), finish(says), of=TASKS[number])


def judged(of: Trajectory, solved: float | None, verdict: float) -> ScoredTrajectory:
    return scored(of, judgement(success=1.0, contribution=1.0), judgement(solved=solved, verdict=verdict))


QUERY = {"query_id": "7", "subset": "G1_tool", "query": "Where?", "api_list": [], "relevant_apis": []}
FINISHED = {"steps": [{"name": "Finish"}], "return_type": "give_answer", "final_answer": "There."}
RUN = {"query_id": "7", "subset": "G1_tool", "judgements": ["Solved"], **FINISHED}


def write_lines(name: str, *rows: dict[str, Any]) -> None:
    with gzip.open(name, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_two_scores_of_one_file_are_compared_by_group() -> None:
    """Tasks 0, 2, 4, 6 are of group a: 3 of 4 agree; of group b all four do, one of which nobody knows."""
    said = [(1, 1), (1, 1), (1, 0), (0, 0), (0, 0), (1, 1), (0, 0), (None, 1)]
    made = [judged(attempt(n, "north"), solved, verdict) for n, (solved, verdict) in enumerate(said)]
    write_jsonl(Path("scored.jsonl.gz"), made)
    lines = run("judge-agreement", "solved", "verdict", "--over", "scored.jsonl.gz").splitlines()
    assert lines[-3].split()[:3] == ["a", "4", "75.0%"]
    assert lines[-2].split()[:3] == ["b", "3", "100.0%"]
    assert lines[-1].split()[-5:] == ["3", "1", "0", "3", "1"]


def test_an_annotator_is_compared_with_a_file_of_another(endpoint: Fake) -> None:
    made = [attempt(n, "north" if n < 4 else "Sorry, I cannot find it.") for n in range(8)]
    write_jsonl(Path("scored.jsonl.gz"), [judged(each, float(n < 4), 0.0) for n, each in enumerate(made)])
    write_jsonl(Path("made.jsonl.gz"), made)
    by = f"use=judge,url={endpoint.url},model=m,max_retries=0"
    out = run("judge-agreement", by, "scored.jsonl.gz", "--over", "made.jsonl.gz")
    assert out.splitlines()[-1].split()[:3] == ["all", "8", "100.0%"]
    assert len(endpoint.requests) == 8
    out = run("judge-agreement", f"{by}#success", "use=rules#success", "--over", "made.jsonl.gz")
    assert out.splitlines()[-1].split()[:3] == ["all", "8", "100.0%"]
    assert len(endpoint.requests) == 8


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        ("nobody", "neither a file nor a score"),
        ("use=nobody", "nothing is called 'nobody'"),
        ("use=rules#beauty", "gives no score 'beauty'"),
        ("use=judge,model=m", "^use=judge,model=m: no annotator: url: Field required\n  fix: write it as use="),
        ("use=judge,verdict", "^use=judge,verdict: no annotator: 'verdict' is no setting\n  fix: write it as use="),
    ],
)
def test_what_is_no_judge_is_refused_with_what_there_is(one: str, problem: str) -> None:
    write_jsonl(Path("scored.jsonl.gz"), [judged(attempt(0, "north"), 1.0, 1.0)])
    with pytest.raises(InputError, match=problem):
        run("judge-agreement", one, "verdict", "--over", "scored.jsonl.gz")


def test_votes_of_judged_runs_are_columns() -> None:
    Path("runs").mkdir()
    write_lines("queries.jsonl.gz", QUERY)
    for name, vote in (("a", "Solved"), ("b", "Unsure")):
        write_lines(f"runs/{name}.jsonl.gz", {**RUN, "judgements": [vote, "Solved"]})
    out = run("judge-agreement", "vote0", "vote1", "--over", "runs")
    assert out.splitlines()[-1].split()[:3] == ["all", "2", "50.0%"]


@pytest.mark.parametrize(
    ("ending", "votes"),
    [
        ({}, [1.0, 0.5]),
        ({"steps": []}, [0.0, 0.0]),  # no `Finish`, so nothing was answered, whatever was judged
        ({"return_type": "give_up_and_restart"}, [0.0, 0.0]),
        ({"return_type": "invalid"}, [0.0, 0.0]),
        ({"return_type": None, "steps": []}, [0.0, 0.0]),
    ],
)
def test_bench_and_judges_read_the_same_end_of_a_judged_run(ending: dict[str, Any], votes: list[float]) -> None:
    write_lines("queries.jsonl.gz", QUERY)
    write_lines("a.jsonl.gz", {**RUN, "judgements": ["Solved", "Unsure"], **ending})
    (attempt,) = judged_attempts(Path("a.jsonl.gz"))
    (file,) = read_runs(Path("a.jsonl.gz"))
    assert list(attempt.votes) == votes == list(file.runs["7"].values(file.passes))
    assert (attempt.trajectory.answer == "There.") == file.runs["7"].finished == (votes[0] == 1)
    assert (attempt.trajectory.stop_reason is StopReason.gave_up) == ("give_up" in str(ending))


def test_what_a_judge_reads_of_a_run_is_text_whatever_the_file_holds() -> None:
    write_lines("queries.jsonl.gz", QUERY)
    steps = [{"name": "find", "arguments": {"id": 7}, "error": {"code": 4}}, {"name": "find", "arguments": None}]
    steps += [{"name": "find", "arguments": [7], "error": None}, {"name": "Finish"}]
    write_lines("a.jsonl.gz", {**RUN, "steps": steps, "final_answer": {"text": "There."}})
    (attempt,) = judged_attempts(Path("a.jsonl.gz"))
    one, two, three, last = attempt.trajectory.steps
    assert [one.action.calls[0].arguments, two.action.calls[0].arguments] == [{"id": 7}, {}]
    assert three.action.unreadable == "no JSON object"
    assert [step.observations[0].error for step in (one, two, three)] == ['{"code": 4}', None, None]
    assert last.action.answer == attempt.trajectory.answer == '{"text": "There."}'


def test_the_win_rate_of_two_policies(endpoint: Fake) -> None:
    """Attempts 0 to 3 are better, 4 and 5 equal, 6 worse, and of 7 neither has an answer: (4 + 3/2) / 8."""
    ours = [attempt(n, "north" if n < 6 else "moon") for n in range(7)] + [trajectory(give_up(), of=TASKS[7])]
    theirs = [attempt(n, "moon" if n < 4 else "north") for n in range(7)] + [trajectory(give_up(), of=TASKS[7])]
    write_jsonl(Path("ours.jsonl.gz"), ours)
    write_jsonl(Path("theirs.jsonl.gz"), theirs)
    by = f"use=judge,url={endpoint.url},model=m,max_retries=0"
    out = run("win-rate", "ours.jsonl.gz", "theirs.jsonl.gz", "--judge", by)
    assert "8 pairs of attempts at 8 tasks" in out
    assert "win rate   68.8% [" in out
    assert "4 won, 1 lost, 3 ties, of which the orders disagreed on 0; 0 without" in out
    with pytest.raises(InputError, match="annotator rules compares no attempts"):
        run("win-rate", "ours.jsonl.gz", "theirs.jsonl.gz", "--judge", "use=rules")
    write_jsonl(Path("one.jsonl.gz"), ours[:1])
    endpoint.act = lambda request: completion("Both are fine.")
    said = f"the judge mute at {endpoint.url}: it preferred none: 2 asked, 2 unusable, 0 mended, 0 failed\n  fix: see"
    with pytest.raises(InputError, match=said):
        run("win-rate", "one.jsonl.gz", "theirs.jsonl.gz", "--judge", by.replace("model=m", "model=mute"))
    endpoint.act = lambda request: completion(scripted_answer(request))


def test_a_judge_that_likes_what_stands_first_finds_ties(endpoint: Fake) -> None:
    write_jsonl(Path("ours.jsonl.gz"), [attempt(n, "north") for n in range(2)])
    write_jsonl(Path("theirs.jsonl.gz"), [attempt(n, "moon") for n in range(2)])
    endpoint.act = lambda request: completion({"reason": "", "better": "first"})
    by = f"use=judge,url={endpoint.url},model=biased,max_retries=0"
    out = run("win-rate", "ours.jsonl.gz", "theirs.jsonl.gz", "--judge", by)
    assert "win rate   50.0% [50.0, 50.0]" in out
    assert "2 ties, of which the orders disagreed on 2" in out


def test_a_search_tree_stands_for_its_answer(endpoint: Fake) -> None:
    """Its other branches are the same attempt. Attempts of two policies in one file are refused."""
    branches = (attempt(0, "north"), attempt(0, "moon"))
    tree = [Trajectory.create(**{**dict(each), "search": "tree"}) for each in branches]
    write_jsonl(Path("ours.jsonl.gz"), [attempt(0, "north")])
    write_jsonl(Path("tree.jsonl.gz"), tree)
    write_jsonl(Path("both.jsonl.gz"), [attempt(0, "north"), attempt(0, "moon")])
    endpoint.act = lambda request: completion(scripted_answer(request))
    by = f"use=judge,url={endpoint.url},model=m,max_retries=0"
    out = run("win-rate", "tree.jsonl.gz", "ours.jsonl.gz", "--judge", by)
    assert "1 pairs of attempts" in out and "0 won, 0 lost, 1 ties" in out
    assert "0 won, 0 lost, 1 ties" in run("win-rate", "ours.jsonl.gz", "tree.jsonl.gz", "--judge", by)
    with pytest.raises(InputError, match="several attempts 0 at task t0"):
        run("win-rate", "ours.jsonl.gz", "both.jsonl.gz", "--judge", by)


BY = "use=judge,url=http://127.0.0.1:9/v1,model=m"
READ = [["judge-agreement", "vote0", "vote1", "--over"], ["local-judge", "fit"], ["bench", "judged"]]


@pytest.mark.parametrize("command", READ)
def test_attempts_that_are_not_there_are_said_to_be_missing(command: list[str]) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder\n  fix: name a folder of files NAME\.jsonl"):
        run(*command, "nowhere")
    with pytest.raises(InputError, match="xxx: cannot be read: File name too long\n  fix: name"):
        run(*command, "x" * 5000)
    Path("none").mkdir()
    with pytest.raises(InputError, match="none: holds no judged runs\n  fix: name"):
        run(*command, "none")


DAMAGED = {
    "it is empty": b"",
    "not a whole gzip file": gzip.compress(json.dumps(RUN).encode())[:-9],
    "not JSON: nested too deeply": gzip.compress(b"[" * 9999),
    "query_id: Input should be a valid string": gzip.compress(json.dumps({**RUN, "query_id": 7}).encode()),
    "solved: Input should be less than": gzip.compress(json.dumps({**RUN, "solved": 1e308}).encode()),
    "request 7 stands in line 1 too; a file holds one run": gzip.compress(f"{json.dumps(RUN)}\n".encode() * 2),
    "its subset is called I1": gzip.compress(json.dumps({**RUN, "subset": "I1"}).encode()),
}


@pytest.mark.parametrize("said", DAMAGED)
@pytest.mark.parametrize("command", [*READ, ["win-rate", "--judge", BY, "runs"]])
def test_damaged_runs_are_named_by_every_command(command: list[str], said: str) -> None:
    Path("runs").mkdir()
    Path("runs/bad.jsonl.gz").write_bytes(DAMAGED[said])
    with pytest.raises(InputError, match=rf"runs/bad\.jsonl\.gz.*{said}.*\n  fix: mend or remove what is named"):
        run(*command, "runs")


def test_an_attempt_is_judged_once_and_its_task_is_there() -> None:
    twice = [judged(attempt(0, "north"), 1.0, 1.0), judged(attempt(0, "north"), 0.0, 1.0)]
    write_jsonl(Path("twice.jsonl.gz"), twice)
    write_jsonl(Path("once.jsonl.gz"), twice[:1])
    write_jsonl(Path("none.jsonl.gz"), twice[:0])
    write_jsonl(Path("tasks.jsonl.gz"), TASKS)
    write_jsonl(Path("gone.jsonl.gz"), [trajectory(finish("x"), of="gone")])
    for one, over, said in (
        ("solved", "twice", "twice.jsonl.gz: the solved of attempt .* at task t0 is 1.0, and 0.0 once more"),
        ("twice.jsonl.gz", "once", "twice.jsonl.gz: the solved of attempt .* is 1.0, and 0.0 once more"),
        ("solved", "none", "none.jsonl.gz: holds no attempts\n  fix: name a file of attempts"),
        ("solved", "tasks", "tasks.jsonl.gz: holds records called Task, no attempts\n  fix: name a file of attempts"),
        ("outcome", "gone", "gone.jsonl.gz: attempt .* is at task 'gone', which is not there\n  fix: name the folder"),
        ("use=judge,url=http://x,model=m,votes=" + "[" * 9999, "once", "no annotator: votes: Input should be"),
    ):
        with pytest.raises(InputError, match=said):
            run("judge-agreement", one, "verdict", "--over", f"{over}.jsonl.gz")
