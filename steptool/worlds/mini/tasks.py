"""Writes the tasks of a split: groups, providers, hiccups, and which APIs are offered."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from steptool.core.errors import InputError
from steptool.core.types import SUBSETS, AnswerCheck, Reference, Task
from steptool.worlds.base import Split
from steptool.worlds.mini.catalog import CATEGORIES, PROVIDERS
from steptool.worlds.mini.plans import Case, Hiccup, HiccupKind, Plan, interrupted, possible_hiccups
from steptool.worlds.mini.schema import Api, Provider
from steptool.worlds.mini.several import SAME_CATEGORY, SAME_COLLECTION, PairDraw
from steptool.worlds.mini.single import WRITERS, Draw
from steptool.worlds.mini.store import Store

MAX_CALLS = 8
"""Longest flawless solution, Finish included."""
HICCUP_SHARE = 0.42
HICCUP_WEIGHTS: dict[HiccupKind, int] = {
    "unavailable": 64,
    "rate_limit": 24,
    "moved": 8,
    "missing_argument": 8,
    "code": 22,
}
MAX_OFFERED = 7
PATIENCE = 1000
"""Draws in a row without a new task after which the world counts as exhausted."""

Pool = list[tuple[Provider, ...]]


def turns(split: Split) -> tuple[str, ...]:
    """The groups in the order in which tasks visit them, again and again.

    Training meets only tools that it has seen, with as much of G1, G2 and G3 as the six ToolBench subsets have.
    """
    return tuple(f"G{level}_instruction" for level in (1, 2, 1, 3, 1, 2)) if split == "train" else SUBSETS


def groups_in_turn(split: Split, count: int) -> list[str]:
    """The group of each of `count` tasks."""
    cycle = turns(split)
    return [cycle[number % len(cycle)] for number in range(count)]


def write_cases(store: Store, split: Split, count: int, seed: int) -> list[Case]:
    """`count` cases in an order that visits the groups in turn; queries are distinct."""
    visits = groups_in_turn(split, count)
    plans: dict[str, list[Plan]] = {}
    queries: set[str] = set()
    for group in dict.fromkeys(turns(split)):
        rng = Random(f"mini-tasks:{seed}:{split}:{group}")
        plans[group] = _plans(store, split, group, visits.count(group), queries, rng)
    cases: dict[str, Iterator[Case]] = {}
    for group in plans:
        rng = Random(f"mini-hiccups:{seed}:{split}:{group}")
        hiccups = _hiccups(store, plans[group], rng)
        cases[group] = iter(
            [
                _case(f"mini-{split}-{group}-{number:03d}", group, plan, hiccup, rng)
                for number, (plan, hiccup) in enumerate(zip(plans[group], hiccups, strict=True))
            ]
        )
    return [next(cases[group]) for group in visits]


def _pool(split: Split, group: str) -> Pool:
    """The providers, or pairs of them, that a group may be about."""
    level, novelty = group.split("_")
    if novelty == "category":
        allowed = [p for p in PROVIDERS.values() if CATEGORIES[p.category].held_out == split]
    elif novelty == "tool":
        allowed = [p for p in PROVIDERS.values() if p.role == split and CATEGORIES[p.category].held_out is None]
    else:
        allowed = [p for p in PROVIDERS.values() if p.role == "train"]
    if level == "G1":
        return [(provider,) for provider in allowed]
    pairs = [(one, two) for one in allowed for two in allowed if one is not two]
    if level == "G2":
        return [(one, two) for one, two in pairs if one.category == two.category and CATEGORIES[one.category].group]
    linked = [(one, two) for one, two in pairs if one.category != two.category and one.collection == two.collection]
    return [(one, two) for one, two in linked if CATEGORIES[one.category].group]


def _plans(store: Store, split: Split, group: str, number: int, queries: set[str], rng: Random) -> list[Plan]:
    pool, plans, misses = _pool(split, group), list[Plan](), 0
    while len(plans) < number and misses < PATIENCE:
        providers = rng.choice(pool)
        plan = (
            _single(store, split, group, providers[0], rng)
            if len(providers) == 1
            else _pair(store, split, group, providers, rng)
        )
        misses += 1
        if plan is not None and plan.query not in queries:
            queries.add(plan.query)
            plans.append(plan)
            misses = 0
    if len(plans) < number:
        raise exhausted(split, group, len(plans), number)
    return plans


def exhausted(split: Split, group: str, found: int, wanted: int) -> InputError:
    return InputError(
        f"the bundled world yields {found} distinct tasks for {group}, not {wanted}",
        where=f"params.yaml, world.{split}_tasks",
        fix=f"lower world.{split}_tasks",
    )


def _single(store: Store, split: Split, group: str, provider: Provider, rng: Random) -> Plan | None:
    roles = ("train",) if group.endswith("_instruction") else ("train", split)
    rivals = [
        p for p in PROVIDERS.values() if p.category == provider.category and p is not provider and p.role in roles
    ]
    decoy = rng.choice(rivals) if rivals and rng.random() < 0.35 else None
    writers, weights = zip(*WRITERS, strict=True)
    return rng.choices(writers, weights)[0](Draw(store, split, rng, provider, decoy))


def _pair(store: Store, split: Split, group: str, providers: tuple[Provider, ...], rng: Random) -> Plan | None:
    writers, weights = zip(*(SAME_CATEGORY if group.startswith("G2") else SAME_COLLECTION), strict=True)
    return rng.choices(writers, weights)[0](PairDraw(store, split, rng, *providers))


def _hiccups(store: Store, plans: list[Plan], rng: Random) -> list[Hiccup | None]:
    """A hiccup for HICCUP_SHARE of the plans, its kind drawn by weight among those that fit."""
    codes = {city: code for code, city in store.codes.items()}
    chosen = set(rng.sample(range(len(plans)), round(HICCUP_SHARE * len(plans))))
    hiccups: list[Hiccup | None] = []
    for index, plan in enumerate(plans):
        fitting = [
            hiccup
            for hiccup in possible_hiccups(plan, codes, str(rng.randrange(1000, 10000)))
            if len(interrupted(plan.calls, hiccup)) < MAX_CALLS
        ]
        if index not in chosen or not fitting:
            hiccups.append(None)
            continue
        kinds = sorted({hiccup.kind for hiccup in fitting}, key=list(HICCUP_WEIGHTS).index)
        kind = rng.choices(kinds, [HICCUP_WEIGHTS[kind] for kind in kinds])[0]
        hiccups.append(rng.choice([hiccup for hiccup in fitting if hiccup.kind == kind]))
    return hiccups


def _case(identity: str, group: str, plan: Plan, hiccup: Hiccup | None, rng: Random) -> Case:
    needed = tuple(dict.fromkeys(planned.name for planned in interrupted(plan.calls, hiccup)))
    answer = ", ".join(plan.answer) if isinstance(plan.answer, tuple) else plan.answer
    expected: str | float | list[str] = list(plan.answer) if isinstance(plan.answer, tuple) else plan.answer
    if plan.check == "number":
        expected = float(answer)
    task = Task(
        id=identity,
        group=group,
        query=plan.query,
        tools=tuple(provider.tool(api) for provider, api in _offered(plan, needed, rng)),
    )
    check = AnswerCheck(kind=plan.check, expected=expected, tolerance=0.005 if plan.check == "number" else 0.0)
    reference = Reference(task_id=identity, answer_check=check, relevant_tools=needed)
    return Case(task, reference, plan.kind, plan.calls, answer, hiccup, plan.shortcut)


def _offered(plan: Plan, needed: tuple[str, ...], rng: Random) -> list[tuple[Provider, Api]]:
    """The needed APIs and distractors, shuffled. A decoy comes with the API that a client would try."""
    known = [(provider, api) for provider in plan.providers for api in provider.apis]
    offered = [
        (provider, api) for provider, api in known if provider.full(api) in needed or provider.full(api) in plan.also
    ]
    spare = [pair for pair in known if pair not in offered]
    if plan.decoy:
        offered.append((plan.decoy, plan.decoy.apis[0]))
        spare += [(plan.decoy, api) for api in plan.decoy.apis[1:]]
    size = min(MAX_OFFERED, max(len(offered) + 1, rng.choice((3, 3, 4, 4, 5))))
    offered += rng.sample(spare, max(0, min(len(spare), size - len(offered))))
    rng.shuffle(offered)
    return offered
