"""Delivers for the stages of a pipeline while they run, from the one process that has MLflow loaded."""

from __future__ import annotations

import threading
from pathlib import Path

from steptool.tracking.client import resolve_uri
from steptool.tracking.delivery import Delivery

POLL_S = 1.0
RETRY_S = 10.0
"""Between attempts to reach an MLflow that is gone."""


class Relay:
    """A thread that delivers for the stages of the checkout `root`: a context manager, at whose end all is sent or
    kept."""

    def __init__(self, root: Path) -> None:
        self._delivery = Delivery(root, resolve_uri(None, root.resolve()))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        reached = True
        while not self._ended.wait(POLL_S if reached else RETRY_S):
            reached = self._delivery.try_to_deliver(warned=not reached)
        self._delivery.try_to_deliver(warned=not reached)
