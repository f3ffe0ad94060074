"""`steptool serve-tools`: a virtual API server on this machine, over a folder of recordings."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError

from steptool.core.errors import InputError
from steptool.endpoints.settings import PartSettings
from steptool.worlds.toolbench.desk import Desk
from steptool.worlds.toolbench.library import Library
from steptool.worlds.toolbench.replies import SOURCES
from steptool.worlds.toolbench.server import PATH, VirtualServer
from steptool.worlds.toolbench.simulator import Simulator

HOST = "127.0.0.1"
BACKLOG = 256


def serve_tools(
    folder: Path,
    port: int,
    *,
    kept: Path,
    nearest: float,
    simulator: dict[str, Any],
    says: Callable[[str], object] = print,
) -> None:
    """Serve until Ctrl-C. `port` 0 is a free one; `simulator` are the settings of the endpoint, none for none.

    Raises DataError for a folder without recordings, InputError for settings that are refused and a port that is taken.
    """
    posing = Simulator(_settings(simulator)) if simulator else None
    desk = Desk(Library(folder), kept, nearest=nearest, simulator=posing)
    server = VirtualServer(desk)
    try:
        with _listening(port) as listener:
            says(f"http://{HOST}:{listener.getsockname()[1]}{PATH} (Ctrl-C ends it)")
            config = uvicorn.Config(
                server,
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=1,
            )
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run([listener])
    finally:
        desk.close()
        replied = ", ".join(f"{server.sources[each]} {each}" for each in SOURCES if server.sources[each])
        says(f"replies: {replied or 'none'}")


def _settings(given: dict[str, Any]) -> PartSettings:
    try:
        return PartSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {first['msg']}", where="the simulator", fix="mend it: --set key=value") from error


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        found = f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}"
        raise InputError(found, where=HOST, fix="choose another, or leave out --port") from error
