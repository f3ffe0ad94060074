"""vLLM's OpenAI server with a policy: started, asked for the policy's canary, and ended with this process.

steptool serve-model --policy models/ppo2
  │ python -m vllm.entrypoints.openai.api_server          below a supervisor, its log in .steptool/serving
  │ GET /health                                            until it answers
  │ POST /v1/completions with the canary's tokens          until now nobody knows the address
  └ the address, until Ctrl-C or the server's end
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from steptool.config.places import WORK
from steptool.config.settings import Params
from steptool.core.errors import InputError, StepToolError, reason
from steptool.orchestration.services.servers import HOST, Server, Servers, answers, is_free, module
from steptool.policies.canary import ask_engine, read_canary
from steptool.policies.folder import saved_config
from steptool.policies.model_folder import read_config
from steptool.policies.precision import Dtype, compute_dtype, on_gpu
from steptool.serving.files import write_serving_files
from steptool.serving.policy import Named

FOLDER = WORK / "serving"
NAME = "vllm"
WATCH_S = 1.0
ANSWER_S = 300.0
"""Longest wait for the canary: on a CPU the first use of an adapter takes tens of seconds."""
CONTEXT = 2048
"""Tokens of a conversation, where the policy was trained on shorter ones: clients send system messages, too."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Of adapters, as vLLM's `--max-lora-rank` has them."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What the user has set stands."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        return f"http://{HOST if self.host in ('0.0.0.0', '') else self.host}:{self.port}"  # noqa: S104


def serve_model(
    params: Params, policy: Named, port: int, *, host: str = HOST, ready: Callable[[str], object] = print
) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is called with what to do next once the server answers.

    Raises InputError where the port is taken, ModelError where the server computes something else than the policy's
    trainer did, StepToolError, with the end of its log, where it does not start or ends by itself.
    """
    if not is_free(port):
        raise InputError(
            f"port {port} is taken", where=host, fix=f"end what uses it, or choose another: --port {port + 1}"
        )
    address, dtype = Address(host, port), compute_dtype(params.model)
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = write_serving_files(params, policy.folder, FOLDER)
    command = module("vllm.entrypoints.openai.api_server", *arguments(params, policy, address, dtype))
    cores = len(os.sched_getaffinity(0))
    own = files.environment | {"OMP_NUM_THREADS": str(cores)}
    server = Server(
        NAME,
        (*command, *files.arguments(str(FOLDER.resolve()))),
        lambda: answers(f"{address.url}/health"),
        {name: os.environ.get(name, value) for name, value in (ENVIRONMENT | own).items()},
        complete=lambda: ask(address, policy, dtype),
    )
    servers = Servers(FOLDER, [server])
    servers.log(NAME).unlink(missing_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins without it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        servers.start(NAME)
        ready(greeting(policy, address))
        while not servers.ended():
            time.sleep(WATCH_S)
        raise StepToolError(
            f"vLLM's server ended: {last_words(servers.log(NAME))}",
            where=str(servers.log(NAME)),
            fix="mend what its log says, then run the same command again",
        )
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the rest running
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        servers.stop_all()


def arguments(params: Params, policy: Named, address: Address, dtype: Dtype) -> list[str]:
    """Of vLLM's server, but for what `ServingFiles` says: the base with its adapter, or a plain model."""
    base, adapter = policy.resolved
    longest = read_config(base).get("max_position_embeddings")
    context = max(CONTEXT, params.sample.max_tokens)
    found = ["--model", str(base.resolve()), "--host", address.host, "--port", str(address.port)]
    found += ["--dtype", dtype, "--max-model-len", str(min(context, longest) if isinstance(longest, int) else context)]
    found += ["--max-num-seqs", str(params.machine.concurrency), "--disable-uvicorn-access-log"]
    if adapter is None:
        found += ["--served-model-name", policy.name, *policy.aliases]
    else:
        rank = saved_config(adapter).r
        found += ["--enable-lora", "--max-lora-rank", str(next((most for most in RANKS if most >= rank), rank))]
        found += ["--max-loras", "1", "--lora-modules", f"{policy.name}={adapter.resolve()}"]
        found += ["--served-model-name", f"{base.resolve().name}-without-{policy.name}"]
    if not on_gpu():
        found += ["--enforce-eager"]  # compiling takes minutes and gains little on a small model
    return found


def ask(address: Address, policy: Named, dtype: Dtype) -> None:
    """Raise ModelError unless the server computes what the policy's trainer did."""
    canary = read_canary(policy.folder)
    if canary is None:
        return

    async def logprobs(ids: Sequence[int]) -> list[float]:
        return await asyncio.to_thread(prompt_logprobs, address, policy.name, ids)

    asyncio.run(ask_engine(logprobs, canary, policy.folder, dtype))


def prompt_logprobs(address: Address, model: str, ids: Sequence[int]) -> list[float]:
    """Of every token of a stream but the first, as the server computes them. Raises StepToolError where it refuses."""
    asked = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    answer = _post(f"{address.url}/v1/completions", asked)
    found = answer["choices"][0]["prompt_logprobs"]
    return [float(at[str(token)]["logprob"]) for token, at in zip(ids[1:], found[1:], strict=True)]


def _post(url: str, body: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310  always http
    try:
        with urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
            return json.loads(answer.read())
    except HTTPError as error:
        raise StepToolError(f"answers {error.code}: {error.read(500).decode(errors='replace')}", where=url) from error
    except (URLError, OSError) as error:
        raise StepToolError(f"does not answer: {reason(error)}", where=url) from error


def greeting(policy: Named, address: Address) -> str:
    names, hello = " or ".join((policy.name, *policy.aliases)), [{"role": "user", "content": "Hello"}]
    body = json.dumps({"model": policy.name, "messages": hello})
    return f"""{address.url}/v1 serves {names}
  curl -s {address.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'
  from openai import OpenAI; client = OpenAI(base_url="{address.url}/v1", api_key="none")
The log is {FOLDER / NAME}.log. Ctrl-C ends the server."""


def last_words(log: Path, lines: int = 5) -> str:
    """The end of a log, without the frames of tracebacks."""
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(line.strip() for line in said[-lines:]) or "its log is empty"
