"""Streams of tokenizers of every family (`families`), against what the tokenizer itself makes of the template's text.

text              stream
harmless          the template's own, token for token
spells a token    the markers' control tokens, no other; the text is so many letters
"""

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer

from steptool.core.errors import ModelError
from steptool.core.types import Task
from steptool.formats.episode import encode
from steptool.formats.json_call import INSTRUCTIONS, JsonCall
from steptool.formats.text import shorten
from steptool.policies import base_models as base_model
from steptool.testing import task as make_task
from steptool.testing import tool
from steptool.worlds.base import SPLITS
from steptool.worlds.mini.world import MiniWorld
from tests.formats.families import (
    BARE,
    END,
    FAMILIES,
    LOSSLESS,
    MODES,
    NAMES,
    TEMPLATE,
    UNKNOWN,
    family,
    json_call,
    replied,
)

HARMLESS = (
    "Where is order a-1?",
    "",
    '{"a": "x y", "b": [1, 2]}',
    "naïve Ångström ﬁ 日本語",
    "  two spaces at both ends  ",
    "\n\n\nlines\n\n",
    "123456 it's",
    "☃ unknown 🙂",
    "a\u200bb e\u0301",
)
UNLIKE = {
    ("llama2, legacy", "normalised"): "it does not find its own tokens, unless a space stands before them",
}


def wide(text: str) -> str:
    """In full-width letters, which NFKC turns into plain ones."""
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def bold(text: str) -> str:
    return "".join(chr(0x1D41A + ord(letter) - ord("a")) if "a" <= letter <= "z" else letter for letter in text)


SPELLINGS = [spelled for name in NAMES for spelled in (name, wide(name), bold(name), name.upper(), name.title())]
PARTS = ["<", "<|", "|>", "im_end", "im_end|>", " ", "  ", "\n", "▁", "\u200b", "\u0301", "\ud800", "x", "☃", "\0"]
PIECES = [*SPELLINGS, *PARTS, *PARTS]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=12).map("".join)


def control(tokenizer: Any, ids: list[int] | tuple[int, ...]) -> list[str]:
    """All control tokens, without the one for what is unknown."""
    added = tokenizer.added_tokens_decoder
    return [added[id].content for id in ids if id in added and added[id].content != UNKNOWN]


def task(query: str) -> Task:
    return make_task("t", query, tool("ping", parameters={}))


@pytest.mark.parametrize("template", [TEMPLATE, BARE], ids=["text in the markers", "control tokens only"])
@pytest.mark.parametrize("mode", ["as published", "normalised", "strips"])
@pytest.mark.parametrize("name", FAMILIES)
def test_harmless_texts_give_the_stream_of_the_template(name: str, mode: str, template: str) -> None:
    if (name, mode) in UNLIKE:
        pytest.skip(UNLIKE[name, mode])
    tokenizer = family(name, mode, template)
    chat = json_call(tokenizer)
    for text in HARMLESS:
        asked = task(text)
        said = {"system": f"{INSTRUCTIONS}\nping()", "user": text, "assistant": "ping {}", "tool": text}
        messages = [{"role": role, "content": content} for role, content in said.items()]
        stream = [*chat.prompt(asked), *chat.turns.encode_action("ping {}"), *replied(chat, text, False)]
        whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert stream == whole, text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_no_text_from_outside_becomes_a_control_token(name: str, mode: str) -> None:
    """Query, tool output and action: whatever they spell, the control tokens are those of the markers."""
    tokenizer = family(name, mode)
    chat = json_call(tokenizer)
    prompt = control(tokenizer, chat.prompt(task("x")))
    observation = control(tokenizer, replied(chat, "x", False))
    assert observation[:1] == [END]

    @given(text=HOSTILE)
    @settings(max_examples=25)
    def holds(text: str) -> None:
        assert control(tokenizer, chat.prompt(task(text))) == prompt
        assert control(tokenizer, replied(chat, text, False)) == observation
        assert control(tokenizer, chat.turns.encode_action(text)) == []

    holds()
    for spelled in SPELLINGS:
        for text in (spelled, f"a{spelled}b", f" {spelled} ", spelled * 3, f"<{spelled}", spelled[:-1]):
            assert control(tokenizer, replied(chat, text, False)) == observation, text


@pytest.mark.parametrize("name", LOSSLESS)
def test_hostile_text_still_says_what_it_said(name: str) -> None:
    tokenizer = family(name)
    chat = json_call(tokenizer)

    @given(text=HOSTILE)
    @settings(max_examples=50)
    def holds(text: str) -> None:
        assert shorten(text, chat.max_observation) in tokenizer.decode(replied(chat, text, True))

    holds()


def test_text_that_the_model_itself_reads_as_a_control_token_is_cut() -> None:
    """A Unigram model and one of words have control tokens in their vocabulary; no switch keeps them from it."""
    for name in ("t5", "words"):
        tokenizer = family(name)
        assert control(tokenizer, tokenizer.encode(f"a {END} b", split_special_tokens=True))
        assert control(tokenizer, json_call(tokenizer).turns.encode_action(f"a {END} b {END}{END}")) == []


def test_ten_thousand_control_tokens_in_a_row_are_cut() -> None:
    tokenizer = family("words")
    chat = json_call(tokenizer)
    prompt = control(tokenizer, chat.prompt(task("x")))
    assert control(tokenizer, chat.prompt(task(f"{END} " * 10_000))) == prompt


def test_a_token_of_spaces_is_text(tokenizer: Any) -> None:
    """GPT-NeoX, OLMo, Phi and Gemma have runs of spaces as added tokens; the template's stream has them too."""
    other = copy.deepcopy(tokenizer)
    other.add_tokens([AddedToken("    ", special=False, normalized=True)])
    run = other.convert_tokens_to_ids("    ")
    chat = json_call(other)
    assert run in replied(chat, "if a:\n    b", True)
    hostile = replied(chat, "if a:\n    <|im_end|>", True)
    assert run in hostile
    assert control(tokenizer, hostile) == control(tokenizer, replied(chat, "x", True))


def test_merges_that_are_dropped_at_random_are_not(tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.model.dropout = 0.5
    chat, texts = json_call(other), {replied(json_call(tokenizer), "call name arguments", True)}
    assert {replied(chat, "call name arguments", True) for _ in range(20)} == texts


def test_settings_of_the_callers_tokenizer_change_no_stream(tokenizer: Any) -> None:
    """Truncation and padding come with some tokenizer.json, and anybody may switch them on."""
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.enable_truncation(5)
    other.backend_tokenizer.enable_padding(length=900)
    other.backend_tokenizer.encode_special_tokens = True
    assert json_call(other).prompt(task("x" * 99)) == json_call(tokenizer).prompt(task("x" * 99))


def test_a_tokenizer_that_cannot_keep_them_apart_is_refused(tokenizer: Any) -> None:
    class Slow:
        """As `PythonBackend` and `MistralCommonBackend`: no tokenizer of the library `tokenizers` inside."""

        name_or_path = "models/base"

        def apply_chat_template(self, *arguments: Any, **settings: Any) -> Any:
            return tokenizer.apply_chat_template(*arguments, **settings)

    with pytest.raises(ModelError, match=r"models/base: its tokenizer \(Slow\).*\n.*tokenizer\.json"):
        json_call(Slow())


def digest(chat: JsonCall) -> str:
    """Of the streams of the bundled world: every prompt, and demonstrations."""
    world = MiniWorld(MiniWorld.Config(train_tasks=60, dev_tasks=12, test_tasks=12), 17)
    tasks = {task.id: task for split in SPLITS for task in world.tasks(split)}
    streams = [chat.prompt(task) for task in tasks.values()]
    demonstrations = world.demonstrations(40, 0.25, 5)
    streams += [encode(chat, tasks[shown.task_id], shown.steps)[0] for shown in demonstrations]
    return hashlib.sha256(json.dumps(streams).encode()).hexdigest()[:16]


def test_streams_of_the_tiny_model_are_what_they_were(chat: JsonCall) -> None:
    """Results of other versions stay comparable: a changed digest means that every policy sees other tokens."""
    assert digest(chat) == "bab9fa262becacb0"


@pytest.mark.slow
def test_streams_of_smollm2_are_what_they_were() -> None:
    gguf = base_model.smollm2_gguf()
    with base_model._parsed_once():
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    assert digest(json_call(tokenizer)) == "3abf96afaa95709b"
