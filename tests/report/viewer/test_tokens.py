"""A tokenizer of single bytes and two control tokens: ü is two tokens, the text of both comes with the second."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from steptool.report.viewer.tokens import FILE, MAX_CONTEXT, MAX_SAMPLED, Run, Words
from steptool.testing import call, step


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<start>", "<end>"])
    (tmp_path / FILE).parent.mkdir(parents=True)
    made.save(str(tmp_path / FILE))
    return made


def test_sampled_tokens_are_text_one_by_one(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("für<end>").ids
    (found,) = [Words(tmp_path).of(step(call("x"), action_ids=ids, logprobs=[-0.1, -0.2, -0.3, -0.4, -0.5]))]
    assert [(each.text, each.is_control) for each in found.sampled] == [
        ("f", False),
        ("", False),
        ("ü", False),
        ("r", False),
        ("<end>", True),
    ]
    assert [each.logprob for each in found.sampled] == [-0.1, -0.2, -0.3, -0.4, -0.5]
    assert [each.id for each in found.sampled] == ids


def test_context_is_text_with_its_control_tokens_apart(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<start>hello there<end>").ids
    found = Words(tmp_path).of(step(call("x"), context_ids=ids))
    assert found.context == [Run("<start>", True), Run("hello there", False), Run("<end>", True)]
    assert (found.context_size, found.left_out) == (len(ids), 0)


def test_a_long_context_is_cut(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = Words(tmp_path).of(step(call("x"), context_ids=tokenizer.encode("a" * (MAX_CONTEXT + 7) + "<end>").ids))
    assert found.context == [Run("a" * MAX_CONTEXT, False)]
    assert found.left_out == 7 + len("<end>")


def test_of_a_long_action_the_first_tokens_are_shown(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab" * MAX_SAMPLED).ids
    found = Words(tmp_path).of(step(call("x"), action_ids=ids))
    assert "".join(each.text for each in found.sampled) == "ab" * (MAX_SAMPLED // 2)


def test_tokens_of_another_model_are_numbers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = Words(tmp_path).of(step(call("x"), context_ids=(1, 99_999), action_ids=(99_999,)))
    assert ([run.text for run in found.context], found.sampled[0].text) == (["1 99999"], " 99999")


def test_without_a_tokenizer_tokens_are_numbers_and_it_says_why(tmp_path: Path) -> None:
    words = Words(tmp_path)
    found = words.of(step(call("x"), context_ids=(1, 2), action_ids=(3,)))
    assert ([run.text for run in found.context], [each.text for each in found.sampled]) == (["1 2"], [" 3"])
    assert words.missing == "there is no models/base/tokenizer.json; tokens are shown by their numbers"


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / FILE).write_text("{}")
    assert "models/base/tokenizer.json cannot be read" in Words(tmp_path).missing
