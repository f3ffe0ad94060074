"""What a whole pipeline came to, on its own MLflow run: its data, and the arm that it registered, with its evaluation.

dvc.lock says the first for every stage, also for those that had nothing to do this time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from steptool.config.lineage import Entry, read_lock
from steptool.config.places import REGISTRATION
from steptool.core.storage import read_record
from steptool.registry.models import Registration
from steptool.stages.results import read_evaluation
from steptool.tracking.run import PipelineRun


def log_outcome(run: PipelineRun) -> None:
    """To be called after all stages are up to date and an arm was registered.

    Raises DataError where what they wrote cannot be read, ParamsError where dvc.lock cannot.
    """
    for path, digest, context in _datasets(read_lock().stages.values()):
        run.dataset(Path(path), path, digest, context=context)
    registered = read_record(REGISTRATION, Registration)
    run.results(read_evaluation(registered.arm).summary())
    run.model(registered.name, registered.version)


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
