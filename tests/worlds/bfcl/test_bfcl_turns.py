"""The multi-turn categories of BFCL, on the data of the installed package.

policy                                        solved
the ground truth's calls, a message a turn    all 800, and the benchmark's own checker says the same
nothing but the messages                      none
the ground truth without its last call        none
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.plugins import NoSettings, content_of, revision_of
from steptool.core.storage import parse_record
from steptool.core.types import Observation, Outcome, ToolCall
from steptool.engines.base import Generation
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.testing import LOGPROB, conditions, revision
from steptool.worlds.base import SPLITS
from steptool.worlds.bfcl import BfclWorld, package
from steptool.worlds.bfcl.backends import Backends
from steptool.worlds.bfcl.records import Call, TurnsAnswer, TurnsRow, read_call
from steptool.worlds.bfcl.turns import NEXT, NO_MORE, TurnsCase, TurnsSession
from steptool.worlds.bfcl.world import Category
from steptool.worlds.checks import check_demonstrations, check_tasks

pytest.importorskip("bfcl_eval", reason=f"needs the benchmark's package: {package.INSTALL}")

Pick = Callable[[TurnsCase], Sequence[Sequence[Call]]]
"""The calls that a policy makes in each turn."""


@pytest.fixture(scope="module")
def world() -> BfclWorld:
    return BfclWorld(BfclWorld.Config(), seed=17)


@pytest.fixture(scope="module")
def called() -> BfclWorld:
    config = BfclWorld.Config(categories=["multi_turn_base", "multi_turn_miss_func"], end_turn="call")
    return BfclWorld(config, seed=17)


def case_of(world: BfclWorld, name: str) -> TurnsCase:
    case = world._cases[f"multi_turn_{name}"]
    assert isinstance(case, TurnsCase)
    return case


def cases(world: BfclWorld) -> list[TurnsCase]:
    return [world.case(task) for task in world.tasks("test")]


def as_policy(call: Call, backends: Backends) -> ToolCall:
    """A policy names all arguments, which the ground truth does not."""
    return ToolCall(name=call.name, arguments=backends.named(call.name, call.args, call.arguments))


def all_of(case: TurnsCase) -> list[tuple[Call, ...]]:
    return [turn.truth for turn in case.turns]


def nothing(case: TurnsCase) -> list[tuple[Call, ...]]:
    return [() for _ in case.turns]


def without_the_last(case: TurnsCase) -> list[tuple[Call, ...]]:
    calls = all_of(case)
    last = max(number for number, turn in enumerate(calls) if turn)
    return [*calls[:last], calls[last][:-1], *calls[last + 1 :]]


async def play(case: TurnsCase, calls: Sequence[Sequence[Call]]) -> tuple[Outcome, list[Observation]]:
    session, seen = TurnsSession(case), []
    for turn in calls:
        for call in turn:
            seen.append(await session.call(as_policy(call, session._made)))
            await asyncio.sleep(0)  # others go on between any two calls
        await session.say("Done.")
    return await session.close("Done."), seen


async def together(cases: Sequence[TurnsCase], pick: Pick) -> list[tuple[Outcome, list[Observation]]]:
    return await asyncio.gather(*(play(case, pick(case)) for case in cases))


def test_the_world_has_the_800_tasks_that_a_project_accepts(world: BfclWorld) -> None:
    tasks = world.tasks("test")
    assert Counter(task.group for task in tasks) == dict.fromkeys(world.config.categories, 200)
    assert [task.group for task in tasks[:4]] == world.config.categories
    assert world.tasks("train") == world.tasks("dev") == []
    some = tasks[:80]
    check_tasks({"test": some}, {task.id: world.reference(task) for task in some}, "bfcl")


def test_the_ground_truth_of_every_task_passes_though_all_run_at_once(world: BfclWorld) -> None:
    """Every session in flight at the same time: what one of them changes, another would see."""
    before = _module_values()
    everything = cases(world)
    results = asyncio.run(together(everything, all_of))
    assert [case.task.id for case, (outcome, _) in zip(everything, results, strict=True) if outcome.solved != 1] == []
    assert _module_values() == before
    longest = max(len(observation.text) for _, seen in results for observation in seen)
    assert 30_000 < longest < 35_000  # of a long context; the guard of a rollout cuts what a policy sees


def test_each_of_70_sessions_at_once_sees_what_it_sees_alone(world: BfclWorld) -> None:
    chosen = [case_of(world, f"long_context_{number}") for number in range(0, 200, 20)] * 7
    at_once = asyncio.run(together(chosen, all_of))
    alone = [asyncio.run(play(case, all_of(case))) for case in chosen]
    assert at_once == alone


@pytest.mark.slow
@pytest.mark.parametrize("pick", [nothing, without_the_last])
def test_no_call_and_a_last_call_that_is_missing_fail_everywhere(world: BfclWorld, pick: Pick) -> None:
    results = asyncio.run(together(cases(world), pick))
    assert {outcome.solved for outcome, _ in results} == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize("pick", [all_of, nothing, without_the_last])
def test_the_benchmarks_own_checker_says_the_same(world: BfclWorld, pick: Pick) -> None:
    """It evaluates the texts of the ground truth, and only these. It keeps its objects under the model's name."""
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    folder = package.data_folder("")
    for category in world.config.categories:
        rows = map(json.loads, package.task_file(folder, category).read_text().splitlines())
        truths = map(json.loads, package.answer_file(folder, category).read_text().splitlines())
        for row, truth in zip(rows, truths, strict=True):
            case = world._cases[row["id"]]
            kept = pick(case)
            texts = zip(truth["ground_truth"], kept, strict=True)
            said = [[[text] for text in turn[: len(calls)]] for turn, calls in texts]
            found = multi_turn_checker(said, truth["ground_truth"], row, category, f"test-{pick.__name__}")
            ours, _ = asyncio.run(play(case, pick(case)))
            assert found["valid"] == (ours.solved == 1), row["id"]


def test_a_turn_ends_with_a_message_and_the_reply_is_the_next_request(world: BfclWorld) -> None:
    case = case_of(world, "base_0")

    async def attempt() -> None:
        session = TurnsSession(case)
        assert [await session.say("") for _ in range(4)] == [*[turn.text for turn in case.turns[1:]], None]
        assert await session.say("") is None
        assert (await session.call(ToolCall(name="ls", arguments={}))).text == NO_MORE
        assert (await session.close("Done.")).evidence == "turn 1 of 4: no call was made"

    assert len(case.turns) == 4
    asyncio.run(attempt())


def test_an_attempt_that_ends_early_or_without_an_answer_is_not_solved(world: BfclWorld) -> None:
    case = case_of(world, "base_0")

    async def attempt(turns: int, answer: str | None) -> Outcome:
        session = TurnsSession(case)
        for turn in case.turns[:turns]:
            for call in turn.truth:
                await session.call(as_policy(call, session._made))
            if turn is not case.turns[-1]:
                await session.say("Done.")
        return await session.close(answer)

    assert asyncio.run(attempt(4, "Done.")).solved == 1  # `Finish` in the last turn
    assert asyncio.run(attempt(4, None)) == Outcome(solved=0.0, evidence="no answer")
    assert asyncio.run(attempt(3, "Done.")).solved == 0  # nothing was called in the last one
    assert asyncio.run(attempt(2, "Done.")) == Outcome(solved=0.0, evidence="ended in turn 3 of 4")


def test_a_wrong_state_is_named_with_its_turn(world: BfclWorld) -> None:
    async def attempt() -> Outcome:
        session = TurnsSession(case_of(world, "base_0"))
        await session.call(ToolCall(name="mkdir", arguments={"dir_name": "other"}))
        await session.say("Done.")
        return await session.close("Done.")

    assert asyncio.run(attempt()).evidence.startswith(
        "turn 1 of 4: Model instance for GorillaFileSystem does not match"
    )


def test_a_state_that_cannot_be_compared_is_another(world: BfclWorld) -> None:
    async def attempt() -> Outcome:
        session = TurnsSession(case_of(world, "base_0"))
        await session.call(ToolCall(name="ls", arguments={}))
        del session._made.objects["GorillaFileSystem"].root
        await session.say("Done.")
        return await session.close("Done.")

    assert asyncio.run(attempt()).evidence.startswith("turn 1 of 4: the state is another: AttributeError")


def test_a_function_that_is_missing_is_refused_until_its_turn_offers_it(world: BfclWorld) -> None:
    case = case_of(world, "miss_func_0")
    sort = ToolCall(name="sort", arguments={"file_name": "final_report.pdf"})

    async def attempt() -> None:
        session = TurnsSession(case)
        assert await session.call(sort) == Observation(
            text="Error during execution: name 'sort' is not defined", error="unknown_tool"
        )
        said = [await session.say("") for _ in range(3)]
        offered, sentence = str(said[-1]).split("\n")
        assert sentence == "I have updated some more functions you can choose from. What about now?"
        (described,) = json.loads(offered)
        assert (described["name"], described["parameters"]["required"]) == ("sort", ["file_name"])
        assert (await session.call(sort)).error != "unknown_tool"

    assert case.task.tool("sort") is None and case.turns[3].arriving[0].name == "sort"
    asyncio.run(attempt())


def test_a_format_without_messages_ends_its_turns_by_a_call(called: BfclWorld) -> None:
    """The same verdicts, with `next_request` in the place of a message."""

    async def attempt(case: TurnsCase) -> Outcome:
        session = TurnsSession(case)
        for number, turn in enumerate(case.turns):
            for call in turn.truth:
                await session.call(as_policy(call, session._made))
            if number + 1 < len(case.turns):
                seen = await session.call(ToolCall(name=NEXT.name, arguments={"message": "Done."}))
                assert seen == Observation(text=case.turns[number + 1].text)
        return await session.close("Done.")

    assert case_of(called, "base_0").task.tools[-1] == NEXT
    for task in called.tasks("test")[:80]:
        assert asyncio.run(attempt(called.case(task))).solved == 1


def test_a_fork_goes_on_by_itself(world: BfclWorld) -> None:
    case = case_of(world, "long_context_0")

    async def attempt() -> tuple[Outcome, Outcome]:
        session = TurnsSession(case)
        for call in case.turns[0].truth:
            await session.call(as_policy(call, session._made))
        other = session.fork()
        await other.call(ToolCall(name="mkdir", arguments={"dir_name": "other"}))
        ends = []
        for each in (session, other):
            await each.say("Done.")
            for turn in case.turns[1:]:
                for call in turn.truth:
                    await each.call(as_policy(call, each._made))
                await each.say("Done.")
            ends.append(await each.close("Done."))
        return ends[0], ends[1]

    mine, its = asyncio.run(attempt())
    assert (mine.solved, its.solved) == (1, 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("__init__", {}), "name '__init__' is not defined"),
        (("_load_scenario", {"scenario": {}}), "name '_load_scenario' is not defined"),
        (("add", {"a": 1}), "missing 1 required positional argument: 'b'"),
        (("add", {"a": 1, "b": 2, "self": 3}), "multiple values for argument 'self'"),
        (("power", {"base": 10, "exponent": 10**9}), "exponent is above 1000"),
        (("logarithm", {"value": 2, "base": 10, "precision": "10000000"}), "precision is above 1000"),
        (("round_number", {"number": 5, "decimal_places": -(10**400)}), "decimal_places is above 1000"),
        (("power", {"base": 10**4000, "exponent": 1000}), "base is above 1e+300"),
        (("power", {"base": 10**299, "exponent": 1000}), "Exceeds the limit"),
    ],
)
def test_a_call_that_must_not_run_or_cannot_is_a_reply(call: tuple[str, dict[str, Any]], says: str) -> None:
    backends = Backends({"MathAPI": ["add", "power", "logarithm", "round_number"]}, {}, long_context=False)
    assert says in backends.run(*call)


def test_digits_of_one_calculation_do_not_stay_for_the_next() -> None:
    import decimal

    import mpmath

    before = mpmath.mp.dps, decimal.getcontext().prec
    backends = Backends({"MathAPI": ["logarithm", "square_root"]}, {}, long_context=False)
    assert backends.run("logarithm", {"value": 2, "base": 10, "precision": 40}).startswith("{'result': mpf('0.30102999")
    assert backends.run("square_root", {"number": 2, "precision": 3}) == "{'result': Decimal('1.41')}"
    assert (mpmath.mp.dps, decimal.getcontext().prec) == before


@pytest.mark.parametrize(
    "text", ["mv", "a.b()", "__import__('os')()", "f(g())", "f(x=open)", "f(**{})", "f(1", "f(1) + 1", "f(" * 3000]
)
def test_ground_truth_is_read_as_a_name_and_literals_and_never_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_call(text)


@pytest.mark.parametrize("truth", [None, 5, ["mv()"], [[5]], [[None]], [["f({[]: 1})"]]])
def test_ground_truth_that_is_none_is_named(truth: object) -> None:
    with pytest.raises(DataError, match="TurnsAnswer a: ground_truth"):
        parse_record({"id": "a", "ground_truth": truth}, TurnsAnswer, where="answers:1", fix="restore it")


def test_scenarios_are_split_whole() -> None:
    variants: list[Category] = ["multi_turn_base", "multi_turn_miss_param"]
    split = BfclWorld(BfclWorld.Config(categories=variants, train_share=0.5, dev_share=0.1), seed=17)
    tasks = {name: split.tasks(name) for name in SPLITS}
    assert sum(map(len, tasks.values())) == 400 and all(map(len, tasks.values()))
    numbers = {name: {task.id.rpartition("_")[2] for task in each} for name, each in tasks.items()}
    assert numbers["train"].isdisjoint(numbers["test"] | numbers["dev"]) and numbers["dev"].isdisjoint(numbers["test"])
    queries = [{task.query.casefold() for task in each} for each in tasks.values()]
    assert sum(map(len, queries)) == len(set.union(*queries))
    clusters = [{split.reference(task).cluster for task in each} for each in tasks.values()]
    assert sum(map(len, clusters)) == len(set.union(*clusters)) <= 200
    assert all(each.startswith("multi_turn ") for each in set.union(*clusters))


def test_the_first_tasks_are_of_different_scenarios() -> None:
    world = BfclWorld(BfclWorld.Config(), seed=17)
    first = world.tasks("test")[:40]
    assert len({task.group for task in first[:4]}) == 4
    assert len({task.id.rpartition("_")[2] for task in first}) == 40
    assert len({world.reference(task).cluster for task in first}) > 35  # some scenarios begin with the same words


def test_a_seed_decides_the_splits_and_nothing_else() -> None:
    whole = {"categories": ["multi_turn_base"]}
    revisions = [
        str(revision_of(BfclWorld(BfclWorld.Config.model_validate(config), seed)))
        for config in (whole, {**whole, "train_share": 0.5})
        for seed in (17, 18)
    ]
    assert revisions[0] == revisions[1] and len(set(revisions)) == 3


@pytest.mark.parametrize("end_turn", ["message", "call"])
def test_ground_truths_are_demonstrations_of_which_a_share_ends_unsolved(end_turn: str) -> None:
    config = {"categories": ["multi_turn_miss_param"], "train_share": 0.5, "end_turn": end_turn}
    world = BfclWorld(BfclWorld.Config.model_validate(config), seed=17)
    shown = world.demonstrations(8, 0.25, seed=3)
    assert Counter(trajectory.outcome.solved for trajectory in shown) == {1.0: 6, 0.0: 2}
    check_demonstrations(shown, {split: world.tasks(split) for split in SPLITS}, "bfcl")
    ends = [step for trajectory in shown for step in trajectory.steps[:-1] if step.action.message is not None]
    called = [call.name for trajectory in shown for step in trajectory.steps for call in step.action.calls]
    assert bool(ends) == (end_turn == "message") and (NEXT.name in called) == (end_turn == "call")
    with pytest.raises(InputError, match=r"demonstrations\.count: 500 is above"):
        world.demonstrations(500, 0, seed=3)


def test_an_attempt_with_a_format_of_one_call_goes_through_all_turns() -> None:
    """What a policy of `json_call` samples, from the prompt to the verdict: the actions of a demonstration."""
    config = {"categories": ["multi_turn_base"], "train_share": 0.2, "end_turn": "call"}
    world = BfclWorld(BfclWorld.Config.model_validate(config), seed=17)
    written = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    for shown in world.demonstrations(3, 0.34, seed=3):
        actions = iter([written.render(step.action) for step in shown.steps])

        async def act(stream: Sequence[int], most: int, seed: int) -> Generation:
            ids = next(actions)  # noqa: B023 - the attempt ends before the next demonstration
            return Generation(tuple(ids), (LOGPROB,) * len(ids), stopped=True)

        task = next(task for task in world.tasks("train") if task.id == shown.task_id)
        attempt = Attempt(
            task=task,
            open=partial(world.open, task, seed=0),
            act=act,
            format=written,
            conditions=conditions(max_calls=60, max_step_tokens=4096, max_tokens=100_000),
            policy=revision("shown"),
            seed=0,
            number=0,
            tool_timeout_s=5.0,
        )
        (done,) = asyncio.run(Chain(NoSettings()).attempt(attempt))
        assert done.outcome == shown.outcome and done.stop_reason == shown.stop_reason
        assert [step.action for step in done.steps] == [step.action for step in shown.steps]


def test_a_world_without_training_tasks_shows_nothing(world: BfclWorld) -> None:
    assert world.demonstrations(320, 0.22, seed=3) == []


def test_what_is_missing_or_broken_is_named(world: BfclWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set world\.path"):
        BfclWorld(BfclWorld.Config(path=str(tmp_path / "none")), 0)
    with pytest.raises(DataError, match="no such file"):
        content_of(BfclWorld, BfclWorld.Config(path=str(tmp_path)))
    for path in [*package.data_folder("").glob("*/*.json"), *package.data_folder("").glob("*multi_turn_base.json")]:
        copied = tmp_path / path.relative_to(package.data_folder(""))
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(path.read_bytes())
    config = BfclWorld.Config(path=str(tmp_path), categories=["multi_turn_base"])
    assert len(BfclWorld(config, 0).tasks("test")) == 200
    before = content_of(BfclWorld, config)
    answers = package.answer_file(tmp_path, "multi_turn_base")
    answers.write_text(answers.read_text().replace("cd(folder='document')", "cd(folder=__import__('os').sep)", 1))
    assert content_of(BfclWorld, config) != before
    with pytest.raises(DataError, match=r"BFCL_v4_multi_turn_base.json:1: .*malformed node"):
        BfclWorld(config, 0)
    tasks = package.task_file(tmp_path, "multi_turn_base")
    tasks.write_text(tasks.read_text().replace('["TwitterAPI"', '["WebSearchAPI"', 1))
    with pytest.raises(DataError, match="'WebSearchAPI' is not among the classes"):
        list(package.read_rows(tasks, TurnsRow))
    with pytest.raises(WorldError, match="is not one of this world's"):
        world.open(world.tasks("test")[0].model_copy(update={"query": "?"}), 0)


def _module_values() -> str:
    """What the modules of the tool classes hold, which long contexts put into their objects."""
    modules = [package._imported(f"func_source_code.{name}") for name in (*package.CLASSES.values(), "long_context")]
    held = [
        {name: value for name, value in vars(module).items() if isinstance(value, dict | list) and name.isupper()}
        for module in modules
    ]
    for each in held:  # a reply is written into it before it is read
        each.get("LONG_WEATHER_EXTENSION", {}).pop("outsideTemperature", None)
    return repr(held)
