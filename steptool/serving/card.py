"""The model card of an exported policy: where it comes from, what it solves, and how to serve it. Pure."""

from __future__ import annotations

from steptool.evaluation.metrics import ALL, Evaluation
from steptool.report.wording import interval, number, percent
from steptool.serving.policy import Named


def card(policy: Named, *, dtype: str, weights: str, line: str) -> str:
    """Markdown. `weights` is the hash of the merged weights, `line` the command that serves them."""
    base, adapter = policy.resolved
    made = f"{base.name} with the adapter {adapter.name}, merged" if adapter else "a plain model"
    rows = {"made from": made, "weights": f"{weights} ({dtype})", **policy.lineage}
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {policy.name}

A language model that was trained to use tools with [StepTool](https://arxiv.org/abs/2410.07745).

## Serve it

    {line}

Run it in this folder. Any OpenAI client can then call the model with `tools`: it answers with `tool_calls`, or with
`content` once it knows the answer. The chat template writes tools and messages as in training, and `tool_parser.py`
reads the calls. Temperature and length of an action are those that it was evaluated with (`generation_config.json`).

## Where it comes from

| | |
| --- | --- |
{table}

`canary.json` holds token streams of the training data and what the trainer computes for them: a server that loads
other weights by mistake computes something else. Delete it where the training data must not be seen.

## Results

{_results(policy.evaluation) if policy.evaluation else "These weights were not evaluated."}
"""


def _results(evaluation: Evaluation) -> str:
    conditions, row = evaluation.conditions, evaluation.metrics[ALL]
    sampling = conditions.sampling
    lines = [
        f"{len(evaluation.solved)} {evaluation.split} tasks of the world {conditions.world}, format "
        f"{conditions.format}, {conditions.engine} in {conditions.dtype}, temperature {sampling.temperature:g}, "
        f"at most {sampling.max_calls} calls of {sampling.max_step_tokens} tokens.",
        "",
        f"| metric | value | {evaluation.confidence:.0%} interval |",
        "| --- | --- | --- |",
    ]
    for name, estimate in row.items():
        measure = evaluation.measures[name]
        value = percent(estimate.value) if measure.is_rate else number(estimate.value)
        lines.append(f"| {measure.describes} | {value} | {interval(estimate, rate=measure.is_rate)} |")
    return "\n".join(lines)
