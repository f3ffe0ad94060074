"""The first step of every deployment: a worker's flow run goes to the checkout that its machine has for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from steptool.core.errors import InputError
from steptool.orchestration.machines import CLONE_VARIABLE


def enter(directory: str) -> dict[str, str]:
    """Work in `directory`, whose `flows` are the ones to import. infra/prefect.yaml names this function.

    Raises InputError where there is no such folder.
    """
    root = Path(directory)
    if not root.is_absolute() or not root.is_dir():
        raise InputError(
            f"{CLONE_VARIABLE} names no folder: {directory!r}",
            where="worker",
            fix=f"{CLONE_VARIABLE}=/path/to/checkout prefect worker start --pool POOL",
        )
    os.chdir(root)
    sys.path.insert(0, str(root))
    return {"directory": str(root)}
