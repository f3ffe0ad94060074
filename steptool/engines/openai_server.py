"""vLLM's own server on another machine, or in another process: tokens in, tokens out.

engine: {use: server, urls: ['http://gpu-box:8000'], shared: /mnt/team/adapters}

    load       a plain model    the server of `urls` that computes what its weights compute, else it is refused
               an adapter       the same for its base; its files are put where the server reads them, and it is loaded
                                under a name that is a hash of them (vLLM keeps its cache of prefixes by the name)
    generate   prompt's ids ─ /v1/completions ─ sampled ids, the stop token included, and their log-probabilities

How a server is started stands in `docs/endpoints.md`; one that returns text alone, log-probabilities of another
distribution than it samples from, or other weights is refused.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from tokenizers import Tokenizer

from steptool.core.errors import ModelError, StepToolError
from steptool.core.fields import Bound, Natural, Settings, Text
from steptool.core.secrets import Beginning, Secrets, Variable
from steptool.core.storage import file_hash
from steptool.core.types import content_hash
from steptool.engines.base import Generation, Request
from steptool.system.own_loop import OwnLoop

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NO_KEY = "none"
TEXT = 'You can call these tools. Which of them finds an order? find_order {"id": "a-1042"}'
"""Whose log-probabilities tell weights apart."""
HOT, HOT_TOKENS = 2.0, 8
"""A temperature at which what is sampled from is not the model's own distribution, and tokens to see it at."""
AS_SAMPLED = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True, "skip_special_tokens": False}
"""Nothing but the request shapes the distribution or ends an action, whatever the model's own settings say."""
START = "start it as docs/endpoints.md says: {}"


class ServerFailed(Exception):
    """A server refuses a request, does not answer, or answers nonsense; the message says which."""


class ServerEngine:
    """What is sampled depends on `seed`, the request and its own seed, and on what the server computes beside it.

    dtype: that the servers must have been started with; a canary in float32 tells bfloat16 apart. Raises ModelError
    where no server fits the policy.
    """

    name: ClassVar[str] = "server"
    takes_adapters: ClassVar[bool] = True

    class Config(Settings):
        urls: Annotated[list[Beginning], Field(min_length=1, max_length=64)]
        """Servers without `/v1`, each with another plain model: http://gpu-box:8000."""
        key: Variable | None = None
        """Environment variable with what the servers were started with as `--api-key`."""
        shared: Text = ""
        """A folder that the servers see, too: adapters are copied there. Empty: they see this one by the same path."""
        there: Text = ""
        """What the servers call `shared`, where it is another path."""
        timeout_s: Bound = 600.0
        """For one action."""
        max_retries: Annotated[Natural, Field(le=20)] = 4
        """How often a request is sent again after 5xx, a lost connection or a timeout."""

    def __init__(
        self,
        config: Config,
        policy: Path,
        *,
        dtype: Literal["float32", "bfloat16"],
        max_model_len: int,
        concurrency: int,
        seed: int,
    ) -> None:
        self._config, self._dtype, self._longest, self._seed = config, dtype, max_model_len, seed
        self._servers = [_Server(config, url) for url in config.urls]
        self._serving: dict[Path, tuple[_Server, str]] = {}
        """Plain model → its server, and what that calls it."""
        self._server: _Server
        self._model: str
        try:
            self.load(policy)
        except BaseException:
            self.close()
            raise

    async def generate(self, request: Request) -> Generation:
        """Log-probabilities are those of the distribution sampled from. Raises ServerFailed for this request alone."""
        return await self._server.generate(self._model, request.seeded(self._seed))

    async def logprobs(self, ids: Sequence[int]) -> Sequence[float]:
        """Of every token but the first, at temperature 1."""
        return await self._server.logprobs(self._model, ids)

    def load(self, policy: Path) -> None:
        """Raises ModelError where no server has its plain model, or where that cannot load its adapter."""
        from steptool.policies.folder import resolve_policy

        base, adapter = resolve_policy(policy)
        server, model = self._serving.get(base) or self._find(base)
        self._serving[base] = server, model
        self._server = server
        self._model = model if adapter is None else self._lend(server, adapter)

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _find(self, base: Path) -> tuple[_Server, str]:
        """The server that computes what the plain model in `base` does, and what it calls it."""
        from steptool.policies.canary import TOLERANCE, computed_logprobs

        most = TOLERANCE[self._dtype]
        ids = Tokenizer.from_file(str(base / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
        (wanted,) = computed_logprobs(base, [ids], self._dtype)
        found = []
        for server in self._servers:
            try:
                model = server.plain_model(self._longest)
                server.check(model, ids, most)
                computed = asyncio.run(server.logprobs(model, ids))
            except ServerFailed as fault:
                found.append(f"{server.url}: {fault}")
                continue
            gap = _gap(wanted, computed)
            if gap <= most:
                return server, model
            found.append(f"{server.url}: {model} computes something else, {gap:.2g} nats of difference a token, "
                         f"{self._dtype} explains {most:g}")  # fmt: skip
        raise ModelError(
            f"no server has this model: {'; '.join(found)}",
            where=str(base),
            fix=START.format(f"--model {base.resolve()} --dtype {self._dtype}, and name it in engine.urls"),
        )

    def _lend(self, server: _Server, adapter: Path) -> str:
        """Let the server load an adapter; its name there."""
        from steptool.policies.folder import ADAPTER
        from steptool.policies.model_folder import ADAPTER_CONFIG

        files = [adapter / ADAPTER_CONFIG, adapter / ADAPTER]
        name = f"steptool-{content_hash([file_hash(file) for file in files])}"
        place = adapter.resolve()
        if self._config.shared:
            _copy(files, Path(self._config.shared) / name)
            place = Path(self._config.there or self._config.shared) / name
        try:
            asyncio.run(server.load_adapter(name, place))
        except ServerFailed as fault:
            raise ModelError(
                f"{server.url} cannot load its adapter from {place}: {fault}",
                where=str(adapter),
                fix="let the server see that folder (engine.shared, engine.there), and "
                + START.format("VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora --max-lora-rank 64"),
            ) from fault
        return name


class _Server:
    """One server. Its requests run on a loop of its own, whichever loop asks."""

    def __init__(self, config: ServerEngine.Config, url: str) -> None:
        self.url, self._config = url, config
        self._secrets, self._key = Secrets(), NO_KEY
        if config.key is not None:
            self._key = self._secrets.read(config.key, f"engine server {url}")
        self._loop = OwnLoop("server")
        self._client: AsyncOpenAI | None = None

    def plain_model(self, longest: int) -> str:
        """What it calls its plain model. Raises ServerFailed where `longest` tokens are too many for it."""
        served = asyncio.run(self._ask("get", "/models")).get("data")
        plain = [each for each in served or [] if isinstance(each, dict) and not each.get("parent")]
        if not plain:
            raise ServerFailed("it serves no plain model")
        most = plain[0].get("max_model_len")
        if isinstance(most, int) and most < longest:
            raise ServerFailed(f"it takes {most} tokens, fewer than sample.max_tokens: --max-model-len {longest}")
        return str(plain[0]["id"])

    def check(self, model: str, ids: Sequence[int], rounding: float) -> None:
        """Raise ServerFailed unless it returns ids, and the log-probabilities of the distribution that it samples from.

        `rounding`: nats a token that two computations of one distribution may differ by.
        """
        asked = Request(ids, max_tokens=HOT_TOKENS, temperature=HOT, top_p=1.0, seed=0, stop_ids=())
        sampled = asyncio.run(self.generate(model, asked))
        own = asyncio.run(self.logprobs(model, [*ids, *sampled.ids]))[-len(sampled.ids) :]
        if _gap(own, sampled.logprobs) < rounding:
            raise ServerFailed("its log-probabilities are not those that it samples with: start it with "
                               "--logprobs-mode processed_logprobs")  # fmt: skip

    async def generate(self, model: str, request: Request) -> Generation:
        body = {
            "model": model,
            "prompt": list(request.prompt_ids),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop_token_ids": list(request.stop_ids),
            "logprobs": 0,  # of the sampled token alone
            "return_token_ids": True,
            **AS_SAMPLED,
        }
        return _read(await self._choice(body), request)

    async def logprobs(self, model: str, ids: Sequence[int]) -> list[float]:
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        found: Any = (await self._choice(body)).get("prompt_logprobs")
        try:
            return [float(at[str(token)]["logprob"]) for token, at in zip(ids[1:], found[1:], strict=True)]
        except (TypeError, KeyError, ValueError, IndexError):
            raise ServerFailed("it returns no log-probabilities of a prompt; it must be vLLM's server") from None

    async def load_adapter(self, name: str, place: Path) -> None:
        try:
            await self._ask("post", "/load_lora_adapter", {"lora_name": name, "lora_path": str(place)})
        except ServerFailed as fault:
            if "already been loaded" not in str(fault):  # by this name it is the same
                raise

    def close(self) -> None:
        """May be called twice."""
        if self._client is not None:
            self._loop.wait(self._client.close())
            self._client = None
        self._loop.close()

    async def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._ask("post", "/completions", body)
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ServerFailed("its answer is no completion")
        return dict(choices[0])

    async def _ask(self, verb: Literal["get", "post"], path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON that it answers; where it is none, the text under `said`."""
        text = await self._loop.run(self._sent(verb, path, body))
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        return answer if isinstance(answer, dict) else {"said": text[:200]}

    async def _sent(self, verb: Literal["get", "post"], path: str, body: dict[str, Any] | None) -> str:
        from openai import APIConnectionError, APIStatusError, AsyncOpenAI

        if self._client is None:
            self._client = AsyncOpenAI(
                api_key=self._key,
                base_url=f"{self.url}/v1",
                timeout=self._config.timeout_s,
                max_retries=self._config.max_retries,
            )
        try:
            if verb == "get":
                return await self._client.get(path, cast_to=str)
            return await self._client.post(path, body=body, cast_to=str)
        except APIStatusError as fault:
            raise ServerFailed(f"it answers {fault.status_code}: {self._secrets.reason(fault)}") from None
        except APIConnectionError as fault:
            raise ServerFailed(self._secrets.reason_and_cause(fault)) from None


def _read(choice: dict[str, Any], request: Request) -> Generation:
    """What was sampled. Raises ServerFailed where it is not all there, token by token."""
    ids, given = choice.get("token_ids"), choice.get("logprobs")
    logprobs = given.get("token_logprobs") if isinstance(given, dict) else None
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise ServerFailed("it returns text and no token ids (`return_token_ids`); it must be vLLM's server")
    if not isinstance(logprobs, list) or len(logprobs) != len(ids):
        raise ServerFailed("it does not return the log-probability of every token that it sampled")
    if choice.get("finish_reason") not in ("stop", "length"):
        raise ServerFailed(f"it ended an action by {choice.get('finish_reason')!r}")
    stopped = choice["finish_reason"] == "stop"
    if stopped and ids[-1:] and ids[-1] not in request.stop_ids:
        raise ServerFailed(f"it stopped at token {ids[-1]}, which no action ends with")
    return Generation(tuple(ids), tuple(math.nan if each is None else float(each) for each in logprobs), stopped)


def _gap(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean difference of two lists of log-probabilities."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def _copy(files: Sequence[Path], folder: Path) -> None:
    """Put the files into `folder`, whole or not at all; one of that name holds the same."""
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=folder.parent) as scratch:
            half = Path(scratch, folder.name)
            half.mkdir()
            for file in files:
                shutil.copyfile(file, half / file.name)
            half.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another run was faster
            return
        raise StepToolError(
            f"the adapter cannot be put there: {error.strerror or error}",
            where=str(folder),
            fix="set engine.shared to a folder that you may write to, and the server may read",
        ) from error
