"""The canary of a policy: a few token streams, and what the trainer computes where training changed the policy most.

    ids        t0   t1   t2   t3   t4      a stream of what it was trained on
    at              1              4       the tokens whose log-probability changed most …
    logprobs      -0.1           -0.02     … in nats, as the trainer computes it after the training
    before        -2.3           -1.7      … and before

Whoever loads a policy computes the same tokens. Weights that are not loaded, old, scaled wrongly or of another base
raise no error by themselves; they show here. Measured on the default run's four policies (SmolLM2-135M, two cores): the
mean difference at the 64 tokens, in nats.

    the same policy      float32 in vLLM and in the trainer                                    0.00002
                         bfloat16 on either side, or on both, merged or as an adapter          0.13 to 0.22
    another one          the adapter of the round before, where training went on from it       0.60 to 0.71
                         half the scaling: 0.49 to 0.90; twice: 1.4 to 1.9
                         no adapter: 1.3 to 1.6; another base: 8 and more
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import model_validator

from steptool.core.errors import DataError, ModelError
from steptool.core.storage import read_record, write_json
from steptool.core.types import Frozen, TokenId
from steptool.policies.asked import Asked
from steptool.policies.model_folder import again, load_model
from steptool.policies.precision import Dtype, autocast

CANARY = "canary.json"
TOLERANCE: dict[Dtype, float] = {"float32": 0.01, "bfloat16": 0.3}
"""Mean difference in nats that the type of the numbers explains, see the module."""
CANDIDATES = 16
"""Streams that are measured before and after a training."""
STREAMS, TOKENS = 4, 64
"""What is kept of them: the streams that changed most, and the tokens in these."""
LONGEST = 384
"""Tokens of a stream."""

Logprobs = Sequence[Sequence[float]]
"""Of every token of some streams but the first of each, at temperature 1."""
Score = Callable[[Sequence[int]], Awaitable[Sequence[float]]]
"""How an engine is asked for those of one stream."""


class Stream(Frozen):
    ids: tuple[TokenId, ...]
    at: tuple[TokenId, ...]
    """Positions in `ids`, from 1."""
    logprobs: tuple[float, ...]
    before: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not len(self.at) == len(self.logprobs) == len(self.before):
            raise ValueError("at, logprobs and before have different lengths")
        if not all(0 < position < len(self.ids) for position in self.at):
            raise ValueError("at names a token that is not there")
        return self


class Canary(Frozen):
    dtype: Dtype
    """That the trainer computed in."""
    streams: tuple[Stream, ...]


def candidates(streams: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
    """What a training measures before it begins and after it: the first streams of its data, cut to LONGEST tokens."""
    found: list[tuple[int, ...]] = []
    for ids in streams:
        if len(ids) > 1:
            found.append(tuple(ids[:LONGEST]))
        if len(found) == CANDIDATES:
            break
    return found


def write_canary(
    folder: Path, streams: Sequence[Sequence[int]], before: Logprobs, after: Logprobs, dtype: Dtype
) -> None:
    """Write the canary of the policy that is saved in `folder`; none where there is no stream to ask it for."""
    if streams:
        write_json(folder / CANARY, choose(streams, before, after, dtype).model_dump(mode="json"))


def choose(streams: Sequence[Sequence[int]], before: Logprobs, after: Logprobs, dtype: Dtype) -> Canary:
    """The STREAMS streams in which training changed most, and in them the TOKENS tokens that changed most."""
    changes = [
        sorted(((abs(b - a), place) for place, (b, a) in enumerate(zip(old, new, strict=True), start=1)), reverse=True)
        for old, new in zip(before, after, strict=True)
    ]
    share = TOKENS // STREAMS
    strongest = sorted(range(len(streams)), key=lambda index: -sum(change for change, _ in changes[index][:share]))
    kept = sorted(strongest[:STREAMS])
    most = sorted(((change, index, place) for index in kept for change, place in changes[index]), reverse=True)
    wanted = {(index, place) for _, index, place in most[:TOKENS]}
    told = [index for index in kept if any(index == stream for stream, _ in wanted)]
    return Canary(dtype=dtype, streams=tuple(_stream(i, streams, before, after, wanted) for i in told))


def _stream(
    index: int,
    streams: Sequence[Sequence[int]],
    before: Logprobs,
    after: Logprobs,
    wanted: set[tuple[int, int]],
) -> Stream:
    at = [place for place in range(1, len(streams[index])) if (index, place) in wanted]
    return Stream(
        ids=tuple(streams[index][: at[-1] + 1]),  # what follows says nothing of them, and costs every load
        at=tuple(at),
        logprobs=tuple(round(after[index][place - 1], 5) for place in at),
        before=tuple(round(before[index][place - 1], 5) for place in at),
    )


def read_canary(folder: Path) -> Canary | None:
    """That of a policy folder; None where it has none, as a model that was trained elsewhere. Raises ModelError for a
    file that is damaged."""
    if not (folder / CANARY).exists():
        return None
    try:
        return read_record(folder / CANARY, Canary)
    except DataError as error:
        raise ModelError(error.found, where=error.where, fix=again(folder)) from error


def refuse_unless_same(canary: Canary, found: Logprobs, *, dtype: Dtype, where: str, fix: str) -> Asked | None:
    """Raise ModelError, with the largest difference, unless `found`, computed in `dtype`, are those of the trainer as
    far as the type of the numbers allows. None of a canary without tokens."""
    gaps = [
        (abs(logprobs[place - 1] - trained), number, place, trained, logprobs[place - 1], before)
        for number, (stream, logprobs) in enumerate(zip(canary.streams, found, strict=True), start=1)
        for place, trained, before in zip(stream.at, stream.logprobs, stream.before, strict=True)
    ]
    if not gaps:
        return None
    most = max(TOLERANCE[dtype], TOLERANCE[canary.dtype])
    mean = sum(gap for gap, *_ in gaps) / len(gaps)
    if mean <= most:
        moved = sum(abs(trained - before) for *_, trained, _, before in gaps) / len(gaps)
        return Asked(tokens=len(gaps), difference=round(mean, 5), moved=round(moved, 5))
    gap, number, place, trained, here, _ = max(gaps, key=lambda each: (each[0] != each[0], each[0]))  # NaN first
    moved = sum((trained - before) ** 2 for *_, trained, _, before in gaps)
    there = sum((here - before) * (trained - before) for *_, trained, here, before in gaps)
    share = f"; {there / moved:.0%} of what training changed is there" if moved else ""
    raise ModelError(
        f"computes something else than the trainer did: {mean:.2g} nats of difference on average over "
        f"{len(gaps)} tokens, {dtype} explains {most:g}; the largest is {gap:.2f} at token {place} of stream {number}, "
        f"{here:.2f} and not {trained:.2f}{share}",
        where=where,
        fix=fix,
    )


def reload(folder: Path) -> str:
    """What to do where an engine computes something else than the policy of `folder`."""
    return (
        "where 0 % is there, the adapter is not loaded, or an older one is; else its scaling or its base is another. "
        f"Get the files that were trained, `dvc checkout --force {folder}`, and load them again"
    )


async def ask_engine(logprobs: Score, canary: Canary, folder: Path, dtype: Dtype) -> Asked | None:
    """Raise ModelError unless an engine computes what the trainer of the policy in `folder` did."""
    found = [await logprobs(stream.ids) for stream in canary.streams]
    return refuse_unless_same(canary, found, dtype=dtype, where=str(folder), fix=reload(folder))


def ask_folder(weights: Path, canary: Canary | None, dtype: Dtype) -> None:
    """Raise ModelError unless the plain model in `weights` computes, in Transformers, what its trainer did."""
    if canary is None:
        return
    found = computed_logprobs(weights, [stream.ids for stream in canary.streams], dtype)
    refuse_unless_same(canary, found, dtype=dtype, where=str(weights), fix=reload(weights))


def computed_logprobs(weights: Path, streams: Sequence[Sequence[int]], dtype: Dtype) -> list[list[float]]:
    """What the plain model in `weights` computes, in Transformers."""
    return plain_logprobs(load_model(weights, dtype=getattr(torch, dtype)), streams)


@torch.no_grad()
def plain_logprobs(model: Any, streams: Sequence[Sequence[int]]) -> list[list[float]]:
    """What a model of Transformers computes by itself."""
    found = []
    was_training = model.training
    model.eval()
    for stream in streams:
        ids = torch.tensor([stream], device=model.device)
        with autocast(model):
            scores = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        found.append(scores.gather(1, ids[0, 1:, None])[:, 0].tolist())
    model.train(was_training)
    return found
