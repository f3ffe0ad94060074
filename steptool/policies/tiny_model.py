"""An untrained two-layer Llama with its own tokenizer, so that tests run every stage in seconds and offline.

It writes nonsense, but shows that the parts fit together. Deterministic: the tokenizer for the
text below, the weights for a seed.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 512

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CORPUS = (
    "system user assistant tool thought action observation call name arguments description parameters required",
    'Finish {"answer": "the answer"} Finish {"give_up": true}',
    '{"name": "search_items", "arguments": {"query": "first", "limit": 10}}',
    '{"name": "get_details", "arguments": {"item_id": "a-1042", "include_reviews": true}}',
    '{"type": "object", "properties": {"city": {"type": "string", "description": "name of the city"}}}',
    '{"error": "unknown_id", "message": "no such id"} {"error": "missing_argument"} {"error": "rate_limit"}',
    "You can call these tools, one call in each step, and finish with the answer when you know it.",
    "Which flight from Oslo to Lisbon is the cheapest, and how many seats are left on it?",
    "Find the order of this customer, then list the price of every item in it, in euros.",
    "What is the temperature in the capital, and which hotel near the station has a free room tonight?",
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over `CORPUS`: every text can be encoded, and decoding gives it back exactly."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=TURN_START,
        eos_token=TURN_END,
        pad_token=TURN_END,
        unk_token=END_OF_TEXT,
        chat_template=CHATML,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


def model(seed: int) -> LlamaForCausalLM:
    """Weights in bfloat16, drawn from a generator of their own: the caller's random state is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,  # a head of 32: the smallest that vLLM's CPU attention has
                num_key_value_heads=1,
                max_position_embeddings=8192,
                tie_word_embeddings=True,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=2,
            )
        ).to(torch.bfloat16)
