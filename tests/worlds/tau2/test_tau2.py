"""The telecom domain of tau2-bench, solved alone, on the data of the installed package.

attempt                               solved
the benchmark's own actions           all 20 tickets of the small set, 114 of the base set, 2,285 in all
nothing but the answer                none
the actions without the last          none of the small and the base set
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.plugins import content_of, revision_of
from steptool.core.types import Observation, Outcome, ToolCall
from steptool.worlds.base import SPLITS
from steptool.worlds.checks import MAX_NAME, check_demonstrations, check_tasks
from steptool.worlds.tau2 import Tau2World, package, telecom
from steptool.worlds.tau2.session import Case, Tau2Session

pytest.importorskip("tau2", reason=f"needs the benchmark's package: {package.INSTALL}")
pytest.importorskip("addict", reason=f"needs what the benchmark's package imports: {package.INSTALL}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The domain with the tasks of its small set alone: all of them take seconds to read."""
    made, whole = tmp_path_factory.mktemp("telecom"), package.data_folder("", "telecom")
    for name in (telecom.DATABASE, telecom.PHONE, telecom.RULES, *telecom.SUPPORT.values()):
        (made / name).write_bytes((whole / name).read_bytes())
    tasks = (whole / "tasks_small.json").read_text()
    (made / package.TASKS).write_text(tasks)
    (made / package.SPLITS_FILE).write_text(json.dumps({"small": [task["id"] for task in json.loads(tasks)]}))
    return made


@pytest.fixture(scope="module")
def world(folder: Path) -> Tau2World:
    return Tau2World(Tau2World.Config(path=str(folder), tasks="small"), seed=17)


def cases(world: Tau2World) -> list[Case]:
    return [world.case(task) for task in world.tasks("test")]


async def play(case: Case, calls: list[ToolCall], answer: str | None = "Solved.") -> tuple[Outcome, list[Observation]]:
    session, seen = Tau2Session(case), []
    for call in calls:
        seen.append(await session.call(call))
        await asyncio.sleep(0)  # others go on between any two calls
    assert await session.say("Hello?") is None
    return await session.close(answer), seen


async def together(
    cases: list[Case], pick: Callable[[list[ToolCall]], list[ToolCall]]
) -> list[tuple[Outcome, list[Observation]]]:
    return await asyncio.gather(*(play(case, pick(case.solution)) for case in cases))


def whole(calls: list[ToolCall]) -> list[ToolCall]:
    return calls


def verdicts(cases: list[Case], pick: Callable[[list[ToolCall]], list[ToolCall]]) -> Counter[float | None]:
    return Counter(outcome.solved for outcome, _ in asyncio.run(together(cases, pick)))


def test_the_benchmarks_actions_solve_a_ticket_and_an_untouched_or_unfinished_one_is_not(world: Tau2World) -> None:
    assert verdicts(cases(world), whole) == {1.0: 20}
    assert verdicts(cases(world), lambda calls: []) == {0.0: 20}
    assert verdicts(cases(world), lambda calls: calls[:-1]) == {0.0: 20}


@pytest.mark.slow
def test_the_benchmarks_actions_solve_every_ticket_of_the_base_set() -> None:
    everything = cases(Tau2World(Tau2World.Config(), seed=17))
    assert max(len(case.task.id) for case in everything) <= MAX_NAME
    assert Counter(case.task.group for case in everything) == {
        "service_issue": 29,
        "mobile_data_issue": 36,
        "mms_issue": 49,
    }
    assert verdicts(everything, whole) == {1.0: 114}
    assert verdicts(everything, lambda calls: []) == {0.0: 114}
    assert verdicts(everything, lambda calls: calls[:-1]) == {0.0: 114}


@pytest.mark.slow
def test_the_benchmarks_actions_solve_every_ticket_there_is() -> None:
    everything = cases(Tau2World(Tau2World.Config(tasks="full"), seed=17))
    for start in range(0, len(everything), 100):
        part = everything[start : start + 100]
        assert verdicts(part, whole) == {1.0: len(part)}
        assert verdicts(part, lambda calls: []) == {0.0: len(part)}


@pytest.mark.slow
def test_the_benchmarks_own_evaluators_say_the_same() -> None:
    """They make the calls of a conversation again, in an environment of their own."""
    from tau2.data_model.message import AssistantMessage, ToolMessage
    from tau2.data_model.message import ToolCall as Call
    from tau2.domains.telecom.environment import get_environment
    from tau2.evaluator.evaluator_action import ActionEvaluator
    from tau2.evaluator.evaluator_env import EnvironmentEvaluator

    for case in cases(Tau2World(Tau2World.Config(), seed=17))[::6]:
        for calls in (case.solution, [], case.solution[:-1], case.solution[1:]):
            outcome, seen = asyncio.run(play(case, calls))
            said: list[object] = []
            for number, (call, reply) in enumerate(zip(calls, seen, strict=True)):
                made = Call(id=str(number), name=call.name, arguments=call.arguments)
                said.append(AssistantMessage(role="assistant", tool_calls=[made]))
                said.append(ToolMessage(id=made.id, role="tool", content=reply.text, error=reply.error is not None))
            state = EnvironmentEvaluator.calculate_reward(get_environment, case.written, said, solo_mode=True)
            actions = ActionEvaluator.calculate_reward(case.written, said)
            counts = "ACTION" in {basis.value for basis in case.written.evaluation_criteria.reward_basis}
            theirs = state.reward * (actions.reward if counts else 1)
            assert outcome.solved == theirs, (case.task.id, outcome)


def test_64_sessions_at_once_see_what_each_sees_alone(world: Tau2World) -> None:
    chosen = (cases(world) * 4)[:64]
    alone = [asyncio.run(play(case, case.solution)) for case in chosen[:20]]
    assert asyncio.run(together(chosen, whole)) == (alone * 4)[:64]


def test_tasks_offer_the_tools_of_agent_and_user_and_the_policy_as_system_message(world: Tau2World) -> None:
    tasks = world.tasks("test")
    check_tasks({"test": tasks}, {task.id: world.reference(task) for task in tasks}, "tau2")
    task = tasks[0]
    assert task.tool("enable_roaming") and task.tool("toggle_airplane_mode") and len(task.tools) == 43
    assert "<main_policy>" in task.system and "Telecom Agent Policy" in task.system
    assert world.tasks("train") == world.tasks("dev") == []
    goals = [world.reference(task).goal for task in tasks]
    assert any("assert_internet_speed(expected_speed=200, expected_desc='excellent') is True" in goal for goal in goals)


def test_a_verdict_says_what_is_not_so_and_needs_an_answer(world: Tau2World) -> None:
    case = cases(world)[0]
    assert asyncio.run(play(case, []))[0].evidence.startswith("not so: assert_")
    assert asyncio.run(play(case, case.solution, answer=None))[0] == Outcome(solved=0.0, evidence="no answer")


def test_a_task_that_counts_its_actions_is_not_solved_without_them(world: Tau2World) -> None:
    case = next(case for case in cases(world) if case.solution)
    criteria = case.written.evaluation_criteria.model_copy(
        update={"env_assertions": [], "reward_basis": _basis("ACTION")}
    )
    counted = Case(case.task, case.written.model_copy(update={"evaluation_criteria": criteria}), case.domain)
    assert asyncio.run(play(counted, counted.solution))[0].solved == 1
    assert asyncio.run(play(counted, []))[0].evidence == f"not called: {counted.solution[0].name}"


def _basis(name: str) -> list[object]:
    from tau2.data_model.tasks import RewardType

    return [RewardType(name)]


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("no_such_tool", {}, "unknown_tool"),
        ("set_user_location", {"abroad": False}, "unknown_tool"),  # a method of the user's phone, and no tool
        ("update_db", {"update_data": {}}, "unknown_tool"),
        ("toggle_data", {"more": 1}, "tool_error"),
        ("toggle_data", {"requestor": "user"}, "tool_error"),
        ("toggle_data", {"tool_name": "toggle_wifi"}, "tool_error"),
        ("get_customer_by_id", {"customer_id": "none"}, "tool_error"),
        ("get_customer_by_id", {"customer_id": "C1001"}, None),
    ],
)
def test_only_tools_that_are_offered_run_and_a_failure_is_a_reply(
    world: Tau2World, name: str, arguments: dict[str, object], error: str | None
) -> None:
    _, (seen,) = asyncio.run(play(cases(world)[0], [ToolCall(name=name, arguments=arguments)]))
    assert seen.error == error and seen.text


def test_a_fork_goes_on_by_itself(world: Tau2World) -> None:
    case = max(cases(world), key=lambda case: len(case.solution))

    async def attempt() -> tuple[float | None, float | None]:
        session = Tau2Session(case)
        for call in case.solution[:-1]:
            await session.call(call)
        other = session.fork()
        await other.call(case.solution[-1])
        return (await session.close("Solved.")).solved, (await other.close("Solved.")).solved

    assert asyncio.run(attempt()) == (0, 1)


def test_groups_are_split_whole(folder: Path) -> None:
    config = Tau2World.Config(path=str(folder), tasks="small", train=["mobile_data_issue"], dev=["service_issue"])
    world = Tau2World(config, 0)
    splits = {split: {task.group for task in world.tasks(split)} for split in ("train", "dev", "test")}
    assert splits == {"train": {"mobile_data_issue"}, "dev": {"service_issue"}, "test": {"mms_issue"}}
    shown = world.demonstrations(4, 0.5, seed=3)
    assert Counter(trajectory.outcome.solved for trajectory in shown) == {1.0: 2, 0.0: 2}
    check_demonstrations(shown, {split: world.tasks(split) for split in SPLITS}, "tau2")
    with pytest.raises(ValidationError, match="name a group twice"):
        Tau2World.Config(train=["mms_issue"], dev=["mms_issue"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"domain": "airline"}, "airline needs a user, whose part a model plays: give its endpoint as user"),
        ({"domain": "retail"}, "--set world.user.url=URL"),
        ({"domain": "x"}, "no domain 'x'"),
        ({"user": {"url": "http://127.0.0.1:1/v1", "model": "m"}}, "telecom are solved without a user"),
        ({"train": ["test"]}, "telecom has no group test"),
    ],
)
def test_a_domain_without_its_user_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Tau2World.Config.model_validate(settings)


def test_what_is_missing_or_broken_is_named(folder: Path, world: Tau2World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set world\.path"):
        Tau2World(Tau2World.Config(path=str(tmp_path / "none")), 0)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = Tau2World.Config(path=str(tmp_path), tasks="small")
    same = revision_of(Tau2World(config, 0)), content_of(Tau2World, config)
    assert same[1] == content_of(Tau2World, world.config)
    with pytest.raises(DataError, match="has no set 'base'"):
        Tau2World(Tau2World.Config(path=str(tmp_path)), 0)
    tasks = json.loads((tmp_path / package.TASKS).read_text())
    for change, says in (
        ({"ticket": None}, "has no ticket"),
        ({"evaluation_criteria": {"reward_basis": ["COMMUNICATE"]}}, "judged by COMMUNICATE, which needs a user"),
        ({"ticket": 7}, "valid string"),
    ):
        (tmp_path / package.TASKS).write_text(json.dumps([{**tasks[0], **change}]))
        with pytest.raises(DataError, match=says):
            Tau2World(config, 0)
    for broken, says in ("{}", "is no list of tasks"), ('[{"id": [1]}]', "task 0: is no task with an id"):
        (tmp_path / package.TASKS).write_text(broken)
        with pytest.raises(DataError, match=says):
            Tau2World(config, 0)
    assert content_of(Tau2World, config) != same[1]
    (tmp_path / telecom.DATABASE).write_text("plans = 3")
    with pytest.raises(DataError, match=r"db\.toml: cannot be read"):
        Tau2World(config, 0)
    (tmp_path / telecom.RULES).unlink()
    with pytest.raises(DataError, match="no such file"):
        content_of(Tau2World, config)
    with pytest.raises(WorldError, match="is not one of this world's"):
        world.open(world.tasks("test")[0].model_copy(update={"query": "?"}), 0)


def test_variables_of_a_dotenv_file_stay_out_of_this_process(world: Tau2World) -> None:
    assert "PYTHON_DOTENV_DISABLED" not in os.environ
    with package._without_dotenv():
        assert os.environ["PYTHON_DOTENV_DISABLED"] == "1"
