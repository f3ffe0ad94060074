"""The operations of a service, called over HTTP. All attempts share one client, which keeps no cookies."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from steptool.core.errors import WorldError
from steptool.core.secrets import Secrets
from steptool.core.types import Observation, Tool, ToolCall
from steptool.system.own_loop import OwnLoop
from steptool.worlds.openapi.document import Document
from steptool.worlds.openapi.operations import Operation, operations_of
from steptool.worlds.openapi.reply import observation_of
from steptool.worlds.openapi.request import Parts, WrongRequest, request_of
from steptool.worlds.openapi.security import Security
from steptool.worlds.project.arguments import ArgumentsOfTools
from steptool.worlds.project.session import failure

TIMEOUT_S = 60.0
"""Longest wait for a connection, or for the next part of a reply. Rollouts wait `sample.tool_timeout_s` for it all."""
MAX_REDIRECTS = 5
HEADERS = {"Accept": "application/json, */*", "User-Agent": "steptool"}

logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it tells addresses, and a secret may stand in one


class OpenApiToolbox:
    """Raises InputError for a document whose operations cannot be tools."""

    def __init__(
        self,
        document: Document,
        *,
        base_url: str | None = None,
        allow: Sequence[str] = (),
        leave_out: Sequence[str] = (),
        auth: Mapping[str, str] | None = None,
    ) -> None:
        self.operations = operations_of(document, base_url=base_url, allow=allow, leave_out=leave_out)
        self.tools: Mapping[str, Tool] = {name: each.tool for name, each in self.operations.items()}
        self.arguments = ArgumentsOfTools(self.tools, document.where)
        self._secrets = Secrets()
        self._security = Security(document, auth or {}, self._secrets)
        for operation in self.operations.values():
            self._security.check(operation)
        self._loop = OwnLoop("openapi")
        self._client: httpx.AsyncClient | None = None

    def changes_state(self, name: str) -> bool:
        return not self.operations[name].is_reading

    def connect(self) -> OpenApiConnection:
        return OpenApiConnection(self)

    def close(self) -> None:
        if self._client is not None:
            self._loop.wait(self._client.aclose())
            self._client = None
        self._loop.close()

    async def request(self, operation: Operation, parts: Parts) -> Observation:
        """Send a request. Raises WorldError where the service cannot be reached, or a secret is missing."""
        self._security.sign(operation, parts)
        try:
            return await self._loop.run(self._sent(operation.method, parts))
        except httpx.TimeoutException:
            return failure("timeout", f"no reply within {TIMEOUT_S:g} s")
        except httpx.ConnectError as fault:
            found = f"the service cannot be reached: {self._secrets.reason(fault)}"
            raise WorldError(found, where=operation.server, fix="start it, or set world.base_url") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as fault:  # it broke off, or spoke no HTTP
            return failure("broken_reply", f"the service broke off: {self._secrets.reason(fault)}")

    async def _sent(self, method: str, parts: Parts) -> Observation:
        if self._client is None:
            nothing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            self._client = httpx.AsyncClient(timeout=TIMEOUT_S, cookies=nothing, headers=HEADERS)
        request = self._client.build_request(method, parts.address, headers=parts.all_headers, **parts.body)
        for _ in range(MAX_REDIRECTS):
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await observation_of(response, self._secrets.hide)
            finally:
                await response.aclose()
            url = response.next_request.url
            if (url.scheme, url.host, url.port) != (request.url.scheme, request.url.host, request.url.port):
                return failure(
                    "redirect",
                    self._secrets.hide(f"the service redirects to another one, {url.host}, which is not followed"),
                )
            if response.next_request.method != method:
                return failure("redirect", f"the service redirects a {method} to a {response.next_request.method}")
            request = response.next_request
        return failure("redirect", f"the service redirects more than {MAX_REDIRECTS} times")


class OpenApiConnection:
    def __init__(self, toolbox: OpenApiToolbox) -> None:
        self._toolbox = toolbox

    async def call(self, call: ToolCall) -> Observation:
        if problem := self._toolbox.arguments.problem(call):
            return failure("invalid_argument", problem)
        operation = self._toolbox.operations[call.name]
        try:
            parts = request_of(operation, call.arguments)
        except WrongRequest as wrong:
            return failure("invalid_argument", str(wrong))
        return await self._toolbox.request(operation, parts)

    async def close(self) -> None:
        """Nothing is the attempt's own."""
