"""A FastAPI service for the tests of the world `openapi`, that behaves well and badly."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Body, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.security import APIKeyCookie, APIKeyHeader, APIKeyQuery, HTTPBasic, HTTPBearer, OAuth2PasswordBearer
from pydantic import BaseModel, Field

app = FastAPI(title="Books", servers=[{"url": "http://127.0.0.1:1"}])
ELSEWHERE: list[str] = []
"""Where the service redirects to."""


class Line(BaseModel):
    title: str
    count: int = Field(default=1, ge=1, description="how many")


class Order(BaseModel):
    id: str
    lines: list[Line]
    gift: bool | None = None


class Part(BaseModel):
    name: str
    parts: list[Part] = []


@app.get("/books/{id}", operation_id="getBook", summary="One book", description="All of it.")
def get_book(
    id: str,
    lang: Annotated[Literal["en", "fr"], Query(description="which language")] = "en",
    tag: Annotated[list[str] | None, Query()] = None,
    x_trace: Annotated[str | None, Header()] = None,
    visit: Annotated[str | None, Cookie()] = None,
) -> dict[str, Any]:
    if id == "none":
        raise HTTPException(404, "no such book, use search")
    return {"id": id, "lang": lang, "tag": tag, "trace": x_trace, "visit": visit}


@app.get("/echo")
def echo(request: Request) -> dict[str, Any]:
    return {"query": str(request.url.query), "headers": dict(request.headers), "path": request.url.path}


@app.post("/orders/{id}", operation_id="createOrder")
def create_order(id: str, order: Order) -> dict[str, Any]:
    return {"path": id, "order": order.model_dump()}


@app.put("/parts", operation_id="putPart")
def put_part(part: Annotated[Part, Body()]) -> Part:
    return part


@app.delete("/orders/{id}", operation_id="dropOrder", status_code=204)
def drop_order(id: str) -> Response:
    return Response(status_code=204)


for scheme in (
    APIKeyHeader(name="X-Key", scheme_name="in_header"),
    APIKeyQuery(name="key", scheme_name="in_query"),
    APIKeyCookie(name="key", scheme_name="in_cookie"),
    HTTPBearer(scheme_name="bearer"),
    HTTPBasic(scheme_name="basic"),
    OAuth2PasswordBearer("token", scheme_name="oauth"),
):

    @app.get(f"/secret/{scheme.scheme_name}", operation_id=f"secret_{scheme.scheme_name}")
    def secret(request: Request, _: Annotated[Any, Depends(scheme)]) -> dict[str, Any]:
        return {"query": request.url.query, "headers": dict(request.headers)}


@app.get("/bad/{kind}", operation_id="bad")
async def bad(kind: str) -> Response:
    match kind:
        case "500":
            return Response("oh no", 500, media_type="text/plain")
        case "raise":
            raise RuntimeError("a defect")
        case "html":
            return HTMLResponse("<html><head><title>Sign in</title></head><body>" + "x" * 10000)
        case "html502":
            return HTMLResponse("<html><title>Bad gateway</title>", 502)
        case "json":
            return Response('{"id": ', media_type="application/json")
        case "flood":
            return StreamingResponse((b"0123456789" * 10_000 for _ in range(500)), media_type="text/plain")
        case "endless":
            return StreamingResponse((b"x" * 1000 for _ in iter(int, 1)), media_type="application/json")
        case "latin":
            return Response("caf\xe9".encode("latin-1"), media_type="text/plain; charset=utf-8")
        case "charset":
            return Response("café".encode(), headers={"content-type": "text/plain; charset=klingon"})
        case "image":
            return Response(b"\x89PNG" + b"\0" * 2044, media_type="image/png")
        case "untyped":
            return Response("plain")
        case "hang":
            await asyncio.sleep(30)
        case "away":
            return RedirectResponse(ELSEWHERE[0])
        case "near":
            return RedirectResponse("/books/7?lang=fr")
        case "circle":
            return RedirectResponse("/bad/circle")
        case "cookie":
            response = PlainTextResponse("set")
            response.set_cookie("visit", "1")
            return response
        case "cut":
            return StreamingResponse(_breaks_off(), media_type="text/plain")
    return Response()


async def _breaks_off() -> Any:
    yield b"abc"
    raise RuntimeError("broken off")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Its address, while it runs."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listening.close()
