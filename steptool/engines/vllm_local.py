"""vLLM inside this process, on a CPU or a GPU.

Its settings for a CPU, measured on SmolLM2-135M with two cores and without AMX: two thirds of the time
go into matrix products that run at the processor's peak, a sixth into attention, so what counts is how
few tokens are computed, and in which type (steptool.policies.precision). Hence small cache blocks, as
only whole blocks of what one turn computed are reused by the next, and a cache that holds the turns of
all trajectories in flight.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from steptool.core.errors import ModelError, reason
from steptool.core.plugins import NoSettings
from steptool.core.storage import PULL, restore
from steptool.engines.base import Generation, Request
from steptool.engines.pump import Pump
from steptool.system.memory import return_freed_memory, without_garbage_collection

CPU_CACHE_BYTES = 2 << 30
"""Most memory for keys and values on a CPU, and never over a quarter of the machine's. SmolLM2-135M takes
45 KiB a token in float32, half of it in bfloat16."""
CPU_BLOCK_TOKENS = 32
"""Tokens of one cache block: the fewest that vLLM's CPU attention has; its own choice is 128."""
STEPS_BETWEEN_RETURNS = 100
"""Steps after which free memory is given back: in fragments, it grows by some MiB a second."""
MAX_BATCH_TOKENS = 4096
"""Prompt tokens of one step: more delay the requests that are already generating."""


class VllmEngine:
    """Generates with the model in a folder (config, tokenizer, safetensors).

    concurrency: most requests in one batch; more may wait. max_model_len: tokens, prompt included.
    What is sampled depends on `seed`, the request and its own seed. The requests beside it change no more than
    the rounding of a batch's matrix products, some 1e-6 of a log-probability; run again, even that is the same.
    Raises ModelError for a folder that lacks a part, before vLLM is imported, or that vLLM cannot load.
    """

    name: ClassVar[str] = "vllm"

    def __init__(
        self,
        config: NoSettings,
        policy: Path,
        *,
        dtype: Literal["float32", "bfloat16"],
        max_model_len: int,
        concurrency: int,
        seed: int,
    ) -> None:
        check_model_dir(policy)
        _configure_process()
        self._seed = seed
        options = {
            "dtype": dtype,
            "max_model_len": max_model_len,
            "max_num_seqs": concurrency,
            "max_num_batched_tokens": max(MAX_BATCH_TOKENS, max_model_len),
            "seed": seed,
        }
        try:
            with warnings.catch_warnings(), without_garbage_collection():
                warnings.simplefilter("ignore", FutureWarning)  # about PyTorch, from inside vLLM
                self._pump = Pump(lambda: _Vllm(policy, options))
        except Exception as fault:
            raise _cannot_load(policy, fault) from fault

    async def generate(self, request: Request) -> Generation:
        """Log-probabilities are those of the distribution sampled from, after temperature and top-p.

        Greedy decoding (temperature 0) reports the model's own, at temperature 1. Raises what vLLM raises:
        to this caller alone, for a prompt that does not fit, or where steps fail on this request (see `pump`).
        """
        return await self._pump.generate(request.seeded(self._seed))

    async def logprobs(self, ids: Sequence[int]) -> Sequence[float]:
        """Of every token but the first, at temperature 1, once nothing is generating."""
        return await asyncio.to_thread(self._pump.between, lambda vllm: vllm.logprobs(ids))

    def load(self, policy: Path) -> None:
        """Swap in the weights of another model of the same architecture, once nothing is generating."""
        check_model_dir(policy)
        try:
            self._pump.between(lambda vllm: vllm.reload(policy))
        except Exception as fault:
            raise _cannot_load(policy, fault) from fault

    def close(self) -> None:
        """Free the model. Requests still running fail. May be called twice."""
        self._pump.close()


class _Vllm:
    """vLLM's engine as a pump's backend."""

    def __init__(self, model_dir: Path, options: dict[str, Any]) -> None:
        import torch
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        on_cpu: dict[str, Any] = {}
        if current_platform.is_cpu():
            # The one function that vLLM compiles all the same ranks log-probabilities: 4 s for nothing.
            torch.compiler.set_stance("force_eager")
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            from steptool.engines import cpu_kernels

            cpu_kernels.register()
            on_cpu = {
                "ir_op_priority": cpu_kernels.PRIORITY,
                "block_size": CPU_BLOCK_TOKENS,
                "kv_cache_memory_bytes": min(CPU_CACHE_BYTES, memory // 4),
                "enforce_eager": True,  # compiling takes minutes and gains little on a small model
            }
        arguments = EngineArgs(
            model=str(model_dir),
            skip_tokenizer_init=True,
            trust_remote_code=False,
            generation_config="vllm",  # that is, none: nothing but the caller's stop_ids stops a request
            distributed_executor_backend="uni",
            enable_prefix_caching=True,
            # A prompt computed in parts would rewind its request's random generator, which PyTorch's CPU
            # generator cannot do: vLLM then fails the whole batch.
            enable_chunked_prefill=False,
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **options,
            **on_cpu,
        )
        self._llm = LLMEngine.from_engine_args(arguments)
        self._steps = 0

    def add(self, id: str, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop_token_ids=list(request.stop_ids),
            logprobs=0,  # of the sampled token alone
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._llm.add_request(id, tokens_input(list(request.prompt_ids)), params)

    def step(self) -> list[tuple[str, Generation]]:
        self._steps += 1
        if self._steps % STEPS_BETWEEN_RETURNS == 0:
            return_freed_memory()
        return [(output.request_id, _read(output.outputs[0])) for output in self._llm.step() if output.finished]

    def logprobs(self, ids: Sequence[int]) -> list[float]:
        """To be called while nothing is running. What it leaves in the cache of prefixes is let go."""
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        self._llm.add_request("logprobs", tokens_input(list(ids)), params)
        ended: list[Any] = []
        while not ended:
            ended = [output for output in self._llm.step() if output.finished]
        self._llm.reset_prefix_cache()
        return [at[token].logprob for token, at in zip(ids[1:], ended[0].prompt_logprobs[1:], strict=True)]

    def abort(self, ids: list[str]) -> None:
        self._llm.abort_request(ids)

    def recover(self) -> None:
        """The scheduler counts blocks as cached before they are computed, and the model keeps what it computed for a
        sampler that failed: both would be taken for results of the next step."""
        self._llm.collective_rpc(_forget_step)
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM still holds cache blocks of a failed step")

    def reload(self, model_dir: Path) -> None:
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(model_dir)})
        self._llm.apply_model(_repack_head)
        self._llm.reset_prefix_cache()  # keys and values of the old weights
        return_freed_memory()

    def close(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()


def _forget_step(worker: Any) -> None:
    worker.model_runner.execute_model_state = None


def _repack_head(model: Any) -> None:
    """Let the output layer follow embeddings that it is tied to.

    On a CPU vLLM keeps a packed copy of every matrix, and a reload renews those named in the checkpoint.
    A tied output layer is not named there: it would go on with the old weights, without a word.
    """
    head = getattr(model, "lm_head", None)
    if head is not None:
        head.quant_method.process_weights_after_loading(head)


def _read(completion: Any) -> Generation:
    ids = tuple(completion.token_ids)
    logprobs = tuple(at[token].logprob for token, at in zip(ids, completion.logprobs, strict=True))
    return Generation(ids, logprobs, stopped=completion.finish_reason == "stop")


def check_model_dir(folder: Path) -> None:
    """Raise ModelError where a model folder lacks its config, tokenizer or weights."""
    if not folder.is_dir():
        raise ModelError("no such model folder", where=str(folder), fix=PULL)
    needs = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "*.safetensors"}
    missing = [f"{what} ({pattern})" for what, pattern in needs.items() if not any(folder.glob(pattern))]
    if missing:
        raise ModelError(f"no {', no '.join(missing)}", where=str(folder), fix=restore(folder))


def _cannot_load(folder: Path, fault: Exception) -> ModelError:
    return ModelError(
        f"vLLM cannot load it: {reason(fault)}",
        where=str(folder),
        fix="check that its weights are whole, its architecture is one of vLLM's, and memory is left for it",
    )


def _configure_process() -> None:
    """Settings that vLLM reads from the environment when it is imported; what the user has set stands."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about what is chosen here on purpose
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(cores),  # vLLM falls back to a single thread where this is not set
    }.items():
        os.environ.setdefault(name, value)
    # It prints every prompt of a step that failed; what is done about one, `pump` says in a line.
    logging.getLogger("vllm.logging_utils.dump_input").setLevel(logging.CRITICAL)
    # Some are given before vLLM has set its own logging up.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
