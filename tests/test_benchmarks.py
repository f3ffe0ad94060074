"""What can be tested of the benchmarks without running them."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks import growth, training
from benchmarks.habits import without_verdict
from benchmarks.variants import method_of, with_settings, written_params
from steptool.config.places import PARAMS
from steptool.config.settings import parse_params
from steptool.core.errors import InputError, ParamsError
from steptool.testing import finish, trajectory


def test_a_variant_sets_its_methods_settings_or_the_section_that_it_names() -> None:
    params = with_settings(written_params(), "step_ppo:kl_coef=0.5,baseline=attempts,reward.alpha=0.4")
    config = method_of(params).config
    assert (config.kl_coef, config.baseline, params.reward.config.alpha) == (0.5, "attempts", 0.4)
    assert method_of(with_settings(written_params(), "rft:epochs=3")).config.epochs == 3


def test_a_variant_changes_nothing_else() -> None:
    written = written_params()
    before = parse_params(PARAMS, written)
    params = with_settings(written, "step_ppo")
    assert params.model_copy(update={"arms": before.arms}) == before
    assert written == written_params()


@pytest.mark.parametrize(
    "variant",
    [
        *("no_such_method", "sft", "step_ppo:nonsense=1", "step_ppo:epochs=many", "step_ppo:elsewhere.x=1"),
        *("step_ppo:seed.x=1", "step_ppo:epochs=["),
    ],
)
def test_a_variant_that_means_nothing_is_refused(variant: str) -> None:
    with pytest.raises((InputError, ParamsError)):
        method_of(with_settings(written_params(), variant))


@pytest.mark.parametrize("method", training.METHODS)
def test_a_method_is_timed_on_made_up_tokens(
    method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"vocab_size": 64, "hidden_size": 18, "intermediate_size": 8, "num_hidden_layers": 2}
    monkeypatch.setitem(training.SHAPES, "small", training.SHAPES["smollm2"] | small)
    shallow = {"step_ppo": {"lora_first_layer": 1}, "sft": {"frozen_layers": 1}}
    params = parse_params(PARAMS, {"methods": shallow})
    assert training.measure(method, "small", "float32", params, tasks=2) > 0
    assert f"{method} small float32 on " in capsys.readouterr().out


def test_ppo_is_timed_against_a_plain_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"vocab_size": 64, "hidden_size": 18, "intermediate_size": 8, "num_hidden_layers": 2}
    monkeypatch.setitem(training.SHAPES, "small", training.SHAPES["smollm2"] | small)
    params = parse_params(PARAMS, {"methods": {"step_ppo": {"lora_first_layer": 1}}})
    (share,) = training.against_plain("small", "float32", params, tasks=2, repeats=1)
    assert share > 0
    assert f"{share:.2f} of its speed" in capsys.readouterr().out


def test_grown_rounds_hold_as_many_different_attempts_as_asked_for() -> None:
    attempts = [trajectory(finish("7"), of="a"), trajectory(finish("8"), of="b")]
    made = list(islice(growth.copied(attempts), 5))
    assert [each.task_id for each in made] == ["a-0", "b-0", "a-1", "b-1", "a-2"]
    assert len({each.id for each in made}) == 5


def test_a_hidden_verdict_leaves_the_rest_of_an_attempt_as_it_was() -> None:
    judged = trajectory(finish("7"), solved=1.0)
    hidden = without_verdict(judged)
    assert hidden.outcome.solved is None
    assert hidden == without_verdict(trajectory(finish("7"), solved=0.0))
    assert (hidden.steps, hidden.answer) == (judged.steps, "7")
