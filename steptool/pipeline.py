"""`steptool run`: the whole DVC graph as one tracked pipeline run, then the results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from steptool.errors import StepToolError
from steptool.params import load_params
from steptool.registry.relay import Relay
from steptool.registry.tracking import PARENT_VARIABLE, RELAYED_VARIABLE, Tracking
from steptool.stages.common import PARAMS, REPORT


def run_pipeline(targets: list[str]) -> None:
    """Run `dvc repro` with a parent run around it; raises StepToolError when a stage fails.

    The stages run in a process group of their own: when this process ends, by Ctrl-C too, so do they.
    """
    started = time.monotonic()
    params = load_params(PARAMS)
    tracking = Tracking(None, params.tracking.experiment)
    with tracking.pipeline(params.model_dump()) as run, Relay(Path()):
        code = _repro(targets, stage_environment(run.run_id, Path()))
        if code != 0:
            raise StepToolError(
                f"`dvc repro` ended with {code}; what was finished is kept",
                fix="mend what the lines above say, then run the same command again: it goes on from there",
            )
        if not targets:
            from steptool.stages.outcome import log_outcome

            log_outcome(run, params)
    if not targets:
        from steptool.stages.results import results_table

        print(f"\n{results_table()}\n\nreport: {REPORT}/index.html   ({time.monotonic() - started:.0f} s)", flush=True)


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
        RELAYED_VARIABLE: "1",
    }


def _repro(targets: list[str], environment: dict[str, str]) -> int:
    # --wait-for-lock: DVC's own patience is 3 s, and a stage that loses that race is not recorded.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *targets]
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
