"""An endpoint that answers by a script, faults included, over real HTTP on this machine.

with fake(lambda request: says("It is 9.5.", calls=[])) as endpoint:
    EndpointSettings(url=endpoint.url, model="teacher")
    endpoint.requests                          bodies of all requests, in their order
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from steptool.orchestration.services.servers import any_free_port


@dataclass
class Fault:
    """What comes back in place of a completion."""

    status: int = 500
    body: str = '{"error": {"message": "out of order"}}'
    headers: dict[str, str] = field(default_factory=dict)
    closes: bool = False
    """The connection ends in the middle of the body."""
    drips: bool = False
    """The body has no end."""
    after_s: float = 0.0


Answer = dict[str, Any] | Fault
Act = Callable[[dict[str, Any]], Answer]


def says(
    text: Any = None,
    *,
    calls: Sequence[tuple[str, Any]] = (),
    finish: str = "",
    usage: tuple[int, int] | None = (20, 5),
    **more: Any,
) -> dict[str, Any]:
    """A chat completion. Arguments of calls are a value, or a text as the model wrote it."""
    tool_calls = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for number, (name, given) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text, **more} | ({"tool_calls": tool_calls} if calls else {})
    choice = {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if calls else "stop")}
    answer: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    if usage is not None:
        answer["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return answer


class Fake:
    def __init__(self, act: Act) -> None:
        self.act = act
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.at_once, self.most_at_once = 0, 0
        self.url = ""
        self._lock = Lock()

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            with self._lock:
                self.requests.append(body)
                self.headers.append(dict(request.headers))
                self.times.append(time.monotonic())
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                return await _response(self.act(body))
            finally:
                self.at_once -= 1

        return app


async def _response(answer: Answer) -> Response:
    await asyncio.sleep(answer.after_s if isinstance(answer, Fault) else 0)
    if not isinstance(answer, Fault):
        return Response(json.dumps(answer), media_type="application/json")
    if answer.drips:
        return StreamingResponse(_drops(), media_type="application/json")
    if answer.closes:
        return StreamingResponse(iter([answer.body[:10]]), headers={"Content-Length": str(len(answer.body) + 100)})
    return Response(answer.body, status_code=answer.status, headers=answer.headers, media_type="application/json")


async def _drops() -> AsyncIterator[str]:
    while True:
        yield " "
        await asyncio.sleep(0.05)


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve on a free port of this machine; its address."""
    port = any_free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the fake endpoint does not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def fake(act: Act) -> Iterator[Fake]:
    endpoint = Fake(act)
    with serving(endpoint.app()) as address:
        endpoint.url = f"{address}/v1"
        yield endpoint
