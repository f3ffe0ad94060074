"""What a team may bring: a class, its `Config` beside it, and a name in a table or an import path in params.yaml.

    world: {use: mini, test_tasks: 300}            a name of this package (`steptool.config.plugins`)
    world: {use: 'my_pkg.worlds:Shop', shelves: 3}   a class of the project: module and name

What a plugin class may have, all of it optional:

    class Config(Settings)                    its settings; without one it takes none
    def __init__(self, config, ...)           what else it is given depends on its kind (see the `base` of its room)
    name: ClassVar[str]                       what results call it; else the name of the class
    @staticmethod def content(config) -> str  what the files that it reads outside of its sources consist of, as a
                                              hash or another short text; without one it reads none
    @staticmethod def policies(config)        the folders of policies that it reads, such as models/sft: the stages
                                              that run it wait for the arms that are trained into them
    self.seed: int                            where the seed that it was given decides what it does, as in a world that
                                              makes its tasks

Its revision is computed from these, never kept by hand: a hash of what its sources mean (`steptool.core.revision`), of
its settings with their defaults, of that content, of the weights of these policies and of the seed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from steptool.core.errors import InputError, reason
from steptool.core.fields import Settings
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.core.storage import file_hash
from steptool.core.types import Revision, content_hash


class NoSettings(Settings):
    """The `Config` of a plugin without one."""


def search_here() -> None:
    """Let Python find the modules of the working directory, the project's, before all others."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def load_module(name: str, why: Callable[[BaseException], str] = reason) -> ModuleType:
    """Import a module; the working directory is searched first.

    Raises InputError, with `why`, where there is no such module, or it raises as it is imported.
    """
    search_here()
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of somebody else, which may raise anything
        said = f"{type(error).__name__}: {why(error)}"
        raise InputError(
            f"cannot be imported: {said}",
            where=name,
            fix="mend the module, or install its package; `steptool doctor` looks at what is installed",
        ) from error


def load_class(path: str) -> type[Any]:
    """The class that an import path names: `my_pkg.worlds:Shop`.

    Raises InputError where there is no such module or class, or the module raises as it is imported.
    """
    module_name, _, name = path.partition(":")
    found: Any = load_module(module_name)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise InputError(f"has no class {name!r}", where=module_name, fix="write it as `package.module:Class`")
    return found


def config_class(plugin: type[Any]) -> type[BaseModel]:
    """The class of a plugin's settings."""
    config: type[BaseModel] = getattr(plugin, "Config", NoSettings)
    return config


def content_of(plugin: type[Any], config: BaseModel) -> str:
    """What the files that a plugin reads consist of; empty where it reads none."""
    return str(plugin.content(config)) if hasattr(plugin, "content") else ""


def policies_of(plugin: type[Any], config: BaseModel) -> tuple[Path, ...]:
    """The folders of policies that a plugin reads."""
    return tuple(map(Path, plugin.policies(config))) if hasattr(plugin, "policies") else ()


def modules_of(plugin: type[Any], config: BaseModel) -> list[str]:
    """The modules that a plugin runs: its own, and what its settings name, such as a module of functions."""
    more = plugin.modules(config) if hasattr(plugin, "modules") else ()
    return [plugin.__module__, *more]


def revision_of(plugin: object, config: BaseModel | None = None) -> Revision:
    """Name and computed revision of a plugin, which keeps its settings as `config` unless they are given."""
    kind = type(plugin)
    settings = getattr(plugin, "config", None) if config is None else config
    settings = NoSettings() if settings is None else settings
    code = code_revision(modules_of(kind, settings), without=MEANS_NOTHING)
    seed = getattr(plugin, "seed", None)
    decided = settings.model_dump(mode="json", include=set(getattr(kind, "deciding", ())) or None)
    parts: list[Any] = [kind.__qualname__, code, decided, content_of(kind, settings), seed]
    if policies := policies_of(kind, settings):
        parts.append([file_hash(folder) for folder in policies if folder.exists()])
    return Revision(name=getattr(kind, "name", kind.__qualname__), revision=content_hash(parts))
