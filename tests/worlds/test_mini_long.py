"""Long tasks of the bundled world: as many calls as asked for, each of which needs the one before.

find   {"name": …}    {"id": "ds301"}
next   {"id": "ds301"}    {"city": "Lima", "by": "deskio", "to": "ds393"}
pass   {"ref": "ds393"}   {"city": "Boston", "in": ["dr842", "dr407", "dr675"]}
look   {"ref": "dr842"}   {"empty": true}
…                         {"city": "Vienna", "end": true}
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from pydantic import ValidationError

from steptool.core.errors import InputError
from steptool.core.types import SUBSETS, StopReason, Tool, ToolCall
from steptool.worlds.base import SPLITS
from steptool.worlds.mini import MiniWorld
from steptool.worlds.mini.long.catalog import FRAMES, KINDS, SERVICES
from steptool.worlds.mini.long.session import LongSession
from steptool.worlds.mini.plans import Case


def made(calls: int, train: int = 36, dev: int = 24, test: int = 24, seed: int = 17) -> MiniWorld:
    return MiniWorld(MiniWorld.Config(calls=calls, train_tasks=train, dev_tasks=dev, test_tasks=test), seed)


WORLD = made(16, train=120)
CASES: list[Case] = [case for split in SPLITS for case in WORLD.cases(split)]


@pytest.mark.parametrize("calls", [8, 9, 15, 16, 23, 32])
def test_every_task_needs_exactly_as_many_calls_as_asked_for(calls: int) -> None:
    world = made(calls)
    for case in (case for split in SPLITS for case in world.cases(split)):
        session, solution = world.open(case.task, 0), case.solution()
        errors = [session.reply(call).error for call in solution]
        assert len(solution) + 1 == calls
        assert sum(error is not None for error in errors) == calls // 8
        assert errors[0] is errors[-1] is None
        assert session.outcome(case.answer).solved == 1.0
        assert {call.name for call in solution} == set(case.reference.relevant_tools)
        assert {call.name for call in solution} < {tool.name for tool in case.task.tools}


def test_every_call_takes_its_argument_from_a_reply_before_it() -> None:
    for case in CASES:
        session, shown = WORLD.open(case.task, 0), case.task.query
        for call in case.solution():
            (argument,) = call.arguments.values()
            assert argument in shown, (case.task.query, call)
            shown += session.reply(call).text


def test_the_answer_is_shown_by_the_last_call_alone() -> None:
    for case in CASES:
        session = WORLD.open(case.task, 0)
        *before, last = [session.reply(call).text for call in case.solution()]
        assert json.loads(last) == {"city": case.answer, "end": True}
        assert not any(case.answer in text for text in (case.task.query, *before))


def test_a_list_is_walked_until_a_place_is_not_empty() -> None:
    empty = Counter[int]()
    for case in CASES:
        session = WORLD.open(case.task, 0)
        replies = [json.loads(reply.text) for call in case.solution() if (reply := session.reply(call)).error is None]
        lists = [index for index, reply in enumerate(replies) if "in" in reply]
        assert len(lists) == 2
        for index in lists:
            after = replies[index + 1 : index + 4]
            found = next(number for number, reply in enumerate(after) if "to" in reply)
            assert after[:found] == [{"empty": True}] * found
            empty[found] += 1
    assert set(empty) == {0, 1, 2}


def test_what_fails_once_passes_and_what_has_moved_fails_again() -> None:
    kinds = Counter[str]()
    for case in CASES:
        session, calls = WORLD.open(case.task, 0), case.solution()
        for call, following in zip(calls, [*calls[1:], calls[-1]], strict=True):
            before, reply = session.state(), session.reply(call)
            if reply.error is None:
                continue
            kinds[reply.error] += 1
            if reply.error == "unknown_id":
                assert session.state() == before
                assert session.reply(call) == reply
                assert following.arguments != call.arguments
            else:
                assert session.state() != before
                assert following == call
            assert session.reply(following).error is None
    assert kinds["unavailable"] > kinds["rate_limit"] > 10
    assert kinds["unknown_id"] > 10


def _key(tool: Tool) -> str:
    (key,) = tool.parameters["required"]
    return str(key)


def test_whatever_is_called_off_the_trail_shows_nothing_of_it() -> None:
    case = next(case for case in CASES if case.task.group == "G3_instruction")
    trail = {case.answer, *(value for call in case.solution() for value in call.arguments.values())}
    for tool in case.task.tools:
        for value, error in (("zz999", "unknown_id"), (1, "invalid_argument"), ("x" * 81, "invalid_argument")):
            reply = WORLD.open(case.task, 0).reply(ToolCall(name=tool.name, arguments={_key(tool): value}))
            assert reply.error == ("empty_result" if error == "unknown_id" and _key(tool) == "name" else error)
            assert not any(f'"{place}"' in reply.text for place in trail)
        bare = WORLD.open(case.task, 0).reply(ToolCall(name=tool.name, arguments={}))
        assert bare.error == "missing_argument"
    assert WORLD.open(case.task, 0).reply(ToolCall(name="nobody.find", arguments={})).error == "unknown_tool"


def test_the_groups_mean_what_toolbench_means_by_them() -> None:
    for split in SPLITS:
        for case in WORLD.cases(split):
            level, novelty = case.task.group.split("_")
            used = {SERVICES[name.split(".")[0]] for name in case.reference.relevant_tools}
            assert len(used) == (1 if level == "G1" else 2)
            assert len({service.category for service in used}) == (2 if level == "G3" else 1)
            roles = {service.role for service in used}
            held_out = {KINDS[service.category].held_out for service in used}
            assert roles == ({"train"} if novelty == "instruction" else {split})
            assert held_out == ({split} if novelty == "category" else {None})
    assert {case.task.group for case in WORLD.cases("dev")} == set(SUBSETS)


def test_no_query_and_no_wording_serves_two_splits() -> None:
    queries = [case.task.query for case in CASES]
    assert len(set(queries)) == len(queries)
    frames = [frame for split in SPLITS for frame in FRAMES[split]]
    assert len(set(frames)) == len(frames)


def test_who_stops_early_has_a_city_that_a_reply_showed_and_is_wrong() -> None:
    for case in CASES:
        assert case.shortcut
        session = WORLD.open(case.task, 0)
        last = [session.reply(call).text for call in case.shortcut.calls][-1]
        assert json.loads(last)["city"] == case.shortcut.answer
        assert session.outcome(case.shortcut.answer).solved == 0.0


def test_demonstrations_are_as_flawed_as_asked_for_and_fit_the_calls() -> None:
    shown = WORLD.demonstrations(100, 0.4, 5)
    assert sum(each.outcome.solved == 0.0 for each in shown) == 40
    assert max(len(each.steps) for each in shown) <= 17
    stops = Counter(each.stop_reason for each in shown)
    assert stops[StopReason.gave_up] > 20
    assert any(each.outcome.solved == 0.0 and each.answer for each in shown)


def test_the_same_seed_gives_the_same_tasks_and_another_length_gives_others() -> None:
    again, other, short = made(16, train=120), made(17, train=120), made(16, seed=18, train=120)
    assert [case.task for case in again.cases("train")] == [case.task for case in WORLD.cases("train")]
    ids = {case.task.id for case in CASES}
    assert not ids & {case.task.id for case in other.cases("train")}
    assert [case.task.query for case in short.cases("train")] != [case.task.query for case in WORLD.cases("train")]


@pytest.mark.parametrize("calls", [7, 33, 0])
def test_other_lengths_are_refused(calls: int) -> None:
    with pytest.raises(ValidationError, match="calls"):
        MiniWorld.Config(calls=calls)


def test_more_tasks_than_there_are_queries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steptool.worlds.mini.long.tasks.PATIENCE", 2)
    with pytest.raises(InputError, match=r"lower world\.train_tasks"):
        made(8, train=3_000)


def test_a_fork_stands_where_the_session_does_and_goes_its_own_way() -> None:
    case = CASES[0]
    calls, session, whole = case.solution(), WORLD.open(case.task, 0), WORLD.open(case.task, 0)
    replies = [whole.reply(call) for call in calls]
    for call in calls[:3]:
        session.reply(call)
    assert isinstance(session, LongSession)
    twin = session.fork()
    assert twin.state() == session.state()
    assert [twin.reply(call) for call in calls[3:]] == replies[3:] == [session.reply(call) for call in calls[3:]]
