"""The bundled world: solvable, separated, deterministic.

split   groups    providers                       entities
train   3         role train                      train words
dev     6         role train, held out for dev    dev words
test    6         role train, held out for test   test words
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from steptool.core.errors import InputError, WorldError
from steptool.core.plugins import revision_of
from steptool.core.types import SUBSETS, Task
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.mini import MiniWorld
from steptool.worlds.mini.catalog import CATEGORIES, PROVIDERS
from steptool.worlds.mini.phrases import FRAMES
from steptool.worlds.mini.words import WORDS

SIZES = {"train": 360, "dev": 120, "test": 300}


def made(seed: int, train: int, dev: int, test: int) -> MiniWorld:
    return MiniWorld(MiniWorld.Config(train_tasks=train, dev_tasks=dev, test_tasks=test), seed)


@pytest.fixture(scope="module")
def world() -> MiniWorld:
    return made(17, *SIZES.values())


def _provider(tool: str) -> str:
    return tool.split(".")[0]


def _offered(tasks: list[Task]) -> set[str]:
    return {tool.name for task in tasks for tool in task.tools}


@pytest.mark.parametrize("split", SPLITS)
def test_every_task_is_solved_by_its_expert_within_eight_calls(world: MiniWorld, split: Split) -> None:
    lengths = Counter[int]()
    for task in world.tasks(split):
        case = world.case(task)
        calls, session = case.solution(), world.open(task, 0)
        for call in calls:
            session.reply(call)
        assert session.outcome(case.answer).solved == 1.0, task.query
        relevant = set(world.reference(task).relevant_tools)
        assert {call.name for call in calls} == relevant <= {tool.name for tool in task.tools}
        lengths[len(calls) + 1] += 1
    assert min(lengths) == 2
    assert max(lengths) <= 8
    assert 2.8 < sum(length * number for length, number in lengths.items()) / SIZES[split] < 4.2


def test_tasks_need_one_to_six_calls_and_an_answer_and_seldom_seven(world: MiniWorld) -> None:
    lengths = {len(case.solution()) + 1 for split in SPLITS for case in world.cases(split)}
    assert {2, 3, 4, 5, 6, 7} <= lengths <= {2, 3, 4, 5, 6, 7, 8}


def test_expert_errors_are_only_the_ones_that_the_task_has_in_store(world: MiniWorld) -> None:
    for split in SPLITS:
        met = 0
        for case in world.cases(split):
            session = world.open(case.task, 0)
            errors = [error for call in case.solution() if (error := session.reply(call).error)]
            expected = (case.hiccup is not None) + (case.kind == "either" and len(errors) > (case.hiccup is not None))
            assert len(errors) == expected, (case.task.query, errors)
            met += bool(errors)
        assert 0.4 <= met / SIZES[split] <= 0.5, split


def test_hiccups_do_not_depend_on_the_seed_of_the_session(world: MiniWorld) -> None:
    case = next(case for case in world.cases("test") if case.hiccup)
    replies = []
    for seed in (1, 2):
        session = world.open(case.task, seed)
        replies.append([session.reply(call) for call in case.solution()])
    assert replies[0] == replies[1]


def test_the_careless_way_works_technically_so_that_only_its_answer_is_wrong(world: MiniWorld) -> None:
    """Both orders of `buy where it is cheaper` are offered, else the offer would tell where that is."""
    tempting = [case for case in world.cases("train") if case.shortcut and not case.hiccup]
    right = 0
    for case in tempting:
        assert case.shortcut
        session = world.open(case.task, 0)
        assert not any(session.reply(call).error for call in case.shortcut.calls)
        right += session.outcome(case.shortcut.answer).solved == 1.0
    assert 0.25 < right / len(tempting) < 0.65


def test_wrong_answers_and_giving_up_are_not_solved(world: MiniWorld) -> None:
    for case in world.cases("test"):
        session, right = world.open(case.task, 0), case.answer
        assert session.outcome(None).solved == 0.0
        for wrong in ("", "unknown", f"{right} or 1", f"not {right}", right + "1", f"1, {right}"):
            assert session.outcome(wrong).solved == 0.0, (right, wrong)


def test_there_are_enough_categories_tools_and_apis() -> None:
    assert len(CATEGORIES) >= 8
    assert len(PROVIDERS) >= 24
    assert sum(len(provider.apis) for provider in PROVIDERS.values()) >= 60
    assert min(Counter(provider.category for provider in PROVIDERS.values()).values()) >= 2
    collections = {provider.collection for provider in PROVIDERS.values()}
    assert len(collections) >= 3
    for collection in collections:
        assert len({provider.category for provider in PROVIDERS.values() if provider.collection == collection}) >= 3


def test_every_category_has_wordings_where_it_is_used() -> None:
    for category in CATEGORIES.values():
        for index, split in enumerate(SPLITS):
            if category.held_out in (None, split):
                assert all(field.nouns[index] for field in category.fields), (category.name, split)
                assert category.ordering[index] or not category.group, (category.name, split)


@pytest.mark.parametrize("split", SPLITS)
def test_every_prefix_has_the_levels_in_the_proportion_of_the_subsets(world: MiniWorld, split: Split) -> None:
    """Three subsets of G1, two of G2, one of G3; training has only the tools that it may see."""
    tasks = world.tasks(split)
    subsets = [subset for subset in SUBSETS if split != "train" or subset.endswith("_instruction")]
    assert len(tasks) == SIZES[split]
    assert {task.group for task in tasks} == set(subsets)
    for length in (7, 50, len(tasks)):
        levels = Counter(task.group[:2] for task in tasks[:length])
        for level, share in {"G1": 3, "G2": 2, "G3": 1}.items():
            assert abs(levels[level] - length * share / 6) <= 1.5
        counts = Counter(task.group for task in tasks[:length])
        assert split == "train" or max(counts.values()) - min(counts[subset] for subset in subsets) <= 1


def test_subset_names_are_true(world: MiniWorld) -> None:
    seen = _offered(world.tasks("train"))
    seen_providers = {_provider(name) for name in seen}
    seen_categories = {PROVIDERS[name].category for name in seen_providers}
    for split in ("dev", "test"):
        for task in world.tasks(split):
            level, novelty = task.group.split("_")
            used = {PROVIDERS[_provider(name)] for name in world.reference(task).relevant_tools}
            if novelty == "instruction":
                assert _offered([task]) <= seen, task
            if novelty == "tool":
                assert all(
                    provider.name not in seen_providers and provider.category in seen_categories for provider in used
                )
            if novelty == "category":
                assert all(tool.category not in seen_categories for tool in task.tools)
            if level == "G1":
                assert len(used) == 1
            if level == "G2":
                assert len({provider.category for provider in used}) == 1
            if level == "G3":
                assert len(used) == 2
                assert len({provider.collection for provider in used}) == 1
                assert len({provider.category for provider in used}) == 2


def test_dev_and_test_hold_out_different_tools(world: MiniWorld) -> None:
    new = {split: _offered(world.tasks(split)) - _offered(world.tasks("train")) for split in ("dev", "test")}
    assert new["dev"]
    assert new["test"]
    assert not new["dev"] & new["test"]


def test_no_entity_and_no_query_is_in_two_splits(world: MiniWorld) -> None:
    names: dict[str, set[str]] = {}
    for split in SPLITS:
        listings = [listing for listing in world.store.listings if listing.split == split]
        entities = {listing.name.casefold() for listing in listings} | {listing.id for listing in listings}
        for listing in listings:
            fields = CATEGORIES[PROVIDERS[listing.provider].category].fields
            entities |= {str(listing.values[field.name]).casefold() for field in fields if field.vocabulary}
        names[split] = entities | {task.query for task in world.tasks(split)}
        assert len({task.query for task in world.tasks(split)}) == SIZES[split]
    assert not names["train"] & names["dev"]
    assert not names["train"] & names["test"]
    assert not names["dev"] & names["test"]


def test_no_word_and_no_phrase_serves_two_splits() -> None:
    words = {split: {word.casefold() for kind in WORDS[split].values() for word in kind} for split in SPLITS}
    assert not words["train"] & words["dev"]
    assert not words["train"] & words["test"]
    assert not words["dev"] & words["test"]
    for kind, frames in FRAMES.items():
        assert all(len(frames[split]) >= fewest for split, fewest in zip(SPLITS, (4, 2, 3), strict=True)), kind
        assert len({frame for split in SPLITS for frame in frames[split]}) == sum(map(len, frames.values())), kind


def test_ids_are_unique_and_do_not_follow_from_names(world: MiniWorld) -> None:
    ids = [listing.id for listing in world.store.listings]
    assert len(set(ids)) == len(ids)
    other = made(18, 3, 6, 6)
    same = {(x.provider, x.name): x.id for x in world.store.listings}
    shared = [(x.id, same[x.provider, x.name]) for x in other.store.listings if (x.provider, x.name) in same]
    assert sum(a == b for a, b in shared) < len(shared) / 20


def test_same_seed_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "from steptool.core.types import content_hash as h\n"
        "from steptool.core.plugins import revision_of\n"
        "from steptool.worlds.mini import MiniWorld\n"
        "w = MiniWorld(MiniWorld.Config(train_tasks=30, dev_tasks=12, test_tasks=12), 3)\n"
        "tasks = [t.model_dump(mode='json') for s in ('train', 'dev', 'test') for t in w.tasks(s)]\n"
        "print(revision_of(w), h(tasks), h([d.id for d in w.demonstrations(20, 0.2, 5)]))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().strip()


def test_revision_tells_seeds_and_sizes_apart() -> None:
    revisions = {revision_of(made(*args)).revision for args in ((3, 6, 6, 6), (4, 6, 6, 6), (3, 9, 6, 6))}
    assert len(revisions) == 3


def test_a_task_of_another_world_is_refused(world: MiniWorld) -> None:
    foreign = made(18, 3, 6, 6).tasks("test")[0]
    with pytest.raises(WorldError, match="dvc repro prepare"):
        world.open(foreign, 0)


def test_a_task_survives_json(world: MiniWorld) -> None:
    for task in world.tasks("test")[:60]:
        assert world.case(Task.model_validate_json(task.model_dump_json())).task == task


def test_an_unknown_split_is_refused(world: MiniWorld) -> None:
    with pytest.raises(WorldError, match="train, dev, test"):
        world.tasks("validation")  # type: ignore[arg-type]


def test_more_tasks_than_the_world_can_tell_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steptool.worlds.mini.tasks.PATIENCE", 2)
    with pytest.raises(InputError, match=r"world\.train_tasks"):
        made(1, 2_000, 6, 6)
