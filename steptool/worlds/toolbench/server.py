"""A virtual API server that speaks StableToolBench's protocol.

POST /virtual    {"category", "tool_name", "api_name", "tool_input": an object or its JSON, "strip", "toolbench_key"}
      200        {"error": …, "response": …}, never cut; header X-Reply-Source: exact, canonical, …
      422        {"detail": […]} for a body that is none of that, as FastAPI says it; other failures have a text there
GET /mix         {"exact": 12, "simulated": 1}: where the replies since its start came from

What a client sends decides nothing but which reply it gets: names are looked up, and are part of no path. A page in a
browser gets 403: it says its Origin, or calls this machine by a name of its own, and could spend what a model costs.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from steptool.core.errors import StepToolError
from steptool.core.storage import parse_json
from steptool.worlds.toolbench.desk import Desk
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.replies import SOURCE_HEADER, Source, whole, written

PATH, MIX = "/virtual", "/mix"
HOSTS = (b"127.0.0.1", b"localhost")
MOST_BYTES = 1 << 20
"""Of the body of a request."""
BODY_S = 60.0
"""How long a client may take to send it."""
UNREADABLE = written("Tool input parse error...\n", "")
CHAT, CHATTED = "chat_with_user", written("", "Chat with user.")
"""A function that ToolBench's data offers now and then, and that no service has."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Name = Annotated[str, Field(max_length=1000)]


class Wanted(BaseModel):
    """The body of a request; what else is in it is nobody's concern."""

    category: Name
    tool_name: Name
    api_name: Name
    tool_input: str | dict[str, Any]
    strip: Name
    toolbench_key: Name


class Refused(Exception):
    """A request that gets no reply."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class VirtualServer:
    """An ASGI application over a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.sources: Counter[Source] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            _refuse_pages(dict(scope.get("headers", ())))
            text, source = await self._answer(scope["method"], scope["path"], receive)
            headers = [(SOURCE_HEADER.encode(), source.encode())] if source else []
            await _send(send, 200, text, headers)
        except Refused as refused:
            await _send(send, refused.status, json.dumps({"detail": refused.detail}), [])
        except StepToolError as fault:  # a broken file of replies, a simulator that cannot be asked
            await _send(send, 500, json.dumps({"detail": str(fault)}), [])

    async def _answer(self, method: str, path: str, receive: Receive) -> tuple[str, Source | None]:
        if (path, method) == (MIX, "GET"):
            return json.dumps(self.sources), None
        if path != PATH:
            raise Refused(404, "Not Found")
        if method != "POST":
            raise Refused(405, "Method Not Allowed")
        wanted = _read(await _body(receive))
        api = Api.of(wanted.category, wanted.tool_name, wanted.api_name)
        if api.name == CHAT:
            return CHATTED, None
        arguments = _arguments(wanted.tool_input)
        if arguments is None:
            return UNREADABLE, None
        reply = await self._desk.reply(api, arguments)
        self.sources[reply.source] += 1
        return whole(reply.text), reply.source


def _refuse_pages(headers: dict[bytes, bytes]) -> None:
    """Raises Refused for a request of a page in a browser."""
    host = headers.get(b"host", HOSTS[0]).partition(b":")[0]
    if b"origin" in headers or host not in HOSTS:
        raise Refused(403, "Pages in a browser get no reply")


async def _body(receive: Receive) -> bytes:
    """Raises Refused for one that is too long or does not come."""
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The body broke off")
                body += message.get("body", b"")
                if len(body) > MOST_BYTES:
                    raise Refused(413, f"The body has more than {MOST_BYTES} bytes")
                if not message.get("more_body", False):
                    return body
    except TimeoutError:
        raise Refused(408, f"The body did not come within {BODY_S:g} s") from None


def _read(body: bytes) -> Wanted:
    try:
        return Wanted.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise Refused(422, [{**each, "loc": ["body", *each["loc"]]} for each in problems]) from None


def _arguments(given: str | dict[str, Any]) -> dict[str, Any] | None:
    """None for a text that is no JSON object; an empty one has no arguments."""
    if isinstance(given, dict):
        return given
    if not given:
        return {}
    try:
        value = parse_json(given)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def _send(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = text.encode("utf-8", "replace")
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*about, *headers]})
    await send({"type": "http.response.body", "body": body})
