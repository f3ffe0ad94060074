"""Attention over a packed row, span by span.

Each span attends to its prefix and causally to itself (`steptool.training.batch.Span`), computed as
separate products. A dense mask over the row gives the same numbers, but pays for every pair of tokens
in it: the cost here is that of the trajectories alone.

On a GPU a span is one call of PyTorch's scaled dot product. On a CPU its backward pass in bfloat16 takes
two and a half times as long as plain products do, a third of a training step; in float32 they are even.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from steptool.training.batch import Span

SPAN_ATTENTION = "steptool_spans"
"""Name to pass as `attn_implementation`; the model's forward then needs `spans`."""

PLAIN = ("cpu",)
"""Devices on which plain products are as fast as PyTorch's own attention, or faster."""


def span_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sequence[Span],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed row: query [1, heads, L, d], key and value [1, kv_heads, L, d] -> [1, L, heads, d].

    `attention_mask` is ignored: the spans say it all. They must cover the row in order. With a `sliding_window` a
    token sees itself and those fewer than that many places before it; `softcap` bounds the scores by its tanh.
    What else an architecture passes is ignored, which `PolicyWithValue.check_computation` notices.
    """
    outputs = []
    for span in spans:
        own = slice(span.start, span.stop)
        k, v = key[:, :, own], value[:, :, own]
        if span.prefix:
            parts = [slice(*part) for part in span.prefix] + [own]
            k, v = (torch.cat([x[:, :, part] for part in parts], 2) for x in (key, value))
        length, window = span.stop - span.start, sliding_window
        if window is not None and window >= k.shape[2]:
            window = None
        if query.device.type in PLAIN or softcap is not None:
            outputs.append(_plain_attention(query[:, :, own], k, v, scaling, window, softcap))
        else:
            masked = span.prefix or window is not None
            mask = _mask(length, k.shape[2] - length, window, query) if masked else None
            output, _weights = sdpa_attention_forward(
                module, query[:, :, own], k, v, mask, scaling=scaling, is_causal=mask is None
            )
            outputs.append(output)
    return torch.cat(outputs, 1), None


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    """softmax(q·kᵀ·scaling + mask)·v of a span: query [1, heads, L, d], key and value [1, kv_heads, P + L, d] ->
    [1, L, heads, d].

    The heads that share a key stand below one another as one matrix, so keys and values are never copied for them.
    """
    _, heads, length, size = query.shape
    groups = key.shape[1]
    stacked = (query * (size**-0.5 if scaling is None else scaling)).reshape(1, groups, -1, size)
    scores = (stacked @ key.transpose(2, 3)).view(1, heads, length, -1)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    weights = F.softmax(scores + _mask(length, key.shape[2] - length, window, scores), -1, dtype=torch.float32)
    output = weights.to(value.dtype).view(1, groups, heads // groups * length, -1) @ value
    return output.view(1, heads, length, value.shape[-1]).transpose(1, 2)


def _mask(length: int, prefix: int, window: int | None, like: Tensor) -> Tensor:
    """[1, 1, length, prefix + length], 0 where seen. Additive: PyTorch's CPU kernel is twice as slow with booleans.

    Keys stand in the order of the trajectory, so the query in line i is in place `prefix + i` of it.
    """
    unseen = torch.full((length, prefix + length), float("-inf"), dtype=like.dtype, device=like.device)
    mask = unseen.triu(prefix + 1)
    return (mask if window is None else mask + unseen.tril(prefix - window))[None, None]


AttentionInterface.register(SPAN_ATTENTION, span_attention)
