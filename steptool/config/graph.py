"""The stages that params.yaml asks for, and dvc.yaml, which is written from them.

DVC's own templates repeat a stage over a mapping, but cannot give each its own list of dependencies, and an arm reads
the data of as many rounds as it likes. So `steptool graph` writes the file. It keeps what a project adds to it: stages
of its own, and `meta` of these.

    revisions ─ base ─ prepare ─ train-sft ─ sample-r1 ─ annotate-r1 ─ validate-r1 ─ train-ppo1 ─ … ─ evaluate ─ report

What a stage depends on beside its inputs stands in one file each, which stage `revisions` writes (see
`steptool.config.lineage`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from steptool.config.arms import Arm, Round, arm_of, arms_of, comparison_of, pairs_of, round_of
from steptool.config.base_content import base_content
from steptool.config.places import (
    BASE,
    EVALUATION,
    MODELS,
    PARAMS,
    REPORT,
    REVISIONS,
    SCORED,
    SELECTION,
    TASKS,
    TRAJECTORIES,
    VALIDATED,
)
from steptool.config.plugins import Use
from steptool.config.settings import DEMONSTRATIONS, Params
from steptool.core.errors import ParamsError

HEADER = (
    "# The one graph, which `steptool graph` writes from params.yaml. `dvc repro` brings it up to date,\n"
    "# `dvc dag` draws it, `steptool run` adds a tracked parent run. Stages of your own, and the `meta` of\n"
    "# these, stay as they are.\n"
)
GPU = {"resources": "gpu", "retries": 2, "timeout": "6h"}
SUMMARY = "summary.json"


@dataclass(frozen=True)
class StageSpec:
    """One stage of dvc.yaml, and what decides about its output beside its inputs."""

    verb: str
    """Command and module: `steptool train`, `steptool.stages.train`."""
    description: str
    argument: str | None = None
    deps: tuple[Path, ...] = ()
    out: Path | None = None
    keys: tuple[str, ...] = ()
    """Settings that it reads."""
    plugins: tuple[Use, ...] = ()
    decided: Mapping[str, Any] = field(default_factory=dict)
    """What else of params.yaml it depends on."""
    content: Callable[[], str | None] | None = None
    """What lies outside of the project and no plugin reads; the result is None where it cannot be known now."""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Its name in dvc.yaml."""
        return f"{self.verb}-{self.argument}" if self.argument else self.verb

    @property
    def command(self) -> str:
        return f"steptool {self.verb} {self.argument}" if self.argument else f"steptool {self.verb}"

    @property
    def revision(self) -> Path:
        """Where stage `revisions` writes what it finds of this one."""
        return REVISIONS / f"{self.address}.json"


def stages_of(params: Params) -> dict[str, StageSpec]:
    """The stages by their names in dvc.yaml, but for `revisions`. Raises ParamsError where there is no arm."""
    return {spec.address: spec for spec in _stages(params)}


def _stages(params: Params) -> Iterator[StageSpec]:
    yield StageSpec(
        "base",
        "The base model",
        out=BASE,
        keys=("seed", "model.base"),
        content=lambda: base_content(params.model.base),
    )
    yield StageSpec(
        "prepare",
        "Tasks of the world, and demonstrations",
        out=TASKS,
        keys=("seed", "world", *params.demonstrations.keys("demonstrations")),
        plugins=(params.world, params.demonstrations),
    )
    arms = arms_of(params)
    for kind, name in params.made_in_order():
        if kind == "round":
            yield from _round(params, round_of(params, name))
        elif (arm := arm_of(params, name)).method is not None:
            yield _train(params, arm, arm.method)
    compared: dict[str, Any] = {"arms": [arm.name for arm in arms]}
    if params.register_.best_on:
        description = "Every arm with weights on the dev tasks, to choose one to register"
        chosen_from = [arm for arm in arms if not arm.endpoint]
        own = {"arms": [arm.name for arm in chosen_from]}
        yield _measure(params, chosen_from, "select", description, SELECTION, own)
    description = "Every arm on the held-out tasks, under equal conditions"
    compared = {**compared, "compare": pairs_of(params)}
    yield _measure(params, arms, "evaluate", description, EVALUATION, compared)
    rounds = (VALIDATED / name for name in params.rounds)
    yield StageSpec(
        "report",
        "The page that says what was learnt",
        deps=(TASKS, *rounds, EVALUATION, *(arm.weights for arm in arms if arm.method)),
        out=REPORT,
        keys=("seed", *REPORTED),
        plugins=(params.reward,),
    )


def _round(params: Params, wanted: Round) -> Iterator[StageSpec]:
    name = wanted.name
    drawn = {"index": wanted.index, "sample": [params.sample.tasks, params.sample.draw]}
    asked: dict[str, Any] = drawn if wanted.traces is None else {"traces": True}
    yield _sampled(params, wanted) if wanted.traces is None else _imported(wanted, wanted.traces)
    yield StageSpec(
        "annotate",
        f"Scores of every step of round {name}",
        name,
        deps=(TASKS, TRAJECTORIES / name, *judging(params, name)),
        out=SCORED / name,
        keys=("seed", *params.annotate.keys("annotate")),
        plugins=(params.annotate,),
    )
    yield StageSpec(
        "validate",
        f"May round {name} be trained on?",
        name,
        deps=(TASKS, TRAJECTORIES / name, SCORED / name, *([wanted.previous] if wanted.previous else [])),
        out=VALIDATED / name,
        keys=("seed", "validate", "reward"),
        plugins=(params.reward,),
        decided={"compares": comparison_of(params, name), **asked},
    )


def _sampled(params: Params, wanted: Round) -> StageSpec:
    return StageSpec(
        "sample",
        f"Trajectories of the policy of round {wanted.name}",
        wanted.name,
        deps=(TASKS, *_policy_folders(wanted.arm)),
        out=TRAJECTORIES / wanted.name,
        keys=("seed", "sample", "world", "format", "engine", "search", "model.dtype"),
        plugins=_acting(params),
        decided={"index": wanted.index},
        meta={**GPU, "emits": "steptool.data.new"},
    )


def _imported(wanted: Round, traces: Use) -> StageSpec:
    return StageSpec(
        "sample",
        f"Imported attempts of round {wanted.name}",
        wanted.name,
        deps=(TASKS,),
        out=TRAJECTORIES / wanted.name,
        keys=("seed", f"rounds.{wanted.name}"),
        plugins=(traces,),
        meta={"emits": "steptool.data.new"},
    )


def _acting(params: Params) -> tuple[Use, ...]:
    """The plugins that decide what a policy does with a task."""
    return (params.world, params.format, params.engine, params.acting_search)


def _measure(
    params: Params, arms: list[Arm], verb: str, description: str, out: Path, decided: Mapping[str, Any]
) -> StageSpec:
    acting = ("world", "format", "engine", "search")
    endpoints = {arm.name: arm.endpoint for arm in arms if arm.endpoint}
    return StageSpec(
        verb,
        description,
        deps=(TASKS, *dict.fromkeys((*(folder for arm in arms for folder in _policy_folders(arm)), *judging(params)))),
        out=out,
        keys=(
            *("seed", "evaluate", "sample", *acting, *params.annotate.keys("annotate"), "metrics", "model.dtype"),
            *(key for name, used in endpoints.items() for key in used.keys(f"arms.{name}.endpoint")),
        ),
        plugins=(*_acting(params), params.annotate, *params.metrics.values(), *endpoints.values()),
        decided=decided,
        meta=GPU,
    )


REPORTED = (
    *("world", "demonstrations", "model", "format", "engine", "search", "sample", "annotate", "reward", "validate"),
    *("methods", "evaluate", "metrics", "rounds", "arms", "compare"),
)
"""Sections that decide about results, which the report shows."""


def _train(params: Params, arm: Arm, method: Use) -> StageSpec:
    rounds = [source for source in arm.data if source != DEMONSTRATIONS]
    return StageSpec(
        "train",
        f"Policy {arm.name}: {method.name} from {arm.start} on {', '.join(arm.data)}",
        arm.name,
        # Not the folder: its page says more or less as the diagnosis learns, and nothing is trained on that.
        deps=(TASKS, *(VALIDATED / each / "scored.jsonl.gz" for each in rounds), *_policy_folders(arm)[1:]),
        out=arm.weights,
        keys=(
            *("seed", f"arms.{arm.name}", f"methods.{params.arms[arm.name].method}", "format", "model.dtype"),
            *(["reward"] if rounds else []),
        ),
        plugins=(method, params.format, *([params.reward] if rounds else [])),
        decided={"generation": arm.generation},
        meta=GPU,
    )


def _policy_folders(arm: Arm | None) -> tuple[Path, ...]:
    """The folders that a policy is read from: its own, and those that it is built on."""
    if arm is None:
        return (BASE,)
    if arm.folder is None:
        return ()
    return (arm.folder, *(folder for _, folder in arm.ancestors))


def judging(params: Params, round: str | None = None) -> tuple[Path, ...]:
    """The folders of the policies that the annotator of attempts reads, with those that they are built on.

    Raises ParamsError for an arm that is made from what the attempts of `round` teach, which is not there yet, and for
    a folder in `models` that no arm is trained into.
    """
    arms = {arm.folder: arm for arm in arms_of(params) if arm.method}
    found: list[Path] = []
    for folder in params.annotate.policies():
        arm = arms.get(folder)
        if arm is None and folder.parent == MODELS and folder != BASE:
            raise ParamsError(
                f"reads the policy {folder}, and no arm is trained into that folder",
                where=f"{PARAMS}: annotate",
                fix=f"name one of {', '.join(map(str, [BASE, *filter(None, arms)]))}, or a folder outside of {MODELS}",
            )
        if arm and round and (learner := _learner(params, arm, round)):
            raise ParamsError(
                f"reads the policy {folder}, which learns from round {round}"
                + (f" by way of arm {learner}" if learner != arm.name else "")
                + ": it cannot judge attempts that it is made from",
                where=f"{PARAMS}: annotate",
                fix="name a policy that learns from no round of this project, such as models/sft with the reference "
                "models/base, or a copy of the folder of an earlier run",
            )
        found += [folder] if arm is None else _policy_folders(arm)
    return tuple(dict.fromkeys(found))


def _learner(params: Params, arm: Arm, round: str) -> str | None:
    """The arm that learns from `round`, if `arm` is made from it: itself or one that it is built on, or that sampled
    what these learn from."""
    if arm.method is None:
        return None
    sources = [each for each in arm.data if each != DEMONSTRATIONS]
    if round in sources:
        return arm.name
    sampled = [round_of(params, each).arm for each in sources]
    start = params.arms.get(str(arm.start))
    before = [each for each in (arm_of(params, str(arm.start)) if start else None, *sampled) if each]
    return next((found for each in before if (found := _learner(params, each, round))), None)


def dvc_document(params: Params, existing: Any = None) -> dict[str, Any]:
    """What dvc.yaml holds; `existing` is what it holds now, of which other people's parts are kept."""
    specs = stages_of(params)
    before = existing if isinstance(existing, dict) else {}
    kept = _mapping(before.get("stages"))
    stages: dict[str, Any] = {
        "revisions": {
            "desc": "What the code of each stage means, its settings, and what lies outside of the project",
            "cmd": "steptool revisions",
            "always_changed": True,
            "outs": [{spec.revision.as_posix(): {"persist": True}} for spec in specs.values()],
        }
    }
    for address, spec in specs.items():
        stages[address] = {"desc": spec.description, "cmd": spec.command}
        stages[address]["deps"] = [path.as_posix() for path in (spec.revision, *spec.deps)]
        if keys := [key for key in spec.keys if _is_written(params, key)]:
            stages[address]["params"] = keys
        stages[address]["outs"] = [spec.out.as_posix()] if spec.out else []
        if meta := _mapping(kept.get(address)).get("meta", spec.meta):
            stages[address]["meta"] = dict(meta)
    own = {name: stage for name, stage in kept.items() if name not in stages and _verb(stage) not in OUR_VERBS}
    others = {key: value for key, value in before.items() if key not in ("stages", "metrics")}
    metrics = before.get("metrics") or [(EVALUATION / SUMMARY).as_posix()]
    return {**others, "stages": stages | own, "metrics": metrics}


OUR_VERBS = frozenset(
    ("revisions", "base", "prepare", "train", "sample", "annotate", "validate", "select", "evaluate", "report")
)
"""Stages of these commands are written by `dvc_document` alone."""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_written(params: Params, key: str) -> bool:
    """Whether the file holds a setting; DVC refuses a key that it does not find there."""
    value: Any = params
    for part in key.split("."):
        if isinstance(value, Params):
            name = next(name for name, field in Params.model_fields.items() if (field.alias or name) == part)
            is_there = name in value.model_fields_set
            value = getattr(value, name)
        elif isinstance(value, Use):
            is_there, value = part in value.settings, value.settings.get(part)
        else:
            is_there = part in value if isinstance(value, dict) else part in value.model_fields_set
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if not is_there:
            return False
    return True


def _verb(stage: Any) -> str:
    words = str(_mapping(stage).get("cmd", "")).split()
    return words[1] if len(words) > 1 and words[0] == "steptool" else ""


def dvc_text(document: Mapping[str, Any]) -> str:
    """`document` as YAML, with a header that says where it comes from; what is short stands on one line."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    written = CommentedMap(document)
    stages = written["stages"] = CommentedMap(document["stages"])
    for address, stage in stages.items():
        stages[address] = CommentedMap({key: _short(key, value) for key, value in stage.items()})
        stages.yaml_set_comment_before_after_key(address, before="\n")
    text = StringIO()
    yaml.dump(written, text)
    return HEADER + re.sub(r"\n *#? *\n", "\n\n", text.getvalue())


def _short(key: str, value: Any) -> Any:
    if key == "meta" and isinstance(value, dict):
        value = CommentedMap(value)
    elif key in ("params", "outs") and len(value) and not isinstance(value[0], dict):
        value = CommentedSeq(value)
    elif key == "outs":
        return [_one_line(item) for item in value]
    else:
        return value
    value.fa.set_flow_style()
    return value


def _one_line(out: Any) -> Any:
    for path, options in out.items():
        options = CommentedMap(options)
        options.fa.set_flow_style()
        return {path: options}
    return out
