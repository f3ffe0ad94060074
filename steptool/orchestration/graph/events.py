"""The event that there is new data, from a stage of the graph or from outside it.

A stage says in dvc.yaml that its outputs are new data:    meta: {emits: steptool.data.new}
Somebody who has put data in place says so with             steptool data-arrived PATH

An automation can tell the two apart by the label `steptool.origin`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from prefect.events import emit_event
from prefect.events.clients import get_events_client
from prefect.events.schemas.events import Event, Resource

from steptool.core.errors import DataError
from steptool.core.storage import file_hash
from steptool.orchestration.approval.decisions import server

NEW_DATA = "steptool.data.new"
ORIGIN = "steptool.origin"
STAGE, OUTSIDE = "stage", "outside"


def announce_output(event: str, path: str, content_hash: str) -> None:
    """Say that the stage whose task runs here has made `path`. Prefect adds which flow run and task run it was."""
    emit_event(event, resource=_resource(path, content_hash, STAGE))


def announce_arrival(path: Path) -> None:
    """Say that `path`, made elsewhere, is in place. Raises DataError if it is not, StepToolError without a server."""
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), fix="put the data in place first")
    content_hash = file_hash(path)
    event = Event(event=NEW_DATA, resource=Resource(_resource(str(path), content_hash, OUTSIDE)))
    with server() as client:
        client.api_version()  # an event that the server refuses is lost without a word
        asyncio.run(_send(event))
    print(
        f"{path} ({content_hash}) announced as {NEW_DATA}; the automation train-on-new-data acts on it if switched on"
    )


def _resource(path: str, content_hash: str, origin: str) -> dict[str, str]:
    return {
        "prefect.resource.id": f"steptool.data.{path}",
        "prefect.resource.name": path,
        "steptool.content-hash": content_hash,
        ORIGIN: origin,
    }


async def _send(event: Event) -> None:
    async with get_events_client(checkpoint_every=1) as client:
        await client.emit(event)
