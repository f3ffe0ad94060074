"""The world `toollens` on a small folder.

query   split   tools that help, with grades
q1      test    a 2, b 1, c 1
q2      test    b 1
q3      train   a 1, c 3
"""

import asyncio
import json
import re
from math import log2
from pathlib import Path

import pytest

from steptool.core.errors import DataError, WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import Outcome, Reference, ScoredTrajectory, Task, Tool, ToolCall, Trajectory
from steptool.testing import scored, step, trajectory
from steptool.worlds.checks import check_tasks
from steptool.worlds.toollens.metrics import (
    AtSettings,
    CompleteAt,
    NdcgAt,
    RecallAt,
    read_gains,
    written_gains,
)
from steptool.worlds.toollens.world import ToolLensWorld

TITLES = {"a": "Flights!", "b": "Hotels", "c": "flights", **{f"t{n}": "" for n in range(9)}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    queries = [{"_id": id, "text": f"What of {id}?"} for id in ("q1", "q2", "q3")]
    tools = [{"_id": id, "title": title, "text": f"Tool {id}: does {id}."} for id, title in TITLES.items()]
    for name, rows in (("queries", queries), ("corpus", tools)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grades(tmp_path, "test", "q1\ta\t2\nq1\tb\t1\nq1\tc\t1\nq1\tt0\t0\nq2\tb\t1\n")
    grades(tmp_path, "train", "q3\ta\t1\nq3\tc\t3\n")
    return tmp_path


def grades(folder: Path, split: str, lines: str) -> None:
    (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")


def opened(folder: Path, seed: int = 0, **settings: int) -> ToolLensWorld:
    return ToolLensWorld(ToolLensWorld.Config(path=str(folder), **settings), seed)


def attempt(world: ToolLensWorld, task: Task, names: list[str], answer: str | None = "done") -> Outcome:
    async def made() -> Outcome:
        session = world.open(task, seed=0)
        for name in names:
            await session.call(ToolCall(name=name, arguments={}))
        return await session.close(answer)

    return asyncio.run(made())


def test_a_task_offers_what_helps_among_other_tools(folder: Path) -> None:
    world = opened(folder, offered=6)
    first, second = world.tasks("test")
    assert [(task.id, task.group) for task in (first, second)] == [("q1", "needs_3"), ("q2", "needs_1")]
    assert len(first.tools) == len(second.tools) == 6
    assert world.reference(first).relevant_tools == ("flights", "hotels", "tool_c_2")
    assert set(world.reference(first).relevant_tools) < {tool.name for tool in first.tools}
    assert world.reference(world.tasks("train")[0]).relevant_tools == ("tool_c_2", "flights"), "best first"
    assert world.tasks("dev") == []
    check_tasks({"test": [first, second]}, {t.id: world.reference(t) for t in (first, second)}, "toollens")


def test_the_seed_decides_what_is_beside_it(folder: Path) -> None:
    assert opened(folder, offered=6).tasks("test") == opened(folder, offered=6).tasks("test")
    assert opened(folder, offered=6).tasks("test") != opened(folder, 1, offered=6).tasks("test")
    assert len(opened(folder, offered=100).tasks("test")[0].tools) == len(TITLES)
    assert len(opened(folder, offered=1).tasks("test")[0].tools) == 3, "all that help"


@pytest.mark.parametrize(
    ("called", "answer", "solved", "gains"),
    [
        (["flights", "hotels", "flights", "tool_c_2"], "done", 1.0, ([2, 1, 1], [2, 1, 1])),
        (["tool_c_2", "hotels", "flights"], None, 0.0, ([1, 1, 2], [2, 1, 1])),
        (["flights", "hotels"], "done", 0.0, ([2, 1], [2, 1, 1])),
        (["other", "hotels", "flights", "tool_c_2"], "done", 1.0, ([1, 2, 1], [2, 1, 1])),
        ([], "done", 0.0, ([], [2, 1, 1])),
    ],
)
def test_all_that_helps_must_be_called(
    called: list[str], answer: str | None, solved: float, gains: tuple[list[int], list[int]], folder: Path
) -> None:
    world = opened(folder, offered=6, within=3)
    outcome = attempt(world, world.tasks("test")[0], called, answer)
    assert outcome.solved == solved
    assert read_gains(outcome.evidence) == gains


def test_a_forked_session_goes_on_by_itself(folder: Path) -> None:
    world = opened(folder)
    session = world.open(world.tasks("test")[1], seed=0)
    fork = session.fork()
    asyncio.run(fork.call(ToolCall(name="hotels", arguments={})))
    assert asyncio.run(fork.fork().close("done")).solved == 1.0
    assert asyncio.run(session.close("done")).solved == 0.0


def test_what_helps_must_be_among_the_first(folder: Path) -> None:
    world = opened(folder, within=3)
    task = world.tasks("test")[0]
    other = next(tool.name for tool in task.tools if tool.name not in world.reference(task).relevant_tools)
    assert attempt(world, task, ["flights", "hotels", other, "tool_c_2"]).solved == 0.0
    assert attempt(world, task, ["flights", "hotels", "tool_c_2", other]).solved == 1.0


def made_of(*calls: str, evidence: str = "") -> ScoredTrajectory:
    steps = [step(ToolCall(name=name, arguments={}), "called") for name in calls]
    plain = trajectory(*steps)
    return scored(Trajectory.create(**{**dict(plain), "outcome": Outcome(evidence=evidence)}))


def test_the_first_k_different_tools_count() -> None:
    """As drawn in `metrics`: called a, x, a, c of a 2, b 1, c 1."""
    of_three = Reference(task_id="t", relevant_tools=("a", "b", "c"))
    task = Task(id="t", group="g", query="?", tools=())
    made = made_of("a", "x", "a", "c", evidence=f"so: {written_gains([2, 0, 1], [2, 1, 1])}")
    at = {k: AtSettings(k=k) for k in (1, 2, 3)}
    assert [RecallAt(at[k]).fraction(made, task, of_three) for k in at] == [(1 / 3, 1.0), (1 / 3, 1.0), (2 / 3, 1.0)]
    assert CompleteAt(at[3]).fraction(made, task, of_three) == (0.0, 1.0)
    assert CompleteAt(at[3]).fraction(made_of("a", "a", "b", "c"), task, of_three) == (1.0, 1.0)
    assert CompleteAt(at[2]).fraction(made_of("a", "a", "b", "c"), task, of_three) == (0.0, 1.0)
    found, counts = NdcgAt(at[3]).fraction(made, task, of_three)
    assert found == pytest.approx((2 + 1 / 2) / (2 + 1 / log2(3) + 1 / 2))
    assert counts == 1.0
    assert RecallAt(at[3]).missing(of_three) == (0.0, 1.0)
    nothing = Reference(task_id="t")
    assert RecallAt(at[3]).fraction(made, task, nothing) == RecallAt(at[3]).missing(nothing) == (0.0, 0.0)


def test_the_revision_follows_files_and_seed(folder: Path) -> None:
    before = revision_of(opened(folder))
    assert revision_of(opened(folder)) == before
    assert revision_of(opened(folder, 1)) != before
    grades(folder, "test", "q2\tb\t1\n")
    assert revision_of(opened(folder)) != before


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("q1\ta\n", r"test\.tsv:2: is no query, tool and grade"),
        ("q2\tb\t1\nq1\ta\t-1\n", r"test\.tsv:3: is no query"),
        ("q1\ta\t999\n", "a grade above 100"),
        ("q9\ta\t1\n", "grades query 'q9', which is not there"),
        ("q1\tz\t1\n", "grades tool 'z', which is not there"),
        ("q3\ta\t1\n", "query 'q3' is in train too"),
    ],
)
def test_a_broken_grade_is_named_with_its_line(lines: str, says: str, folder: Path) -> None:
    grades(folder, "test", lines)
    with pytest.raises(DataError, match=says):
        opened(folder)


def test_other_broken_files_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"set world\.path"):
        ToolLensWorld(ToolLensWorld.Config(), 0)
    with pytest.raises(WorldError, match="train, dev, test"):
        opened(folder).tasks("validation")  # type: ignore[arg-type]
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": 5, "text": 7}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: Tool: text"):
        opened(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"queries\.jsonl: no such file"):
        ToolLensWorld.content(ToolLensWorld.Config(path=str(folder)))


def test_a_task_of_another_world_is_refused(folder: Path) -> None:
    world = opened(folder)
    with pytest.raises(WorldError, match="task other is not one of this world's"):
        world.open(world.tasks("test")[0].model_copy(update={"id": "other"}), seed=0)


@pytest.mark.parametrize(
    ("tool", "name"), [(("x", "Finish"), "tool_x_0"), (("中文", ""), "tool_0"), (("x" * 300, ""), f"tool_{'x' * 60}_0")]
)
def test_every_tool_has_a_name_that_can_be_called(folder: Path, tool: tuple[str, str], name: str) -> None:
    id, title = tool
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": id, "title": title}) + "\n")
    grades(folder, "test", f"q1\t{id}\t1\n")
    grades(folder, "train", "")
    world = opened(folder)
    (task,) = world.tasks("test")
    assert [each.name for each in task.tools] == [name]
    check_tasks({"train": [], "dev": [], "test": [task]}, {task.id: world.reference(task)}, "toollens")


# The corpus as it is published: no titles, and all that is known of a tool in its text

GROCERY = (
    "category_name:Food, tool_name:Store Groceries, api_name:Search a Grocery, api_description:Finds one, by name, "
    'required_params: [{"name": "grocery", "type": "STRING", "description": "Its name."}], '
    'optional_params: [{"name": "most", "type": "NUMBER", "description": ""}], return_schema: {"message": "str"}'
)


def one_tool(folder: Path, text: str) -> Tool:
    row = {"_id": "0", "title": "", "text": text, "metadata": {}}
    (folder / "corpus.jsonl").write_text(json.dumps(row) + "\n")
    grades(folder, "test", "q1\t0\t1\nq1\t0\t1\n")
    grades(folder, "train", "")
    (task,) = opened(folder).tasks("test")
    check_tasks({"train": [], "dev": [], "test": [task]}, {task.id: opened(folder).reference(task)}, "toollens")
    return task.tools[0]


def test_a_tool_is_read_out_of_its_published_text(folder: Path) -> None:
    tool = one_tool(folder, GROCERY)
    assert tool.name == "search_a_grocery_for_store_groceries"
    assert tool.description == "Search a Grocery of Store Groceries (Food): Finds one, by name"
    assert tool.category == "Food"
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "grocery": {"type": "string", "description": "Its name."},
            "most": {"type": "integer", "description": ""},
        },
        "required": ["grocery"],
    }


def test_a_text_that_only_begins_so_is_a_text(folder: Path) -> None:
    assert one_tool(folder, GROCERY.partition(", return_schema")[0]).name == "category_name"
    assert one_tool(folder, f"Of {GROCERY}").name == "of_category_name"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ("[{]", "required: "),
        ("[NaN]", "required: NaN is no number of JSON"),
        ('[{"type": "STRING"}]', "required.0.name"),
    ],
)
def test_parameters_that_are_broken_are_named_with_their_line(folder: Path, parameters: str, says: str) -> None:
    text = re.sub(r"required_params: \[.*?\]", f"required_params: {parameters}", GROCERY, count=1)
    with pytest.raises(DataError, match=rf"corpus\.jsonl:1: Described: {says}"):
        one_tool(folder, text)
