"""The engine on a tiny random model: what it samples, that it samples what it says, and how it fails.

One vLLM serves all slow tests; starting it takes some twenty seconds.
"""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steptool.core.errors import ModelError
from steptool.core.plugins import NoSettings
from steptool.core.types import Outcome, Sampling, StopReason
from steptool.engines import vllm_local as engine_module
from steptool.engines.base import Generation, Request
from steptool.engines.vllm_local import VllmEngine
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.rollouts.base import Attempt
from steptool.rollouts.chain import Chain
from steptool.rollouts.loop import run
from steptool.rollouts.sampled import NOT_FINITE
from steptool.testing import conditions, revision, task

PROMPTS = [tuple(range(10 * i, 10 * i + 40)) for i in range(6)]
STOP = 2


def save(folder: Path, seed: int) -> Path:
    tiny_model.model(seed).save_pretrained(folder)
    tiny_model.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save(tmp_path_factory.mktemp("one"), seed=1), save(tmp_path_factory.mktemp("two"), seed=2)


@pytest.fixture(scope="module")
def engine(models: tuple[Path, Path]) -> Iterator[VllmEngine]:
    with closing(start(models[0], concurrency=8, seed=7)) as running:
        yield running


def start(folder: Path, *, concurrency: int = 1, seed: int = 0) -> VllmEngine:
    return VllmEngine(NoSettings(), folder, dtype="float32", max_model_len=128, concurrency=concurrency, seed=seed)


async def sample(engine: VllmEngine, prompt: tuple[int, ...], **changed: Any) -> Generation:
    options = {"max_tokens": 12, "temperature": 1.0, "top_p": 1.0, "seed": 5, "stop_ids": [STOP], **changed}
    return await engine.generate(Request(prompt, **options))


async def sample_all(engine: VllmEngine, prompts: list[tuple[int, ...]], **changed: Any) -> list[Generation]:
    return await asyncio.gather(*(sample(engine, prompt, **changed) for prompt in prompts))


@pytest.mark.parametrize(
    ("left_out", "found"),
    [
        ("config.json", r"no config \(config.json\)"),
        ("tokenizer.json", r"no tokenizer \(tokenizer.json\)"),
        ("model.safetensors", r"no weights \(\*.safetensors\)"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused_before_vllm_starts(left_out: str, found: str, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if name != left_out:
            (tmp_path / name).touch()
    with pytest.raises(ModelError, match=found):
        start(tmp_path)
    with pytest.raises(ModelError, match="no such model folder"):
        start(tmp_path / "absent")


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_distribution_sampled_from(
    engine: VllmEngine, models: tuple[Path, Path], temperature: float
) -> None:
    """Against a forward pass in PyTorch: log softmax(logits / temperature) at the sampled token."""
    torch_model = tiny_model.model(seed=1).float().eval()
    for prompt, made in zip(PROMPTS, run(sample_all(engine, PROMPTS, temperature=temperature)), strict=True):
        with torch.no_grad():
            logits = torch_model(torch.tensor([[*prompt, *made.ids]])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / temperature).log_softmax(-1).gather(-1, torch.tensor(made.ids)[:, None])[:, 0]
        assert made.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.slow
def test_top_p_renormalises_what_is_left(engine: VllmEngine) -> None:
    """With top_p close to 0 only the best token is left, and its probability is 1."""
    made = run(sample(engine, PROMPTS[0], top_p=1e-6))
    greedy = run(sample(engine, PROMPTS[0], temperature=0.0))
    assert made.ids == greedy.ids
    assert made.logprobs == pytest.approx([0.0] * len(made.ids), abs=1e-6)
    assert all(logprob < -0.1 for logprob in greedy.logprobs), "greedy decoding reports the model's own"


@pytest.mark.slow
def test_a_request_samples_the_same_alone_and_in_company(engine: VllmEngine) -> None:
    alone = [run(sample(engine, prompt)) for prompt in PROMPTS]
    together = run(sample_all(engine, PROMPTS[::-1] + PROMPTS))
    assert [made.ids for made in together] == [made.ids for made in alone[::-1] + alone]


@pytest.mark.slow
def test_other_seeds_sample_other_tokens(engine: VllmEngine) -> None:
    made = {run(sample(engine, PROMPTS[0], seed=seed)).ids for seed in range(5)}
    assert len(made) == 5


@pytest.mark.slow
def test_sampling_stops_at_a_stop_token_or_at_the_limit(engine: VllmEngine) -> None:
    free = run(sample(engine, PROMPTS[0], stop_ids=[]))
    assert len(free.ids) == 12
    assert not free.stopped
    stopper = free.ids[3]
    stopped = run(sample(engine, PROMPTS[0], stop_ids=[stopper]))
    assert stopped.stopped
    assert stopped.ids == free.ids[: free.ids.index(stopper) + 1], "the stop token was sampled, so it is there"
    assert len(stopped.logprobs) == len(stopped.ids)


@pytest.mark.slow
def test_a_request_that_does_not_fit_fails_alone(engine: VllmEngine) -> None:
    async def both() -> list[Any]:
        requests = [sample(engine, (5,) * 129), sample(engine, PROMPTS[0])]
        return await asyncio.gather(*requests, return_exceptions=True)

    refused, made = run(both())
    assert "longer than the maximum model length of 128" in str(refused)
    assert isinstance(made, Generation)


@pytest.mark.slow
def test_more_requests_than_fit_a_batch_wait_their_turn(engine: VllmEngine) -> None:
    made = run(sample_all(engine, PROMPTS * 7))
    assert len(made) == 42
    assert all(math.isfinite(logprob) for one in made for logprob in one.logprobs)


@pytest.mark.slow
def test_reloaded_weights_are_the_ones_that_sample(engine: VllmEngine, models: tuple[Path, Path]) -> None:
    """The tiny model ties its output layer to its embeddings, which vLLM's own reload forgets on a CPU."""
    before = run(sample(engine, PROMPTS[0]))
    engine.load(models[1])
    try:
        made = run(sample(engine, PROMPTS[0]))
        with torch.no_grad():
            logits = tiny_model.model(seed=2).float().eval()(torch.tensor([[*PROMPTS[0], *made.ids]])).logits[0]
        expected = logits[len(PROMPTS[0]) - 1 : -1].log_softmax(-1).gather(-1, torch.tensor(made.ids)[:, None])[:, 0]
        assert made.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    finally:
        engine.load(models[0])
    assert run(sample(engine, PROMPTS[0])) == before


@pytest.mark.slow
def test_weights_that_are_not_whole_are_a_model_error(
    engine: VllmEngine, models: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = save(tmp_path, seed=1)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="vLLM cannot load it"):
        engine.load(broken)
    engine.load(models[0])


def test_free_memory_is_given_back_every_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(engine_module, "return_freed_memory", lambda: given.append(vllm._steps))
    vllm: Any = object.__new__(engine_module._Vllm)
    vllm._steps, vllm._llm = 0, SimpleNamespace(step=list)
    every = engine_module.STEPS_BETWEEN_RETURNS
    for _ in range(2 * every + 1):
        assert vllm.step() == []
    assert given == [every, 2 * every]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["execute_model", "sample_tokens"])
@pytest.mark.parametrize("at", [0, 5])
def test_a_failed_step_changes_nothing_of_what_is_sampled(engine: VllmEngine, stage: str, at: int) -> None:
    """One step fails in the model or in the sampler, on the first prompt or among later tokens. New prompts each time,
    so that nothing is cached: a block that the failed step only promised to compute must not be read."""
    base = 1 + 100 * at + (50 if stage == "execute_model" else 0)
    prompts = [tuple((base + 7 * i + 3 * k) % 300 + 3 for k in range(70)) for i in range(6)]
    steps = iter(range(10**6))
    broken: list[Any] = []

    def break_one(vllm: Any) -> None:
        executor = vllm._llm.engine_core.engine_core.model_executor
        real = getattr(executor, stage)

        def failing(*arguments: Any, **options: Any) -> Any:
            if next(steps) == at:
                raise RuntimeError("kernel failed")
            return real(*arguments, **options)

        setattr(executor, stage, failing)
        broken.append(executor)

    engine._pump.between(break_one)
    try:
        made = run(sample_all(engine, prompts))
    finally:
        delattr(broken[0], stage)
    assert next(steps) > at
    engine._pump.between(lambda vllm: vllm.recover())
    expected = run(sample_all(engine, prompts))
    assert [one.ids for one in made] == [one.ids for one in expected]
    for one, other in zip(made, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_policy_that_computes_nan_gives_no_actions(
    engine: VllmEngine, models: tuple[Path, Path], tmp_path: Path, temperature: float
) -> None:
    """One weight is NaN; whatever vLLM makes of it, it must not look like an action that was sampled."""
    model = tiny_model.model(seed=1)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    model.save_pretrained(tmp_path)
    tiny_model.tokenizer().save_pretrained(tmp_path)
    chat = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
    sampling = Sampling(temperature=temperature, top_p=1.0, max_calls=2, max_step_tokens=8, max_tokens=127)

    class Session:
        async def close(self, answer: str | None) -> Outcome:
            return Outcome()

    def act(stream: Any, most: int, seed: int) -> Any:
        return engine.generate(Request(stream, most, temperature, 1.0, seed, chat.stop_ids))

    attempt = Attempt(
        task=task("t", "?"),
        open=Session,  # type: ignore[arg-type]
        act=act,
        format=chat,
        conditions=conditions(sampling=sampling),
        policy=revision("r"),
        seed=0,
        number=0,
        tool_timeout_s=1.0,
    )
    engine.load(tmp_path)
    try:
        (made,) = run(Chain(NoSettings()).attempt(attempt))
    finally:
        engine.load(models[0])
    assert (made.stop_reason, made.steps) == (StopReason.engine_error, ())
    assert str(made.error).endswith(NOT_FINITE)


@pytest.mark.slow
def test_a_closed_engine_says_so(engine: VllmEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="the engine is closed"):
        run(sample(engine, PROMPTS[0]))


@pytest.mark.slow
def test_two_processes_sample_the_same_to_the_last_bit(models: tuple[Path, Path]) -> None:
    """Though in one of them Python's threads take turns a thousand times as often as in the other."""
    made = []
    for switch_interval in ("0.005", "0.000005"):
        command = [sys.executable, "-m", "tests.engines.rollouts_of_a_process", str(models[0]), switch_interval]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        made.append(json.loads(done.stdout.splitlines()[-1]))
    lengths = {len(ids) for rollout in made[0]["rollouts"] for ids, _ in rollout}
    assert len(lengths) > 3, "rollouts join and leave the batch at different times"
    assert made[0]["joined"] == made[1]["joined"]
    assert made[0]["rollouts"] == made[1]["rollouts"]
