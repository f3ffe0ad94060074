"""`steptool run`: the whole DVC graph as one tracked pipeline run, then the results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steptool.config.graph import stages_of
from steptool.config.lineage import check_state, read_lock, refuse_false_lineage, write_graph
from steptool.config.places import PARAMS, REPORT
from steptool.config.settings import Params, load_params
from steptool.core.errors import StepToolError
from steptool.system.supervisor import supervised
from steptool.tracking.relay import Relay
from steptool.tracking.run import PARENT_VARIABLE, Tracking


def run_pipeline(targets: list[str]) -> None:
    """Run `dvc repro` with a parent run around it; raises StepToolError when a stage fails.

    When this process ends, by a signal or kill -9 too, so do DVC and the stages.
    """
    started = time.monotonic()
    params = load_params(PARAMS)
    check_state()
    print(write_graph(), flush=True)
    tracking = Tracking(None, params.tracking.experiment)
    with _ended_by_signals(), tracking.pipeline(params.model_dump()) as run, Relay(Path()):
        code = _repro(_addresses(params, targets), stage_environment(run.run_id, Path()))
        if code != 0:
            raise StepToolError(
                f"`dvc repro` ended with {code}; what was finished is kept",
                fix="mend what the lines above say, then run the same command again: it goes on from there",
            )
        refuse_false_lineage(read_lock().stages)
        if not targets:
            from steptool.stages.outcome import log_outcome
            from steptool.stages.register import main as register

            register()
            log_outcome(run)
    if not targets:
        from steptool.stages.table import results_table

        where = f"report: {REPORT}/index.html   attempts: steptool view"
        print(f"\n{results_table()}\n\n{where}   ({time.monotonic() - started:.0f} s)", flush=True)


def _addresses(params: Params, targets: list[str]) -> list[str]:
    """Names in dvc.yaml; a verb, such as `train`, stands for all its stages."""
    specs = stages_of(params).values()
    return [name for target in targets for name in [s.address for s in specs if s.verb == target] or [target]]


def stage_environment(parent: str, root: Path) -> dict[str, str]:
    """This process's environment for the stages of the pipeline run `parent`, which a `Relay` here sends for.

    Their command is `steptool`: the one beside this Python, whether or not its environment is activated. Its code is
    that of the checkout `root`, which DVC hashes, wherever the package was installed from.
    """

    def before(first: Path, name: str) -> str:
        return os.pathsep.join(filter(None, (str(first), os.environ.get(name))))

    return os.environ | {
        "PATH": before(Path(sys.executable).parent, "PATH"),
        "PYTHONPATH": before(root.resolve(), "PYTHONPATH"),
        PARENT_VARIABLE: parent,
    }


def _repro(targets: list[str], environment: dict[str, str]) -> int:
    # --wait-for-lock: DVC's own patience is 3 s, and a stage that loses that race is not recorded.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *targets]
    child = subprocess.Popen(supervised(command), env=environment, stdin=subprocess.PIPE, start_new_session=True)
    assert child.stdin is not None
    try:
        return child.wait()
    finally:
        child.stdin.close()  # which ends what still runs
        child.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as an exception does, so that nothing goes on running and the end is logged."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in former.items():
        if handler != signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
