"""`steptool bench all`: the same policies on every world whose verdicts need no judge, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from steptool.core.errors import InputError, WorldError
from steptool.report.bench import Benchmarks
from steptool.report.page import ReportData
from steptool.stages.bench import Wanted, measure, params_of, tasks_of

JUDGE_FREE: Mapping[str, tuple[str, ...]] = {
    "mini": (),
    "workbench": (
        "format.tools_budget=768",
        "format.max_observation=512",
        "sample.max_step_tokens=96",
        "sample.max_tokens=1536",
    ),
    "bfcl": (
        "end_turn=call",
        "format.tools_budget=3072",
        "format.max_observation=512",
        "sample.max_calls=20",
        "sample.max_step_tokens=96",
        "sample.max_tokens=6144",
    ),
    "toollens": ("format.tools_budget=1536", "sample.max_step_tokens=96", "sample.max_tokens=3072"),
    "tau2": (
        "format.tools_budget=3072",
        "format.max_observation=512",
        "sample.max_calls=20",
        "sample.max_step_tokens=96",
        "sample.max_tokens=8192",
    ),
}
"""World → its settings, and the budget that its tasks need."""


def measure_all(wanted: Wanted, worlds: Mapping[str, tuple[str, ...]] = JUDGE_FREE) -> Benchmarks:
    """`wanted` on each of the worlds; its own settings are laid over those of every world.

    A world that is not there, whose package or data are missing, is left out, with the reason. Raises what `measure`
    raises for another fault, and InputError where no world is left.
    """
    found: dict[str, ReportData] = {}
    left_out: dict[str, str] = {}
    for world, settings in worlds.items():
        each = replace(wanted, world=world, settings=(*settings, *wanted.settings))
        try:
            tasks_of(params_of(each))
        except (InputError, WorldError) as error:
            left_out[world] = str(error)
            print(f"{world} is left out: {error}", flush=True)
            continue
        found[world] = measure(each)
    if not found:
        raise InputError("no world can be measured", fix="\n".join(left_out.values()))
    return Benchmarks(found, left_out)
