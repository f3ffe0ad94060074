"""Asks an endpoint through OpenAI's official client: cached by content, rate-limited, repeated with backoff, paid for.

    ask ─► answers in the store ─► kept? no request at all
      └──► budget ─► limiter ─► POST /chat/completions ─► ledger, store ─► Reply
                        └────── again after 429, 5xx, a lost connection, a timeout, nonsense ──┘

All attempts share one client, on a loop of its own, whichever loop they run on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steptool.core.errors import StepToolError, reason
from steptool.core.secrets import Secrets
from steptool.core.types import content_hash
from steptool.endpoints.base import Spent
from steptool.endpoints.budget import Budget
from steptool.endpoints.chat import Nonsense, Reply, TooLong, read_reply
from steptool.endpoints.ledger import Ledger
from steptool.endpoints.settings import EndpointSettings
from steptool.system.own_loop import OwnLoop

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

MINUTE_S = 60.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
"""Before a request whose answer was nonsense is sent again; OpenAI's client waits as long after other faults."""
NO_KEY = "none"
"""What is sent where an endpoint wants no key: the client refuses to send nothing."""
LONG_KEY = 12
"""Characters of a key that is looked for in answers. A shorter one is no secret (`test`), and words may hold it."""
LONGEST_ANSWER = 4 << 20
"""Bytes of an answer; a longer one is nonsense."""


class EndpointRefuses(StepToolError):
    """The endpoint will refuse every request: a wrong key, an unknown model, an account without money."""


class EndpointFailed(Exception):
    """One request has failed, after all tries. The message never holds the key."""


class Client:
    """Raises WorldError where the environment lacks the key, DataError or StorageError for the store."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._secrets = Secrets()
        self._key = NO_KEY
        if settings.key is not None:
            self._key = self._secrets.read(settings.key, f"endpoint {settings.url}")
        self._ledger = Ledger(Path(settings.store), settings.url, settings.model)
        self._loop = OwnLoop("endpoint")
        self._client: AsyncOpenAI | None = None
        self._budget: Budget

    @property
    def spent(self) -> Spent:
        """In all, ever."""
        return self._ledger.spent()

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        most: int,
        attempt: int,
        temperature: float | None,
        response_format: Mapping[str, Any] | None = None,
    ) -> Reply:
        """The answer to a conversation, of `most` tokens at most; the same conversation of another `attempt` gets an
        answer of its own.

        `temperature`: None is not sent. Raises CeilingReached and EndpointRefuses, after which no request can succeed;
        TooLong; and EndpointFailed for this request alone.
        """
        body: dict[str, Any] = {"model": self._settings.model, "messages": list(messages)}
        body |= {"max_completion_tokens": most}
        body |= {"tools": list(tools)} if tools else {}
        body |= {"parallel_tool_calls": False} if tools and not self._settings.parallel else {}
        body |= {} if temperature is None else {"temperature": temperature}
        body |= {} if response_format is None else {"response_format": dict(response_format)}
        return await self._loop.run(self._asked(body, attempt))

    def close(self) -> None:
        """May be called twice."""
        if self._client is not None:
            self._loop.wait(self._client.close())
            self._client = None
        self._loop.close()
        self._ledger.close()

    async def _asked(self, body: dict[str, Any], attempt: int) -> Reply:
        key = content_hash([self._settings.url, body, attempt], 64)
        kept = self._ledger.answer(key)
        if kept is not None:
            return read_reply(json.loads(kept))
        client = self._started()
        most = len(json.dumps(body, ensure_ascii=False).encode())  # a token has a byte at least
        for tries in range(self._settings.max_retries + 1):
            async with self._budget.reserved(most, body["max_completion_tokens"]):
                try:
                    text = await self._sent(client, body)
                    return self._paid(key, text, most, body["max_completion_tokens"])
                except Nonsense as fault:
                    problem = fault
            if tries < self._settings.max_retries:
                await asyncio.sleep(min(FIRST_WAIT_S * 2**tries, LONGEST_WAIT_S))
        raise EndpointFailed(f"its answer is no chat completion: {problem}")

    def _started(self) -> AsyncOpenAI:
        """The client and what belongs to its loop, made with the first request."""
        if self._client is None:
            from aiolimiter import AsyncLimiter
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            wanted = self._settings
            rate = wanted.requests_per_minute
            limiter = None if rate is None else AsyncLimiter(1, MINUTE_S / rate)

            async def wait_for_turn(request: object) -> None:
                if limiter is not None:
                    await limiter.acquire()

            self._budget = Budget(wanted, self._ledger)
            self._client = AsyncOpenAI(
                api_key=self._key,
                base_url=wanted.url,
                timeout=wanted.timeout_s,
                max_retries=wanted.max_retries,
                http_client=DefaultAsyncHttpxClient(event_hooks={"request": [wait_for_turn]}),
            )
        return self._client

    async def _sent(self, client: AsyncOpenAI, body: dict[str, Any]) -> str:
        """The body of the answer, whatever it is. Raises Nonsense where it does not come whole and in time."""
        from openai import APIConnectionError, APIStatusError

        try:
            async with client.chat.completions.with_streaming_response.create(**body) as answer:
                return await _whole(answer.iter_bytes(), self._settings.timeout_s)
        except APIStatusError as fault:
            raise self._refusal(fault) from None  # its request holds the key
        except APIConnectionError as fault:  # timeouts, too
            raise EndpointFailed(self._secrets.reason_and_cause(fault)) from None

    def _refusal(self, fault: APIStatusError) -> Exception:
        said = f"{fault.status_code}: {self._secrets.reason(fault)}"
        if fault.code == "context_length_exceeded":
            return TooLong(said)
        where, fix = f"{self._settings.model} at {self._settings.url}", None
        if fault.status_code in (401, 403):
            fix = f"put a valid API key into {self._settings.key}" if self._settings.key else "set the endpoint's `key`"
        elif fault.status_code == 404:
            fix = "mend `url` (it ends before /chat/completions, often in /v1) or `model` of the endpoint"
        elif fault.code == "insufficient_quota":
            fix = "pay the vendor, then run the same command again: what was answered is kept"
        return EndpointFailed(said) if fix is None else EndpointRefuses(f"answers {said}", where=where, fix=fix)

    def _paid(self, key: str, text: str, most_in: int, most_out: int) -> Reply:
        """Write an answer and its cost down. Raises Nonsense for what is none."""
        if len(self._key) >= LONG_KEY:  # some proxies say what they were sent
            text = self._secrets.hide(text)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise Nonsense(f"it is no JSON: {self._secrets.hide(text)[:80]!r}") from None
        reply = read_reply(document)
        # An endpoint that does not count its tokens is taken to have used as many as it can have.
        prompt_tokens = most_in if reply.prompt_tokens is None else reply.prompt_tokens
        tokens = most_out if reply.tokens is None else reply.tokens
        self._ledger.keep(key, json.dumps(document), prompt_tokens, tokens, self._budget.money(prompt_tokens, tokens))
        return reply


async def _whole(parts: AsyncIterator[bytes], timeout_s: float) -> str:
    """Raises Nonsense for a body that breaks off, or has no end."""
    body = b""
    try:
        async with asyncio.timeout(timeout_s):
            async for part in parts:
                body += part
                if len(body) > LONGEST_ANSWER:
                    raise Nonsense(f"it has more than {LONGEST_ANSWER} bytes")
    except TimeoutError:
        raise Nonsense(f"it is not whole after {timeout_s:g} s") from None
    except Nonsense:
        raise
    except Exception as fault:  # of the HTTP library that OpenAI's client brings
        raise Nonsense(reason(fault)) from fault
    return body.decode(errors="replace")
