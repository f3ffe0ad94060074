"""The engine on a tiny random model: what it samples, that it samples what it says, and what it refuses."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.corners import settings_of
from benchmarks.transformers_batch import TransformersEngine
from steptool.config.places import PARAMS
from steptool.config.settings import parse_params
from steptool.core.errors import ModelError
from steptool.engines.base import Generation, Request
from steptool.policies import tiny_model
from steptool.policies.canary import plain_logprobs
from steptool.policies.folder import resolve_policy
from steptool.rollouts.loop import run
from tests.policies import test_canary

PROMPTS = [tuple(range(10 * i, 10 * i + 15 + 6 * i)) for i in range(6)]
STOP = 2

policy = test_canary.policy
"""Fixture: the folder of an adapter."""


def save(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    tiny_model.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one, two = (save(tmp_path_factory.mktemp("model"), tiny_model.model(seed)) for seed in (1, 2))
    return one, two


@pytest.fixture
def engine(models: tuple[Path, Path]) -> Iterator[TransformersEngine]:
    with closing(start(models[0])) as running:
        yield running


def start(folder: Path, *, concurrency: int = 8, seed: int = 7) -> TransformersEngine:
    config = TransformersEngine.Config()
    return TransformersEngine(config, folder, dtype="float32", max_model_len=128, concurrency=concurrency, seed=seed)


async def sample(engine: TransformersEngine, prompt: tuple[int, ...], **changed: Any) -> Generation:
    options = {"max_tokens": 12, "temperature": 1.0, "top_p": 1.0, "seed": 5, "stop_ids": [STOP], **changed}
    return await engine.generate(Request(prompt, **options))


async def sample_all(engine: TransformersEngine, prompts: list[tuple[int, ...]], **changed: Any) -> list[Generation]:
    return await asyncio.gather(*(sample(engine, prompt, **changed) for prompt in prompts))


def expected(seed: int, prompt: tuple[int, ...], ids: tuple[int, ...], temperature: float = 1.0) -> list[float]:
    """From a forward pass over prompt and action."""
    with torch.no_grad():
        logits = tiny_model.model(seed).float().eval()(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    found: list[float] = (logits / temperature).log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_distribution_sampled_from(engine: TransformersEngine, temperature: float) -> None:
    for prompt, made in zip(PROMPTS, run(sample_all(engine, PROMPTS, temperature=temperature)), strict=True):
        assert made.logprobs == pytest.approx(expected(1, prompt, made.ids, temperature), abs=1e-4)


def test_greedy_takes_the_likeliest_tokens_and_reports_the_models_own(engine: TransformersEngine) -> None:
    model = tiny_model.model(seed=1).float().eval()
    for prompt, made in zip(PROMPTS, run(sample_all(engine, PROMPTS, temperature=0.0)), strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for token in made.ids:
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
                ids.append(token)
        assert made.logprobs == pytest.approx(expected(1, prompt, made.ids), abs=1e-4)


def test_tokens_come_as_often_as_their_probability_says(engine: TransformersEngine) -> None:
    """1,500 first tokens: each of the ten likeliest comes within 4.5 standard deviations of what is expected."""
    prompt, draws = PROMPTS[0], 1500

    async def first_tokens() -> list[Generation]:
        return await asyncio.gather(*(sample(engine, prompt, max_tokens=1, seed=seed) for seed in range(draws)))

    found = [made.ids[0] for made in run(first_tokens())]
    with torch.no_grad():
        scores = tiny_model.model(seed=1).float().eval()(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    for share, token in zip(*scores.topk(10), strict=True):
        spread = math.sqrt(draws * float(share) * (1 - float(share)))
        assert abs(found.count(int(token)) - draws * float(share)) < 4.5 * spread


def test_top_p_renormalises_what_is_left(engine: TransformersEngine) -> None:
    """With top_p close to 0 only the best token is left, and its probability is 1; of a half, log(1/2) is added to the
    kept tokens' sum at most."""
    made = run(sample(engine, PROMPTS[0], top_p=1e-6))
    greedy = run(sample(engine, PROMPTS[0], temperature=0.0))
    assert made.ids == greedy.ids
    assert made.logprobs == pytest.approx([0.0] * len(made.ids), abs=1e-6)
    half = run(sample_all(engine, PROMPTS, top_p=0.5))
    for prompt, one in zip(PROMPTS, half, strict=True):
        gains = [a - b for a, b in zip(one.logprobs, expected(1, prompt, one.ids), strict=True)]
        assert all(0 < gain <= math.log(2) + 1e-5 for gain in gains)


def test_a_request_samples_the_same_alone_and_in_company(engine: TransformersEngine) -> None:
    alone = [run(sample(engine, prompt)) for prompt in PROMPTS]
    together = run(sample_all(engine, PROMPTS[::-1] + PROMPTS))
    assert [made.ids for made in together] == [made.ids for made in alone[::-1] + alone]


def test_the_same_run_gives_the_same_bits(models: tuple[Path, Path]) -> None:
    async def turns(engine: TransformersEngine, prompt: tuple[int, ...], count: int) -> list[Generation]:
        made: list[Generation] = []
        for turn in range(count):
            made.append(await sample(engine, prompt, seed=turn))
            prompt = (*prompt[:60], *made[-1].ids, 5, 6, 7)
        return made

    async def attempts(engine: TransformersEngine) -> list[list[Generation]]:
        return await asyncio.gather(*(turns(engine, prompt, 1 + n % 4) for n, prompt in enumerate(PROMPTS * 4)))

    runs = []
    for _ in range(2):
        with closing(start(models[0])) as engine:
            runs.append(run(attempts(engine)))
    assert runs[0] == runs[1]


def test_other_seeds_sample_other_tokens(engine: TransformersEngine) -> None:
    assert len({run(sample(engine, PROMPTS[0], seed=seed)).ids for seed in range(5)}) == 5


def test_sampling_stops_at_a_stop_token_or_at_the_limit(engine: TransformersEngine) -> None:
    free = run(sample(engine, PROMPTS[0], stop_ids=[]))
    assert (len(free.ids), free.stopped) == (12, False)
    stopped = run(sample(engine, PROMPTS[0], stop_ids=[free.ids[3]]))
    assert stopped.stopped
    assert stopped.ids == free.ids[: free.ids.index(free.ids[3]) + 1], "the stop token was sampled, so it is there"
    assert len(stopped.logprobs) == len(stopped.ids)
    long = run(sample(engine, (5,) * 120, stop_ids=[], max_tokens=50))
    assert (len(long.ids), long.stopped) == (8, False)


def test_a_request_that_does_not_fit_fails_alone(engine: TransformersEngine) -> None:
    async def both() -> list[Any]:
        requests = [sample(engine, (5,) * 128), sample(engine, PROMPTS[0])]
        return await asyncio.gather(*requests, return_exceptions=True)

    refused, made = run(both())
    assert str(refused) == "the prompt has 128 tokens, no fewer than the 128 of a stream"
    assert isinstance(made, Generation)


def test_more_requests_than_slots_wait_their_turn(models: tuple[Path, Path], engine: TransformersEngine) -> None:
    with closing(start(models[0], concurrency=3)) as small:
        few = run(sample_all(small, PROMPTS * 3))
    assert [made.ids for made in few] == [made.ids for made in run(sample_all(engine, PROMPTS * 3))]


def test_a_cancelled_request_gives_its_slot_back(models: tuple[Path, Path]) -> None:
    async def cancelled(engine: TransformersEngine) -> list[Generation]:
        tasks = [asyncio.create_task(sample(engine, prompt, max_tokens=100, stop_ids=[])) for prompt in PROMPTS[:2]]
        await asyncio.sleep(0.05)
        for one in tasks:
            one.cancel()
        return await sample_all(engine, PROMPTS)

    with closing(start(models[0], concurrency=2)) as engine:
        assert len(run(cancelled(engine))) == len(PROMPTS)
        assert engine._pump.between(lambda batch: sorted(batch._free)) == [0, 1]


def test_a_failed_step_changes_nothing_of_what_is_sampled(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run(sample_all(engine, PROMPTS))
    batch = engine._pump.between(lambda batch: batch)
    real, calls = batch._next, iter(range(10**6))

    def failing(running: Any) -> Any:
        if next(calls) == 3:
            raise RuntimeError("kernel failed")
        return real(running)

    monkeypatch.setattr(batch, "_next", failing)
    made = run(sample_all(engine, PROMPTS))
    assert next(calls) > 3
    assert [one.ids for one in made] == [one.ids for one in wanted]


def test_another_policy_takes_over(engine: TransformersEngine, models: tuple[Path, Path]) -> None:
    before = run(sample(engine, PROMPTS[0]))
    engine.load(models[1])
    made = run(sample(engine, PROMPTS[0]))
    assert made.logprobs == pytest.approx(expected(2, PROMPTS[0], made.ids), abs=1e-4)
    engine.load(models[0])
    assert run(sample(engine, PROMPTS[0])) == before


def test_a_stream_is_scored_as_the_trainer_scores_it(engine: TransformersEngine) -> None:
    (wanted,) = plain_logprobs(tiny_model.model(seed=1).float(), [PROMPTS[3]])
    assert run(engine.logprobs(PROMPTS[3])) == pytest.approx(wanted, abs=1e-5)


def test_an_adapter_is_added_to_its_base(policy: Path) -> None:
    from steptool.policies.folder import merged_model

    base, adapter = resolve_policy(policy)
    assert adapter is not None
    (wanted,) = plain_logprobs(merged_model(base, adapter, dtype="float32"), [PROMPTS[3]])
    with closing(start(base)) as engine:
        plain = run(engine.logprobs(PROMPTS[3]))
        engine.load(policy)
        assert run(engine.logprobs(PROMPTS[3])) == pytest.approx(wanted, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(plain, wanted, strict=True)) > 0.01


@pytest.mark.parametrize(
    "architecture",
    [{"model_type": "qwen3", "head_dim": 16}, {"model_type": "granite"}, {"model_type": "gemma2", "head_dim": 16}],
    ids=lambda each: each["model_type"],
)
def test_other_architectures_are_computed_right_or_refused(architecture: dict[str, Any], tmp_path: Path) -> None:
    """Gemma 2 has sliding windows, which slots have not."""
    shape = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    described = dict(architecture)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(described.pop("model_type"), **shape, **heads, **described)
    )
    save(tmp_path, model.float())
    if architecture["model_type"] == "gemma2":
        with pytest.raises(ModelError, match="Gemma2ForCausalLM is not computed by this engine as by Transformers"):
            start(tmp_path)
        return
    with closing(start(tmp_path)) as engine:
        made = run(sample(engine, PROMPTS[2]))
    (scores,) = plain_logprobs(model.float(), [[*PROMPTS[2], *made.ids]])
    assert made.logprobs == pytest.approx(scores[len(PROMPTS[2]) - 1 :], abs=1e-4)


def test_a_policy_that_computes_nan_is_refused(tmp_path: Path, models: tuple[Path, Path]) -> None:
    model = tiny_model.model(seed=1)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e38
        model.model.layers[0].mlp.gate_proj.weight[0, 0] = 1e38
    with pytest.raises(ModelError, match="differ by nan nats"):
        start(save(tmp_path, model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="passes are recorded on a GPU alone")
def test_recorded_passes_compute_what_others_do(models: tuple[Path, Path]) -> None:
    made = []
    for graphs in (True, False):
        config = TransformersEngine.Config(graphs=graphs)
        engine = TransformersEngine(config, models[0], dtype="float32", max_model_len=300, concurrency=40, seed=7)
        with closing(engine):
            made.append(run(sample_all(engine, PROMPTS * 12, max_tokens=150, stop_ids=[])))
    for one, other in zip(*made, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_corners_and_params_name_it_by_its_path() -> None:
    named = "benchmarks.transformers_batch:TransformersEngine"
    params = parse_params(PARAMS, settings_of("", [f"engine.use={named}", "engine.graphs=false"], seed=17))
    assert (params.engine.cls, params.engine.config.graphs) == (TransformersEngine, False)


def test_a_closed_engine_says_so(engine: TransformersEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="the engine is closed"):
        run(sample(engine, PROMPTS[0]))
