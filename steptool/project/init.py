"""`steptool init FOLDER`: a new project, with Git and DVC set up and everything committed.

What it is made of lies in `template`, as package data. Its flows, deployments and ignore files are those of the
package's own repository, which is a project, too. A team that names its own tools gets these in place of the
template's, with settings that fit.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from steptool.core.errors import DataError, InputError, StepToolError, StorageError
from steptool.core.plugins import search_here
from steptool.project.log import Log, measured
from steptool.project.own import EXAMPLE, Own

HIDDEN = ("gitignore", "dvcignore")
"""Files whose names begin with a dot in the project; in the template they would hold for this repository."""
NAME = "PROJECT"
"""Stands in the template for the project's name."""
FEWEST_TASKS = 2
"""Questions that a log must ask: one to learn from, one to test with."""
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n    autostage = false\n"
"""Nothing calls home, and what is staged in Git is the user's affair."""


def init(folder: Path, own: Own = EXAMPLE) -> None:
    """Write a project and print what to type next. `own` is what the team brings.

    Raises InputError where `folder` holds something already, or a file of `own` is not there, StorageError where the
    folder cannot be written, StepToolError where Git or DVC fail.
    """
    _refuse(folder)
    own.check()
    log, told = _import(folder, own) if own.traces else (None, [])
    name = _name(folder)
    files = {path: text.replace(NAME.encode(), name.encode()) for path, text in template()}
    try:
        for path, text in own.laid_over(files, log).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
    except OSError as error:
        found = f"cannot be written: {error.strerror}"
        raise StorageError(found, where=str(folder), fix="name a folder where you may write") from error
    _run(folder, "git", "init", "--quiet")
    _run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    (folder / ".dvc" / "config").write_text(DVC_CONFIG)
    _write_graph(folder)
    for line in told:
        print(line)
    print(f"{folder} is a project: {', '.join(sorted(entry.name for entry in folder.iterdir()))}")
    committed = _commit(folder, f"Start the project {name}")
    if not committed:
        print("Git does not know who you are, so nothing is committed yet.")
    print(f"Next:\n  cd {shlex.quote(str(folder))}")
    if not committed:
        print("  git config --global user.name NAME; git config --global user.email ADDRESS")
        print("  git add --all; git commit --message 'Start the project'")
    for command, what in own.next_steps():
        print(f"  {command:<33}  {what}")


def _import(folder: Path, own: Own) -> tuple[Log, list[str]]:
    """Import the traces into the new project: what they hold, and what to tell the user. Where that fails, the folder
    is as it was. Raises what the import does, and DataError for a log that nothing can be trained with."""
    from steptool.traces import wording
    from steptool.traces.kinds import import_from
    from steptool.tracking.redaction import public

    source, name = _absolute(own.traces), "log" if "://" in own.traces else ""
    search_here()  # for a reader of the user's own
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with chdir(folder):
            path, report = import_from(
                source,
                kind=own.kind,
                name=name,
                lenient=own.lenient,
                drop=own.drop,
                region=own.region,
                settings=own.settings,
            )
            if problem := _problem(report.tasks, report.tools, own):
                fix = "bring a log with more, or your own with --tools and --tasks; docs/logs.md says what each is for"
                raise DataError(problem, where=public(own.traces), fix=fix)
            return _measured(path, report.tasks_with_a_check), wording.lines(path, report)
    except BaseException:
        for made in (folder / "traces", folder / ".steptool") if was_there else (folder,):
            shutil.rmtree(made, ignore_errors=True)
        raise


def _absolute(source: str) -> str:
    """The same source from any folder: a file, the file of a database, or the address of a server."""
    from steptool.tracking.client import resolve_uri

    return resolve_uri(source, Path.cwd()) if "://" in source else str(Path(source).resolve())


def _problem(questions: int, tools: int, own: Own) -> str:
    """Why nothing can be trained with a log; empty where something can."""
    if not tools and not own.has_tools:
        return "no conversation in it offers or calls a tool"
    if questions < FEWEST_TASKS and not own.tasks:
        return f"asks {questions} question: one is needed to learn from, and another to test with"
    return ""


def _measured(path: Path, checked: int) -> Log:
    from steptool.traces import folder as imported
    from steptool.traces.tasks import as_tasks

    tasks = as_tasks(imported.tasks(path), imported.tools(path))
    return measured(path.as_posix(), tasks, checked, imported.trajectories(path))


def template() -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path in the project and content of every file of the template."""
    waiting: list[tuple[PurePosixPath, Traversable]] = [(PurePosixPath(), resources.files(__package__) / "template")]
    while waiting:
        path, entry = waiting.pop()
        if entry.is_dir():
            waiting += [(path / child.name, child) for child in entry.iterdir() if child.name != "__pycache__"]
        else:
            yield path.with_name(f".{path.name}") if path.name in HIDDEN else path, entry.read_bytes()


def _refuse(folder: Path) -> None:
    """A clone of a new repository is empty, too: it holds nothing but `.git`."""
    if shutil.which("git") is None:
        raise InputError("git is not on the PATH", fix="install it (Debian: apt install git)")
    fix = "name a folder that is new or empty"
    try:
        entries = [entry.name for entry in folder.iterdir() if entry.name != ".git"] if folder.exists() else []
    except OSError as error:
        raise InputError(f"cannot be read as a folder: {error.strerror}", where=str(folder), fix=fix) from error
    if entries:
        raise InputError(
            f"is not empty: it holds {', '.join(sorted(entries)[:3])}",
            where=str(folder),
            fix=fix,
        )


def _name(folder: Path) -> str:
    """The folder's name, as a name that MLflow takes."""
    return re.sub(r"[^\w.\-]+", "-", folder.resolve().name).strip("-.")[:100] or "project"


def _write_graph(folder: Path) -> None:
    from steptool.config.lineage import write_graph

    with chdir(folder):
        write_graph()


def _commit(folder: Path, message: str) -> bool:
    """Commit everything; False where Git does not know who does."""
    known = subprocess.run(
        ["git", "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    if known.returncode != 0:
        return False
    _run(folder, "git", "add", "--all")
    _run(folder, "git", "commit", "--quiet", "--message", message)
    return True


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StepToolError(
            f"`{' '.join(command[-4:])}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}",
            where=str(folder),
            fix="mend that, remove the folder, and run the same command again",
        )
