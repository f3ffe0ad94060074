"""The page of the current folder, served in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from steptool.commands.view import HOST, find, listening
from steptool.report.viewer.server import Viewer, application

KEY = "secret"


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Its address, while the block runs."""
    app = application(Viewer(root, lambda: find([])), KEY)
    with listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}/{KEY}/"
        finally:
            server.should_exit = True
            thread.join()
