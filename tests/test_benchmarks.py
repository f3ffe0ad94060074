"""What can be tested of the benchmarks in seconds."""

from __future__ import annotations

import pytest

from benchmarks import training
from benchmarks.variants import with_settings
from steptool.config.settings import load_params
from steptool.core.errors import InputError, ParamsError


def test_a_variant_sets_its_arms_section_or_the_one_that_it_names() -> None:
    before = load_params()
    arm, params = with_settings(before, "ppo:kl_coef=0.5,baseline=attempts,reward.alpha=0.4")
    assert (arm, params.train.kl_coef, params.train.baseline, params.reward.alpha) == ("ppo", 0.5, "attempts", 0.4)
    assert with_settings(before, "rft:epochs=3")[1].rft.epochs == 3
    assert with_settings(before, "ppo")[1] == before


@pytest.mark.parametrize(
    "variant", ["dpo", "ppo:nonsense=1", "ppo:epochs=many", "ppo:elsewhere.x=1", "ppo:seed.x=1", "ppo:epochs=["]
)
def test_a_variant_that_means_nothing_is_refused(variant: str) -> None:
    with pytest.raises((InputError, ParamsError)):
        with_settings(load_params(), variant)


@pytest.mark.parametrize("trainer", training.TRAINERS)
def test_a_trainer_is_timed_on_made_up_tokens(
    trainer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"vocab_size": 64, "hidden_size": 18, "intermediate_size": 8, "num_hidden_layers": 2}
    monkeypatch.setitem(training.SHAPES, "small", training.SHAPES["smollm2"] | small)
    params = load_params()
    params = params.model_copy(
        update={
            "train": params.train.model_copy(update={"lora_first_layer": 1}),
            "sft": params.sft.model_copy(update={"frozen_layers": 1}),
        }
    )
    assert training.measure(trainer, "small", "float32", params, tasks=2) > 0
    assert f"{trainer} small float32 on " in capsys.readouterr().out
