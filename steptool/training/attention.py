"""Attention over a packed row, span by span.

Each span attends to its prefix and causally to itself (`steptool.training.batch.Span`), computed as
separate calls of PyTorch's scaled dot product. A dense mask over the row gives the same numbers, but
pays for every pair of tokens in it: the cost here is that of the trajectories alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from steptool.training.batch import Span

SPAN_ATTENTION = "steptool_spans"
"""Name to pass as `attn_implementation`; the model's forward then needs `spans`."""


def span_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sequence[Span],
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed row: query [1, heads, L, d], key and value [1, kv_heads, L, d] -> [1, L, heads, d].

    `attention_mask` is ignored: the spans say it all. They must cover the row in order.
    """
    outputs = []
    for span in spans:
        own = slice(span.start, span.stop)
        k, v, mask = key[:, :, own], value[:, :, own], None
        if span.prefix:
            parts = [slice(*part) for part in span.prefix] + [own]
            k, v = (torch.cat([x[:, :, part] for part in parts], 2) for x in (key, value))
            mask = _prefix_mask(span.stop - span.start, k.shape[2] - (span.stop - span.start), query)
        output, _weights = sdpa_attention_forward(
            module, query[:, :, own], k, v, mask, scaling=scaling, is_causal=mask is None
        )
        outputs.append(output)
    return torch.cat(outputs, 1), None


def _prefix_mask(length: int, prefix: int, like: Tensor) -> Tensor:
    """[1, 1, length, prefix + length], 0 where seen. Additive: PyTorch's CPU kernel is twice as slow with booleans."""
    mask = torch.full((length, prefix + length), float("-inf"), dtype=like.dtype, device=like.device)
    return mask.triu(prefix + 1)[None, None]


AttentionInterface.register(SPAN_ATTENTION, span_attention)
