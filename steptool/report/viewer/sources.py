"""Which files of attempts there are: those that the stages of a project wrote, newest stage first, and what is named.

metrics/evaluation/ppo.trajectories.jsonl.gz     source evaluation, part ppo
data/validated/r1/scored.jsonl.gz                source validated, part r1
traces/support/trajectories.jsonl.gz             source traces, part support
elsewhere/attempts.jsonl                         source files, part attempts
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steptool.config.places import (
    DEMONSTRATIONS,
    EVALUATION,
    JUDGED,
    SCORED,
    SELECTION,
    TRACES,
    TRAJECTORIES,
    VALIDATED,
)
from steptool.core.errors import DataError

ENDINGS = ("trajectories.jsonl.gz", "trajectories.jsonl", "scored.jsonl.gz", "scored.jsonl", DEMONSTRATIONS.name)
"""How the names of files of attempts end."""
SUFFIXES = (JUDGED, ".jsonl.gz", ".jsonl")


@dataclass(frozen=True)
class Part:
    """One file of attempts."""

    name: str
    """Of the arm, the round or the import; of any other file its own."""
    path: Path


@dataclass(frozen=True)
class Source:
    """What is looked at together."""

    key: str
    title: str
    kind: str
    """What a part of it is: an arm, a round, an import, a file."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Stage:
    """Where a stage writes attempts. `pattern` has one `*`, which is the name of a part."""

    key: str
    title: str
    kind: str
    pattern: str

    def parts(self, root: Path, order: Sequence[str]) -> tuple[Part, ...]:
        before, _, after = self.pattern.partition("*")
        names = [path.as_posix().removeprefix(before).removesuffix(after) for path in self._files(root)]
        rank = {name: index for index, name in enumerate(order)}
        names.sort(key=lambda name: (rank.get(name, len(rank)), name))
        return tuple(Part(name, Path(f"{before}{name}{after}")) for name in names)

    def _files(self, root: Path) -> list[Path]:
        return [path.relative_to(root) for path in root.glob(self.pattern) if path.is_file()]


STAGES = (
    Stage("evaluation", "Evaluation", "arm", f"{EVALUATION}/*{JUDGED}"),
    Stage("selection", "Selection on dev tasks", "arm", f"{SELECTION}/*{JUDGED}"),
    Stage("validated", "Validated rounds", "round", f"{VALIDATED}/*/scored.jsonl.gz"),
    Stage("scored", "Scored rounds", "round", f"{SCORED}/*/scored.jsonl.gz"),
    Stage("sampled", "Sampled rounds", "round", f"{TRAJECTORIES}/*/trajectories.jsonl.gz"),
    Stage("traces", "Imported traces", "import", f"{TRACES}/*/trajectories.jsonl.gz"),
)
"""The last that a project runs comes first."""


def sources_of(root: Path, order: Sequence[str] = ()) -> list[Source]:
    """All that a project has. `order`: names of arms and rounds, in which parts are listed."""
    found = [Source(each.key, each.title, each.kind, each.parts(root, order)) for each in STAGES]
    if (root / DEMONSTRATIONS).is_file():
        found.append(Source("demonstrations", "Demonstrations", "file", (Part("demonstrations", DEMONSTRATIONS),)))
    return [source for source in found if source.parts]


def only(sources: Iterable[Source], root: Path, paths: Sequence[Path]) -> list[Source]:
    """Of the sources, the files that `paths` are or hold; other files that they name or hold as a source of their own.

    Raises DataError for a path that is not there or holds no file of attempts.
    """
    wanted = dict.fromkeys(file for path in paths for file in _files(path))
    kept, known = [], set[Path]()
    for source in sources:
        parts = tuple(part for part in source.parts if (root / part.path).resolve() in wanted)
        known |= {(root / part.path).resolve() for part in parts}
        kept += [replace(source, parts=parts)] if parts else []
    others = [file for file in wanted if file not in known]
    if others:
        kept.append(Source("files", "Files", "file", _named(others)))
    return kept


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), fix="name a file of attempts, or a folder of such")
    found = sorted(file.resolve() for file in path.rglob("*") if file.name.endswith(ENDINGS) and file.is_file())
    if not found:
        raise DataError(
            "holds no file of attempts",
            where=str(path),
            fix="name what a stage wrote, such as data/scored/r1; `steptool traces import` makes attempts of logs",
        )
    return found


def _named(files: Sequence[Path]) -> tuple[Part, ...]:
    """Each by its own name, with its folder's where two have the same."""
    count = Counter(_stem(file) for file in files)
    return tuple(
        Part(_stem(file) if count[_stem(file)] == 1 else f"{file.parent.name}/{_stem(file)}", file) for file in files
    )


def _stem(file: Path) -> str:
    return next((file.name.removesuffix(each) for each in SUFFIXES if file.name.endswith(each)), file.name)
