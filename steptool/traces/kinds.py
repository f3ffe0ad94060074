"""Which reader a source needs, and an import by the names of things: what the command and `steptool init` call."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from steptool.config.places import TRACES
from steptool.config.plugins import BUILT_IN, Use, path_of
from steptool.core.errors import InputError
from steptool.core.plugins import config_class, load_class
from steptool.traces.conversation import Recognises, Skipped
from steptool.traces.importing import Import
from steptool.traces.patterns import region_of
from steptool.traces.records import ODD, Record, first_record
from steptool.traces.report import Report
from steptool.traces.scrub import Scrubber, project_key
from steptool.tracking.redaction import public


class Imported(NamedTuple):
    folder: Path
    report: Report


def import_from(
    source: str,
    *,
    kind: str = "",
    name: str = "",
    lenient: bool = False,
    drop: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    add: bool = False,
    with_system: bool = False,
    region: str = "US",
    on_progress: Callable[[int], None] = lambda count: None,
) -> Imported:
    """Import into `traces/NAME` of the project in the working directory, and say what was found.

    `kind`: name of a reader, or `module:Class`; empty looks at the source. `settings`: of the reader.
    Raises InputError for what the user named wrongly, and what `Import.into` raises.
    """
    folder = TRACES / (name or name_of(source))
    if not re.fullmatch(r"\w[\w.\-]*", folder.name) or (name and name != folder.name):
        fix = "take letters, digits, '_', '-' and '.'"
        raise InputError(f"{name[:80]!r} is no name of a folder", where="--name", fix=fix)
    region = region_of(region)
    scrubber = Scrubber(project_key(), drop, region)
    if kind:
        _refuse_another(kind, source)
    else:
        kind = kind_of(source)
    reader = reader_of(kind, settings or {})
    run = Import(source, kind, reader, scrubber, lenient, with_system, on_progress)
    was_there = folder.parent.exists()
    try:
        return Imported(folder, run.into(folder, add=add))
    except BaseException:
        if not was_there:
            with suppress(OSError):  # there is none, or another import wrote into it
                folder.parent.rmdir()
        raise


def kind_of(source: str) -> str:
    """The first reader that recognises the source. Raises InputError where none does."""
    if found := next(_recognising(source), ""):
        return found
    known = ", ".join(BUILT_IN["traces"])
    source = public(source) if "://" in source else source
    if not os.path.exists(source):
        raise InputError("no such file or folder", where=source, fix=f"name one that is there, or its --from: {known}")
    first = first_record(source)
    if isinstance(first, Skipped):
        raise InputError(first.reason, where=first.where, fix="write a record a line, as JSON in UTF-8")
    if first is None:
        raise InputError("holds no record", where=source, fix="name a file that holds conversations")
    fix = f"name what it is with --from: {known}"
    raise InputError("looks like none of the kinds that are known", where=source, fix=fix)


def _recognising(source: str) -> Iterator[str]:
    """The readers of this package that recognise the source."""
    first = first_record(source) if os.path.exists(source) else None
    record = first.value if isinstance(first, Record) else None
    for name, path in BUILT_IN["traces"].items():
        reader: Any = load_class(path)
        with suppress(*ODD):
            if isinstance(reader, Recognises) and reader.recognises(source, record):
                yield name


def _refuse_another(kind: str, source: str) -> None:
    """Where a reader that was named does not recognise a source, and another one does."""
    found = list(_recognising(source)) if os.path.exists(source) and kind in BUILT_IN["traces"] else []
    if found and kind not in found:
        raise InputError(f"looks like {found[0]}, not like {kind}", where=source, fix=f"--from {found[0]}")


def reader_of(kind: str, settings: Mapping[str, Any]) -> Any:
    """Raises InputError for a kind that is not known, and for a setting that it refuses."""
    try:
        return Use("traces", kind, path_of("traces", kind), dict(settings)).build()
    except ValidationError as error:
        first = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        takes = ", ".join(config_class(load_class(path_of("traces", kind))).model_fields) or "none"
        raise InputError(found, where="--set", fix=f"the settings of {kind} are: {takes}") from error
    except ValueError as error:
        raise InputError(str(error), where="--from", fix=f"use one of {', '.join(BUILT_IN['traces'])}") from error


def name_of(source: str) -> str:
    """`logs/shop-2026.jsonl.gz` gives `shop-2026`, and an address its host, without a password."""
    shown = public(source).partition("?")[0] if "://" in source else source
    last = shown.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"(\.(jsonl|ndjson|json))?(\.gz)?$", "", last)
    return re.sub(r"[^\w\-]+", "-", stem).strip("-") or "imported"
