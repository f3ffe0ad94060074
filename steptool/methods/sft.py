"""Supervised fine-tuning on demonstrations; loss on action tokens only.

It trains the upper layers themselves and writes a plain model, on which later arms put their adapters. Batching,
schedule and optimiser are those of TRL's trainer: it does this job with less code of ours than `AdapterMethod`, which
packs rows for an adapter that trains above layers whose output is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from steptool.core.errors import DataError, ModelError, StepToolError
from steptool.core.fields import Many, Natural, Rate, Settings
from steptool.formats.episode import encode
from steptool.policies.base_models import save
from steptool.policies.canary import candidates, plain_logprobs, write_canary
from steptool.policies.model_folder import check_model_folder, load_model, load_tokenizer, read_config, require_finite
from steptool.policies.precision import Dtype, autocast
from steptool.system.progress import progress
from steptool.training import decoder
from steptool.training.job import Data, Job, OnMetrics

DIVERGED = "lower methods.sft.learning_rate, then run the same command again"
_COMPARED = 32  # tokens of the first example that are compared with Transformers' own forward pass
IGNORED = -100  # the label that PyTorch's cross entropy leaves out


@dataclass(frozen=True)
class Example:
    """One demonstration as a token stream."""

    ids: Sequence[int]
    own: Sequence[bool]
    """True where the policy acts."""


class Sft:
    class Config(Settings):
        learning_rate: Rate = 1.5e-4
        epochs: Many = 1
        batch_size: Many = 1
        frozen_layers: Natural = 14
        """Lowest layers (and, if any, the embeddings) that do not train."""

    needs = frozenset({"demonstrations"})

    def __init__(self, config: Config) -> None:
        self.config = config

    def examples(self, data: Data) -> list[Example]:
        """The demonstrations that the format can write; the summary counts the others.

        Raises DataError if there is none, or if one shows a task that is not a training task.
        """
        if not data.demonstrations:
            raise DataError(
                "no demonstrations to learn from",
                fix="set demonstrations: {use: file, path: ...} in params.yaml (steptool/traces/file.py shows a line), "
                "or take a world that has experts, such as world: {use: mini}",
            )
        if strangers := [demo for demo in data.demonstrations if demo.task_id not in data.tasks]:
            raise DataError(
                f"{len(strangers)} demonstrations are of no training task, first {strangers[0].id} of task "
                f"{strangers[0].task_id}",
                fix="run `dvc repro`: it makes tasks and demonstrations of one world",
            )
        found = [Example(*stream) for demo in data.demonstrations if (stream := data.stream(demo))]
        if not found:
            first = data.demonstrations[0]
            try:
                encode(data.format, data.tasks[first.task_id], first.steps)
            except ValueError as error:
                raise DataError(
                    f"the format can write none of {len(data.demonstrations)} demonstrations: {error}",
                    where=f"demonstration {first.id}",
                    fix="set format: {use: native}, which writes messages to the user and calls at the same time",
                ) from error
        return found

    def train(self, job: Job) -> dict[str, float]:
        """Raises what `examples` and `fine_tune` raise."""
        examples = self.examples(job.data)
        latest = fine_tune(
            job.start, job.out, examples, self.config, dtype=job.dtype, seed=job.seed, on_metrics=job.on_metrics
        )
        unwritable = len(job.data.demonstrations) - len(examples)
        return {"demonstrations": len(examples), **({"unwritable": unwritable} if unwritable else {}), **latest}


def fine_tune(
    base: Path,
    out: Path,
    examples: Sequence[Example],
    config: Sft.Config,
    *,
    dtype: Dtype,
    seed: int,
    on_metrics: OnMetrics,
) -> dict[str, float]:
    """Fine-tune the model of folder `base` into folder `out` (bfloat16 safetensors, the tokenizer and a canary).

    Embeddings and the lowest `frozen_layers` stay as they are. It takes minutes, so a training that was killed starts
    over; on as many threads it gives the same bits. Returns the last logged metrics.

    Raises ModelError where every layer would be frozen, and for a base that is not computed here as Transformers
    computes it; StepToolError where a loss or a weight is not finite.
    """
    check_model_folder(base)
    torch.manual_seed(seed)
    on_gpu = torch.cuda.is_available()
    # On a CPU the fused attention's backward pass takes longer than plain products (steptool.training.attention).
    capped = read_config(base).get("attn_logit_softcapping")  # which the fused attention leaves out
    model: Any = load_model(base, dtype=torch.float32, attention="sdpa" if on_gpu and not capped else "eager")
    tokenizer = load_tokenizer(base)
    _check_tokens(model, examples, base)
    _check_computation(model, examples[0].ids, base)
    streams = candidates(example.ids for example in examples)
    before = plain_logprobs(model, streams)
    _freeze(model, config.frozen_layers, getattr(torch, dtype), base)
    rows = [
        {"input_ids": list(e.ids), "labels": [t if own else IGNORED for t, own in zip(e.ids, e.own, strict=True)]}
        for e in examples
    ]
    steps_per_epoch = -(-len(rows) // config.batch_size)
    arguments = SFTConfig(
        output_dir=str(out),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps_per_epoch * config.epochs // 20),
        # Grouping by length saves padding, but long examples then follow one another. A batch of one has no padding.
        train_sampling_strategy="group_by_length" if config.batch_size > 1 else "random",
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
    with progress("sft", steps_per_epoch * config.epochs, "updates") as advance:
        follower = _Follower(on_metrics, advance)
        trainer = ActionLossTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[follower],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.to(torch.bfloat16)
    require_finite(model.state_dict().items(), str(out), DIVERGED, error=StepToolError)
    save(model, tokenizer, out)
    write_canary(out, streams, before, plain_logprobs(model.to(getattr(torch, dtype)), streams), dtype)
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


def _check_tokens(model: Any, examples: Sequence[Example], base: Path) -> None:
    """Raise ModelError where the tokenizer writes tokens that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    most = max(max(example.ids) for example in examples)
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
    """Freeze the embeddings and the lowest layers, and keep them in the type of the computation."""
    blocks = decoder.decoder_of(model, str(base)).layers
    count = len(blocks)
    if layers >= count:
        raise ModelError(
            f"has {count} layers, none above {layers} frozen ones",
            where=str(base),
            fix=f"set methods.sft.frozen_layers below {count}",
        )
    for part in (model.get_input_embeddings(), model.get_output_embeddings(), *blocks[:layers]):
        part.requires_grad_(False).to(dtype)


class _Follower(TrainerCallback):
    """Passes TRL's logs on."""

    def __init__(self, on_metrics: OnMetrics, advance: Callable[[int], None]) -> None:
        self.on_metrics, self.advance = on_metrics, advance
        self.latest: dict[str, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if "loss" in numbers:
            self.latest = {"loss": numbers["loss"], "token_accuracy": numbers.get("mean_token_accuracy", 0.0)}
            self.on_metrics(state.global_step, self.latest)
