"""Sampling on vLLM's server somewhere else: the same tokens, the same log-probabilities, no other weights.

a stand-in that computes with Transformers, with every fault that a server can have; and once vLLM itself
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steptool.config.places import PARAMS
from steptool.config.settings import load_params
from steptool.core.errors import ModelError
from steptool.core.types import Sampling
from steptool.engines.base import Request
from steptool.engines.openai_server import ServerEngine, ServerFailed
from steptool.orchestration.services.servers import Server, Servers, answers, any_free_port
from steptool.policies.base_models import fetch_base
from steptool.policies.canary import plain_logprobs, read_canary
from steptool.policies.folder import plain_weights
from steptool.policies.model_folder import load_model
from steptool.rollouts.collect import open_sampler
from steptool.worlds.mini import MiniWorld
from tests.engines.vllm_stand_in import StandIn, stand_in
from tests.policies.test_canary import old_weights

IDS = list(range(10, 30))
BASE = Path("models/base")


@pytest.fixture
def server(policy: Path) -> Iterator[StandIn]:
    """Serves models/base; models/new is an adapter of it."""
    with stand_in(BASE) as served:
        yield served


@pytest.fixture
def engine(server: StandIn) -> Iterator[Callable[..., ServerEngine]]:
    made: list[ServerEngine] = []

    def build(policy: Path, *urls: str, **more: Any) -> ServerEngine:
        settings = ServerEngine.Config.model_validate({"urls": list(urls) or [server.url], "max_retries": 1, **more})
        made.append(ServerEngine(settings, policy, dtype="float32", max_model_len=1024, concurrency=4, seed=7))
        return made[-1]

    yield build
    for each in made:
        each.close()


def request(**more: Any) -> Request:
    asked: dict[str, Any] = {"max_tokens": 6, "temperature": 0.7, "top_p": 1.0, "seed": 3, "stop_ids": (2,)} | more
    return Request(prompt_ids=IDS, **asked)


def computed(policy: Path, ids: list[int]) -> list[float]:
    with plain_weights(policy, "float32", Path("merged")) as weights:
        (found,) = plain_logprobs(load_model(weights, dtype=torch.float32), [ids])
    return found


def test_tokens_go_in_and_come_out_with_the_log_probabilities_of_what_was_sampled(
    engine: Callable[..., ServerEngine], server: StandIn
) -> None:
    found = asyncio.run(engine(BASE).generate(request()))
    assert len(found.ids) == len(found.logprobs) <= 6
    body = server.bodies[-1]
    assert (body["prompt"], body["stop_token_ids"], body["return_token_ids"]) == (IDS, [2], True)
    assert (body["ignore_eos"], body["top_k"], body["repetition_penalty"]) == (True, 0, 1.0), "nothing else decides"
    model = load_model(BASE, dtype=torch.float32)
    stream = [*IDS, *found.ids]
    with torch.no_grad():
        hot = (model(torch.tensor([stream])).logits[0] / 0.7).log_softmax(-1)
    wanted = [float(hot[len(IDS) - 1 + at, token]) for at, token in enumerate(found.ids)]
    assert found.logprobs == pytest.approx(wanted, abs=1e-4)


def test_the_same_request_samples_the_same_and_another_seed_something_else(
    engine: Callable[..., ServerEngine],
) -> None:
    made = engine(BASE)
    first, again, other = (asyncio.run(made.generate(request(seed=seed))) for seed in (3, 3, 4))
    assert first == again != other


def test_a_stop_token_ends_an_action_and_is_part_of_it(engine: Callable[..., ServerEngine]) -> None:
    made = engine(BASE)
    free = asyncio.run(made.generate(request(temperature=0.0, stop_ids=())))
    ended = asyncio.run(made.generate(request(temperature=0.0, stop_ids=free.ids[:1])))
    assert (ended.ids, ended.stopped, free.stopped) == (free.ids[:1], True, False)


def test_an_adapter_is_lent_under_a_name_of_its_content(
    engine: Callable[..., ServerEngine], server: StandIn, policy: Path
) -> None:
    made = engine(BASE)
    made.load(policy)
    made.load(Path("models/old"))
    names = [name for name, _ in server.loaded]
    assert len(set(names)) == 2
    assert all(name.startswith("steptool-") for name in names)
    assert server.loaded[0][1] == str(policy.resolve())
    made.load(policy)
    assert len(server.loaded) == 2, "by that name it is there already"
    assert asyncio.run(made.logprobs(IDS)) == pytest.approx(computed(policy, IDS), abs=1e-3)
    made.load(BASE)
    assert asyncio.run(made.logprobs(IDS)) == pytest.approx(computed(BASE, IDS), abs=1e-3)


def test_adapters_are_copied_to_a_folder_that_both_see(
    engine: Callable[..., ServerEngine], server: StandIn, policy: Path
) -> None:
    Path("share").mkdir()
    Path("mounted").symlink_to("share", target_is_directory=True)
    engine(policy, shared="share", there=str(Path("mounted").resolve().parent / "mounted"))
    ((name, place),) = server.loaded
    assert place.endswith(f"/mounted/{name}")
    assert sorted(file.name for file in Path("share", name).iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert [file.name for file in Path("share").iterdir()] == [name], "nothing half-written is left"


def test_of_several_servers_the_one_with_the_weights_is_taken(
    engine: Callable[..., ServerEngine], server: StandIn
) -> None:
    fetch_base("tiny-random", Path("models/other"), seed=5)
    with stand_in(Path("models/other")) as second:
        made = engine(BASE, second.url, server.url)
        made.load(Path("models/other"))
        assert asyncio.run(made.logprobs(IDS)) == pytest.approx(computed(Path("models/other"), IDS), abs=1e-3)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"returns_ids": False}, "it returns text and no token ids"),
        ({"processed": False}, "--logprobs-mode processed_logprobs"),
        ({"longest": 512}, "it takes 512 tokens, fewer than sample.max_tokens: --max-model-len 1024"),
        ({"fails": 10**6}, "it answers 503: .*busy"),
    ],
)
def test_a_server_that_does_not_do_is_refused_with_what_to_do(
    engine: Callable[..., ServerEngine], server: StandIn, fault: dict[str, Any], said: str
) -> None:
    vars(server).update(fault)
    with pytest.raises(ModelError, match=said):
        engine(BASE)


def test_another_plain_model_is_refused(engine: Callable[..., ServerEngine], server: StandIn) -> None:
    fetch_base("tiny-random", Path("models/other"), seed=5)
    with pytest.raises(ModelError, match=r"served computes something else, 0\.\d+ nats of difference a token"):
        engine(Path("models/other"))
    with pytest.raises(ModelError, match="Connection error"):
        engine(BASE, "http://127.0.0.1:9", max_retries=0)


@pytest.mark.parametrize("is_hidden", [True, False])
def test_an_adapter_that_cannot_be_loaded_says_what_to_do(
    engine: Callable[..., ServerEngine], server: StandIn, policy: Path, is_hidden: bool
) -> None:
    server.may_load = is_hidden
    with pytest.raises(ModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True") as refused:
        engine(policy, **({"shared": "share", "there": "/nowhere"} if is_hidden else {}))
    assert ("No adapter found for /nowhere" if is_hidden else "it answers 404") in str(refused.value)


def test_a_fault_that_passes_is_outlived_and_one_that_stays_fails_alone(
    engine: Callable[..., ServerEngine], server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(BASE)
    server.fails = 1
    assert asyncio.run(made.generate(request())).ids
    server.fails = 2
    with pytest.raises(ServerFailed, match="503"):
        asyncio.run(made.generate(request()))
    assert asyncio.run(made.generate(request())).ids


SETTINGS = """
world: {{train_tasks: 24, dev_tasks: 12, test_tasks: 12}}
model: {{base: tiny-random, dtype: float32}}
sample: {{max_calls: 3, max_step_tokens: 24, max_tokens: 4096, temperature: 0.8}}
machine: {{concurrency: 8}}
engine: {{use: {engine}{urls}}}
"""


def use(engine: str, url: str = "") -> None:
    PARAMS.write_text(SETTINGS.format(engine=engine, urls=f", urls: ['{url}']" if url else ""))


def test_rollouts_ask_the_canary_of_what_the_server_loaded(
    server: StandIn, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("server", server.url)
    params = load_params(PARAMS)
    world = params.world.build(params.seed)
    assert isinstance(world, MiniWorld)
    with open_sampler(params, policy, seed=1) as sampler:
        assert sampler.asked is not None
        assert sampler.asked.difference < 0.001
        made = sampler.attempts(world.tasks("train")[:1], _greedy(), 1, what="try", max_broken=0.0)
        assert sampler.conditions(_greedy()).engine.name == "server"
    assert made[0].token_ids
    wrong = shutil.copytree(policy, Path("models/wrong"))
    old_weights(wrong)
    with (
        pytest.raises(ModelError, match="computes something else than the trainer did"),
        open_sampler(params, wrong, seed=1),
    ):
        pass


def _greedy() -> Sampling:
    return Sampling(temperature=0.0, top_p=1.0, max_calls=2, max_step_tokens=12, max_tokens=4096)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vllms_own_server_samples_what_vllm_samples_here(policy: Path) -> None:
    """Greedy and hot, the base and an adapter of it: the same tokens, the same log-probabilities."""
    port = any_free_port()
    arguments = [
        *("--model", str(BASE.resolve()), "--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "4096", "--enforce-eager", "--generation-config", "vllm"),
        *("--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--logprobs-mode", "processed_logprobs"),
    ]
    environment = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments)
    servers = Servers(Path("servers"), [
        Server("vllm", command, lambda: answers(f"http://127.0.0.1:{port}/health"), os.environ | environment)
    ])  # fmt: skip
    try:
        servers.start("vllm")
        there = {}
        use("server", f"http://127.0.0.1:{port}")
        for name in (BASE, policy):
            there[name] = _attempts(name)
        use("vllm")
        for name in (BASE, policy):
            here = _attempts(name)
            for ours, theirs in zip(here, there[name], strict=True):
                assert ours.token_ids == theirs.token_ids
                mine, other = (
                    [logprob for step in each.steps for logprob in step.action_logprobs] for each in (ours, theirs)
                )
                assert mine == pytest.approx(other, abs=2e-3)
    finally:
        servers.stop_all()


def _attempts(policy: Path) -> Any:
    params = load_params(PARAMS)
    tasks = params.world.build(params.seed).tasks("train")[:4]
    hot = _greedy().model_copy(update={"temperature": 0.8})
    with open_sampler(params, policy, seed=1) as sampler:
        assert (sampler.asked is None) == (read_canary(policy) is None)
        made = sampler.attempts(tasks, _greedy(), 1, what="greedy", max_broken=0.0)
        return [*made, *sampler.attempts(tasks, hot, 2, what="hot", max_broken=0.0)]
