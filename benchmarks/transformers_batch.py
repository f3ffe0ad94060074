"""Transformers as an engine that batches, for a machine with a GPU where vLLM is not installed.

engine: {use: 'benchmarks.transformers_batch:TransformersEngine'}

    a step     every action that is being sampled gets its next token, all in one forward pass; prompts that have come
               in are read in passes of their own first, and get their first
    slots      a row of keys and values for each action in flight; a prompt takes a free one, and leaves it with its
               last token. Nothing of a slot is used again: on a GPU a prompt of this size is read in no time
    graphs     a pass over tokens is a thousand small kernels, and to start them takes longer than they run. On a GPU a
               pass of one shape is recorded once and replayed

It computes every architecture whose attention is plain, and refuses others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from steptool.core.errors import ModelError, reason
from steptool.core.fields import Settings
from steptool.engines.base import Generation, Request
from steptool.engines.pump import Pump
from steptool.policies.canary import TOLERANCE
from steptool.policies.folder import merged_model, resolve_policy
from steptool.policies.model_folder import load_model
from steptool.training import decoder

SLOT_ATTENTION = "steptool_slots"
ROWS, TOKENS = 32, 256
"""A decoding pass is over a multiple of so many slots, and of so many of their tokens: few shapes to record."""
PROMPT_TOKENS = 1 << 13
"""Most tokens of prompts that are read in one pass, padding included."""
CHECKED = 24
"""Tokens by which a model is compared with Transformers' own forward pass; half of them are read, half are decoded."""
WINDOW = 8
"""Tokens of a sliding window there."""


class TransformersEngine:
    """Generates with the policy in a folder, plain or adapter, on the GPU where there is one.

    concurrency: slots; more requests may wait. max_model_len: tokens of a slot, prompt included.
    What is sampled depends on `seed`, the request and its own seed; the requests beside it change no more than the
    rounding of a batch's matrix products. Raises ModelError for a folder that lacks a part, and for an architecture
    that is not computed here as Transformers computes it.
    """

    name: ClassVar[str] = "transformers"
    takes_adapters: ClassVar[bool] = True

    class Config(Settings):
        graphs: bool = True
        """Record decoding passes on a GPU. It changes nothing but the time."""

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
        self._seed = seed
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

        def build() -> _Batch:
            model = _model_of(policy, dtype, device)
            return _Batch(model, max_model_len, concurrency, graphs=config.graphs and device.type == "cuda")

        self._pump: Pump[_Batch] = Pump(build)
        self._dtype: Literal["float32", "bfloat16"] = dtype
        self._device = device

    async def generate(self, request: Request) -> Generation:
        """Log-probabilities are those of the distribution sampled from, after temperature and top-p.

        Greedy decoding (temperature 0) reports the model's own, at temperature 1. Raises ValueError for a prompt that
        does not fit.
        """
        return await self._pump.generate(request.seeded(self._seed))

    async def logprobs(self, ids: Sequence[int]) -> Sequence[float]:
        """Of every token but the first, at temperature 1, once nothing is generating."""
        return await asyncio.to_thread(self._pump.between, lambda batch: batch.logprobs(ids))

    def load(self, policy: Path) -> None:
        """Take another policy, once nothing is generating."""
        self._pump.between(lambda batch: batch.take(_model_of(policy, self._dtype, self._device)))

    def close(self) -> None:
        """Free the model. Requests still running fail. May be called twice."""
        self._pump.close()


@dataclass(eq=False)
class _Running:
    """An action that is being sampled."""

    id: str
    request: Request
    random: Random
    slot: int = -1
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def place(self) -> int:
        """Where its latest token stands in the stream."""
        return len(self.request.prompt_ids) + len(self.ids) - 1


class _Batch:
    """A model and its slots, as a pump's backend."""

    def __init__(self, model: PreTrainedModel, max_model_len: int, slots: int, *, graphs: bool) -> None:
        self._model, self._longest, self._graphs = model, max_model_len, graphs
        self._count = -(-slots // ROWS) * ROWS
        self._aside: torch.cuda.Stream | None = None
        """Where passes are recorded: every stream has a workspace of its own for matrix products."""
        self._waiting: list[_Running] = []
        self._running: list[_Running] = []
        self._free = sorted(range(slots), reverse=True)
        self._prepare()

    def take(self, model: PreTrainedModel) -> None:
        """Another model. One of the same architecture moves into the place of the old one, whose recorded passes go on
        to hold."""
        old, new = self._model.state_dict(), model.state_dict()
        if _architecture(self._model) == _architecture(model) and old.keys() == new.keys():
            self._model.load_state_dict(new)
            self._check()
        else:
            self._model = model
            self._prepare()

    def add(self, id: str, request: Request) -> None:
        if len(request.prompt_ids) >= self._longest:
            length = len(request.prompt_ids)
            raise ValueError(f"the prompt has {length} tokens, no fewer than the {self._longest} of a stream")
        self._waiting.append(_Running(id, request, Random(request.seed)))

    @torch.no_grad()
    def step(self) -> list[tuple[str, Generation]]:
        scores = [self._next(self._running)] if self._running else []
        for prompts in self._begin():
            scores.append(self._read(prompts))
            self._running += prompts
        ids, logprobs = _sampled(torch.cat(scores), self._running)
        ended = []
        for each, token, logprob in zip(self._running, ids, logprobs, strict=True):
            each.ids.append(token)
            each.logprobs.append(logprob)
            stopped = token in each.request.stop_ids
            if stopped or len(each.ids) == each.request.max_tokens or each.place + 1 == self._longest:
                ended.append((each.id, Generation(tuple(each.ids), tuple(each.logprobs), stopped=stopped)))
        self.abort([id for id, _ in ended])
        return ended

    @torch.no_grad()
    def logprobs(self, ids: Sequence[int]) -> list[float]:
        """To be called while nothing is running."""
        hidden = self._hidden([ids], [0])[0, :-1]
        scores = decoder.logits(self._model, hidden).float().log_softmax(-1)
        found: list[float] = scores.gather(1, self._tensor(ids[1:])[:, None])[:, 0].tolist()
        return found

    def abort(self, ids: list[str]) -> None:
        gone = set(ids)
        self._free += [each.slot for each in self._running if each.id in gone]
        self._free.sort(reverse=True)  # the lowest slots are taken first: a pass is over those below the highest
        self._running = [each for each in self._running if each.id not in gone]
        self._waiting = [each for each in self._waiting if each.id not in gone]

    def recover(self) -> None:
        """A slot is read up to its own tokens alone, so what a failed step left in it does no harm."""

    def close(self) -> None:
        del self._model, self._cache
        self._recorded.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _prepare(self) -> None:
        """Make the slots for the model, and see that it is computed right."""
        config, embeddings = self._model.config.get_text_config(), self._embeddings()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = 2, config.num_hidden_layers, self._count, heads, self._longest, size
        self._cache = embeddings.new_zeros(shape)
        """[keys and values, layers, slots, heads, places, size of a head]"""
        self._fed = torch.zeros((2, self._count), dtype=torch.long, device=embeddings.device)
        """For each slot the token to be read next, and its place."""
        self._places = torch.arange(self._longest, device=embeddings.device)
        self._recorded: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._check()

    def _embeddings(self) -> Tensor:
        embeddings: Any = self._model.get_input_embeddings()
        weight: Tensor = embeddings.weight
        return weight

    @torch.no_grad()
    def _check(self) -> None:
        """Raise ModelError unless slots give what Transformers' own forward pass gives for a few tokens."""
        ids = [(7 * place) % len(self._embeddings()) for place in range(min(CHECKED, self._longest))]
        half = len(ids) // 2
        where = str(self._model.config._name_or_path)
        try:
            with decoder.small_window(self._model, WINDOW):
                kept = [decoder.logits(self._model, self._hidden([ids[:half]], [0])[0])]
                for place, token in enumerate(ids[half:], start=half):
                    kept.append(self._decoded({0: (token, place)})[:1].clone())
                gaps = decoder.difference(self._model, self._tensor(ids), torch.cat(kept))
        except Exception as error:
            raise _unsupported(self._model, reason(error), where) from error
        most = TOLERANCE["bfloat16" if self._cache.dtype == torch.bfloat16 else "float32"]
        found = float(gaps.median() if self._cache.dtype == torch.bfloat16 else gaps.max())
        if not found <= most:  # nor NaN
            raise _unsupported(self._model, f"its log-probabilities differ by {found:.2g} nats", where)

    def _begin(self) -> list[list[_Running]]:
        """Give waiting prompts the free slots; those that are read in one pass together."""
        begun = self._waiting[: len(self._free)]
        self._waiting = self._waiting[len(begun) :]
        for each in begun:
            each.slot = self._free.pop()
        batches: list[list[_Running]] = []
        for each in sorted(begun, key=lambda each: len(each.request.prompt_ids)):  # the longest sets the width
            width = len(each.request.prompt_ids)
            if not batches or (len(batches[-1]) + 1) * width > PROMPT_TOKENS:
                batches.append([])
            batches[-1].append(each)
        return batches

    def _read(self, prompts: Sequence[_Running]) -> Tensor:
        """[N, vocabulary] scores of what follows each prompt."""
        streams = [each.request.prompt_ids for each in prompts]
        hidden = self._hidden(streams, [each.slot for each in prompts])
        last = self._tensor([len(stream) - 1 for stream in streams])
        return decoder.logits(self._model, hidden[torch.arange(len(streams), device=last.device), last])

    def _hidden(self, streams: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        """[N, longest, hidden] of streams, padded at their ends; their keys and values are in the slots then."""
        width = max(map(len, streams))
        ids = self._tensor([[*stream, *(0,) * (width - len(stream))] for stream in streams])
        places = self._places[None, :width].expand(len(streams), -1)
        seen = self._places[None, :width] <= self._places[:width, None]
        return self._forward(ids, places, _mask(seen, self._cache)[None, None], _Read(self._cache, self._tensor(slots)))

    def _next(self, running: Sequence[_Running]) -> Tensor:
        """[N, vocabulary] scores of what follows each latest token."""
        scores = self._decoded({each.slot: (each.ids[-1], each.place) for each in running})
        return scores[self._tensor([each.slot for each in running])]

    def _decoded(self, fed: dict[int, tuple[int, int]]) -> Tensor:
        """[slots up to the highest, vocabulary] scores after slots have read a token at a place."""
        rows = -(-(max(fed) + 1) // ROWS) * ROWS
        length = min(self._longest, -(-(max(place for _, place in fed.values()) + 1) // TOKENS) * TOKENS)
        given = [fed.get(slot, (0, 0)) for slot in range(rows)]  # what an idle slot reads, nobody sees
        self._fed[:, :rows] = self._tensor(given).T
        if not self._graphs:
            return self._pass(rows, length)
        if (rows, length) not in self._recorded:
            self._recorded[rows, length] = self._record(rows, length)
        graph, scores = self._recorded[rows, length]
        graph.replay()
        return scores

    def _record(self, rows: int, length: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A decoding pass of that shape, and where its replay leaves the scores."""
        self._aside = self._aside or torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(self._aside):
            self._pass(rows, length)  # what is made at a first run must not be recorded
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._recorded.values()))[0].pool() if self._recorded else None
        with torch.cuda.graph(graph, pool=pool, stream=self._aside, capture_error_mode="thread_local"):
            scores = self._pass(rows, length)
        return graph, scores

    def _pass(self, rows: int, length: int) -> Tensor:
        """[rows, vocabulary]: the lowest slots read the tokens that they are fed, and see `length` places at most."""
        ids, places = self._fed[0, :rows, None], self._fed[1, :rows, None]
        mask = _mask(self._places[None, :length] <= places, self._cache)[:, None, None]
        hidden = self._forward(ids, places, mask, _Decode(self._cache[:, :, :rows], places[:, 0], length))
        return decoder.logits(self._model, hidden[:, 0])

    def _forward(self, ids: Tensor, places: Tensor, mask: Tensor, cache: Any) -> Tensor:
        body: Any = self._model.base_model
        hidden: Tensor = body(
            input_ids=ids, position_ids=places, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return hidden

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._embeddings().device)


class _Read:
    """Keys and values of whole streams go into `slots` [N]; the streams see their own."""

    def __init__(self, cache: Tensor, slots: Tensor) -> None:
        self._cache, self._slots = cache, slots

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for kept, new in zip(self._cache[:, layer], (key, value), strict=True):
            kept[self._slots, :, : new.shape[2]] = new.to(kept.dtype)
        return key, value


class _Decode:
    """Keys and values of one token go to its place [N] in every slot; the slots see their first `length` places."""

    def __init__(self, cache: Tensor, places: Tensor, length: int) -> None:
        self._cache, self._places, self._length = cache, places, length
        self._slots = torch.arange(len(places), device=places.device)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for kept, new in zip(self._cache[:, layer], (key, value), strict=True):
            kept[self._slots, :, self._places] = new[:, :, 0].to(kept.dtype)
        keys, values = self._cache[:, layer, :, :, : self._length]
        return keys, values


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(q·kᵀ·scaling + mask)·v: query [N, heads, L, d], key and value [N, kv_heads, K, d] -> [N, L, heads, d].

    The heads that share a key stand below one another as one matrix, so keys and values are never copied for them.
    What else an architecture passes is ignored, which the engine notices when it loads it.
    """
    count, heads, length, size = query.shape
    groups = key.shape[1]
    stacked = (query * (size**-0.5 if scaling is None else scaling)).reshape(count, groups, -1, size)
    scores = (stacked @ key.transpose(2, 3)).view(count, heads, length, -1)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    weights = F.softmax(scores + attention_mask, -1, dtype=torch.float32).to(value.dtype)
    output = weights.view(count, groups, heads // groups * length, -1) @ value
    return output.view(count, heads, length, -1).transpose(1, 2), None


AttentionInterface.register(SLOT_ATTENTION, slot_attention)


def _mask(seen: Tensor, like: Tensor) -> Tensor:
    """0 where seen."""
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(~seen, float("-inf"))


def _sampled(logits: Tensor, running: Sequence[_Running]) -> tuple[list[int], list[float]]:
    """A token for each row of `logits` [N, vocabulary], and its log-probability.

    A row of temperature above 0 is sampled by one random number of its own: the first token at which the sum of the
    probabilities exceeds it.
    """

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    requests = [each.request for each in running]
    scores = (logits.float() / column([each.temperature or 1.0 for each in requests]).float()).log_softmax(-1)
    ids = scores.argmax(-1)
    hot = [row for row, each in enumerate(requests) if each.temperature > 0]
    if hot:
        rows = torch.tensor(hot, device=logits.device)
        own = scores[rows]
        if any(requests[row].top_p < 1 for row in hot):
            own = _nucleus(own, column([requests[row].top_p for row in hot]))
            scores[rows] = own
        sums = own.double().exp().cumsum(-1)
        wanted = column([running[row].random.random() for row in hot]) * sums[:, -1:]
        ids[rows] = torch.searchsorted(sums, wanted, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)
    chosen = scores.gather(1, ids[:, None])[:, 0]
    return ids.tolist(), chosen.tolist()


def _nucleus(scores: Tensor, top_p: Tensor) -> Tensor:
    """Log-probabilities of the likeliest tokens that together have `top_p` [N, 1], and no others."""
    ordered, order = scores.sort(-1, descending=True)
    before = ordered.double().exp().cumsum(-1) - ordered.double().exp()
    left_out = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, before >= top_p)
    left_out.scatter_(1, order[:, :1], value=False)
    return scores.masked_fill(left_out, float("-inf")).log_softmax(-1)


def _model_of(policy: Path, dtype: str, device: torch.device) -> PreTrainedModel:
    base, adapter = resolve_policy(policy)
    wanted: torch.dtype = getattr(torch, dtype)
    if adapter is None:
        model: Any = load_model(base, dtype=wanted).to(device)
    else:
        model = merged_model(base, adapter, dtype=dtype, device=device)
    model.set_attn_implementation(SLOT_ATTENTION)
    model.config._name_or_path = str(policy)
    found: PreTrainedModel = model.eval()
    return found


def _architecture(model: PreTrainedModel) -> dict[str, Any]:
    described: dict[str, Any] = model.config.to_dict()
    written = ("_name_or_path", "dtype", "transformers_version", "use_cache")
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: value for key, value in described.items() if key not in (*written, *tokens)}


def _unsupported(model: PreTrainedModel, why: str, where: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} is not computed by this engine as by Transformers itself: {why}",
        where=where,
        fix="set engine: {use: vllm}",
    )
