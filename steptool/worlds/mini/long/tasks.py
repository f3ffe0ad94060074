"""Writes the long tasks of a split: groups, services, and which APIs are offered."""

from __future__ import annotations

from random import Random

from steptool.core.types import AnswerCheck, Reference, Task
from steptool.worlds.base import Split
from steptool.worlds.mini.long.catalog import FRAMES, KINDS, SERVICES
from steptool.worlds.mini.long.trails import Trail, make_trail
from steptool.worlds.mini.plans import Case, Shortcut
from steptool.worlds.mini.schema import Provider
from steptool.worlds.mini.tasks import MAX_OFFERED, PATIENCE, exhausted, groups_in_turn
from steptool.worlds.mini.words import WORDS


def write_long_cases(split: Split, count: int, calls: int, seed: int) -> list[tuple[Case, Trail]]:
    """`count` tasks of `calls` calls each, in an order that visits the groups in turn; queries are distinct.

    Raises InputError where there are fewer.
    """
    rngs: dict[str, Random] = {}
    queries: set[str] = set()
    made: list[tuple[Case, Trail]] = []
    visits = groups_in_turn(split, count)
    for number, group in enumerate(visits):
        rng = rngs.setdefault(group, Random(f"mini-long:{seed}:{split}:{group}:{calls}"))
        for _ in range(PATIENCE):
            services = rng.choice(_pool(split, group))
            name = f"{rng.choice(WORDS[split]['first'])} {rng.choice(WORDS[split]['last'])}"
            thing = KINDS[services[0].category].thing.format(n=name)
            query = rng.choice(FRAMES[split]).format(thing=thing, p=services[0].name)
            if query not in queries:
                break
        else:
            raise exhausted(split, group, visits[:number].count(group), visits.count(group))
        queries.add(query)
        trail = make_trail(services, name, calls, WORDS[split]["city"], rng)
        made.append(
            (_case(f"mini-long{calls}-{split}-{group}-{number:03d}", group, query, services, trail, rng), trail)
        )
    return made


def _pool(split: Split, group: str) -> list[tuple[Provider, ...]]:
    """The services, or pairs of them, that a group may be about."""
    level, novelty = group.split("_")
    if novelty == "category":
        allowed = [service for service in SERVICES.values() if KINDS[service.category].held_out == split]
    elif novelty == "tool":
        seen = [service for service in SERVICES.values() if KINDS[service.category].held_out is None]
        allowed = [service for service in seen if service.role == split]
    else:
        allowed = [service for service in SERVICES.values() if service.role == "train"]
    if level == "G1":
        return [(service,) for service in allowed]
    pairs = [(one, two) for one in allowed for two in allowed if one is not two]
    return [(one, two) for one, two in pairs if (one.category == two.category) == (level == "G2")]


def _case(identity: str, group: str, query: str, services: tuple[Provider, ...], trail: Trail, rng: Random) -> Case:
    needed = tuple(dict.fromkeys(call.name for call in trail.calls))
    tools = {service.full(api): service.tool(api) for service in services for api in service.apis}
    spare = [name for name in tools if name not in needed]
    offered = [*needed, *rng.sample(spare, min(len(spare), max(1, MAX_OFFERED - 2 - len(needed))))]
    rng.shuffle(offered)
    return Case(
        task=Task(id=identity, group=group, query=query, tools=tuple(tools[name] for name in offered)),
        reference=Reference(
            task_id=identity, answer_check=AnswerCheck(kind="text", expected=trail.city), relevant_tools=needed
        ),
        kind="trail",
        calls=trail.calls,
        answer=trail.city,
        hiccup=None,
        shortcut=Shortcut(trail.calls[: trail.early], trail.early_city),
    )
