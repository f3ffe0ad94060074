"""How fast step-grained PPO trains against the way that its authors released: TRL 0.10.1's PPOTrainer, a row a
trajectory.

    python -m benchmarks.released                 two repetitions of each side, alternating
    python -m benchmarks.released --tasks 16 --repeats 3

Both train on the same made-up trajectories with a model of the same shape, once through (the release goes four times
through each batch: its time is that much longer still). TRL has the settings of the release, and of the ways in which
it may compute (`WAYS`) the fastest counts. It runs in an environment that this command makes once, with the packages
of its time and the PyTorch of this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import run, training
from steptool.config.places import PARAMS
from steptool.config.settings import Params, parse_params
from steptool.core.errors import StepToolError
from steptool.policies.precision import Dtype
from steptool.system.environment import be_quiet
from steptool.system.memory import keep_freed_memory

PACKAGES = (
    *("trl==0.10.1", "transformers==4.44.2", "tokenizers==0.19.1", "accelerate==0.34.2", "peft==0.12.0"),
    *("huggingface-hub==0.24.7", "datasets==2.21.0", "tyro==0.8.11", "docstring-parser==0.16", "shtab==1.7.1"),
)
"""What TRL 0.10.1 was released with; the rest is of this environment."""
WAYS = (("bfloat16", "eager"), ("bfloat16", "sdpa"))
"""Types and implementations of attention. In float32 a CPU with bfloat16 products takes longer."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "steptool" / "trl-0.10.1"


def environment(folder: Path) -> Path:
    """The Python of an environment with `PACKAGES`, made in `folder` if it is not there."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            fix = "make a package index reachable for pip, then run the same command again"
            raise StepToolError(f"pip cannot install {PACKAGES[0]}: {said}", where=str(folder), fix=fix)
        (site,) = (folder / "lib").glob("python*/site-packages")
        # Names that begin late come last: what is installed here goes before what is there.
        (site / "zz_outer.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
        (folder / "complete").touch()
    return python


def theirs(python: Path, shape: str, params: Params, tasks: int, way: tuple[str, str]) -> float:
    """Seconds of TRL for all trajectories; it trains on whole batches, so what is left over is extrapolated."""
    made = training.trajectories(tasks, params.sample.attempts, training.SHAPES[shape]["vocab_size"])
    attempts = []
    for item in made:
        steps = item.trajectory.steps
        own = [token for step in steps for token in (*(0,) * len(step.context_ids), *(1,) * len(step.action_ids))]
        one = {"ids": item.trajectory.token_ids, "prompt": training.PROMPT, "own": own, "score": item.solved}
        attempts.append(one)
    dtype, attention = way
    given: dict[str, Any] = {"shape": training.SHAPES[shape], "dtype": dtype, "attention": attention}
    given["attempts"] = attempts[: len(attempts) // 8 * 8]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    command = [str(python), str(Path(__file__).with_name("released_side.py"))]
    done = subprocess.run(
        command,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=os.environ | quiet | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    if done.returncode:
        raise StepToolError(f"TRL failed: {done.stderr[-2000:]}", where=str(python), fix="remove its folder, try again")
    return float(done.stdout.splitlines()[-1]) * len(attempts) / len(given["attempts"])


def ours(shape: str, dtype: Dtype, params: Params, tasks: int) -> float:
    """Seconds of the method for all trajectories, from selecting to the last optimiser step."""
    return training.timed(training.ppo(shape, dtype, params, tasks).fit)


def main(
    shape: Annotated[str, typer.Argument(help=f"One of {', '.join(training.SHAPES)}.")] = "smollm2",
    tasks: Annotated[int, typer.Option(help="Tasks that were attempted.", min=1)] = 8,
    repeats: Annotated[int, typer.Option(help="How often each side is measured.", min=1)] = 2,
    folder: Annotated[Path, typer.Option(help="Where TRL's environment lies, or is made.")] = CACHE,
) -> None:
    """Time both sides, alternating."""
    params = parse_params(PARAMS, {})
    python = environment(folder)
    count = tasks * params.sample.attempts
    ratios = []
    for number in range(1, repeats + 1):
        own = ours(shape, "bfloat16", params, tasks)
        other = {way: theirs(python, shape, params, tasks, way) for way in WAYS}
        best = min(other, key=lambda way: other[way])
        ratios.append(other[best] / own)
        each = ", ".join(f"{' '.join(way)} {seconds:.1f} s" for way, seconds in other.items())
        print(f"{number}: {count} trajectories, step_ppo {own:.1f} s; TRL 0.10.1 {each}", flush=True)
    print(f"step_ppo is {min(ratios):.1f} to {max(ratios):.1f} times as fast as TRL 0.10.1 going once through the data")


if __name__ == "__main__":
    be_quiet()
    keep_freed_memory()
    run(main)
