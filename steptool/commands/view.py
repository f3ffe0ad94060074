"""`steptool view`: attempts of any stage in a local page."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn

from steptool.config.places import PARAMS
from steptool.core.errors import InputError
from steptool.report.viewer.credit import Credit
from steptool.report.viewer.server import Viewer, application
from steptool.report.viewer.sources import Source, only, sources_of

HOST = "127.0.0.1"


def view(paths: Sequence[Path], port: int, *, opens: bool, says: Callable[[str], object] = print) -> None:
    """Serve until Ctrl-C. `port` 0 is a free one.

    The project is the folder of params.yaml above the first path, or the current one. Raises InputError where there is
    nothing to show or the port is taken.
    """
    named = [path.resolve() for path in paths]
    os.chdir(root_of(named))
    viewer = Viewer(Path(), lambda: find(named))
    key = secrets.token_urlsafe(16)
    with listening(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/{key}/"
        says("\n".join(listed(viewer.sources.values())))
        says(f"open {address} (Ctrl-C ends it)")
        if opens and has_screen():
            webbrowser.open(address)
        app = application(viewer, key)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run([listener])


def has_screen() -> bool:
    """Without one, Python would open a browser of plain text in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def root_of(paths: Sequence[Path]) -> Path:
    """The nearest folder of a project above the first path."""
    above = [paths[0], *paths[0].parents] if paths else []
    return next((folder for folder in above if (folder / PARAMS).is_file()), Path.cwd())


def find(paths: Sequence[Path]) -> tuple[list[Source], Credit]:
    """The sources in the current folder, or those of `paths`, with what its settings say of credit.

    Raises InputError where there are none.
    """
    credit = Credit.of_project()
    params = credit.params
    sources = sources_of(Path(), [] if params is None else [*params.arms, *params.rounds])
    wanted = [path for path in paths if path != Path.cwd()]
    if wanted:
        return only(sources, Path(), wanted), credit
    if not sources:
        raise InputError(
            "there are no attempts yet",
            where=str(Path.cwd()),
            fix="run `steptool run`, or name a file: steptool view data/scored/r1/scored.jsonl.gz",
        )
    return sources, credit


def listed(sources: Iterable[Source]) -> list[str]:
    return [f"{source.title}: {', '.join(part.name for part in source.parts)}" for source in sources]


def listening(port: int) -> socket.socket:
    """What browsers can connect to from now on. Raises InputError for a port that is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(
            f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}",
            where=HOST,
            fix="choose another, or leave out --port",
        ) from error
    return listener
