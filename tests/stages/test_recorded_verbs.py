"""The verbs `sample` and `annotate` over twenty recorded ToolBench requests: real input that nobody here invented.

20 requests x 1 attempt -> 20 trajectories, each judged; the toy policy solves none, and no step breaks the world
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory, StopReason, Task
from steptool.worlds.toolbench.pack import VARIABLE

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no recorded pack")

PROFILE = """
world: {use: WORLD, train_tasks: 20, dev_tasks: 1, test_tasks: 1}
sample: {tasks: 20, attempts: 1, max_tokens: 8192}
rounds:
  r1: {from: base}
arms:
  ppo2: {method: step_ppo, from: base, data: [r1]}
compare: []
"""


def steptool(folder: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("steptool")), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", ["recorded", "toolbench"])
def test_twenty_recorded_requests_are_sampled_and_annotated(world: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "profiles/twenty.yaml").write_text(PROFILE.replace("WORLD", world))
    for profile in ("tiny", "twenty"):
        steptool(tmp_path, "params", "--profile", profile)
    for arguments in (("base",), ("prepare",), ("sample", "r1"), ("annotate", "r1")):
        steptool(tmp_path, *arguments)
    scored = read_jsonl(tmp_path / "data/scored/r1/scored.jsonl.gz", ScoredTrajectory)
    assert len({item.trajectory.task_id for item in scored}) == len(scored) == 20
    groups = {task.id: task.group for task in read_jsonl(tmp_path / "data/tasks/train.jsonl", Task)}
    sampled = {groups[item.trajectory.task_id] for item in scored}
    assert sampled >= {"G1_instruction", "G2_category", "G3_instruction"}
    conditions = [item.trajectory.conditions for item in scored]
    assert {each.world.name for each in conditions if each} == {world}
    assert not any(item.trajectory.stop_reason is StopReason.world_error for item in scored)
    assert all(item.trajectory.steps and item.solved is None for item in scored)  # only a judge could tell
