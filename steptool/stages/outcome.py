"""What a whole pipeline came to, on its own MLflow run: its data, the evaluation of its policy, and its model.

dvc.lock says it for every stage, also for those that had nothing to do this time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from steptool.config.lineage import Entry, read_lock
from steptool.config.places import EVALUATION, REGISTRATION
from steptool.config.settings import Params
from steptool.core.storage import read_record
from steptool.evaluation.metrics import Evaluation
from steptool.stages.rounds import last_round
from steptool.tracking.run import PipelineRun


def log_outcome(run: PipelineRun, params: Params) -> None:
    """To be called after all stages are up to date.

    Raises DataError where one of their outputs cannot be read, ParamsError where dvc.lock cannot.
    """
    for path, digest, context in _datasets(read_lock().stages.values()):
        run.dataset(Path(path), path, digest, context=context)
    run.results(read_record(EVALUATION / f"{last_round(params)}.json", Evaluation).summary())
    receipt = read_record(REGISTRATION / "receipt.json", Receipt)
    run.model(receipt.name, receipt.version)


class Receipt(BaseModel):
    """What `register` wrote, as far as it matters here."""

    name: str
    version: int


def _datasets(stages: Iterable[Entry]) -> Iterator[tuple[str, str, str]]:
    """Path, hash and context of what the stages wrote, and of what they read and is neither code nor such an output."""
    stages = list(stages)
    written = {out.path: out.md5 for stage in stages for out in stage.outs if out.md5}
    read = {dep.path: dep.md5 for stage in stages for dep in stage.deps if dep.md5}
    for path, digest in read.items():
        made_here = any(Path(path).is_relative_to(out) for out in written)
        if not made_here and not path.startswith("steptool/"):
            yield path, digest, "input"
    for path, digest in written.items():
        yield path, digest, "output"
