"""Stage `annotate`: a success and a contribution for every step, a verdict for every attempt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from steptool.annotators.annotate import annotate_each, opened
from steptool.annotators.base import Counts
from steptool.config.arms import round_of
from steptool.config.graph import judging
from steptool.config.places import PARAMS, SCORED, TASKS, TRAJECTORIES
from steptool.config.settings import load_params
from steptool.core.storage import rows_of, stream_jsonl, write_jsonl
from steptool.core.types import ScoredTrajectory, Trajectory
from steptool.stages.common import stage
from steptool.stages.rounds import read_references, read_tasks
from steptool.system.progress import progress


def main(round: str) -> None:
    params = load_params(PARAMS)
    name = round_of(params, round).name
    source = TRAJECTORIES / name / "trajectories.jsonl.gz"
    inputs = {"trajectories": source, "tasks": TASKS}
    inputs |= {f"policy {folder}": folder for folder in judging(params, name)}
    with stage(
        "annotate", SCORED / name, params, uses={"annotate": params.annotate}, inputs=inputs, argument=name
    ) as running:
        seen = _Verdicts()
        with (
            opened(params.annotate) as (annotator, revision),
            progress(f"annotate {name}", rows_of(source), "trajectories") as advance,
        ):
            scored = annotate_each(
                annotator,
                revision,
                stream_jsonl(source, Trajectory),
                read_tasks("train"),
                read_references(),
                source=source,
                concurrency=params.machine.concurrency,
                advance=advance,
            )
            write_jsonl(running.out / "scored.jsonl.gz", seen.counted(scored))
            counts = annotator.counts() if isinstance(annotator, Counts) else {}
        summary, said = {"unjudged": float(seen.unknown)}, f"{seen.unknown} trajectories, none with a verdict"
        if seen.known:
            summary["solve_rate"] = seen.solved / seen.known
            apart = f"; {seen.unknown} more have no verdict" if seen.unknown else ""
            said = f"{seen.known} trajectories, {summary['solve_rate']:.1%} solved{apart}"
        if counts:
            summary |= {f"judge.{name}": count for name, count in counts.items()}
            said += f"; the judge: {', '.join(f'{count:g} {name}' for name, count in counts.items())}"
        running.run.summary(summary)
        running.says(said)


@dataclass
class _Verdicts:
    known: int = 0
    unknown: int = 0
    solved: float = 0.0
    """Sum of the known ones."""

    def counted(self, scored: Iterable[ScoredTrajectory]) -> Iterator[ScoredTrajectory]:
        """The same records, counted on their way."""
        for record in scored:
            if record.solved is None:
                self.unknown += 1
            else:
                self.known += 1
                self.solved += record.solved
            yield record
