"""The world `toolbench` on small folders in both layouts (see `folders`), and on the real pack where it is named."""

import asyncio
import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, InputError, StorageError, WorldError
from steptool.core.plugins import config_class, load_class, revision_of
from steptool.core.types import Observation, Outcome, ToolCall, Trajectory
from steptool.endpoints.settings import PartSettings
from steptool.testing import scored, trajectory
from steptool.worlds.base import SPLITS
from steptool.worlds.checks import check_tasks
from steptool.worlds.toolbench.pack import QUERIES, REPLIES
from steptool.worlds.toolbench.replies import Source, read_mix
from steptool.worlds.toolbench.stable import query_files
from steptool.worlds.toolbench.world import ToolBenchWorld
from tests.endpoints.fake import Answer, fake, says
from tests.worlds.toolbench.folders import CITY, DOWN, ONE, make_pack, make_stable, write

LAYOUTS = {"pack": make_pack, "stable": make_stable}
FIND, COUNT = "find_for_my_tool", "count_all_for_my_tool"


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make: Callable[[Path], Path] = LAYOUTS[request.param]
    return make(tmp_path / "data")


def opened(folder: Path, **settings: Any) -> ToolBenchWorld:
    kept = str(folder.parent / "kept.db")
    return ToolBenchWorld(ToolBenchWorld.Config.model_validate({"path": str(folder), "kept": kept, **settings}), seed=0)


def calls(
    world: ToolBenchWorld, id: str, *made: tuple[str, dict[str, Any]]
) -> tuple[list[Observation], dict[Source, int]]:
    """What came back, and where from."""
    task = next(task for task in world.tasks("test") if task.id == id)

    async def attempt() -> tuple[list[Observation], dict[Source, int]]:
        session = world.open(task, seed=0)
        seen = [await session.call(ToolCall(name=name, arguments=arguments)) for name, arguments in made]
        outcome = await session.close("yes")
        assert outcome.solved is None, "only a judge can tell"
        return seen, read_mix(outcome.evidence)

    return asyncio.run(attempt())


def test_requests_become_tasks_of_their_subsets(folder: Path) -> None:
    world = opened(folder)
    tasks = world.tasks("test")
    assert [(task.id, task.group) for task in tasks] == [("1", "G1_tool"), ("3", "G3_instruction"), ("2", "G1_tool")]
    assert [[tool.name for tool in task.tools] for task in tasks] == [[FIND, COUNT], [FIND], [COUNT]]
    assert [world.reference(task).relevant_tools for task in tasks] == [(FIND,), (FIND,), (COUNT,)]
    assert tasks[0].tools[0].parameters["required"] == ["key"]
    assert tasks[0].tools[0].parameters["properties"]["key"]["type"] == "string"
    assert tasks[0].tools[1].parameters["properties"] == {}
    check_tasks({"test": tasks}, {task.id: world.reference(task) for task in tasks}, "toolbench")


def test_calls_get_what_was_recorded_and_the_evidence_says_how(folder: Path) -> None:
    made = [
        (FIND, {"key": "A 1"}),
        (FIND, {"key": "a 1"}),
        (FIND, {"key": "Berlim"}),
        (FIND, {"key": "X"}),
        (COUNT, {}),
    ]
    seen, sources = calls(opened(folder, nearest=0.8), "1", *made)
    assert [each.text for each in seen[:3]] == [ONE, ONE, CITY]
    assert [each.error for each in seen] == [None, None, None, "no_recording", "hard"]
    assert seen[4].text == DOWN
    assert sources == {"exact": 2, "canonical": 1, "nearest": 1, "missing": 1}


def test_the_end_of_a_name_is_enough_and_another_is_told_so(folder: Path) -> None:
    (found, unknown, nothing), _ = calls(opened(folder), "1", ("my_tool", {"key": "A 1"}), ("search", {}), ("", {}))
    assert found.text == ONE
    assert (unknown.error, nothing.error) == ("unknown_tool", "unknown_tool")
    assert json.loads(unknown.text) == {"error": "No such function name: search", "response": ""}


def test_a_forked_session_goes_on_by_itself(folder: Path) -> None:
    world = opened(folder)
    session = world.open(world.tasks("test")[0], seed=0)
    fork = session.fork()
    asyncio.run(fork.call(ToolCall(name=FIND, arguments={"key": "A 1"})))
    assert (fork.fork().sources, session.sources) == (["exact"], [])


def test_a_long_reply_is_cut_as_toolbench_cuts_it(tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    cache = folder / "server/tool_response_cache/Video_Images/my_tool_for_Video_Images/find.json"
    write(cache, {"{'key': 'A 1'}": {"error": "", "response": "x" * 5000}})
    (seen,), _ = calls(opened(folder), "1", (FIND, {"key": "A 1"}))
    assert len(seen.text) == 1027
    assert seen.text.endswith("xxx...")


def test_requests_are_split_and_chosen_by_subset(folder: Path) -> None:
    world = opened(folder, train_tasks=1, dev_tasks=1)
    assert [[task.id for task in world.tasks(split)] for split in SPLITS] == [["1"], ["3"], ["2"]]
    assert [task.id for task in opened(folder, subsets=["G1_tool"]).tasks("test")] == ["1", "2"]
    with pytest.raises(WorldError, match="train, dev, test"):
        world.tasks("validation")  # type: ignore[arg-type]
    for wrong in ({"train_tasks": 3}, {"test_tasks": 4}, {"subsets": ["G9"]}):
        with pytest.raises(InputError, match="requests are there, of G1_tool, G3_instruction"):
            opened(folder, **wrong)


def test_the_revision_follows_the_files_and_not_the_price(folder: Path) -> None:
    before = revision_of(opened(folder))
    assert revision_of(opened(folder, kept=str(folder.parent / "other.db"))) == before
    asked = {"url": "http://localhost:1/v1", "model": "m", "store": str(folder.parent / "e.db")}
    simulated = revision_of(opened(folder, simulator=asked))
    assert simulated != before
    assert revision_of(opened(folder, simulator={**asked, "concurrency": 2, "max_retries": 0})) == simulated
    file = next(file for file in sorted(folder.rglob("*")) if file.name in (REPLIES, "find.json"))
    packed = file.suffix == ".gz"
    content = gzip.decompress(file.read_bytes()) if packed else file.read_bytes()
    content = content.replace(b"a city", b"a town")
    file.write_bytes(gzip.compress(content) if packed else content)
    assert revision_of(opened(folder)) != before


def test_a_folder_without_requests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"holds no queries\.jsonl\.gz, and no folder solvable_queries"):
        opened(tmp_path)
    monkeypatch.delenv("STEPTOOL_RECORDED", raising=False)
    with pytest.raises(DataError, match=r"set world\.path"):
        ToolBenchWorld.content(ToolBenchWorld.Config())


def test_an_evaluation_counts_where_replies_came_from(folder: Path) -> None:
    """2 exact and 1 missing of 3 replies; all metrics of the world are those of its evidence."""
    evidence = "only a judge can tell; 3 replies: 2 exact, 1 missing"
    made = scored(Trajectory.create(**{**dict(trajectory()), "outcome": Outcome(evidence=evidence)}))
    world = opened(folder)
    task = world.tasks("test")[0]
    measured = {
        name: load_class(settings["use"])(*configs(settings)).fraction(made, task, world.reference(task))
        for name, settings in world.metrics.items()
    }
    assert measured["replies"] == (3.0, 1.0)
    assert measured["replies_exact"] == (2.0, 3.0)
    assert measured["replies_missing"] == (1.0, 3.0)
    assert measured["replies_simulated"] == (0.0, 3.0)


def configs(settings: Mapping[str, Any]) -> list[Any]:
    more = {name: value for name, value in settings.items() if name != "use"}
    return [config_class(load_class(settings["use"])).model_validate(more)] if more else []


# A model that poses as the service


def simulator(folder: Path, url: str) -> PartSettings:
    return PartSettings(url=url, model="m", store=str(folder.parent / "e.db"), max_retries=0)


def test_what_was_never_recorded_is_asked_of_a_model_once(folder: Path) -> None:
    def act(request: dict[str, Any]) -> Answer:
        return says('```json\n{"error": "", "response": {"name": "new"}}\n```')

    with fake(act) as endpoint:
        world = opened(folder, simulator=simulator(folder, endpoint.url), nearest=1.0)
        task = world.tasks("test")[0]

        async def ten() -> list[Observation]:
            call = ToolCall(name=FIND, arguments={"key": "X"})
            return await asyncio.gather(*(world.open(task, seed=0).call(call) for _ in range(10)))

        seen = asyncio.run(ten())
        assert {each.text for each in seen} == {'{"error": "", "response": {"name": "new"}}'}
        assert len(endpoint.requests) == 1, "ten that ask the same at once share an answer"
        told = endpoint.requests[0]["messages"][1]["content"]
        assert "Does it." in told or "Find finds." in told
        assert '{"key": "A 1"} -> ' + ONE in told
        world.end()
    again, sources = calls(opened(folder, nearest=1.0), "1", (FIND, {"key": "x"}))
    assert (again[0], sources) == (seen[0], {"simulated": 1}), "it is kept, for a world without the model too"


def test_a_model_that_answers_nonsense_is_asked_three_times_and_nothing_is_kept(folder: Path) -> None:
    with fake(lambda request: says("I am sorry.")) as endpoint:
        world = opened(folder, simulator=simulator(folder, endpoint.url))
        (seen,), sources = calls(world, "1", (FIND, {"key": "X"}))
        assert len(endpoint.requests) == 3
        assert (json.loads(seen.text)["error"], seen.error) == ("Failed to generate fake response", "simulation")
        assert sources == {"missing": 1}
        world.end()
    (seen,), _ = calls(opened(folder), "1", (FIND, {"key": "X"}))
    assert seen.error == "no_recording"


# What others' files may hold


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("solvable_queries/test_instruction/G1_tool.json", "{}", "is no list of requests"),
        ("solvable_queries/test_instruction/G1_tool.json", "[{]", "is no JSON"),
        ("solvable_queries/test_instruction/G1_tool.json", '[{"query_id": 1}]', "request 1: Query: query: Field req"),
        ("solvable_queries/test_instruction/G1_tool.json", "[" * 5000, "is no JSON"),
        ("server/tools/Video_Images/my_tool.json", '{"api_list": 5}', "tool_name: Field required"),
    ],
)
def test_a_broken_file_is_named(name: str, text: str, says: str, tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        opened(folder)
    assert name in str(caught.value)


CACHE = "server/tool_response_cache/Video_Images/my_tool_for_Video_Images/find.json"


@pytest.mark.parametrize("text", ["[]", "{]", '{"{}": 5}', "\x00", "[" * 5000])
def test_a_broken_file_of_replies_breaks_the_attempt_and_is_named(text: str, tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    (folder / CACHE).write_text(text)
    with pytest.raises(WorldError, match=r"find\.json"):
        calls(opened(folder), "1", (FIND, {"key": "A 1"}))


def test_arguments_that_are_no_literal_are_left_out_and_never_run(tmp_path: Path) -> None:
    folder, sign = make_stable(tmp_path / "data"), tmp_path / "ran"
    hostile = [
        f"open({str(sign)!r}, 'w')",
        "{'key': __import__('os')}",
        "(" * 500,
        "{'key': {1, 2}}",
        "[1]",
        "{1: 2}",
        "",
    ]
    write(folder / CACHE, {**{key: json.loads(ONE) for key in hostile}, "{'key': True, 'n': None}": json.loads(CITY)})
    seen, _ = calls(opened(folder), "1", (FIND, {"key": True, "n": None}), (FIND, {}))
    assert (seen[0].text, seen[1].error) == (CITY, "no_recording")
    assert not sign.exists()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    secret = tmp_path / "secret.json"
    write(secret, {"{'key': 'S'}": {"error": "", "response": "secret"}})
    (folder / CACHE).unlink()
    (folder / CACHE).symlink_to(secret)
    (seen,), _ = calls(opened(folder), "1", (FIND, {"key": "S"}))
    assert seen.error == "no_recording"


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    assert calls(opened(folder), "1", (FIND, {"key": "A 1"}))[1] == {"exact": 1}
    inside = (folder / CACHE).parents[1]
    inside.rename(tmp_path / "outside")
    inside.symlink_to(tmp_path / "outside")
    (seen,), _ = calls(opened(folder), "1", (FIND, {"key": "A 1"}))
    assert seen.error == "no_recording"


def test_a_linked_file_of_requests_is_not_read(tmp_path: Path) -> None:
    folder = make_stable(tmp_path / "data")
    file = next((folder / "solvable_queries").rglob("*.json"))
    assert file.stem in query_files(folder / "solvable_queries")
    file.rename(tmp_path / "outside.json")
    file.symlink_to(tmp_path / "outside.json")
    assert file.stem not in query_files(folder / "solvable_queries")


def test_a_task_of_another_world_is_refused(folder: Path) -> None:
    world = opened(folder)
    with pytest.raises(WorldError, match="task other is not one of this world's"):
        world.open(world.tasks("test")[0].model_copy(update={"id": "other"}), seed=0)


def test_a_file_of_replies_that_can_have_no_folder_is_named(folder: Path) -> None:
    (folder.parent / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/kept.db: its folder cannot be made"):
        opened(folder, kept=str(folder.parent / "file" / "kept.db"))


# The real pack

PACK = Path(os.environ.get("STEPTOOL_RECORDED", "nowhere"))
named = pytest.mark.skipif(not (PACK / QUERIES).exists(), reason="STEPTOOL_RECORDED names no recorded pack")


@named
@pytest.mark.slow
def test_every_readable_call_of_a_published_run_has_its_reply(tmp_path: Path) -> None:
    world = ToolBenchWorld(ToolBenchWorld.Config(path=str(PACK), kept=str(tmp_path / "kept.db")), seed=0)
    tasks = {task.id: task for task in world.tasks("test")}
    assert len(tasks) == 649, "one request of 650 offers nothing"
    check_tasks({"test": list(tasks.values())}, {id: world.reference(task) for id, task in tasks.items()}, "toolbench")
    sources: Counter[str] = Counter()

    async def replay(run: dict[str, Any]) -> None:
        session = world.open(tasks[run["query_id"]], seed=0)
        for step in run["steps"]:
            if step["name"] != "Finish" and step["error"] != "hallucinated" and readable(step["arguments"]):
                await session.call(ToolCall(name=step["name"], arguments=json.loads(step["arguments"])))
        sources.update(session.sources)

    with gzip.open(PACK / "judged_runs" / "steptool_cot.jsonl.gz", "rt", encoding="utf-8") as lines:
        for run in map(json.loads, lines):
            if run["query_id"] in tasks:
                asyncio.run(replay(run))
    assert sources["exact"] > 1000
    assert set(sources) == {"exact"}


def readable(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False
