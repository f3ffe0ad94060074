"""The side of `benchmarks.released` that runs in an environment of its own: PPO over token streams by TRL 0.10.1.

Reads one JSON object from standard input, and writes the seconds that going once through the attempts took to standard
output. It knows nothing of this project.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import torch

PAD = 0
SETTINGS = {
    "batch_size": 8,
    "mini_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1e-5,
    "init_kl_coef": 0.3,
    "target": 6,
    "horizon": 10000,
    "gamma": 0.99,
}
"""Those of the release (config/qwen2/StepTool_ppo.json)."""
SPECIAL = ("pad_token", "eos_token", "unk_token")
LORA = {"r": 8, "lora_alpha": 16, "bias": "none", "task_type": "CAUSAL_LM"}
MODULES = ["gate_proj", "o_proj", "k_proj", "q_proj", "up_proj", "down_proj", "v_proj"]


def trainer_of(given: dict[str, Any]) -> Any:
    """TRL's trainer with a model of random weights."""
    transformers, peft, trl = map(importlib.import_module, ("transformers", "peft", "trl"))
    tokenizers = importlib.import_module("tokenizers")
    shape = dict(given["shape"])
    config = transformers.AutoConfig.for_model(shape.pop("model_type"), **shape)
    model = transformers.AutoModelForCausalLM.from_config(
        config, torch_dtype=getattr(torch, given["dtype"]), attn_implementation=given["attention"]
    )
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=MODULES, **LORA))
    with_value = trl.AutoModelForCausalLMWithValueHead.from_pretrained(adapted)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"pad": PAD}))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **dict.fromkeys(SPECIAL, "pad"))
    settings = trl.PPOConfig(ppo_epochs=1, **SETTINGS)
    return trl.PPOTrainer(config=settings, model=with_value, tokenizer=tokenizer)


def main() -> None:
    given = json.load(sys.stdin)
    torch.manual_seed(0)
    trainer = trainer_of(given)
    attempts, size = given["attempts"], SETTINGS["batch_size"]
    batches = [attempts[at : at + int(size)] for at in range(0, len(attempts), int(size))]
    started = time.monotonic()
    for batch in batches:
        trainer.step(
            [torch.tensor(one["ids"][: one["prompt"]]) for one in batch],
            [torch.tensor(one["ids"][one["prompt"] :]) for one in batch],
            [torch.tensor(one["score"]) for one in batch],
            [torch.tensor(one["own"][one["prompt"] :]) for one in batch],
        )
    print(time.monotonic() - started)


if __name__ == "__main__":
    main()
