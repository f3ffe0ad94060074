"""The plugins of this package by kind and name, and how params.yaml names one.

To add a plugin to the package: write its file, and a row here. No stage reaches this table by its imports, so a new row
makes no stage stale.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from steptool.core.errors import InputError
from steptool.core.plugins import config_class, content_of, load_class, modules_of, policies_of

BUILT_IN: dict[str, dict[str, str]] = {
    "world": {
        "mini": "steptool.worlds.mini.world:MiniWorld",
        "recorded": "steptool.worlds.recorded:RecordedWorld",
        "functions": "steptool.worlds.functions:FunctionsWorld",
        "openapi": "steptool.worlds.openapi:OpenApiWorld",
        "mcp": "steptool.worlds.mcp:McpWorld",
        "agent": "steptool.worlds.agent.world:AgentWorld",
        "traces": "steptool.worlds.traces.world:TracesWorld",
        "bfcl": "steptool.worlds.bfcl.world:BfclWorld",
        "tau2": "steptool.worlds.tau2.world:Tau2World",
        "workbench": "steptool.worlds.workbench.world:WorkBench",
        "toolbench": "steptool.worlds.toolbench.world:ToolBenchWorld",
        "http": "steptool.worlds.toolbench.http:HttpWorld",
        "toollens": "steptool.worlds.toollens.world:ToolLensWorld",
    },
    "demonstrations": {
        "experts": "steptool.traces.experts:Experts",
        "file": "steptool.traces.file:TraceFile",
        "traces": "steptool.traces.imported:ImportedTraces",
        "endpoint": "steptool.traces.endpoint:Teacher",
        "workbench": "steptool.traces.workbench:WorkBenchRuns",
    },
    "traces": {
        "mlflow": "steptool.traces.mlflow:MlflowTraces",
        "otel": "steptool.traces.otel:Otel",
        "steptool": "steptool.traces.own:Own",
        "atif": "steptool.traces.atif:Atif",
        "toolbench": "steptool.traces.toolbench:ToolBench",
        "anthropic": "steptool.traces.anthropic:Anthropic",
        "openai": "steptool.traces.openai:OpenAi",
        "responses": "steptool.traces.responses:Responses",
    },
    "format": {
        "json_call": "steptool.formats.json_call:JsonCall",
        "native": "steptool.formats.native:Native",
        "react": "steptool.formats.react:React",
    },
    "engine": {
        "vllm": "steptool.engines.vllm_local:VllmEngine",
        "server": "steptool.engines.openai_server:ServerEngine",
    },
    "endpoint": {"openai": "steptool.endpoints.policy:Endpoint"},
    "search": {
        "chain": "steptool.rollouts.chain:Chain",
        "dfsdt": "steptool.rollouts.dfsdt:Dfsdt",
        "agent": "steptool.rollouts.agent:Agent",
    },
    "annotate": {
        "rules": "steptool.annotators.rules:Rules",
        "progress": "steptool.annotators.progress:Progress",
        "judge": "steptool.annotators.judge:Judge",
        "local_judge": "steptool.annotators.local_judge:LocalJudge",
    },
    "reward": {
        "potential": "steptool.rewards.potential:Potential",
        "paper": "steptool.rewards.paper:Paper",
        "auto": "steptool.rewards.auto:Auto",
        "grounded": "steptool.rewards.grounded:Grounded",
        "calibrated": "steptool.rewards.calibrated:Calibrated",
    },
    "methods": {
        "sft": "steptool.methods.sft:Sft",
        "rft": "steptool.methods.rft:Rft",
        "dpo": "steptool.methods.dpo:Dpo",
        "archer": "steptool.methods.archer:Archer",
        "step_ppo": "steptool.methods.step_ppo:StepPpo",
        "step_ppo_release": "steptool.methods.step_ppo_release:StepPpoRelease",
        "ppo_final": "steptool.methods.ppo_final:PpoFinal",
        "grpo": "steptool.methods.grpo:Grpo",
        "gigpo": "steptool.methods.gigpo:Gigpo",
    },
    "metrics": {
        "replies_from": "steptool.worlds.toolbench.metrics:RepliesFrom",
        "recall_at": "steptool.worlds.toollens.metrics:RecallAt",
        "complete_at": "steptool.worlds.toollens.metrics:CompleteAt",
        "ndcg_at": "steptool.worlds.toollens.metrics:NdcgAt",
    },
}
"""Section of params.yaml → name → `module:Class`; an endpoint stands under its arm."""


@dataclass(frozen=True, eq=False)
class Use:
    """A plugin that params.yaml names, with its settings."""

    kind: str
    name: str
    """As params.yaml has it."""
    path: str
    """`module:Class`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """As written, without the defaults."""
    is_heavy: bool = False
    """Whether its module takes seconds to import, so that nothing imports it before it is needed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Use) and (self.path, self.dump()) == (other.path, other.dump())

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def cls(self) -> type[Any]:
        """Raises InputError where it cannot be imported."""
        return load_class(self.path)

    @cached_property
    def config(self) -> Any:
        """The settings with their defaults. Raises pydantic's ValidationError for one that its class refuses."""
        return config_class(self.cls).model_validate(self.settings)

    def build(self, *args: Any, **options: Any) -> Any:
        return self.cls(self.config, *args, **options)

    def modules(self) -> list[str]:
        """The modules whose code decides what it does."""
        named = self.path.partition(":")[0]
        return [named] if self.is_heavy else [named, *modules_of(self.cls, self.config)[1:]]

    def keys(self, place: str) -> list[str]:
        """Of its settings, which stand at `place`, those that decide what it does; others are about speed, or money.
        It is `place`, all of them, unless its class says which, as `deciding`."""
        deciding = () if self.is_heavy else getattr(self.cls, "deciding", ())
        return [f"{place}.{key}" for key in deciding] or [place]

    def content(self) -> str:
        """What the files that it reads consist of. Raises DataError where they cannot be read."""
        return "" if self.is_heavy else content_of(self.cls, self.config)

    def policies(self) -> tuple[Path, ...]:
        """The folders of the policies that it reads."""
        return () if self.is_heavy else policies_of(self.cls, self.config)

    def dump(self) -> dict[str, Any]:
        """As params.yaml could have it, the defaults included unless it is heavy."""
        settings = self.settings if self.is_heavy else self.config.model_dump(mode="json")
        return {"use": self.name, **settings}


def path_of(kind: str, name: str) -> str:
    """`module:Class` of a name in params.yaml. Raises ValueError for one that is neither in the table nor a path."""
    if name in BUILT_IN[kind]:
        return BUILT_IN[kind][name]
    module, _, cls = name.partition(":")
    if module and cls and all(part.isidentifier() for part in (*module.split("."), *cls.split("."))):
        return name
    near = difflib.get_close_matches(name[:80], BUILT_IN[kind], n=1)
    known = ", ".join(BUILT_IN[kind]) or "none of this package"
    raise ValueError(
        f"nothing is called {name[:80]!r}" + (f", did you mean {near[0]!r}?" if near else "")
        + f"; use one of {known}, or a class of your own as `module:Class`"
    )  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A section of params.yaml that names a plugin of `kind`, as the metadata of a pydantic field and its default."""

    kind: str
    default: str | None
    """What is used where the section has no `use`."""
    is_heavy: bool = False
    """Whether its settings are checked only when it is needed, since its module takes seconds to import."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        serialized = core_schema.plain_serializer_function_ser_schema(Use.dump)
        return core_schema.no_info_plain_validator_function(self.read, serialization=serialized)

    def __call__(self) -> Use:
        return self.read({})

    def read(self, value: Any) -> Use:
        if isinstance(value, Use):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("model_type", "holds settings")
        name = value.get("use", self.default)
        if not isinstance(name, str):
            raise ValueError(f"`use` is a name or `module:Class`, got {str(name)[:80]!r}")
        settings = {str(key): item for key, item in value.items() if key != "use"}
        used = Use(self.kind, name, path_of(self.kind, name), settings, self.is_heavy)
        if not self.is_heavy:
            try:
                used.config  # noqa: B018 - pydantic reports what the class refuses, with its place
            except InputError as error:
                raise ValueError(f"{used.path}: {error.found}") from error
        return used


def plugin_keys(written: dict[str, Any], section: Section) -> list[str]:
    """The settings that a section may have, for an error that names them; `use` alone where its plugin is unknown."""
    try:
        cls = config_class(load_class(path_of(section.kind, str(written.get("use", section.default)))))
    except (ValueError, InputError):
        return ["use"]
    return ["use", *(item.alias or name for name, item in cls.model_fields.items())]
