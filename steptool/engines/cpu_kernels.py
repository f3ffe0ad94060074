"""vLLM's own kernels for the norms of a model, which it leaves unused on a CPU.

There it computes a norm by a dozen PyTorch calls, each over the whole batch in float32: of SmolLM2-135M's time in
bfloat16 8 %, by its kernel 1 %. The kernels are compiled into its CPU build, and registered in the way that vLLM
documents. (Its kernel for the gated activation is slower than PyTorch's two calls, 2.0 s for 1.5, and stays unused.)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from vllm import ir

PROVIDER = "steptool_cpu"
PRIORITY = {"rms_norm": [PROVIDER], "fused_add_rms_norm": [PROVIDER]}
"""For vLLM's `ir_op_priority`; where a kernel does not fit its arguments, vLLM takes its own way."""


@cache
def register() -> None:
    """Offer the kernels to vLLM. Raises what vLLM raises where it has another interface."""
    kernels: Any = torch.ops._C

    def whole(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
        return variance_size is None and weight is not None and weight.dtype == x.dtype

    def whole_sum(
        x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: Any = None
    ) -> bool:
        return whole(x, weight, epsilon, variance_size)

    @ir.ops.rms_norm.register_impl(PROVIDER, supports_args=whole)
    def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
        out = torch.empty_like(x)
        kernels.rms_norm(out, x, weight, epsilon)
        return out

    @ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=whole_sum, inplace=True)
    def fused_add_rms_norm(
        x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        kernels.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual
