"""What every stage shares: where things lie, the tracked run around it, and its closing line."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from steptool.config.lineage import AGAIN, Reading, spec_of
from steptool.config.places import PARAMS
from steptool.config.plugins import Use
from steptool.config.settings import Params, load_params
from steptool.core.errors import StepToolError, StorageError
from steptool.core.storage import file_hash, manifest, output_folder
from steptool.tracking.run import StageRun, Tracking


@dataclass
class Stage:
    """A running stage: its temporary output folder and its tracked run."""

    out: Path
    run: StageRun
    determines: dict[str, Any]
    said: str = ""

    def says(self, line: str) -> None:
        """The one line printed at the end."""
        self.said = line


@contextmanager
def stage(
    name: str,
    out: Path,
    params: Params,
    *,
    uses: dict[str, Any],
    inputs: dict[str, Path],
    argument: str | None = None,
) -> Iterator[Stage]:
    """Run the stage `name` (for the round or arm `argument`): tracked, its output folder `out` written atomically.

    `uses` are the params that determine the output, `inputs` the files and folders that it reads. What else decides
    about it, params.yaml and the code say; see `Reading`.
    Raises StepToolError, with nothing written, where something of this changed while the block ran.
    """
    started = time.monotonic()
    used = {key: _plain(value) for key, value in uses.items()}
    label = f"{name} {argument}" if argument else name
    determines = manifest(label, used, inputs, params.seed)
    digests = {path: determines["inputs"][key] for key, path in inputs.items()}
    reading = Reading(spec_of(params, name, argument), params, digests)
    if PARAMS.exists() and load_params(PARAMS) != params:
        raise StepToolError(f"{PARAMS} changed while the stage began", where=f"stage {label}", fix=AGAIN)
    determines |= {"external": reading.external, "settings": reading.settings}
    tracking, set_to = Tracking(None, params.tracking.experiment), {"seed": params.seed, **used}
    with _permitted(out), tracking.stage(name, argument=argument, params=set_to) as run:
        with output_folder(out, determines) as folder:
            running = Stage(folder, run, determines)
            yield running
            reading.check()
        for input_name, path in inputs.items():
            run.dataset(path, input_name, determines["inputs"][input_name])
        run.dataset(out, f"{label} output", file_hash(out), context="output")
    reading.check()
    print(f"{label}: {running.said} -> {out} ({time.monotonic() - started:.0f} s)", flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Use):
        return value.dump()
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


@contextmanager
def _permitted(out: Path) -> Iterator[None]:
    """Turn the refusal of a checkout that may not be written to into a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        fix = "mend the permissions, or work in a copy of this folder that you may write to; no output was lost"
        raise StorageError(error.strerror or "no permission", where=str(error.filename or out), fix=fix) from error
