"""The world `http`: requests of ToolBench, answered by a virtual API server, ours or StableToolBench's.

    world: {use: http, path: FOLDER, url: 'http://127.0.0.1:8080/virtual'}

What a policy is shown is what StableToolBench's own client shows: the reply as JSON, its first 1,024 characters, and
the same texts where the server fails.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from steptool.core.errors import WorldError
from steptool.core.fields import Bound, Text
from steptool.core.secrets import Beginning, Secrets, Variable
from steptool.system.own_loop import OwnLoop
from steptool.worlds.toolbench.base import RequestSettings, RequestWorld
from steptool.worlds.toolbench.metrics import OF_SERVERS
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.replies import SOURCE_HEADER, SOURCES, Reply, Source, error_kind, written

MOST_BYTES = 4 << 20
"""Of a reply."""
TIMEOUT, NO_JSON = "Timeout error...", "request invalid, data error"

logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it tells every request


class HttpWorld(RequestWorld):
    """Raises what `RequestWorld` raises, and WorldError where the environment lacks the key."""

    name: ClassVar[str] = "http"
    metrics: ClassVar[Mapping[str, Mapping[str, Any]]] = OF_SERVERS

    class Config(RequestSettings):
        url: Beginning = "http://127.0.0.1:8080/virtual"
        """Where calls are posted to."""
        key: Variable | None = None
        """Environment variable with the ToolBench key of a server that wants one."""
        strip: Text = "truncate"
        """How the server is asked to shorten replies; ours, and StableToolBench's, do nothing about it."""
        timeout_s: Bound = 60.0
        """For one reply; a server that asks a model takes its time."""

    def __init__(self, config: Config, seed: int) -> None:
        """`seed` changes nothing."""
        super().__init__(config)
        self.counter = Server(config)


class Server:
    """A virtual API server. All attempts share one client, on a loop of its own."""

    def __init__(self, config: HttpWorld.Config) -> None:
        self._config, self._secrets = config, Secrets()
        self._key = self._secrets.read(config.key, f"the server at {config.url}") if config.key else ""
        self._loop = OwnLoop("virtual-api")
        self._client: httpx.AsyncClient | None = None

    async def reply(self, api: Api, arguments: Mapping[str, Any]) -> Reply:
        """Raises WorldError where the server cannot be reached."""
        body = {
            "category": api.category,
            "tool_name": api.tool,
            "api_name": api.name,
            "tool_input": dict(arguments),
            "strip": self._config.strip,
            "toolbench_key": self._key,
        }
        try:
            return await self._loop.run(self._sent(body))
        except httpx.TimeoutException:
            return _failed(TIMEOUT, "timeout")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as fault:
            found = f"the server cannot be reached: {self._secrets.reason(fault)}"
            fix = "start one (`steptool serve-tools FOLDER`), or set world.url to it, /virtual included"
            raise WorldError(found, where=self._config.url, fix=fix) from None

    def close(self) -> None:
        """May be called twice."""
        if self._client is not None:
            self._loop.wait(self._client.aclose())
            self._client = None
        self._loop.close()

    async def _sent(self, body: dict[str, Any]) -> Reply:
        if self._client is None:
            headers = {"toolbench_key": self._key} if self._key else {}
            self._client = httpx.AsyncClient(timeout=self._config.timeout_s, headers=headers, trust_env=False)
        async with self._client.stream("POST", self._config.url, json=body) as response:
            if response.status_code != httpx.codes.OK:
                return _failed(f"{NO_JSON}. status_code={response.status_code}", f"http_{response.status_code}")
            text = b""
            async for part in response.aiter_bytes():
                text += part
                if len(text) > MOST_BYTES:
                    return _failed(NO_JSON, "broken_reply")
        return self._read(text, response.headers.get(SOURCE_HEADER, ""))

    def _read(self, text: bytes, said: str) -> Reply:
        try:
            value = json.loads(text)
            again = json.dumps(value)
        except (ValueError, RecursionError):
            return _failed(NO_JSON, "broken_reply")
        if not isinstance(value, dict) or "error" not in value:
            return _failed(NO_JSON, "broken_reply")
        source: Source = next((each for each in SOURCES if each == said), "server")
        error = "no_recording" if source == "missing" else error_kind(value["error"], value.get("response", ""))
        return Reply(self._secrets.hide(again), error, source)


def _failed(message: str, kind: str) -> Reply:
    return Reply(written(message, ""), kind, "missing")
