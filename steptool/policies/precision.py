"""The number type of the computation: bfloat16 where the hardware is fast at it, float32 elsewhere.

Weights that train stay in float32 and are rounded for each product (autocast): an update is often smaller than
what bfloat16 can tell apart. Whether a processor is fast at bfloat16 is timed: of two without AMX, one
multiplied 2.2 times faster than in float32 (Zen 4, which has `avx512_bf16`), the other took twice as long.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from steptool.config.settings import ModelParams

Dtype = Literal["float32", "bfloat16"]

_TOKENS, _INPUTS, _OUTPUTS = 512, 576, 1536
_ROUNDS = 40
_WORTH = 1.3
"""How much faster bfloat16 must be to be worth its rounding. Measured processors are far above or far below it."""


def compute_dtype(wanted: ModelParams) -> Dtype:
    """The type that `model.dtype` stands for on this machine."""
    if wanted.dtype != "auto":
        return wanted.dtype
    if on_gpu():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if bfloat16_speedup() > _WORTH else "float32"


def on_gpu() -> bool:
    return torch.cuda.is_available()


@cache
@torch.no_grad()
def bfloat16_speedup() -> float:
    """How many times faster this processor's linear layers are in bfloat16; takes half a second.

    Short products on one thread, in both types by turns, and the fastest of each: other work on the machine slows
    most of them down, but not all.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [[_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)] for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    exact, rounded = map(min, zip(*rounds, strict=True))
    return exact / rounded


def autocast(model: PreTrainedModel) -> torch.autocast:
    """Matrix products in the type of the model's embeddings, which never train; nothing changes for float32."""
    kept: Any = model.get_input_embeddings()
    enabled = kept.weight.dtype == torch.bfloat16
    return torch.autocast(kept.weight.device.type, dtype=torch.bfloat16, enabled=enabled)


def _seconds(dtype: torch.dtype) -> float:
    inputs, weight = torch.ones(_TOKENS, _INPUTS, dtype=dtype), torch.ones(_OUTPUTS, _INPUTS, dtype=dtype)
    started = time.perf_counter()
    F.linear(inputs, weight)
    return time.perf_counter() - started
