"""Reads files of judged runs. Lines are of others: each is checked, and all that is wrong is said in one error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from steptool.core.errors import DataError, InputError
from steptool.core.storage import parse_record, parse_text, read_lines
from steptool.evaluation.judged.records import JudgedRun, Request, RunFile

ENDINGS = (".jsonl", ".jsonl.gz")
REQUESTS = tuple(f"queries{ending}" for ending in ENDINGS)
"""What the file of the requests is called: it is no run, wherever it lies."""
MEND = "mend or remove what is named; docs/published-numbers.md says what a line holds"
MOST_PROBLEMS, MOST_OF_A_FILE = 20, 3
"""That one error lists, and of one file."""
MOST_RUNS = 1_000_000
"""Lines of one file."""


def read_runs(place: Path) -> list[RunFile]:
    """One file, or those of a folder whose names end in .jsonl or .jsonl.gz, by name.

    Raises InputError where there is none, and DataError that lists every file and line that cannot be used.
    """
    paths = _runs_in(place)
    problems: list[str] = []
    files = []
    for path in paths:
        found: list[str] = []
        files.append(_read(path, found))
        problems += found[:MOST_OF_A_FILE]
        if len(found) > MOST_OF_A_FILE:
            problems.append(f"{path}: and {len(found) - MOST_OF_A_FILE} problems more")
    twice = [name for name, count in Counter(file.name for file in files).items() if count > 1]
    problems += [f"{place}: two files are called {name}" for name in twice]
    problems += _moved(files)
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} problems more"] if len(problems) > MOST_PROBLEMS else []
        raise DataError("\n".join([*problems[:MOST_PROBLEMS], *more]), fix=MEND)
    return files


def read_requests(path: Path) -> dict[str, frozenset[str]]:
    """Request → the functions that it needs. Raises DataError for an empty file, and for the first line that cannot be
    used."""
    found: dict[str, frozenset[str]] = {}
    for number, line in enumerate(read_lines(path, missing="name the file of the requests", broken=MEND), start=1):
        where = f"{path}:{number}"
        value = parse_text(line, str(path), line=number, fix=MEND)
        request = parse_record(value, Request, where=where, fix=MEND)
        if request.query_id in found:
            raise DataError(f"request {request.query_id} stands in the file twice", where=where, fix=MEND)
        found[request.query_id] = request.relevant
    if not found:
        raise DataError("it is empty", where=str(path), fix="name the file of the requests")
    return found


def requests_beside(place: Path) -> Path | None:
    """The file of requests that lies with the runs or one or two folders above them, as in the pack; None where there
    is none."""
    folders = (place, *list(place.resolve().parents)[:2])
    return next((file for folder in folders for name in REQUESTS if (file := folder / name).is_file()), None)


def _runs_in(place: Path) -> list[Path]:
    fix = "name a folder of files NAME.jsonl or NAME.jsonl.gz, one a run, or one of them"
    try:
        if not place.exists():
            raise InputError("no such file or folder", where=str(place), fix=fix)
        if not place.is_dir():
            return [place]
        inside = sorted(place.iterdir())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(place)[:200], fix=fix) from error
    found = [path for path in inside if path.name.endswith(ENDINGS) and path.name not in REQUESTS]
    if not found:
        raise InputError("holds no judged runs", where=str(place), fix=fix)
    return found


def _read(path: Path, problems: list[str]) -> RunFile:
    """What of a file can be used; `problems` gets a line for each that cannot."""
    runs: dict[str, JudgedRun] = {}
    line_of: dict[str, int] = {}
    passes: Counter[int] = Counter()
    try:
        for number, line in enumerate(read_lines(path, missing="", broken=MEND), start=1):
            if number > MOST_RUNS:
                raise DataError(f"more than {MOST_RUNS:,} lines", where=str(path))
            if not line.strip():
                continue
            try:
                value = parse_text(line, str(path), line=number, fix=MEND)
                run = parse_record(value, JudgedRun, where=f"{path}:{number}", fix=MEND)
            except DataError as error:
                problems.append(f"{error.where}: {error.found}")
                continue
            if run.query_id in runs:
                found = f"request {run.query_id} stands in line {line_of[run.query_id]} too; a file holds one run"
                problems.append(f"{path}:{number}: {found}")
                continue
            runs[run.query_id], line_of[run.query_id] = run, number
            passes[len(run.judgements)] += run.finished
    except DataError as error:  # of the whole file
        problems.append(f"{error.where or path}: {error.found}")
    if not runs and not problems:
        problems.append(f"{path}: it is empty")
    usual = max(passes, key=lambda count: passes[count]) if passes else 1
    for id, run in runs.items():
        if run.finished and len(run.judgements) != usual:
            found = f"{len(run.judgements)} judgements, where most attempts of the file have {usual}"
            problems.append(f"{path}:{line_of[id]}: {found}")
    return RunFile(path.name.removesuffix(".gz").removesuffix(".jsonl"), runs, max(usual, 1))


def _moved(files: list[RunFile]) -> list[str]:
    """Requests that are of one subset in one file and of another in another."""
    first: dict[str, tuple[str, str]] = {}
    found = []
    for file in files:
        for id, run in file.runs.items():
            subset, other = first.setdefault(id, (run.subset, file.name))
            if subset != run.subset:
                found.append(f"{file.name}: request {id} is of {run.subset}, in {other} of {subset}")
    return found
