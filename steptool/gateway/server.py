"""The server: an OpenAI-compatible address for agents of this machine, with a key for each attempt.

    gateway = Gateway()
    base_url = gateway.start()             http://127.0.0.1:PORT/v1, in a thread of its own
    key = gateway.open(complete)           whoever has it asks `complete`, until
    gateway.close_key(key)                 the attempt has ended
    gateway.close()

It serves /v1/chat/completions and /v1/responses, plain and streamed, and /v1/models. It knows nothing of formats and
engines, and nothing that a client sends ends it, or reaches another attempt than that of its key.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from steptool.core.errors import StepToolError, reason
from steptool.core.messages import Message
from steptool.gateway.base import ChatReply, ChatRequest, Complete, Refused
from steptool.gateway.body import Stamp
from steptool.gateway.chat import read_chat, stream_chat, write_chat
from steptool.gateway.connections import Connections
from steptool.gateway.responses import read_responses, stream_response, write_response
from steptool.system.own_loop import OwnLoop

HOST = "127.0.0.1"
MODEL = "policy"
"""What /v1/models lists. A request may call it by any name."""
MOST_BYTES = 4 << 20
"""Of the body of a request."""
BODY_S = 60.0
"""How long a client may take to send the body of a request."""
MOST_AT_ONCE = 50
"""Requests of one attempt that are answered at the same time; one more is told to come again."""
BACKLOG = 128
"""Connections that wait to be accepted. asyncio accepts as many at a time, before any of them can be refused."""
START_S, STOP_S = 30.0, 5.0

logger = logging.getLogger(__name__)


@dataclass
class _Attempt:
    """What stands behind a key."""

    complete: Complete
    loop: asyncio.AbstractEventLoop | None
    """Where `complete` runs: the loop that it was opened on, or None for the gateway's own."""
    known: dict[str, tuple[Message, ...]] = field(default_factory=dict)
    """Id of a response → the messages up to its end."""
    running: int = 0

    async def ask(self, request: ChatRequest) -> ChatReply:
        if self.loop is None:
            return await self.complete(request)
        asked = asyncio.run_coroutine_threadsafe(self._run(request), self.loop)
        return await asyncio.wrap_future(asked)

    async def _run(self, request: ChatRequest) -> ChatReply:
        return await self.complete(request)


class Gateway:
    """`host` is an address of this machine; `port` 0 takes a free one."""

    def __init__(self, host: str = HOST, port: int = 0) -> None:
        self._host, self._port = host, port
        self._attempts: dict[str, _Attempt] = {}
        self._connections = Connections()
        self._loop = OwnLoop("steptool-gateway")
        self._server: uvicorn.Server | None = None
        self._base_url = ""

    def start(self) -> str:
        """Listen, and return the address for clients. May be called again. Raises StepToolError where it cannot."""
        if self._server is None:
            try:
                family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
                listening = socket.create_server((self._host, self._port), family=family)
            except OSError as error:
                fix = "name an address of this machine, and a port that nothing uses"
                raise StepToolError(
                    f"cannot listen: {reason(error)}", where=f"gateway {self._host}:{self._port}", fix=fix
                ) from error
            # Connections inherit it. Without it a reply's body waits 40 ms for the client to acknowledge its head.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._base_url = f"http://{_reached_at(self._host)}:{listening.getsockname()[1]}/v1"
            self._server = self._loop.wait(self._serve(listening))
        return self._base_url

    def open(self, complete: Complete) -> str:
        """A key whose requests `complete` answers.

        It runs on the event loop that this is called on; where it is called on none, on the gateway's own.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        key = f"sk-steptool-{secrets.token_urlsafe(24)}"
        self._attempts[key] = _Attempt(complete, loop)
        return key

    def close_key(self, key: str) -> None:
        """Refuse the key from now on, and drop the connections that used it. May be called again."""
        if self._attempts.pop(key, None) is not None:
            self._loop.call(lambda: self._connections.drop(key))

    def close(self) -> None:
        """End the server, and whatever it is answering. May be called again."""
        self._attempts.clear()
        if self._server is not None:
            self._loop.wait(self._end(self._server))
            self._server = None
        self._loop.close()

    async def _serve(self, listening: socket.socket) -> uvicorn.Server:
        config = uvicorn.Config(
            self._app(),
            http=self._connections.protocol,  # type: ignore[arg-type]  # anything that makes one
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # what clients do wrong, they are told
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(self._connections.IDLE_S),
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        self._serving = asyncio.create_task(server.serve(sockets=[listening]))
        self._watching = asyncio.create_task(self._connections.watch())
        async with asyncio.timeout(START_S):
            while not server.started:
                await asyncio.sleep(0.01)
        return server

    async def _end(self, server: uvicorn.Server) -> None:
        server.should_exit = server.force_exit = True
        await asyncio.wait({self._serving}, timeout=STOP_S)

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.add_api_route("/v1/chat/completions", self._chat, methods=["POST"], response_model=None)
        app.add_api_route("/v1/responses", self._responses, methods=["POST"], response_model=None)
        app.add_api_route("/v1/models", self._models, methods=["GET"], response_model=None)
        app.add_api_route("/v1/models/{name:path}", self._models, methods=["GET"], response_model=None)
        app.add_exception_handler(Refused, _refusal)
        app.add_exception_handler(404, _unknown)
        app.add_exception_handler(405, _unknown)
        app.add_exception_handler(Exception, _fault)
        return app

    async def _models(self, request: Request, name: str = "") -> Response:
        self._attempt(request)
        model = {"id": name or MODEL, "object": "model", "created": 0, "owned_by": "steptool"}
        return JSONResponse(model if name else {"object": "list", "data": [model]})

    async def _chat(self, request: Request) -> Response:
        with self._admitted(request) as attempt:
            wanted, body = read_chat(await _body(request))
            reply = await _answered(attempt, wanted)
        stamp = _stamp(wanted)
        if not body.stream:
            return JSONResponse(write_chat(reply, stamp))
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return _events(stream_chat(reply, stamp, with_usage=with_usage))

    async def _responses(self, request: Request) -> Response:
        with self._admitted(request) as attempt:
            wanted, body, messages = read_responses(await _body(request), attempt.known)
            reply = await _answered(attempt, wanted)
        stamp = _stamp(wanted)
        whole = write_response(reply, stamp, body)
        attempt.known[whole["id"]] = (*messages, reply.message)
        return _events(stream_response(reply, stamp, body)) if body.stream else JSONResponse(whole)

    def _attempt(self, request: Request) -> _Attempt:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        attempt = self._attempts.get(key.strip())
        if kind.lower() != "bearer" or attempt is None:
            raise Refused(
                "the key is that of no running attempt: use the OPENAI_API_KEY that this process was started with",
                code="invalid_api_key",
                status=401,
            )
        self._connections.belongs(request.client, key.strip())
        return attempt

    @contextmanager
    def _admitted(self, request: Request) -> Iterator[_Attempt]:
        """The attempt that a request is of. It counts as running from its head on, so that the connections on which an
        attempt sends bodies that never end are few, too."""
        attempt = self._attempt(request)
        if attempt.running >= MOST_AT_ONCE:
            raise Refused(
                f"{MOST_AT_ONCE} requests of this attempt are running; send it again when one has ended",
                code="rate_limit_exceeded",
                status=429,
            )
        attempt.running += 1
        try:
            yield attempt
        finally:
            attempt.running -= 1


async def _answered(attempt: _Attempt, wanted: ChatRequest) -> ChatReply:
    try:
        return await attempt.ask(wanted)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Refused("the attempt has ended", code="attempt_ended", status=410) from None


def _reached_at(host: str) -> str:
    """As part of a URL: one that listens everywhere is reached on this machine."""
    host = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


async def _body(request: Request) -> bytes:
    """Raises Refused where it is too long, or too slow, or never ends."""
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                found += piece
                if len(found) > MOST_BYTES:
                    raise Refused(
                        f"the request is longer than {MOST_BYTES >> 20} MiB; send fewer or shorter messages",
                        code="request_too_large",
                        status=413,
                    )
    except ClientDisconnect:  # nobody hears this
        raise Refused("the client has gone away", code="client_gone") from None
    except TimeoutError:
        raise Refused(f"the request did not arrive within {BODY_S:g} s", code="request_timeout") from None
    return bytes(found)


def _stamp(wanted: ChatRequest) -> Stamp:
    return Stamp(secrets.token_hex(12), wanted.model or MODEL, int(time.time()))


def _events(pieces: Iterable[str]) -> Response:
    return StreamingResponse(_each(pieces), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _each(pieces: Iterable[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


def _error(message: str, code: str, status: int, param: str | None = None, *, is_busy: bool = False) -> Response:
    """As OpenAI's API writes it. The official client repeats requests with some statuses, unless it is told not to."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {} if is_busy else {"x-should-retry": "false"}
    written = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(written, status_code=status, headers=headers)


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.message, error.code, error.status, error.param, is_busy=error.is_busy)


async def _unknown(request: Request, _: Exception) -> Response:
    served = "POST /v1/chat/completions, POST /v1/responses and GET /v1/models"
    return _error(f"{request.method} {request.url.path[:200]} is not served; there are {served}", "not_found", 404)


async def _fault(_: Request, error: Exception) -> Response:
    logger.error("the gateway failed: %s", reason(error), exc_info=error)
    return _error("the server failed", "internal_error", 500)
