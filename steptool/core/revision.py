"""What code means, as one hash: the syntax trees of all modules that it can reach.

Two versions of a source that mean the same have the same revision. What does not count: comments, layout,
docstrings, the order of imports, imports for type checkers, and what an error says (the arguments of `raise`). What
counts is everything else: values, defaults, types of fields, which error is raised and when. Where docstrings and
errors are shown to the policy, as those of a team's tools are, `words_revision` is the hash of them.

    steptool.stages.sample ── imports ──▶ steptool.rollouts.collect ──▶ steptool.formats.json_call ──▶ …
                             └ left out: modules of `without`, and packages that are neither those of the entries nor
                               in the working directory, the project's (the lock file pins the others)

Files beside the modules of a package that are no Python (a template) count by their bytes.

A plugin is found by its name at run time, not by an import, so whoever asks names the plugins that a run uses:
`code_revision(["steptool.stages.sample", "steptool.worlds.mini.world"])`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from steptool.core.errors import InputError

LENGTH = 16
"""Hex digits of a revision."""
IDLE_MODULES = ("__future__", "typing")
"""What is imported from them has no effect of its own."""
MEANS_NOTHING = (
    *("steptool.system", "steptool.tracking", "steptool.config"),
    *(f"steptool.core.{name}" for name in ("errors", "fields", "plugins", "revision", "storage")),
    *("steptool.stages.common", "steptool.core.secrets", "steptool.endpoints.budget", "steptool.endpoints.ledger"),
)
"""Packages and modules that decide about no output: how a stage is run, watched, paid and configured. What the
settings say counts by their values."""


def code_revision(entries: Iterable[str], *, without: Collection[str] = ()) -> str:
    """Hash of the modules `entries` and of all that they import from their own packages or the project's, directly or
    through others.

    `without` are modules and packages to leave out, with all inside them; nothing is reached through these.
    Raises InputError for a module that does not exist or cannot be read as Python.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(closure(entries, without=without).items()):
        digest.update(f"{name}\0{tree}\0".encode())
    return digest.hexdigest()[:LENGTH]


def sources(entries: Iterable[str]) -> list[Path]:
    """The files of the same modules, without those beside them that are no Python."""
    return sorted(path for name in _reached(entries, ()) if (path := _path(name)))


def imports_from_outside(entries: Iterable[str]) -> list[str]:
    """The dotted names that the same modules import from other packages, and from Python itself: `openai.OpenAI`."""
    reached = _reached(entries, ())
    wanted = {name for module in reached for name in _read(module).imported}
    return sorted(name for name in wanted if _module(name) not in reached)


def words_revision(entries: Iterable[str], *, without: Collection[str] = ()) -> str:
    """Hash of what the same modules say without meaning it: their docstrings, and what their errors say."""
    said = {name: _read(name).words for name in _reached(entries, without)}
    return _hash(repr(sorted(said.items())))[:LENGTH]


def forget_sources() -> None:
    """Read every source anew from now on. Until then a process sees each as it was when it was first asked for."""
    _read.cache_clear()
    _path.cache_clear()
    _data.cache_clear()
    _is_of_project.cache_clear()


def closure(entries: Iterable[str], *, without: Collection[str] = ()) -> dict[str, str]:
    """Every module that `entries` reach, themselves included, and the hash of what it means; and the files beside
    them that are no Python, by `<package>/<name>`."""
    found: dict[str, str] = {}
    for name in _reached(entries, without):
        found |= {name: _read(name).meaning, **_data(name)}
    return found


def _reached(entries: Iterable[str], without: Collection[str]) -> set[str]:
    names = list(entries)
    packages = {name.partition(".")[0] for name in names}
    found: set[str] = set()
    while names:
        name = names.pop()
        if name in found or _is_within(name, without):
            continue
        found.add(name)
        for wanted in _read(name).imported:
            top = wanted.partition(".")[0]
            if (top in packages or _is_of_project(top)) and (module := _module(wanted)):
                names.append(module)
    return found


@cache
def _is_of_project(top: str) -> bool:
    """Whether a module or package lies in the working directory, as the files of a project do."""
    spec = PathFinder.find_spec(top) if top else None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return any(Path(place).parent == Path.cwd() for place in places if place)


class _Source(NamedTuple):
    meaning: str
    """Hash of what the module means."""
    words: str
    """Hash of what it says beside that."""
    imported: tuple[str, ...]
    """The dotted names that it imports."""


@cache
def _read(name: str) -> _Source:
    path = _path(name)
    if path is None:
        raise InputError("no such module", where=name, fix="check the import path, and that its package is installed")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        found = f"cannot be read as Python: {error.msg if isinstance(error, SyntaxError) else error}"
        raise InputError(found, where=f"{path}{line}", fix="mend the file") from error
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    # A package runs before the modules inside it.
    parents = [parent for depth in range(1, name.count(".") + 1) if _path(parent := name.rsplit(".", depth)[0])]
    imported = set(_imports(tree, package))
    return _Source(_hash(_meaning(tree)), _hash(repr(list(_words(tree)))), (*parents, *imported))


@cache
def _data(name: str) -> dict[str, str]:
    """Name and hash of the files that are no Python in the folder of a package's module."""
    path = _path(name)
    if path is None or not path.with_name("__init__.py").exists():
        return {}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    files = (file for file in sorted(path.parent.iterdir()) if file.is_file() and file.suffix not in (".py", ".pyc"))
    return {f"{package}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _module(wanted: str) -> str | None:
    """The module of a dotted name: `a.b` of `from a import b` may be a module, or something inside module `a`."""
    if _path(wanted):
        return wanted
    parent = wanted.rpartition(".")[0]
    return parent if parent and _path(parent) else None


@cache
def _path(name: str) -> Path | None:
    """Source file of a module, found without running it."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None  # None: a folder without __init__.py
    for folder in spec.submodule_search_locations or ():
        inside = Path(folder).joinpath(*rest)
        for file in (inside.with_suffix(".py"), inside / "__init__.py"):
            if file.is_file():
                return file
    return None


def _is_within(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a module imports, in functions too: `from a import b` gives `a.b`."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = ".".join(filter(None, (above if node.level else "", node.module or "")))
            yield from (base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        children = node.orelse if _is_for_type_checkers(node) else list(ast.iter_child_nodes(node))
        waiting += reversed(children)


def _is_for_type_checkers(node: Any) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _words(tree: ast.AST) -> Iterator[str]:
    for node in _running(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield ast.unparse(node.exc)


def _meaning(node: Any) -> str:
    """A syntax tree as text. Fields that are empty are left out: later versions of Python add some."""
    if isinstance(node, list):
        return f"[{','.join(map(_meaning, _in_order(node)))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return f"Raise({_meaning(node.exc.func)})"
    fields = ((name, getattr(node, name, None)) for name in node._fields)
    parts = [f"{name}={_meaning(value)}" for name, value in fields if value not in (None, [])]
    return f"{type(node).__name__}({','.join(parts)})"


def _in_order(nodes: list[Any]) -> list[Any]:
    """Statements without those that mean nothing, imports first and sorted: their order means nothing either."""
    meant = [node for node in nodes if not _is_idle(node)]
    imports = [node for node in meant if isinstance(node, ast.Import | ast.ImportFrom)]
    others = [node for node in meant if not isinstance(node, ast.Import | ast.ImportFrom)]
    return [*sorted(imports, key=ast.unparse), *others]


def _is_idle(node: Any) -> bool:
    """Whether a statement means nothing: a docstring (of a field too), `__version__` and its like, and what only type
    checkers need."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.ImportFrom):
        return node.module in IDLE_MODULES
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets)
    return _is_for_type_checkers(node) and not node.orelse
