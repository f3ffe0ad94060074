"""Stage `annotate`: a success and a contribution for every step, a verdict for every attempt."""

from __future__ import annotations

from steptool.annotators.annotate import annotate_all
from steptool.config.arms import round_of
from steptool.config.graph import judging
from steptool.config.places import PARAMS, SCORED, TASKS, TRAJECTORIES
from steptool.config.settings import load_params
from steptool.core.plugins import revision_of
from steptool.core.storage import read_jsonl, write_jsonl
from steptool.core.types import Trajectory
from steptool.stages.common import stage
from steptool.stages.rounds import read_references, read_tasks


def main(round: str) -> None:
    params = load_params(PARAMS)
    name = round_of(params, round).name
    source = TRAJECTORIES / name / "trajectories.jsonl.gz"
    inputs = {"trajectories": source, "tasks": TASKS}
    inputs |= {f"policy {folder}": folder for folder in judging(params, name)}
    with stage(
        "annotate", SCORED / name, params, uses={"annotate": params.annotate}, inputs=inputs, argument=name
    ) as running:
        annotator = params.annotate.build()
        scored = annotate_all(
            annotator,
            revision_of(annotator, params.annotate.config),
            read_jsonl(source, Trajectory),
            read_tasks("train"),
            read_references(),
            source=source,
            what=f"annotate {name}",
            concurrency=params.machine.concurrency,
        )
        write_jsonl(running.out / "scored.jsonl.gz", scored)
        verdicts = [record.solved for record in scored if record.solved is not None]
        unknown = len(scored) - len(verdicts)
        summary, said = {"unjudged": float(unknown)}, f"{len(scored)} trajectories, none with a verdict"
        if verdicts:
            summary["solve_rate"] = sum(verdicts) / len(verdicts)
            apart = f"; {unknown} more have no verdict" if unknown else ""
            said = f"{len(verdicts)} trajectories, {summary['solve_rate']:.1%} solved{apart}"
        running.run.summary(summary)
        running.says(said)
