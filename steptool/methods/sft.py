"""Supervised fine-tuning on demonstrations with TRL; loss on action tokens only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from steptool.config.settings import SftParams
from steptool.core.errors import ModelError, StepToolError
from steptool.policies.base_models import save
from steptool.policies.model_folder import check_model_folder, load_model, load_tokenizer, read_config, require_finite
from steptool.policies.precision import Dtype, autocast
from steptool.system.progress import progress
from steptool.training import decoder

DIVERGED = "lower sft.learning_rate, then run the same command again"
_COMPARED = 32  # tokens of the first example that are compared with Transformers' own forward pass
IGNORED = -100  # the label that PyTorch's cross entropy leaves out


def train_sft(
    base: Path,
    out: Path,
    examples: Sequence[tuple[Sequence[int], Sequence[bool]]],
    params: SftParams,
    *,
    dtype: Dtype,
    seed: int,
    on_metrics: Callable[[int, dict[str, float]], None],
) -> dict[str, float]:
    """Fine-tune the model of folder `base` into folder `out` (bfloat16 safetensors and the tokenizer).

    `examples` are token streams with True where the policy acted. Embeddings and the lowest
    `frozen_layers` stay as they are. Minutes long and deterministic, so a run that was killed
    starts over. Returns the last logged metrics. Raises ModelError where every layer would be frozen, and for a base
    that is not computed here as Transformers computes it; StepToolError where a loss or a weight is not finite.
    """
    check_model_folder(base)
    torch.manual_seed(seed)
    on_gpu = torch.cuda.is_available()
    # On a CPU the fused attention's backward pass takes longer than plain products (steptool.training.attention).
    capped = read_config(base).get("attn_logit_softcapping")  # which the fused attention leaves out
    model: Any = load_model(base, dtype=torch.float32, attention="sdpa" if on_gpu and not capped else "eager")
    tokenizer = load_tokenizer(base)
    _check_tokens(model, examples, base)
    _check_computation(model, examples[0][0], base)
    _freeze(model, params.frozen_layers, getattr(torch, dtype), base)
    rows = [
        {"input_ids": list(ids), "labels": [t if own else IGNORED for t, own in zip(ids, mask, strict=True)]}
        for ids, mask in examples
    ]
    steps_per_epoch = -(-len(rows) // params.batch_size)
    config = SFTConfig(
        output_dir=str(out),
        learning_rate=params.learning_rate,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps_per_epoch * params.epochs // 20),
        # Grouping spares padding, and shows one long example after another; alone in a batch none is padded.
        train_sampling_strategy="group_by_length" if params.batch_size > 1 else "random",
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not on_gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=0,
    )
    with progress("sft", steps_per_epoch * params.epochs, "updates") as advance:
        follower = _Follower(on_metrics, advance)
        trainer = ActionLossTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[follower],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.to(torch.bfloat16)
    require_finite(model.state_dict().items(), str(out), DIVERGED, error=StepToolError)
    save(model, tokenizer, out)
    return follower.latest


class ActionLossTrainer(SFTTrainer):
    """Scores the vocabulary at action tokens alone.

    TRL does so only where Triton runs. On a CPU it scores every position, prompts included: a third
    of the time of a small model with a large vocabulary.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        labels = inputs["labels"][:, 1:]
        own = labels != IGNORED
        others = {name: value for name, value in inputs.items() if name != "labels"}
        with autocast(model):
            hidden = model.base_model(**others, use_cache=False).last_hidden_state[:, :-1][own]
            logits = decoder.logits(model, hidden).float()
        self._metrics["train"]["mean_token_accuracy"].append((logits.argmax(-1) == labels[own]).float().mean().item())
        loss = F.cross_entropy(logits, labels[own], reduction="sum")
        if not loss.isfinite():
            where = f"update {self.state.global_step + 1}"
            raise StepToolError("the loss is not finite", where=where, fix=DIVERGED)
        return loss / (own.sum() if num_items_in_batch is None else num_items_in_batch)


def _check_tokens(model: Any, examples: Sequence[tuple[Sequence[int], Sequence[bool]]], base: Path) -> None:
    """Raise ModelError where the tokenizer writes tokens that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    most = max(max(ids) for ids, _ in examples)
    if most >= rows:
        raise ModelError(
            f"its tokenizer writes token {most}, the model embeds {rows} tokens",
            where=str(base),
            fix="put the tokenizer that belongs to the model beside its weights",
        )


@torch.no_grad()
def _check_computation(model: Any, ids: Sequence[int], base: Path) -> None:
    """Raise ModelError unless decoder and head give what the whole model gives for a few tokens."""
    few = torch.tensor(ids[:_COMPARED])
    with decoder.refusing(model, str(base)):
        hidden = model.base_model(input_ids=few[None], use_cache=False).last_hidden_state[0]
        found = decoder.difference(model, few, decoder.logits(model, hidden))
    decoder.require_close(model, found, str(base))


def _freeze(model: Any, layers: int, dtype: torch.dtype, base: Path) -> None:
    """What does not train is kept in the type that it computes in."""
    blocks = decoder.decoder_of(model, str(base)).layers
    count = len(blocks)
    if layers >= count:
        raise ModelError(
            f"has {count} layers, none above {layers} frozen ones",
            where=str(base),
            fix=f"set sft.frozen_layers below {count}",
        )
    for part in (model.get_input_embeddings(), model.get_output_embeddings(), *blocks[:layers]):
        part.requires_grad_(False).to(dtype)


class _Follower(TrainerCallback):
    """Passes TRL's logs on."""

    def __init__(self, on_metrics: Callable[[int, dict[str, float]], None], advance: Callable[[int], None]) -> None:
        self.on_metrics, self.advance = on_metrics, advance
        self.latest: dict[str, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if "loss" in numbers:
            self.latest = {"loss": numbers["loss"], "token_accuracy": numbers.get("mean_token_accuracy", 0.0)}
            self.on_metrics(state.global_step, self.latest)
