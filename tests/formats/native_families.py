"""Tokenizers of the families that `native` claims: a small byte-level BPE with the family's own control tokens, and the
chat template that it was published with, as TRL ships it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken, decoders
from transformers import PreTrainedTokenizerFast

from steptool.policies.tiny_model import CHATML
from tests.formats.families import FAMILIES as BPE

PUBLISHED = Path(trl.__file__).parent / "chat_templates"
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TAGS = ("<tool_call>", "</tool_call>")
QWEN3_TAGS = ("<tool_response>", "</tool_response>", "<think>", "</think>")
TOKENS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], str, str]] = {
    # base, special, added but not special, end of text, template
    "qwen3": ("gpt2", QWEN, (*QWEN_TAGS, *QWEN3_TAGS), QWEN[2], "qwen3"),
    "qwen2.5": ("gpt2", QWEN, QWEN_TAGS, QWEN[2], "qwen2_5"),
    "smollm": ("gpt2", QWEN, (), QWEN[2], ""),
    "llama-3": (
        "llama3",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
         "<|python_tag|>"),
        (),
        "<|eot_id|>",
        "llama3_2",
    ),
    "gpt-oss": (
        "llama3",
        ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>",
         "<|message|>", "<|call|>"),
        (),
        "<|return|>",
        "gptoss",
    ),
    "gemma-4": (
        "gemma",
        ("<unk>", "<bos>", "<eos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool>", "<tool|>",
         "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|image>", "<|image|>",
         "<image|>"),
        (),
        "<turn|>",
        "gemma4_v5",
    ),
}  # fmt: skip


@cache
def native_tokenizer(name: str, template: str | None = None) -> Any:
    base, special, added, end, published = TOKENS[name]
    tokenizer = BPE[base]()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    if base == "gemma":
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    own = (PUBLISHED / f"{published}.jinja").read_text(encoding="utf-8") if published else CHATML
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        bos_token="<bos>" if "<bos>" in special else special[0],
        chat_template=own if template is None else template,
        clean_up_tokenization_spaces=False,
    )
