"""Tokenizers in the style of each family, trained on a few sentences, so that tests need no hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from steptool.core.types import Observation
from steptool.formats.json_call import JsonCall
from steptool.policies.tiny_model import CORPUS

START, END, STOP, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<unk>"
OPEN, CLOSE = "<tool_response>", "</tool_response>"
NAMES = (UNKNOWN, STOP, START, END, OPEN, CLOSE)

TEMPLATE = (
    "{%- for m in messages %}{%- if m.role == 'tool' %}"
    "{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
BARE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.content + '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>' }}{%- endif %}"
)
"""Nothing but control tokens around the texts: each text begins right behind one, as in Mistral's."""


def json_call(tokenizer: Any) -> JsonCall:
    return JsonCall(JsonCall.Config(), tokenizer)


def replied(chat: JsonCall, text: str, ended: bool) -> tuple[int, ...]:
    """The tokens of an observation behind an action that ended its turn, or did not."""
    return chat.reply([chat.end_of_turn] if ended else [], [Observation(text=text)], None)


TEXTS = [*CORPUS, *(word.lower() for word in CORPUS), "Ångström naïve café № ﬁ 日本語 \t\n a  b   c"]


def _trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _bpe(pre_tokenizer: Any, normalizer: Any = None, alphabet: list[str] | None = None, **settings: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer, tokenizer.normalizer, tokenizer.decoder = pre_tokenizer, normalizer, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """What SentencePiece calls byte fallback: 256 more tokens, and no character is unknown."""
    settings = json.loads(tokenizer.to_str())
    vocabulary = settings["model"]["vocab"]
    for number in range(256):
        vocabulary[f"<0x{number:02X}>"] = len(vocabulary)
    vocabulary[UNKNOWN] = len(vocabulary)
    settings["model"] |= {"byte_fallback": True, "unk_token": UNKNOWN, "fuse_unk": True}
    return Tokenizer.from_str(json.dumps(settings))


def _gpt2() -> Tokenizer:
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))


def _gpt2_with_prefix_space() -> Tokenizer:
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=True))


def _llama3() -> Tokenizer:
    split = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    )
    return _bpe(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        ),
        ignore_merges=True,
    )


def _qwen_with_nfkc() -> Tokenizer:
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFKC())


def _lower_case() -> Tokenizer:
    steps = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Sequence(steps))


def _llama2_legacy() -> Tokenizer:
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    return _with_bytes(_bpe(None, normalizers.Sequence(steps), alphabet=[]))


def _metaspace(scheme: str) -> Callable[[], Tokenizer]:
    return lambda: _with_bytes(_bpe(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False), alphabet=[]))


def _gemma() -> Tokenizer:
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    return _with_bytes(_bpe(split, normalizers.Replace(" ", "▁"), alphabet=[]))


def _t5() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, unk_token=UNKNOWN, special_tokens=list(NAMES), show_progress=False
    )
    return _trained(tokenizer, trainer)


def _bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=list(NAMES), show_progress=False)
    return _trained(tokenizer, trainer)


def _words() -> Tokenizer:
    """Its model itself knows the control tokens as words."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.WhitespaceSplit()
    return _trained(tokenizer, trainers.WordLevelTrainer(special_tokens=list(NAMES), show_progress=False))


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": _gpt2,
    "gpt2, prefix space": _gpt2_with_prefix_space,
    "llama3": _llama3,
    "nfkc": _qwen_with_nfkc,
    "lower case, strip": _lower_case,
    "llama2, legacy": _llama2_legacy,
    "metaspace, first": _metaspace("first"),
    "metaspace, always": _metaspace("always"),
    "metaspace, never": _metaspace("never"),
    "gemma": _gemma,
    "t5": _t5,
    "bert": _bert,
    "words": _words,
}
LOSSLESS = ("gpt2", "llama3")

MODES: dict[str, dict[str, bool]] = {
    "as published": {"normalized": False},
    "normalised": {"normalized": True},
    "strips": {"normalized": False, "lstrip": True, "rstrip": True},
    "single word": {"normalized": False, "single_word": True},
}
"""How the control tokens are added."""


@cache
def family(name: str, mode: str = "as published", template: str = TEMPLATE) -> Any:
    """`<tool_response>` is added as Qwen has it: a token that is not marked special."""
    tokenizer = FAMILIES[name]()
    special = (STOP, START, END) if tokenizer.token_to_id(UNKNOWN) is None else (UNKNOWN, STOP, START, END)
    tokenizer.add_special_tokens([AddedToken(token, special=True, **MODES[mode]) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, **MODES[mode]) for token in (OPEN, CLOSE)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=AddedToken(END, special=True, **MODES[mode]),
        bos_token=AddedToken(START, special=True, **MODES[mode]),
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
