"""Every architecture of Transformers: what is trained is what its own forward pass computes, or it is refused by name.

random weights, four layers, a window of 6 tokens where there is one:
    packed rows with an adapter  =  one stream at a time through the whole model      (agree)
    anything else                ->  ModelError with the model's class                (refuse)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from steptool.core.errors import ModelError
from steptool.methods.sft import Example, Sft, fine_tune
from steptool.policies import tiny_model
from steptool.policies.base_models import save
from steptool.policies.folder import plain_weights
from steptool.policies.model_folder import check_model_folder, load_model
from steptool.training import attention, decoder
from steptool.training.batch import pack
from steptool.training.model import AdapterSettings, PolicyWithValue, _stream

PARAMS = AdapterSettings(lora_first_layer=2, lora_rank=2, lora_alpha=4)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # attention sharp enough that a wrong mask, scale or place shows
    "sliding_window": 6,
    "use_sliding_window": True,
    "max_window_layers": 0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
}

AGREE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {},
    "ministral": {},
    "mixtral": {},
    "phi": {},
    "phi3": {},
    "starcoder2": {},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 4},
    "gemma3_text": {"query_pre_attn_scalar": 4},
    "granite": {
        "logits_scaling": 6.0,
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.5,
        "residual_multiplier": 0.22,
    },
    "granitemoe": {"logits_scaling": 6.0, "embedding_multiplier": 12.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25},
    "gpt_neox": {},
    "olmo2": {},
    "olmo3": {},
    "smollm3": {},
    "qwen2_moe": {},
    "qwen3_moe": {},
    "helium": {},
    "glm4": {},
    "exaone4": {},
}
REFUSE = {
    "gpt2": "not built of one decoder",
    "gpt_neo": "not built of one decoder",
    "gptj": "not built of one decoder",
    "opt": "not built of one decoder",
    "bloom": "not built of one decoder",
    "falcon": "not built of one decoder",
    "bert": "not built of one decoder",
    "stablelm": "spans",
    "nemotron": "spans",
    "gpt_oss": "differ from those of Transformers' own forward pass by up to",  # attention sinks
    "doge": "differ from those of Transformers' own forward pass by up to",
    "recurrent_gemma": "differ from those of Transformers' own forward pass by up to",
    "jamba": "linear_attention layers",
    "falcon_mamba": "linear_attention layers",
}


def build(kind: str, **settings: Any) -> PreTrainedModel:
    made = CONFIG_MAPPING[kind]
    known = set(getattr(made, "__dataclass_fields__", {}))
    config = made(**({name: value for name, value in SIZES.items() if name in known} | settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.float().eval()


def adapted(model: PreTrainedModel, adapter: AdapterSettings = PARAMS) -> PolicyWithValue:
    """A policy whose adapter is not the identity."""
    policy = PolicyWithValue.wrap(model, adapter, base=Path("models/base"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.policy_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def largest(policy: PolicyWithValue, ids: torch.Tensor) -> float:
    """Difference in nats, over all sampled tokens, from the whole model at one stream a time; no help of the check."""
    (row,) = pack(map(_stream, ids.tolist()), ids.numel()).rows
    with torch.no_grad():
        ours = torch.empty(len(row.tokens))
        ours[row.tokens] = policy(row).logprobs
        model = policy.peft.get_base_model()
        model.set_attn_implementation("eager")
        scores = [model(input_ids=stream[None, :-1], use_cache=False).logits[0].log_softmax(-1) for stream in ids]
        model.set_attn_implementation(attention.SPAN_ATTENTION)
    own = torch.cat([s.gather(1, stream[1:, None])[:, 0] for s, stream in zip(scores, ids, strict=True)])
    return float((own - ours).abs().max())


@pytest.mark.parametrize("kind", AGREE)
def test_policy_computes_what_transformers_does(kind: str) -> None:
    policy = adapted(build(kind, **AGREE[kind]))
    policy.check_computation()
    ids = torch.randint(0, 64, (4, 30), generator=torch.Generator().manual_seed(2))
    ids[1, :12] = ids[0, :12]  # a tree of beginnings that are longer than the window, and one row of its own
    ids[2, :20] = ids[1, :20]
    assert largest(policy, ids) < 1e-3


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "cohere2"])
def test_attention_of_a_gpu_computes_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PLAIN", ())
    adapted(build(kind, **AGREE[kind])).check_computation()


@pytest.mark.parametrize("kind", AGREE)
def test_gradients_reach_every_matrix_of_the_adapter(kind: str) -> None:
    policy = adapted(build(kind, **AGREE[kind]), PARAMS.model_copy(update={"lora_first_layer": 0}))
    (row,) = pack([_stream(list(range(1, 20)))], 64).rows
    policy(row).logprobs.sum().backward()
    without = [name for name, p in policy.policy_parameters().items() if p.grad is None or not p.grad.any()]
    assert not [name for name in without if "expert" not in name]


@pytest.mark.parametrize("kind", REFUSE)
def test_other_architecture_is_refused_by_name(kind: str) -> None:
    model = build(kind)
    with pytest.raises(ModelError, match=REFUSE[kind]) as caught:
        adapted(model).check_computation()
    assert type(model).__name__ in str(caught.value) or "layers" in caught.value.found
    assert "model.base" in str(caught.value.fix)


def test_check_leaves_the_model_as_it_was() -> None:
    policy = adapted(build("mistral"))
    model = policy.peft.get_base_model()
    names, window = list(policy.state_dict()), model.config.sliding_window
    policy.check_computation()
    assert list(policy.state_dict()) == names
    assert model.config.sliding_window == window == 6
    assert model.config._attn_implementation == attention.SPAN_ATTENTION


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_window_that_is_ignored_is_refused(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: mistral's window is longer than what is compared, and left out by a fault."""
    policy = adapted(build("mistral", sliding_window=4096).to(dtype))
    policy.check_computation()
    mask = attention._mask
    monkeypatch.setattr(attention, "_mask", lambda length, prefix, window, like: mask(length, prefix, None, like))
    with pytest.raises(ModelError, match="MistralForCausalLM cannot be trained here: its log-probabilities"):
        policy.check_computation()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_of_the_logits_that_is_left_out_is_refused(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = adapted(build("granite", logits_scaling=6.0).to(dtype))
    policy.check_computation()
    monkeypatch.setattr(decoder, "logits", lambda model, hidden: model.get_output_embeddings()(hidden))
    with pytest.raises(ModelError, match=r"GraniteForCausalLM cannot be trained here.* nats"):
        policy.check_computation()


# Folders


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("models/base")


def saved(kind: str, folder: Path) -> Path:
    save(build(kind, **AGREE[kind], vocab_size=tiny_model.VOCABULARY), tiny_model.tokenizer(), folder)
    return folder


@pytest.mark.parametrize("kind", AGREE)
def test_model_of_each_architecture_is_read_trained_and_merged(kind: str, folder: Path) -> None:
    """What was saved lacks nothing, tied heads and experts that are stored one by one included."""
    check_model_folder(saved(kind, folder))
    policy = PolicyWithValue.load(folder, PARAMS, device="cpu")
    with torch.no_grad():
        for name, parameter in policy.policy_parameters().items():
            parameter.add_(0.1 * ("lora_B" in name))
    Path("models/r1").mkdir()
    policy.save(Path("models/r1"))
    ids = torch.arange(3, 23)
    (row,) = pack([_stream(ids.tolist())], 64).rows
    with plain_weights(Path("models/r1"), "float32", Path("merged")) as weights, torch.no_grad():
        check_model_folder(weights)
        scores = load_model(weights, dtype=torch.float32)(input_ids=ids[None, :-1]).logits[0].log_softmax(-1)
        torch.testing.assert_close(scores.gather(1, ids[1:, None])[:, 0], policy(row).logprobs, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["granite", "cohere", "gemma2", "gpt_neox", "starcoder2", "qwen2_moe"])
def test_fine_tuning_starts_at_the_loss_of_the_whole_model(kind: str, folder: Path) -> None:
    ids, losses = list(range(3, 23)), list[float]()
    with torch.no_grad():
        scores = load_model(saved(kind, folder), dtype=torch.float32)(input_ids=torch.tensor([ids])).logits[0, :-1]
    expected = F.cross_entropy(scores[4:], torch.tensor(ids[5:]))
    fine_tune(
        folder,
        Path("out"),
        [Example(ids, [False] * 5 + [True] * 15)],
        Sft.Config(frozen_layers=1),
        dtype="float32",
        seed=0,
        on_metrics=lambda step, metrics: losses.append(metrics["loss"]),
    )
    assert losses[0] == pytest.approx(float(expected), rel=1e-3)
