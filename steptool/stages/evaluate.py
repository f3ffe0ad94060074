"""Stage `evaluate`: every arm on the held-out tasks, under equal conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import numpy as np

from steptool.annotators.annotate import annotate_all, opened
from steptool.config.arms import Arm, arms_of, pairs_of
from steptool.config.graph import judging
from steptool.config.places import COMPARISONS, EVALUATION, JUDGED, PARAMS, TASKS
from steptool.config.plugins import Use
from steptool.config.settings import METRIC, Params, load_params
from steptool.core.errors import ParamsError
from steptool.core.plugins import revision_of
from steptool.core.storage import write_json, write_jsonl
from steptool.core.types import Reference, Task
from steptool.endpoints.base import Acting, Endpoint
from steptool.evaluation.base import Metric
from steptool.evaluation.built_in import METRICS
from steptool.evaluation.compare import Comparison, compare
from steptool.evaluation.metrics import (
    TASKS_WITH_VERDICT,
    Evaluation,
    Primary,
    evaluate,
    primary_measure,
    refuse_unless_measurable,
)
from steptool.rollouts.collect import Sampler, measured_sampling, open_sampler, world_revision
from steptool.stages.common import Stage, stage
from steptool.stages.rounds import read_references, read_tasks

SUMMARY = "summary.json"


def main() -> None:
    params = load_params(PARAMS)
    arms = arms_of(params)
    with measuring("evaluate", EVALUATION, params, arms) as running:
        evaluations = measure_arms(params, arms, params.evaluate.split, running)
        measure = primary_measure(list(evaluations.values()))
        comparisons = [compare_arms(params, evaluations, measure, *pair) for pair in pairs_of(params)]
        write_json(running.out / COMPARISONS, [each.model_dump(mode="json") for each in comparisons])


def measuring(name: str, out: Path, params: Params, arms: Sequence[Arm]) -> AbstractContextManager[Stage]:
    """The stage `name`, which reads the arms."""
    acting = {kind: getattr(params, kind) for kind in ("world", "format", "engine", "search", "annotate")}
    own = {f"metrics.{metric}": used for metric, used in params.metrics.items()}
    uses = {"evaluate": params.evaluate, "sample": params.sample, **acting, **own}
    uses |= {f"arms.{arm.name}": arm.endpoint for arm in arms if arm.endpoint}
    inputs = {"tasks": TASKS, **{f"arms.{arm.name}": arm.folder for arm in arms if arm.folder}}
    inputs |= {f"policy {folder}": folder for folder in judging(params)}
    return stage(name, out, params, uses=uses, inputs=inputs)


def measure_arms(params: Params, arms: Sequence[Arm], split: str, running: Stage) -> dict[str, Evaluation]:
    """Each of the arms on the tasks of `split`, in their order; each is written as it is measured."""
    tasks, references = read_tasks(split), read_references()
    metrics = own_metrics(params)
    refuse_unless_measurable(tasks, references, where=str(TASKS / f"{split}.jsonl"))
    evaluations = {}
    with open_sampler(params, None, seed=params.seed) as sampler, ExitStack() as open_ones:
        endpoints = {  # before anything is sampled: what they lack is said at once
            arm.name: open_ones.enter_context(closing(endpoint_of(params, arm.endpoint, sampler)))
            for arm in arms
            if arm.endpoint
        }
        for arm in arms:
            acting: Acting = endpoints.get(arm.name, sampler)
            if acting is sampler:
                sampler.load(arm.weights)
            evaluation = measure_policy(params, arm.name, acting, tasks, references, split, metrics, running.out)
            running.run.summary({f"{arm.name}.{key}": value for key, value in evaluation.summary().items()})
            evaluations[arm.name] = evaluation
            if arm.name in endpoints:
                spent = endpoints[arm.name].spent
                running.run.summary({f"{arm.name}.paid.{key}": value for key, value in dict(spent).items()})
                print(f"{arm.name}: {acting.policy.name}, {spent}", flush=True)
    write_json(running.out / SUMMARY, {name: each.summary() for name, each in evaluations.items()})
    verdicts = [each.verdicts for each in evaluations.values()]
    apart = "" if min(verdicts) == len(tasks) else f", of which {_from_to(verdicts)} have a verdict"
    running.says(f"{len(evaluations)} policies on {len(tasks)} {split} tasks{apart}")
    return evaluations


def endpoint_of(params: Params, used: Use, sampler: Sampler) -> Endpoint:
    """Raises StepToolError where it cannot be used, such as for a key that is not set."""
    endpoint: Endpoint = used.build(
        sampler.world,
        sampler.search,
        world_revision=world_revision(params, sampler.world),
        search_revision=revision_of(sampler.search, params.acting_search.config),
        tool_timeout_s=params.sample.tool_timeout_s,
    )
    return endpoint


def own_metrics(params: Params) -> dict[str, Metric]:
    """The world's and the project's metrics. Raises ParamsError for one that is called like something else in the
    summary."""
    for name in params.metrics:
        if name in METRICS or name in ("broken", TASKS_WITH_VERDICT) or name.startswith("pass_rate_"):
            raise ParamsError(
                f"a metric of your own is called {name}, which every evaluation has",
                where=f"{PARAMS}: metrics.{name}",
                fix="call it something else",
            )
    worlds = {name: METRIC.read(dict(used)) for name, used in getattr(params.world.cls, "metrics", {}).items()}
    return {name: used.build() for name, used in {**worlds, **params.metrics}.items()}


def measure_policy(
    params: Params,
    name: str,
    acting: Acting,
    tasks: list[Task],
    references: Mapping[str, Reference],
    split: str,
    metrics: Mapping[str, Metric],
    out: Path,
) -> Evaluation:
    """A policy, which a sampler or an endpoint holds, on `tasks`; its judged trajectories and the evaluation
    are written into `out`."""
    wanted = params.evaluate
    sampling = measured_sampling(params)
    trajectories = acting.attempts(
        tasks, sampling, wanted.attempts, what=f"evaluate {name}", max_broken=wanted.max_broken
    )
    judged = out / f"{name}{JUDGED}"
    with opened(params.annotate) as (annotator, revision):
        scored = annotate_all(
            annotator,
            revision,
            trajectories,
            tasks,
            references,
            source=judged,
            what=f"annotate {name}",
            concurrency=params.machine.concurrency,
        )
    write_jsonl(judged, scored)
    evaluation = evaluate(
        name,
        acting.policy,
        scored,
        tasks,
        references,
        conditions=acting.conditions(sampling),
        annotator=revision,
        attempts=wanted.attempts,
        split=split,
        resamples=wanted.resamples,
        confidence=wanted.confidence,
        rng=np.random.default_rng(params.seed),
        more=metrics,
    )
    write_json(out / f"{name}.json", evaluation.model_dump(mode="json"))
    return evaluation


def _from_to(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return "none" if most == 0 else f"{least}" if least == most else f"{least} to {most}"


def compare_arms(
    params: Params, evaluations: Mapping[str, Evaluation], measure: Primary, candidate: str, baseline: str
) -> Comparison:
    return compare(
        evaluations[candidate],
        evaluations[baseline],
        resamples=params.evaluate.resamples,
        confidence=params.evaluate.confidence,
        seed=params.seed,
        measure=measure,
    )
