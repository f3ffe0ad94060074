"""The arms and rounds of params.yaml: what each is made from, and where it lies.

rounds: {r1: {from: sft}}                                       base ─ sft ─┬─ r1 ─┐
arms:   {sft:  {method: sft, from: base, data: [demonstrations]},           └──────┴─ ppo1
         ppo1: {method: step_ppo, from: sft, data: [r1]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steptool.config.places import MODELS, PARAMS, VALIDATED
from steptool.config.plugins import Section, Use
from steptool.config.settings import BASE_ARM, DEMONSTRATED, DEMONSTRATIONS, Params, problems_of
from steptool.core.errors import InputError, ParamsError

ARMS_WANTED = "add one, such as arms: {sft: {method: sft, from: base, data: [demonstrations]}}"
ROUNDS_WANTED = "add one, such as rounds: {r1: {from: sft}}"


@dataclass(frozen=True)
class Arm:
    """A policy that is trained, or one that is only evaluated (`method` is None), from a folder or an endpoint."""

    name: str
    folder: Path | None
    """None for an endpoint."""
    method: Use | None = None
    """With the arm's own settings laid over the method's; they are checked by `check_method`."""
    start: str | None = None
    """Arm that it starts from, or base."""
    start_folder: Path = MODELS / BASE_ARM
    data: tuple[str, ...] = ()
    """`demonstrations`, and rounds."""
    imported: tuple[str, ...] = ()
    """Those of the rounds that nobody sampled here: they are imported from traces."""
    ancestors: tuple[tuple[str, Path], ...] = ()
    """What its policy is built on, name and folder, nearest first: arms, then base."""
    generation: int = 0
    """How many of its ancestors were trained by the same method: it moves the seed."""
    endpoint: Use | None = None

    @property
    def weights(self) -> Path:
        """Its folder. Raises ParamsError where it is an endpoint, which has none."""
        if self.folder is None:
            raise ParamsError(
                "is an endpoint: its weights are not here, so it can be evaluated and nothing else",
                where=f"{PARAMS}: arms.{self.name}",
                fix="name an arm that is trained, or has a folder",
            )
        return self.folder


@dataclass(frozen=True)
class Round:
    name: str
    index: int
    """From 0, in the order of params.yaml, among the rounds that are sampled."""
    arm: Arm | None
    """That it samples from; None is the base model."""
    policy: Path
    previous: Path | None
    """Folder of the validated data of the sampled round before; None for the first."""
    traces: Use | None = None
    """What its attempts are imported by: it is not sampled, and has neither policy nor previous round."""

    @property
    def origin(self) -> str:
        """What it is sampled from, or imported from."""
        if self.traces is not None:
            return str(self.traces.config.path)
        return self.arm.name if self.arm else BASE_ARM


def arms_of(params: Params) -> list[Arm]:
    """In the order of params.yaml. Raises ParamsError where there is none."""
    if not params.arms:
        raise ParamsError("holds no `arms`", where=str(PARAMS), fix=ARMS_WANTED)
    return [arm_of(params, name) for name in params.arms]


def arm_of(params: Params, name: str) -> Arm:
    """Raises ParamsError for a name that is not under `arms`, or a method that is neither set nor of this package."""
    if name not in params.arms:
        known = ", ".join(params.arms) or "none"
        raise ParamsError(f"no arm {name[:80]!r}; there are {known}", where=str(PARAMS), fix=ARMS_WANTED)
    wanted = params.arms[name]
    if wanted.folder:
        return Arm(name, Path(wanted.folder))
    if wanted.endpoint:
        return Arm(name, None, endpoint=wanted.endpoint)
    ancestors = tuple(_ancestors(params, name))
    methods = [params.arms[each].method for each, _ in ancestors if each != BASE_ARM]
    return Arm(
        name=name,
        folder=MODELS / name,
        method=_method(params, name),
        start=wanted.from_,
        start_folder=ancestors[0][1],
        data=tuple(wanted.data),
        imported=tuple(name for name in wanted.data if name in params.rounds and params.rounds[name].traces),
        ancestors=ancestors,
        generation=methods.count(wanted.method),
    )


def _ancestors(params: Params, name: str) -> Iterator[tuple[str, Path]]:
    start = params.arms[name].from_
    while start is not None:
        arm = params.arms.get(start)
        yield start, Path(arm.folder) if arm and arm.folder else MODELS / start
        start = arm.from_ if arm else None


def _method(params: Params, arm: str) -> Use:
    wanted = params.arms[arm]
    method = str(wanted.method)
    try:
        used = params.methods.get(method) or Section("methods", method, is_heavy=True).read({})
    except ValueError as error:
        fix = f"or add it under `methods`, such as methods: {{{method}: {{use: 'my_pkg.methods:Mine'}}}}"
        raise ParamsError(str(error), where=f"{PARAMS}: arms.{arm}.method", fix=fix) from error
    return replace(used, settings={**used.settings, **wanted.settings})


COMPARES = ("baseline", "lambda_step", "merge", "smoothing")
"""Settings of a method that compares the attempts at a task as `step_ppo` does."""
COMPARING = {
    "step_ppo": COMPARES,
    "ppo_final": COMPARES,
    "grpo": ("scale", "costs"),
    "gigpo": ("scale", "step_weight"),
}
"""Method → those of its settings that say how it compares; their defaults are in `steptool.training.compared`."""


def learner_of(params: Params, round: str) -> tuple[str, dict[str, Any]] | None:
    """The first arm that learns from a round by a method of COMPARING, or by one with the settings of `step_ppo`, and
    how it compares attempts: the settings as written, and the `method` unless it is as `step_ppo`. None where no arm
    does.
    """
    for name, arm in params.arms.items():
        if arm.method is not None and round in arm.data:
            used = _method(params, name)
            if used.name in COMPARING or set(COMPARES) & used.settings.keys():
                own = {"method": used.name} if used.name in COMPARING.keys() - {"step_ppo"} else {}
                keys = COMPARING.get(used.name, COMPARES)
                return name, own | {key: used.settings[key] for key in keys if key in used.settings}
    return None


def comparison_of(params: Params, round: str) -> dict[str, Any] | None:
    """How the arm of `learner_of` compares attempts."""
    learner = learner_of(params, round)
    return None if learner is None else learner[1]


def check_methods(params: Params, path: Path = PARAMS) -> None:
    """Check the settings of every method, and those that arms lay over them. It imports the methods: it takes seconds.

    Raises ParamsError, with every problem of a method and its line in the file `path`.
    """
    for key, used in params.methods.items():
        _check(used, path, ("methods", key))
    for name, arm in params.arms.items():
        if arm.method is not None:
            _check(_method(params, name), path, ("arms", name, "settings"), ("methods", arm.method))
            _refuse_data(arm_of(params, name), path)


def check_method(arm: Arm) -> None:
    """Check the settings of the method of one arm, and what its data gives. Raises ParamsError with the line."""
    if arm.method is not None:
        _check(arm.method, PARAMS, ("arms", arm.name, "settings"), ("methods", arm.method.name))
        _refuse_data(arm, PARAMS)


GIVES = {
    "demonstrations": f"data: [{DEMONSTRATIONS}]",
    "scored": "data: [ROUND], with a round under `rounds`",
    "sampled": "data: [ROUND], with a round that is sampled, such as rounds: {r1: {from: sft}}; imported traces teach "
    "the method rft, and sft by demonstrations: {use: traces}",
}
"""What a method may need, and what an arm writes to give it."""


def _refuse_data(arm: Arm, path: Path) -> None:
    """Raise ParamsError where the method of an arm needs what its data does not give."""
    assert arm.method is not None
    rounds = [name for name in arm.data if name != DEMONSTRATIONS]
    given = {DEMONSTRATIONS} & set(arm.data) | ({"scored"} if rounds else set())
    if rounds and not arm.imported:
        given.add("sampled")
    for need in sorted(arm.method.cls.needs - given):
        where_from = f", since {', '.join(arm.imported)} is imported" if need == "sampled" and arm.imported else ""
        raise ParamsError(
            f"the method {arm.method.name} needs {need}, which data: [{', '.join(arm.data)}] does not give{where_from}",
            where=f"{path}: arms.{arm.name}",
            fix=f"write {GIVES[need]}" if need in GIVES else f"let it need some of {', '.join(GIVES)}",
        )


def _check(used: Use, path: Path, *places: tuple[str, ...]) -> None:
    try:
        used.config  # noqa: B018 - this is what checks it
    except ValidationError as error:
        raise problems_of(error, path, *places) from error
    except InputError as error:
        raise ParamsError(error.found, where=f"{path}: {'.'.join(places[-1])}", fix=error.fix) from error


def rounds_of(params: Params) -> list[Round]:
    return [round_of(params, name) for name in params.rounds]


def round_of(params: Params, name: str) -> Round:
    """Raises ParamsError for a name that is not under `rounds`."""
    if name not in params.rounds:
        raise ParamsError(
            f"no round {name[:80]!r}; there are {', '.join(params.rounds) or 'none'}",
            where=str(PARAMS),
            fix="name one of these, or add it under `rounds`" if params.rounds else ROUNDS_WANTED,
        )
    wanted = params.rounds[name]
    if wanted.traces:
        traces = DEMONSTRATED.read({"use": "traces", "path": wanted.traces})
        return Round(name, 0, None, MODELS / BASE_ARM, None, traces)
    names = [each for each, other in params.rounds.items() if not other.traces]
    index = names.index(name)
    start = wanted.from_
    arm = None if start is None or start == BASE_ARM else arm_of(params, start)
    previous = VALIDATED / names[index - 1] if index else None
    return Round(name, index, arm, arm.weights if arm else MODELS / BASE_ARM, previous)


def pairs_of(params: Params) -> list[tuple[str, str]]:
    """Arms to compare, the candidate first: those of `compare`, or every arm with the first one."""
    if params.compare:
        return [(pair[0], pair[1]) for pair in params.compare]
    first, *others = params.arms
    return [(name, first) for name in others]
