"""Stage `evaluate`: SFT, every round and the RFT arm on the held-out tasks, at one budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from steptool.annotators.rules import ANNOTATOR, unjudged
from steptool.config.places import EVALUATION, EXTERNAL_WORLD, PARAMS, SFT, TASKS
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError
from steptool.core.storage import write_json, write_jsonl
from steptool.core.types import Task
from steptool.evaluation.compare import Comparison, compare
from steptool.evaluation.metrics import Budget, Evaluation, evaluate, refuse_unless_measurable
from steptool.policies.precision import compute_dtype
from steptool.rollouts.collect import Sampler, generate
from steptool.stages.annotate import judge
from steptool.stages.common import stage
from steptool.stages.results import COMPARISONS, policies_of
from steptool.stages.rounds import last_round, read_tasks, sampling_of
from steptool.worlds import world_content

SUMMARY = "summary.json"


def main() -> None:
    params = load_params(PARAMS)
    last = last_round(params)
    policies = policies_of(params)
    split = params.evaluate.split
    dtype = compute_dtype(params.model)
    uses = {"evaluate": params.evaluate, "sample": params.sample, "world": params.world, "dtype": dtype}
    inputs: dict[str, Path] = {"tasks": TASKS / f"{split}.jsonl", **policies}
    external = {EXTERNAL_WORLD: lambda: world_content(params.world)}
    with stage("evaluate", EVALUATION, params, uses=uses, inputs=inputs, external=external) as running:
        tasks = read_tasks(split)
        refuse_unless_measurable(tasks, where=str(inputs["tasks"]))
        evaluations = []
        with generate(params, SFT, seed=params.seed) as sampler:
            for name, policy in policies.items():
                if sampler.policy.name != str(policy):
                    sampler.load(policy)
                evaluations.append(evaluate_policy(params, name, sampler, tasks, running.out))
                running.run.summary({f"{name}.{key}": value for key, value in evaluations[-1].summary().items()})
        comparisons = _compare(params, evaluations, last)
        write_json(running.out / COMPARISONS, [c.model_dump(mode="json") for c in comparisons])
        write_json(running.out / SUMMARY, {e.name: e.summary() for e in evaluations})
        running.says(f"{len(evaluations)} policies on {len(tasks)} {split} tasks")


def evaluate_policy(params: Params, name: str, sampler: Sampler, tasks: list[Task], out: Path) -> Evaluation:
    wanted = params.evaluate
    sampling = sampling_of(params).model_copy(update={"temperature": wanted.temperature, "top_p": 1.0})
    trajectories = sampler.attempts(
        tasks, sampling, wanted.attempts, what=f"evaluate {name}", max_broken=wanted.max_broken
    )
    judged = out / f"{name}.trajectories.jsonl.gz"
    scored = judge(params, trajectories, tasks, source=judged)
    if unknown := unjudged(scored):
        raise DataError(
            f"{len(unknown)} of {len(scored)} answers cannot be checked, that to task {unknown[0].trajectory.task_id} "
            "first: they would count as unsolved",
            where=f"world {sampler.world.revision.name}, split {wanted.split}",
            fix="give every task of the split an answer_check, or let the world's `verify` return a number",
        )
    write_jsonl(judged, scored)
    world = sampler.world.revision
    budget = Budget.of(
        tasks,
        sampling,
        attempts=wanted.attempts,
        world=world,
        annotator=ANNOTATOR,
        split=wanted.split,
        dtype=sampler.dtype,
    )
    evaluation = evaluate(
        name,
        sampler.policy,
        scored,
        tasks,
        budget,
        resamples=wanted.resamples,
        confidence=wanted.confidence,
        rng=np.random.default_rng(params.seed),
    )
    write_json(out / f"{name}.json", evaluation.model_dump(mode="json"))
    return evaluation


def _compare(params: Params, evaluations: list[Evaluation], last: str) -> list[Comparison]:
    """Every policy against SFT, and the last round against RFT."""
    by_name = {e.name: e for e in evaluations}
    pairs = [(e.name, "sft") for e in evaluations if e.name != "sft"] + [(last, "rft")]
    wanted = params.evaluate
    return [
        compare(
            by_name[candidate],
            by_name[baseline],
            resamples=wanted.resamples,
            confidence=wanted.confidence,
            seed=params.seed,
        )
        for candidate, baseline in pairs
    ]
