"""`steptool bench WORLD`: any policies on any world under equal conditions, outside of the graph.

    params.yaml, or the defaults, with the world and `--set` laid over them
        └─ tasks of a split ─ attempts ─ judgements ─ evaluation of each policy ─ differences, table, receipt

It measures as the stage `evaluate` does, by the same code. What was measured is kept in .steptool/bench/WORLD, by a
hash of all that decides about it, and read from there the next time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steptool.annotators.annotate import opened
from steptool.config.arms import arm_of
from steptool.config.places import BASE, JUDGED, PARAMS, WORK
from steptool.config.plugins import Use
from steptool.config.settings import BASE_ARM, ENDPOINT, WORLD, Params, laid_over, load_params, merged
from steptool.core.errors import DataError, InputError, StepToolError
from steptool.core.plugins import revision_of
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.core.storage import (
    MANIFEST,
    file_hash,
    output_folder,
    parse_json,
    read_json,
    read_jsonl,
    read_record,
)
from steptool.core.types import Reference, ScoredTrajectory, Task, content_hash
from steptool.endpoints.base import Acting
from steptool.evaluation.base import Metric
from steptool.evaluation.compare import refuse_unless_comparable
from steptool.evaluation.metrics import Evaluation, primary_measure, refuse_unless_measurable, tasks_hash
from steptool.policies.base_models import fetch_base
from steptool.report.page import ReportData
from steptool.report.results import Arm
from steptool.rollouts.collect import Sampler, open_sampler, world_revision
from steptool.serving.policy import find
from steptool.stages.evaluate import compare_arms, endpoint_of, measure_policy, own_metrics
from steptool.worlds.base import Ends, World
from steptool.worlds.checks import check_tasks

KEPT = WORK / "bench"
DATA_BESIDE = "a world that reads data is told where they are: --set path=FOLDER"


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, as the command has it."""

    world: str
    policies: tuple[str, ...] = ()
    """Arms, folders, `base`, @ALIAS; all arms with weights where nothing is named, the base model outside of a
    project."""
    endpoints: tuple[str, ...] = ()
    """Arms with an endpoint, or MODEL@URL."""
    key: str | None = None
    """Environment variable with the API key of the latter."""
    settings: tuple[str, ...] = ()
    """`key=value` of the world, `section.key=value` of params.yaml."""
    split: str | None = None
    limit: int | None = None
    seed: int | None = None
    against: str | None = None
    """The policy that all others are compared with; the pairs of `compare` or the first one where None."""


@dataclass(frozen=True)
class Chosen:
    """A policy that was found: by its folder, or its endpoint."""

    name: str
    folder: Path | None = None
    endpoint: Use | None = None


def measure(wanted: Wanted) -> ReportData:
    """Each policy on the world's tasks, measured or as it was kept; and their differences.

    Raises InputError for a world, setting or policy that does not exist, and NotComparable where two policies were not
    measured under equal conditions.
    """
    params = params_of(wanted)
    with open_sampler(params, None, seed=params.seed) as sampler:
        tasks, references = _tasks(params, sampler.world, wanted.limit)
        chosen = chosen_of(params, wanted)
        pairs = _pairs(params, [each.name for each in chosen], wanted.against)
        folder = KEPT / _slug(params.world.name)
        kept = _measure_all(params, chosen, sampler, tasks, references, folder)
    evaluations = {name: evaluation for name, (evaluation, _) in kept.items()}
    first, *others = evaluations.values()
    for other in others:
        refuse_unless_comparable(other, first)
    primary = primary_measure(list(evaluations.values()))
    return ReportData(
        arms=[_arm(params, each, evaluations[each.name]) for each in chosen],
        evaluations=list(evaluations.values()),
        comparisons=[compare_arms(params, evaluations, primary, *pair) for pair in pairs],
        judged={name: scored for name, (_, scored) in kept.items()},
        tasks=tasks,
        meta={"world": _said(params.world), "seed": params.seed, "split": params.evaluate.split},
    )


def params_of(wanted: Wanted) -> Params:
    """The project's settings, or the defaults, with what is wanted laid over them. Raises InputError."""
    changes: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in _parsed(wanted.settings):
        *sections, last = key.split(".")
        if sections[:1] == ["world"]:
            del sections[0]
            at = own
        else:
            at = changes if sections else own
        for section in sections:
            at = at.setdefault(section, {})
            if not isinstance(at, dict):
                found = f"{key[:80]} lies within {section[:40]}, which is given a value of its own"
                raise InputError(found, where="--set", fix="give either the one or the other")
        at[last] = value
    if wanted.seed is not None:
        changes["seed"] = wanted.seed
    if wanted.split is not None:
        changes.setdefault("evaluate", {})["split"] = wanted.split
    before = load_params(PARAMS) if PARAMS.exists() else Params()
    is_own = before.world.name == wanted.world
    settings = merged(before.world.settings if is_own else {}, own)
    try:
        world = WORLD.read({"use": wanted.world, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        place, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        found, fix = (f"{place}: {said}", DATA_BESIDE) if place else (said, None)
        raise InputError(found, where=f"world {wanted.world}", fix=fix) from error
    except ValueError as error:
        raise InputError(str(error), where="world", fix="steptool bench mini") from error
    return laid_over(PARAMS, {**changes, "world": {"use": wanted.world, **world.settings}})


def chosen_of(params: Params, wanted: Wanted) -> list[Chosen]:
    """The policies, in their order, each with a name of its own. Raises InputError for one that does not exist."""
    policies = wanted.policies
    if not policies and not wanted.endpoints:
        arms = [arm_of(params, name) for name in params.arms]
        there = tuple(arm.name for arm in arms if arm.folder and arm.folder.is_dir())
        policies = there or (BASE_ARM,)
    found = [_policy(params, name) for name in policies]
    found += [_endpoint(params, text, wanted.key) for text in wanted.endpoints]
    taken: set[str] = set()
    named = []
    for each in found:
        name = next(text for n in count(1) if (text := each.name if n == 1 else f"{each.name}-{n}") not in taken)
        taken.add(name)
        named.append(Chosen(name, each.folder, each.endpoint))
    return named


def _parsed(settings: Sequence[str]) -> list[tuple[str, Any]]:
    """`sample.max_calls=4` → its key and value: a number, true or false where it is one."""
    found = []
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            fix = "write key=value for the world, or section.key=value, such as sample.max_calls=12"
            raise InputError(f"{text[:80]!r} is no setting", where="--set", fix=fix)
        found.append((key, _value(value)))
    return found


def _value(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def _policy(params: Params, text: str) -> Chosen:
    if text == BASE_ARM and BASE_ARM not in params.arms:
        return Chosen(BASE_ARM, _base(params))
    named = find(params, text)
    return Chosen(_slug(text.removeprefix("@")) if text.startswith("@") else _slug(named.name), named.folder)


def _base(params: Params) -> Path:
    """The base model: the project's, or one that is fetched here once."""
    if BASE.is_dir():
        return BASE
    folder, determines = KEPT / BASE_ARM, {"base": params.model.base}
    if not (folder / MANIFEST).exists() or read_json(folder / MANIFEST) != determines:
        with output_folder(folder, determines) as out:
            fetch_base(params.model.base, out)
    return folder


def _endpoint(params: Params, text: str, key: str | None) -> Chosen:
    """An arm with an endpoint, or MODEL@URL."""
    arm = params.arms.get(text)
    if arm is not None and arm.endpoint is not None:
        return Chosen(text, endpoint=arm.endpoint)
    model, at, url = text.partition("@")
    known = [name for name, each in params.arms.items() if each.endpoint]
    fix = "write MODEL@URL, such as --endpoint gpt-x@http://127.0.0.1:8000/v1" + (
        f", or name one of {', '.join(known)}" if known else ""
    )
    if not at:
        raise InputError("no arm with an endpoint is called that", where=f"--endpoint {text[:80]}", fix=fix)
    try:
        used = ENDPOINT.read({"url": url, "model": model, **({"key": key} if key else {})})
    except ValueError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else error
        raise InputError(str(said), where=f"--endpoint {text[:80]}", fix=fix) from error
    return Chosen(_slug(model), endpoint=used)


def tasks_of(params: Params) -> list[Task]:
    """All tasks of the split. Raises InputError where the world, or what it reads, is not there."""
    world: World = params.world.build(params.seed)
    try:
        return _tasks(params, world, None)[0]
    finally:
        if isinstance(world, Ends):
            world.end()


def _tasks(params: Params, world: World, limit: int | None) -> tuple[list[Task], dict[str, Reference]]:
    """The first `limit` tasks of the split and what is known of them, checked."""
    tasks = list(world.tasks(params.evaluate.split))[:limit]
    references = {task.id: world.reference(task) for task in tasks}
    check_tasks({params.evaluate.split: tasks}, references, params.world.name)
    where = f"world {params.world.name}, split {params.evaluate.split}"
    refuse_unless_measurable(tasks, references, where=where)
    return tasks, references


Kept = tuple[Evaluation, list[ScoredTrajectory]]


def _measure_all(
    params: Params,
    chosen: Sequence[Chosen],
    sampler: Sampler,
    tasks: list[Task],
    references: dict[str, Reference],
    folder: Path,
) -> dict[str, Kept]:
    metrics = own_metrics(params)
    conditions = _conditions(params, sampler, tasks, references, metrics)
    found: dict[str, Kept] = {}
    with ExitStack() as open_ones:
        acting: dict[str, Acting] = {}
        for each in chosen:  # before anything is sampled: what endpoints lack is said at once
            if each.endpoint:
                endpoint = endpoint_of(params, each.endpoint, sampler)
                acting[each.name] = open_ones.enter_context(closing(endpoint))
        for each in chosen:
            determines = {**conditions, "name": each.name, "policy": _identity(each)}
            out = folder / content_hash(determines)
            kept = _read(out, each.name, determines)
            if kept is None:
                if each.folder is not None:
                    sampler.load(each.folder)
                by = acting.get(each.name, sampler)
                with output_folder(out, determines) as made:
                    measure_policy(params, each.name, by, tasks, references, params.evaluate.split, metrics, made)
                kept = _read(out, each.name, determines)
                if kept is None:
                    raise StepToolError("what was measured cannot be read back", where=str(out), fix="run it again")
            print(f"{each.name}: {len(kept[1])} attempts at {len(tasks)} tasks, kept in {out}", flush=True)
            found[each.name] = kept
    return found


def _conditions(
    params: Params,
    sampler: Sampler,
    tasks: Sequence[Task],
    references: dict[str, Reference],
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """All that decides about an evaluation, but for the policy: the receipt beside it."""
    search = params.acting_search
    plugins = [params.world, params.format, params.engine, search, params.annotate, *params.metrics.values()]
    modules = ["steptool.stages.evaluate", *(module for used in plugins for module in used.modules())]
    settings = {key: getattr(params, key).model_dump(mode="json") for key in ("evaluate", "sample")} | {
        f"metrics.{name}": used.dump() for name, used in params.metrics.items()
    }
    with opened(params.annotate) as (_, revision):
        judged_by = revision.model_dump()
    return {
        "stage": f"bench {params.world.name}",
        "code": code_revision(modules, without=MEANS_NOTHING),
        "seed": params.seed,
        "world": world_revision(params, sampler.world).model_dump(),
        "search": revision_of(sampler.search, search.config).model_dump(),
        "annotate": judged_by,
        "format": params.format.dump(),
        "engine": params.engine.dump(),
        "dtype": sampler.dtype,
        "settings": settings,
        "metrics": {name: revision_of(metric).model_dump() for name, metric in metrics.items()},
        "tasks": tasks_hash(tasks, references),
        "order": content_hash([task.id for task in tasks]),
    }


def _identity(chosen: Chosen) -> dict[str, Any]:
    if chosen.folder is not None:
        return {"folder": str(chosen.folder), "content": file_hash(chosen.folder)}
    assert chosen.endpoint is not None
    settings = chosen.endpoint.dump()
    return {"endpoint": {key: settings.get(key) for key in chosen.endpoint.cls.deciding}}


def _read(out: Path, name: str, determines: dict[str, Any]) -> Kept | None:
    """What was measured before; None where it was not, or cannot be read by this release."""
    if not (out / MANIFEST).exists():
        return None
    try:
        if read_json(out / MANIFEST) != determines:
            return None
        return read_record(out / f"{name}.json", Evaluation), read_jsonl(out / f"{name}{JUDGED}", ScoredTrajectory)
    except DataError:
        return None


def _pairs(params: Params, names: Sequence[str], against: str | None) -> list[tuple[str, str]]:
    """Candidate and baseline of each comparison. That of the policy named last comes first: the page is about it."""
    if against is not None:
        if against not in names:
            fix = f"name one of {', '.join(names)}"
            raise InputError(f"{against[:80]!r} is not among the policies", where="--against", fix=fix)
        return [(name, against) for name in reversed(names) if name != against]
    listed = [(pair[0], pair[1]) for pair in params.compare if set(pair) <= set(names)]
    return listed or [(name, names[0]) for name in reversed(names[1:])]


def _arm(params: Params, chosen: Chosen, evaluation: Evaluation) -> Arm:
    if chosen.endpoint is not None:
        return Arm(name=chosen.name, endpoint=evaluation.policy.name)
    if chosen.name in params.arms:
        arm = arm_of(params, chosen.name)
        if arm.method is not None and arm.folder == chosen.folder:
            return Arm(name=arm.name, method=arm.method.name, start=arm.start, data=arm.data)
    return Arm(name=chosen.name)


def _said(world: Use) -> str:
    """Its name, and the settings that have a value."""
    settings = {key: value for key, value in world.dump().items() if key != "use" and value not in (None, "", [], {})}
    said = ", ".join(f"{key}: {each if isinstance(each, str) else json.dumps(each)}" for key, each in settings.items())
    return f"{world.name} ({said})" if said else world.name


def _slug(text: str) -> str:
    """As the name of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip(".")[:80] or "policy"
