"""Packing is exact, the frozen half stays frozen, and a policy folder gives back what was saved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steptool.core.errors import ModelError
from steptool.core.types import ScoredTrajectory
from steptool.methods.step_ppo import StepPpo
from steptool.policies import tiny_model
from steptool.policies.base_models import fetch_base
from steptool.policies.folder import merge_adapter, plain_weights, resolve_policy
from steptool.policies.model_folder import weights_hash
from steptool.training.batch import Batch, Row, Span, pack
from steptool.training.episode import episode
from steptool.training.model import (
    AdapterSettings,
    PolicyWithValue,
    ValueHead,
    adapter_groups,
)

MakePolicy = Callable[..., PolicyWithValue]
MakeScored = Callable[..., ScoredTrajectory]


def packed(scored: Sequence[ScoredTrajectory], row_tokens: int) -> Batch:
    made = [episode(item, [0.0] * len(item.judgements)) for item in scored]
    return pack([item for item in made if item is not None], row_tokens)


def logprobs_and_gradients(policy: PolicyWithValue, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities [N], and the gradients of their weighted sum."""
    policy.zero_grad()
    logprobs = torch.zeros(batch.tokens)
    for row in batch.rows:
        output = policy(row)
        logprobs[row.tokens] = output.logprobs.detach()
        (output.logprobs * torch.sin(row.tokens.float())).sum().backward()
    return logprobs, {name: p.grad.clone() for name, p in policy.policy_parameters().items() if p.grad is not None}


def padded_logprobs(policy: PolicyWithValue, batch: Batch) -> Tensor:
    """The oracle: one padded row a trajectory, PyTorch's own causal attention, logits everywhere."""
    model = policy.peft.get_base_model()
    model.set_attn_implementation("sdpa")
    length = max(len(item.ids) for item in batch.episodes)
    ids = torch.tensor([[*item.ids, *[0] * (length - len(item.ids))] for item in batch.episodes])
    mask = torch.tensor([[1] * len(item.ids) + [0] * (length - len(item.ids)) for item in batch.episodes])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    parts = [logits[i, list(e.predict), list(e.targets)] for i, e in enumerate(batch.episodes)]
    return torch.cat(parts)


@pytest.mark.parametrize("row_tokens", [1, 16, 24, 512])
def test_packed_rows_give_the_logprobs_of_padded_ones(
    make_policy: MakePolicy, group: list[ScoredTrajectory], row_tokens: int
) -> None:
    batch = packed(group, row_tokens)
    found, _ = logprobs_and_gradients(make_policy(), batch)
    torch.testing.assert_close(found, padded_logprobs(make_policy(), batch).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("row_tokens", [16, 512])
def test_shared_prompt_gives_the_gradients_of_separate_rows(
    make_policy: MakePolicy, group: list[ScoredTrajectory], row_tokens: int
) -> None:
    _, separate = logprobs_and_gradients(make_policy(), packed(group, 1))
    _, shared = logprobs_and_gradients(make_policy(), packed(group, row_tokens))
    assert shared.keys() == separate.keys() == make_policy().policy_parameters().keys()
    for name, gradient in shared.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, separate[name], atol=1e-5, rtol=1e-4)


def positions_not_reset(row: Row) -> Row:
    return dataclasses.replace(row, position_ids=torch.arange(len(row)))


def attempts_see_each_other(row: Row) -> Row:
    return dataclasses.replace(row, spans=(Span(0, len(row)),))


@pytest.mark.parametrize("fault", [positions_not_reset, attempts_see_each_other])
def test_packing_fault_shows_in_the_logprobs(
    make_policy: MakePolicy, group: list[ScoredTrajectory], fault: Callable[[Row], Row]
) -> None:
    """The negative control of the tests above."""
    (row,) = packed(group, 512).rows
    policy = make_policy()
    assert (policy(fault(row)).logprobs - policy(row).logprobs).abs().max() > 1e-2


def test_gradients_stop_at_the_first_layer_with_an_adapter(
    make_policy: MakePolicy, group: list[ScoredTrajectory]
) -> None:
    policy, (row,) = make_policy(), packed(group, 512).rows
    lower = policy.lower(row)
    assert lower.grad_fn is None
    assert not lower.requires_grad
    policy.upper(row, lower).logprobs.sum().backward()
    trained = [name for name, p in policy.named_parameters() if p.grad is not None]
    assert trained
    assert all("lora_" in name and (".layers.1." in name or ".layers.2." in name) for name in trained)


def test_whole_model_is_restored_after_half_of_it_ran(make_policy: MakePolicy, group: list[ScoredTrajectory]) -> None:
    policy, (row,) = make_policy(), packed(group, 512).rows
    names = list(policy.state_dict())
    policy(row)
    assert list(policy.state_dict()) == names


def test_reference_is_the_model_without_adapter(
    make_policy: MakePolicy, group: list[ScoredTrajectory], config: StepPpo.Config
) -> None:
    policy, (row,) = make_policy(), packed(group, 512).rows
    reference = policy.upper(row, policy.lower(row), reference=True).logprobs
    with torch.no_grad():
        for name, parameter in policy.policy_parameters().items():
            if "lora_B" in name:
                parameter.zero_()
    torch.testing.assert_close(policy(row).logprobs, reference)


@pytest.mark.parametrize("chunk", [1024, 5])
def test_divergence_is_the_whole_distributions_distance_from_the_reference(
    make_policy: MakePolicy, group: list[ScoredTrajectory], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Against KL(p, q) = sum p log(p / q), with both distributions from the model's own logits."""
    policy, (row,) = make_policy(), packed(group, 512).rows
    lower = policy.lower(row)
    reference = policy.upper(row, lower, reference=True)
    head = policy.peft.get_base_model().get_output_embeddings()
    p = (head(policy.upper(row, lower).features) / row.temperature[:, None]).softmax(-1)
    q = (head(reference.features) / row.temperature[:, None]).softmax(-1)
    monkeypatch.setattr("steptool.training.model._HEAD_CHUNK", chunk)
    found = policy.upper(row, lower, reference_features=reference.features).divergence
    assert found is not None
    torch.testing.assert_close(found, (p * (p / q).log()).sum(-1), atol=1e-5, rtol=1e-4)
    assert found.min() > 0
    found.sum().backward()
    assert all(p.grad is not None for p in policy.policy_parameters().values())
    with torch.no_grad():
        assert policy.upper(row, lower, reference=True).divergence is None


def test_temperature_flattens_the_scored_distribution(make_policy: MakePolicy, group: list[ScoredTrajectory]) -> None:
    policy, (row,) = make_policy(), packed(group, 512).rows
    hot = dataclasses.replace(row, temperature=torch.full_like(row.temperature, 1e6))
    torch.testing.assert_close(policy(hot).logprobs, torch.full((24,), -torch.log(torch.tensor(40.0)).item()))
    assert policy(hot).entropy.min() > policy(row).entropy.max()


def test_state_that_attempts_share_is_scored_once(make_policy: MakePolicy, make_scored: MakeScored) -> None:
    """attempts  P a b, P a c, P d: five sampled tokens, drawn from the two states P and P a."""
    attempts = [make_scored([([1, 2, 3], own)], attempt=i) for i, own in enumerate(([7, 8], [7, 9], [5]))]
    policy, (row,) = make_policy(), packed(attempts, 512).rows
    scored: list[int] = []
    head = policy.peft.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: scored.append(out.shape[-2]))
    found = policy(row).logprobs
    assert scored == [2]
    assert len(found) == 5


def test_shared_state_is_scored_at_the_temperature_of_each_attempt(
    make_policy: MakePolicy, make_scored: MakeScored
) -> None:
    attempts = [make_scored([([1, 2, 3], [7])], attempt=i) for i in range(2)]
    policy, (row,) = make_policy(), packed(attempts, 512).rows
    mixed = dataclasses.replace(row, temperature=torch.tensor([1.0, 1e6]))
    torch.testing.assert_close(policy(mixed).logprobs[0], policy(row).logprobs[0])
    torch.testing.assert_close(policy(mixed).logprobs[1], -torch.log(torch.tensor(40.0)))


def test_long_row_scored_in_chunks_is_the_same(
    make_policy: MakePolicy, group: list[ScoredTrajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gradients = logprobs_and_gradients(make_policy(), packed(group, 512))
    monkeypatch.setattr("steptool.training.model._HEAD_CHUNK", 7)
    chunked, others = logprobs_and_gradients(make_policy(), packed(group, 512))
    torch.testing.assert_close(whole, chunked)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], atol=1e-5, rtol=1e-4)


def test_fresh_value_head_is_zero() -> None:
    assert ValueHead(8)(torch.randn(3, 8)).tolist() == [0, 0, 0]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/sft of a working directory, untrained."""
    monkeypatch.chdir(tmp_path)
    fetch_base("tiny-random", Path("models/sft"))
    return Path("models/sft")


def trained(base: Path, adapter: AdapterSettings) -> PolicyWithValue:
    policy = PolicyWithValue.load(base, adapter, seed=1, device="cpu")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


def saved(base: Path, adapter: AdapterSettings, name: str = "models/r1") -> Path:
    folder = Path(name)
    folder.mkdir(parents=True)
    trained(base, adapter).save(folder)
    return folder


def test_saved_policy_loads_with_the_same_weights(base: Path, config: StepPpo.Config) -> None:
    folder = saved(base, config)
    loaded = PolicyWithValue.load(folder, config, seed=99, device="cpu")
    for name, parameter in trained(base, config).trainable().items():
        assert torch.equal(parameter, loaded.trainable()[name]), name
    assert loaded.base == base


def test_saving_twice_gives_the_same_bytes_and_no_machine_path(base: Path, config: StepPpo.Config) -> None:
    first, second = saved(base, config, "one"), saved(base, config, "two")
    names = sorted(file.name for file in first.iterdir())
    assert {"adapter_config.json", "adapter_model.safetensors", "value_head.safetensors", "policy.json"} < set(names)
    assert "tokenizer.json" in names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
        assert str(Path.cwd()).encode() not in (first / name).read_bytes(), name
    assert json.loads((first / "policy.json").read_text()) == {
        "base": "models/sft",
        "weights": weights_hash(base),
    }


def test_merged_model_computes_what_the_adapter_does(base: Path, config: StepPpo.Config) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = saved(base, config)
    merge_adapter(base, folder, Path("merged"), dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained("merged", dtype=torch.float32)
    policy = trained(base, config).peft.get_base_model()
    policy.set_attn_implementation("sdpa")
    ids = torch.arange(12)[None]
    torch.testing.assert_close(plain(ids).logits, policy(ids).logits, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained("merged").encode("search") == tiny_model.tokenizer().encode("search")
    assert resolve_policy(Path("merged")).adapter is None


def test_plain_folder_resolves_to_itself(base: Path) -> None:
    assert resolve_policy(base) == (base, None)


def test_adapter_of_another_rank_is_refused(base: Path, config: StepPpo.Config) -> None:
    folder = saved(base, config)
    with pytest.raises(ModelError, match="r 2, the settings ask for 3") as caught:
        PolicyWithValue.load(folder, config.model_copy(update={"lora_rank": 3}))
    assert "set lora_rank of the arm's method, under `methods`" in str(caught.value.fix)


def test_first_layer_beyond_the_model_is_refused(base: Path) -> None:
    with pytest.raises(ModelError, match="has 2 layers") as caught:
        PolicyWithValue.load(base, AdapterSettings(lora_first_layer=2))
    assert caught.value.fix == "set lora_first_layer of the arm's method, under `methods` in params.yaml, below 2"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("models/r1", "no such model folder"),
        ("models/r1/adapter_model.safetensors", "no adapter_model.safetensors"),
        ("models/r1/value_head.safetensors", "no value_head.safetensors"),
        ("models/r1/policy.json", "an adapter without policy.json"),
        ("models/sft", "its base models/sft does not exist"),
        ("models/sft/tokenizer.json", "no tokenizer"),
        ("models/sft/model.safetensors", r"no \*.safetensors"),
    ],
)
def test_missing_part_is_named_with_a_fix(base: Path, config: StepPpo.Config, part: str, found: str) -> None:
    folder = saved(base, config)
    path = Path(part)
    path.rename(path.with_name("gone"))
    with pytest.raises(ModelError, match=found) as caught:
        PolicyWithValue.load(folder, config)
    assert caught.value.fix


def test_truncated_adapter_is_a_model_error(base: Path, config: StepPpo.Config) -> None:
    folder = saved(base, config)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        PolicyWithValue.load(folder, config)
    with pytest.raises(ModelError, match="not a whole safetensors file"), plain_weights(folder, "float32", Path("tmp")):
        pass


def test_adapter_of_another_model_is_a_model_error(base: Path, config: StepPpo.Config) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(base, config)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: tensor[:, :1].contiguous() for name, tensor in weights.items()}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(ModelError, match="does not fit"):
        PolicyWithValue.load(folder, config)


def test_adapter_groups_hold_every_weight_once_and_the_a_matrices_learn_slower(
    make_policy: MakePolicy, config: StepPpo.Config
) -> None:
    policy = make_policy()
    names = {id(p): name for name, p in policy.policy_parameters().items()}
    rates: dict[str, float] = {}
    for group in adapter_groups(policy, 0.32, config.model_copy(update={"lora_plus": 16.0})):
        for parameter in group["params"]:
            assert names[id(parameter)] not in rates
            rates[names[id(parameter)]] = group["lr"]
    assert rates.keys() == policy.policy_parameters().keys()
    for name, rate in rates.items():
        assert rate == pytest.approx(0.02 if ".lora_A." in name else 0.32), name
