"""vLLM inside this process: rollouts await tokens on the event loop while one worker thread drives the engine.

    event loop      generate → inbox                     future resolved → tool call → generate → …
    worker thread   inbox → add_request · step · step · step → outbox

Trajectories are batched token by token, whichever step they are at: one that waits for its tool holds up
nobody. The engine is built and stepped by the same thread, as OpenMP keeps a team of threads per caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal, TypeVar

from steptool.errors import ModelError
from steptool.rollouts.rollout import Generation
from steptool.types import content_hash

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

CPU_CACHE_BYTES = 4 << 30
"""Most memory for keys and values on a CPU (never over a quarter of the machine's): what one turn computed
is still there at the next. A 135M model takes 45 KiB a token in float32."""
CPU_BLOCK_TOKENS = 32
"""Tokens of one cache block on a CPU: only whole blocks of a shared prefix are reused, and vLLM's 128 are a
third of a prompt."""
MAX_BATCH_TOKENS = 4096
"""Prompt tokens of one step, at least: more delay the requests that are already generating."""


@dataclass(frozen=True)
class _Request:
    id: str
    prompt_ids: Sequence[int]
    options: dict[str, Any]
    reply: Callable[[Generation | Exception], None]


@dataclass(frozen=True)
class _Cancel:
    id: str


@dataclass(frozen=True)
class _Work:
    """Something to do on the worker thread once no request is running."""

    act: Callable[[], None]
    done: Future[None]

    def perform(self) -> None:
        try:
            self.act()
        except Exception as fault:  # noqa: BLE001 - raised again where the work was asked for
            self.done.set_exception(fault)
        else:
            self.done.set_result(None)


class Engine:
    """Generates with the model in a folder (config, tokenizer, safetensors). A context manager.

    concurrency: most requests in one batch; more may wait. max_model_len: tokens, prompt included.
    What is sampled depends on `seed`, the request and its own seed, not on the requests beside it (but for
    the rounding of a batch's matrix products, which can tip a token once in a great while).
    Raises ModelError, before vLLM is even imported, for a folder that lacks a part.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        dtype: Literal["float32", "bfloat16"],
        max_model_len: int,
        concurrency: int,
        seed: int,
    ) -> None:
        check_model_dir(model_dir)
        _configure_process()
        self._seed = seed
        self._options = {
            "dtype": dtype,
            "max_model_len": max_model_len,
            "max_num_seqs": concurrency,
            "max_num_batched_tokens": max(MAX_BATCH_TOKENS, max_model_len),
            "seed": seed,
        }
        self._inbox: queue.SimpleQueue[_Request | _Cancel | _Work | None] = queue.SimpleQueue()
        self._running: dict[str, _Request] = {}
        self._numbers = itertools.count()
        self._llm: Any = None
        self._thread = Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()
        try:
            self._on_worker(lambda: self._build(model_dir))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run rollouts to their end on an event loop of this thread."""
        return asyncio.run(coroutine)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
        stop_ids: Sequence[int],
    ) -> Generation:
        """Log-probabilities are those of the distribution sampled from, after temperature and top-p.

        Greedy decoding (temperature 0) reports the model's own, at temperature 1. Raises ValueError for a
        prompt that does not fit, and whatever vLLM raises, to this caller alone where it can tell.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Generation] = loop.create_future()

        def resolve(result: Generation | Exception) -> None:
            if future.done():  # cancelled while its tokens were on the way
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        request = _Request(
            id=str(next(self._numbers)),
            prompt_ids=prompt_ids,
            options={
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "seed": int(content_hash([self._seed, seed], 8), 16),
                "stop_token_ids": list(stop_ids),
            },
            reply=lambda result: _post(loop, resolve, result),
        )
        self._submit(request)
        try:
            return await future
        except asyncio.CancelledError:
            self._inbox.put(_Cancel(request.id))
            raise

    def reload(self, model_dir: Path) -> None:
        """Swap in the weights of another model of the same architecture; nothing may be generating."""
        check_model_dir(model_dir)
        self._on_worker(lambda: self._reload(model_dir))

    def close(self) -> None:
        """Stop the worker and free the model. Requests still running fail. May be called twice."""
        if self._thread.is_alive():
            self._inbox.put(None)
            self._thread.join()

    # Everything below runs on the worker thread, but for _submit and _on_worker.

    def _submit(self, item: _Request | _Work) -> None:
        if not self._thread.is_alive():
            raise RuntimeError("the engine is closed")
        self._inbox.put(item)

    def _on_worker(self, act: Callable[[], None]) -> None:
        work = _Work(act, Future())
        self._submit(work)
        work.done.result()

    def _work(self) -> None:
        """Take what has come in, step while anything is unfinished, sleep while nothing is."""
        try:
            while True:
                try:
                    item = self._inbox.get(block=not self._running)
                except queue.Empty:
                    self._step()
                    continue
                if item is None:
                    return
                if isinstance(item, _Request):
                    self._add(item)
                elif isinstance(item, _Cancel):
                    if self._running.pop(item.id, None):
                        self._llm.abort_request([item.id])
                else:
                    while self._running:
                        self._step()
                    item.perform()
        finally:
            closed = RuntimeError("the engine is closed")
            self._fail_all(closed)
            while not self._inbox.empty():
                left = self._inbox.get()
                if isinstance(left, _Request):
                    left.reply(closed)
                elif isinstance(left, _Work):
                    left.done.set_exception(closed)
            self._shut_down()

    def _add(self, request: _Request) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        try:
            params = SamplingParams(
                **request.options,
                logprobs=0,  # of the sampled token alone
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._llm.add_request(request.id, tokens_input(list(request.prompt_ids)), params)
        except Exception as fault:  # noqa: BLE001 - a request that vLLM refuses fails alone
            request.reply(fault)
        else:
            self._running[request.id] = request

    def _step(self) -> None:
        try:
            outputs = self._llm.step()
        except Exception as fault:  # no telling whose fault: all that are running fail, the next may succeed
            logger.exception("vLLM failed; %d requests are lost", len(self._running))
            self._llm.abort_request(list(self._running))
            self._fail_all(fault)
            return
        for output in outputs:
            if output.finished and (request := self._running.pop(output.request_id, None)):
                request.reply(_read(output.outputs[0]))

    def _fail_all(self, fault: Exception) -> None:
        for request in self._running.values():
            request.reply(fault)
        self._running.clear()

    def _build(self, model_dir: Path) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        on_cpu: dict[str, Any] = {}
        if current_platform.is_cpu():
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            on_cpu = {
                "block_size": CPU_BLOCK_TOKENS,
                "kv_cache_memory_bytes": min(CPU_CACHE_BYTES, memory // 4),
                "enforce_eager": True,  # compiling takes minutes and gains little on a small model
            }
        arguments = EngineArgs(
            model=str(model_dir),
            skip_tokenizer_init=True,
            distributed_executor_backend="uni",
            enable_prefix_caching=True,
            # A prompt computed in parts would rewind its request's random generator, which PyTorch's CPU
            # generator cannot do: vLLM then fails the whole batch.
            enable_chunked_prefill=False,
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **self._options,
            **on_cpu,
        )
        self._llm = LLMEngine.from_engine_args(arguments)

    def _reload(self, model_dir: Path) -> None:
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(model_dir)})
        self._llm.apply_model(_repack_head)
        self._llm.reset_prefix_cache()  # keys and values of the old weights

    def _shut_down(self) -> None:
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.engine_core.shutdown()
        self._llm = None
        cleanup_dist_env_and_memory()


def _repack_head(model: Any) -> None:
    """Let the output layer follow embeddings that it is tied to.

    On a CPU vLLM keeps a packed copy of every matrix, and a reload renews those named in the checkpoint.
    A tied output layer is not named there: it would go on with the old weights, without a word.
    """
    head = getattr(model, "lm_head", None)
    if head is not None:
        head.quant_method.process_weights_after_loading(head)


def check_model_dir(folder: Path) -> None:
    """Raise ModelError where a model folder lacks its config, tokenizer or weights."""
    if not folder.is_dir():
        raise ModelError("no such model folder", where=str(folder), fix="run `dvc repro`, or `dvc pull` it")
    needs = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "*.safetensors"}
    missing = [f"{what} ({pattern})" for what, pattern in needs.items() if not any(folder.glob(pattern))]
    if missing:
        fix = f"restore it with `dvc checkout {folder}`"
        raise ModelError(f"no {', no '.join(missing)}", where=str(folder), fix=fix)


def _configure_process() -> None:
    """Settings that vLLM reads from the environment when it is imported; what the user has set stands."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about what is chosen here on purpose
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(cores),  # vLLM falls back to a single thread where this is not set
    }.items():
        os.environ.setdefault(name, value)


def _read(completion: Any) -> Generation:
    ids = tuple(completion.token_ids)
    logprobs = tuple(at[token].logprob for token, at in zip(ids, completion.logprobs, strict=True))
    return Generation(ids, logprobs, stopped=completion.finish_reason == "stop")


def _post(
    loop: asyncio.AbstractEventLoop, resolve: Callable[[Generation | Exception], None], result: Generation | Exception
) -> None:
    """Hand a result to the event loop; where that has ended meanwhile, nobody is waiting for it."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(resolve, result)
