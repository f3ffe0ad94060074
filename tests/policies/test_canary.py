"""A policy that is loaded wrongly computes something else than its trainer did, and nothing else says so.

tokens that training changed most       t1      t2      t3
before                                 -2.0    -4.0    -1.0
after, as the trainer computes it      -1.0    -1.0    -1.5
an engine that did not load it         -2.0    -4.0    -1.0     (1 + 3 + 0.5) / 3 = 1.5 nats off, 0 % of it is there
half of the scaling                    -1.5    -2.5    -1.25    0.75 nats off, 50 % of it is there
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from steptool.config.settings import load_params
from steptool.core.errors import ModelError
from steptool.policies.base_models import fetch_base
from steptool.policies.canary import (
    CANARY,
    LONGEST,
    STREAMS,
    TOKENS,
    TOLERANCE,
    Canary,
    Stream,
    ask_engine,
    ask_folder,
    candidates,
    choose,
    plain_logprobs,
    read_canary,
    refuse_unless_same,
    write_canary,
)
from steptool.policies.folder import plain_weights
from steptool.policies.model_folder import load_model, weights_hash
from steptool.training.model import AdapterSettings, PolicyWithValue

ADAPTER = AdapterSettings(lora_rank=4, lora_alpha=8, lora_first_layer=1)
OWN = Canary(
    dtype="float32",
    streams=(Stream(ids=(7, 8, 9, 5), at=(1, 2, 3), logprobs=(-1.0, -1.0, -1.5), before=(-2.0, -4.0, -1.0)),),
)


def refuse(canary: Canary, found: Sequence[Sequence[float]], dtype: str = "float32") -> None:
    refuse_unless_same(canary, found, dtype=dtype, where="models/ppo2", fix="load it again")  # type: ignore[arg-type]


def test_what_the_trainer_computed_is_let_through() -> None:
    refuse(OWN, [[-1.0, -1.0, -1.5]])


@pytest.mark.parametrize(
    ("found", "mean", "share"),
    [((-2.0, -4.0, -1.0), "1.5", "0%"), ((-1.5, -2.5, -1.25), "0.75", "50%"), ((-4.0, -4.0, -1.0), "2.2", "-20%")],
)
def test_another_policy_is_refused_with_the_largest_difference(found: tuple[float, ...], mean: str, share: str) -> None:
    with pytest.raises(ModelError) as refused:
        refuse(OWN, [found])
    said = str(refused.value)
    assert said.startswith(f"models/ppo2: computes something else than the trainer did: {mean} nats of difference")
    assert f"{share} of what training changed is there" in said
    assert "at token " in said and " of stream 1" in said


def test_the_largest_difference_names_its_stream_and_token() -> None:
    two = Canary(
        dtype="float32",
        streams=(
            Stream(ids=(1, 2, 3), at=(2,), logprobs=(-1.0,), before=(-2.0,)),
            Stream(ids=(1, 2, 3), at=(1,), logprobs=(-0.5,), before=(-2.0,)),
        ),
    )
    with pytest.raises(ModelError, match=r"the largest is 8\.50 at token 1 of stream 2, -9\.00 and not -0\.50"):
        refuse(two, [[0.0, -1.1], [-9.0, 0.0]])


def test_the_type_of_the_numbers_decides_how_far_off_is_too_far() -> None:
    """0.2 nats are rounding in bfloat16, on either side, and something else in float32."""
    off = [[-1.2, -1.2, -1.7]]
    refuse(OWN, off, dtype="bfloat16")
    refuse(OWN.model_copy(update={"dtype": "bfloat16"}), off)
    with pytest.raises(ModelError, match=r"float32 explains 0\.01"):
        refuse(OWN, off)
    assert TOLERANCE == {"float32": 0.01, "bfloat16": 0.3}


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ModelError, match="the largest is nan at token 2 of stream 1"):
        refuse(OWN, [[-1.0, math.nan, -1.5]], dtype="bfloat16")


def test_the_tokens_that_training_changed_most_are_kept() -> None:
    """Six streams of 30 tokens; stream n changes by n / 10 in every token, one token of stream 0 by 9."""
    streams = [tuple(range(30)) for _ in range(6)]
    before = [[-1.0] * 29 for _ in streams]
    after = [[-1.0 + number / 10] * 29 for number in range(6)]
    after[0][4] = 8.0
    made = choose(streams, before, after, "float32")
    assert [len(each.at) for each in made.streams] == [1, 5, 29, 29]
    assert (made.streams[0].at, made.streams[0].logprobs, made.streams[0].before) == ((5,), (8.0,), (-1.0,))
    assert len(made.streams) == STREAMS
    assert made.streams[0].ids == tuple(range(6)), "what follows the last of them is left out"
    assert sum(len(each.at) for each in made.streams) == TOKENS


def test_streams_of_one_token_say_nothing_and_long_ones_are_cut() -> None:
    assert candidates([(1,), tuple(range(1000)), (1, 2)]) == [tuple(range(LONGEST)), (1, 2)]
    assert len(candidates([(1, 2)] * 100)) == 16


def test_a_damaged_canary_is_refused(tmp_path: Path) -> None:
    (tmp_path / CANARY).write_text('{"dtype": "float32", "streams": [{"ids": [1, 2], "at": [2]}]}')
    with pytest.raises(ModelError, match=r"canary\.json: Canary: streams\.0\.logprobs"):
        read_canary(tmp_path)


# Faults, planted in the folder of a policy


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/new, trained on from models/old, both adapters of models/base; with a canary, as `train` writes it."""
    monkeypatch.chdir(tmp_path)
    base = Path("models/base")
    fetch_base("tiny-random", base)
    trained = PolicyWithValue.load(base, ADAPTER, seed=1, device="cpu")
    streams = [torch.randint(3, 500, (60,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(6)]
    for name in ("old", "new"):
        before = trained.logprobs(streams)
        change(trained, seed=len(name) + ord(name[0]))
        folder = Path("models") / name
        folder.mkdir()
        trained.save(folder)
        write_canary(folder, streams, before, trained.logprobs(streams), "float32")
    return Path("models/new")


def change(policy: PolicyWithValue, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.policy_parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def old_weights(policy: Path) -> None:
    shutil.copy("models/old/adapter_model.safetensors", policy / "adapter_model.safetensors")


def half_the_scaling(policy: Path) -> None:
    path = policy / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 4'))


def another_base(policy: Path) -> None:
    fetch_base("tiny-random", Path("models/other"), seed=5)
    described = {"base": "models/other", "weights": weights_hash(Path("models/other"))}
    (policy / "policy.json").write_text(json.dumps(described))


def no_adapter(policy: Path) -> None:
    """A plain model under the policy's name, with its canary."""
    canary = (policy / CANARY).read_bytes()
    shutil.rmtree(policy)
    shutil.copytree("models/base", policy)
    (policy / CANARY).write_bytes(canary)


def old_output_layer(policy: Path) -> None:
    """The merged weights, where a copy of the output layer that was tied to the embeddings is another model's."""
    with plain_weights(policy, "float32", Path("merged")) as merged:
        model = load_model(merged, dtype=torch.float32)
    head = load_model(Path("models/base"), dtype=torch.float32).get_input_embeddings().weight.detach()  # type: ignore[union-attr]
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(head.flip(0).clone())
    canary = (policy / CANARY).read_bytes()
    shutil.rmtree(policy)
    model.save_pretrained(policy)
    shutil.copy("models/base/tokenizer.json", policy)
    (policy / CANARY).write_bytes(canary)


FAULTS = [old_weights, half_the_scaling, another_base, no_adapter, old_output_layer]


def ask(policy: Path) -> None:
    with plain_weights(policy, "float32", Path("merged")) as weights:
        ask_folder(weights, read_canary(policy), "float32")


def test_a_policy_as_it_was_trained_is_let_through(policy: Path) -> None:
    ask(policy)
    ask(Path("models/old"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_policy_that_is_loaded_wrongly_is_refused(policy: Path, fault: Callable[[Path], None]) -> None:
    fault(policy)
    with pytest.raises(ModelError, match="computes something else than the trainer did"):
        ask(policy)


def test_a_model_without_a_canary_is_not_asked(policy: Path) -> None:
    assert read_canary(Path("models/base")) is None
    ask(Path("models/base"))


def test_merged_weights_keep_the_canary(policy: Path) -> None:
    with plain_weights(policy, "float32", Path("merged")) as weights:
        assert (weights / CANARY).read_bytes() == (policy / CANARY).read_bytes()


def test_an_engine_is_asked_stream_by_stream(policy: Path) -> None:
    canary = read_canary(policy)
    assert canary is not None
    with plain_weights(policy, "float32", Path("merged")) as weights:
        model = load_model(weights, dtype=torch.float32)

    async def right(ids: Sequence[int]) -> Sequence[float]:
        return plain_logprobs(model, [ids])[0]

    async def wrong(ids: Sequence[int]) -> Sequence[float]:
        return [-6.0] * (len(ids) - 1)

    asyncio.run(ask_engine(right, canary, policy, "float32"))
    with pytest.raises(ModelError, match=r"dvc checkout --force models/new"):
        asyncio.run(ask_engine(wrong, canary, policy, "float32"))


# The same faults, met by vLLM


@pytest.mark.slow
def test_vllm_is_asked_at_the_start_and_at_each_reload(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steptool.engines import vllm_local
    from steptool.rollouts.collect import Sampler

    Path("params.yaml").write_text(
        "model: {dtype: float32}\nsample: {max_tokens: 256}\nmachine: {concurrency: 4}\n", encoding="utf-8"
    )
    refused = pytest.raises(ModelError, match="computes something else than the trainer did")
    shutil.copytree(policy, "models/started-wrong")
    old_weights(Path("models/started-wrong"))
    sampler = Sampler(load_params(), seed=1)
    try:
        with refused:
            sampler.load(Path("models/started-wrong"))
        sampler.load(policy)
        sampler.load(Path("models/old"))
        sampler.load(Path("models/base"))
        for fault in (old_weights, half_the_scaling, another_base, no_adapter):
            planted = Path(f"models/{fault.__name__}")
            shutil.copytree(policy, planted)
            fault(planted)
            with refused:
                sampler.load(planted)
        sampler.load(policy)
        another = Path("models/another")
        fetch_base("tiny-random", another, seed=5)
        model, streams = load_model(another, dtype=torch.float32), [tuple(range(3, 63))]
        own = plain_logprobs(model, streams)
        write_canary(another, streams, [[value - 1 for value in own[0]]], own, "float32")
        sampler.load(another)
        sampler.load(policy)
        monkeypatch.setattr(vllm_local, "_repack_head", lambda model: None)
        with refused:
            sampler.load(another)
    finally:
        sampler.close()
