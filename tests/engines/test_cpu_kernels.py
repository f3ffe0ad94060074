"""The norms that vLLM is told to use on a CPU compute what its own do.

y = x / sqrt(mean(x²) + ε) · w        before it, for the sum: x ← x + residual
"""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.slow  # loading vLLM takes ten seconds
EPSILON = 1e-5


@pytest.fixture(scope="module")
def ops() -> object:
    pytest.importorskip("vllm")
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("for CPUs")
    import vllm._custom_ops  # noqa: F401 - loads the kernels
    from vllm import ir

    from steptool.engines import cpu_kernels

    cpu_kernels.register()
    cpu_kernels.register()  # a second engine of the process
    return ir.ops


def by_hand(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.pow(2).mean(-1, keepdim=True) + EPSILON).sqrt() * weight.double()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_kernels_are_the_norms(ops: object, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(7, 64, generator=generator).to(dtype) for _ in range(2))
    weight = torch.rand(64, generator=generator).to(dtype)
    plain = ops.rms_norm.impls["steptool_cpu"]  # type: ignore[attr-defined]
    summed = ops.fused_add_rms_norm.impls["steptool_cpu"]  # type: ignore[attr-defined]
    out = plain.impl_fn(x, weight, EPSILON)
    torch.testing.assert_close(out.double(), by_hand(x, weight), atol=tolerance, rtol=tolerance)
    total = x + residual
    out, kept = summed.impl_fn(x.clone(), residual.clone(), weight, EPSILON)
    torch.testing.assert_close(out.double(), by_hand(total, weight), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(kept, total)


def test_a_norm_of_part_of_a_state_or_without_a_weight_is_left_to_vllm(ops: object) -> None:
    x, weight = torch.ones(2, 64), torch.ones(64)
    fits = ops.rms_norm.impls["steptool_cpu"].supports_args  # type: ignore[attr-defined]
    assert fits(x, weight, EPSILON)
    assert not fits(x, None, EPSILON)
    assert not fits(x, weight, EPSILON, 32)
    assert not fits(x, weight.bfloat16(), EPSILON)
