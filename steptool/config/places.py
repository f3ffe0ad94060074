"""Where the files of a project lie, from its root."""

from pathlib import Path

PARAMS = Path("params.yaml")
TASKS = Path("data/tasks")
DEMONSTRATIONS = TASKS / "demonstrations.jsonl"
TRAJECTORIES = Path("data/trajectories")
SCORED = Path("data/scored")
VALIDATED = Path("data/validated")
MODELS = Path("models")
BASE, SFT, RFT = MODELS / "base", MODELS / "sft", MODELS / "rft"
EVALUATION = Path("metrics/evaluation")
EXTERNAL_BASE, EXTERNAL_WORLD = Path("data/external/base.json"), Path("data/external/world.json")
EXTERNAL_DEMONSTRATIONS = Path("data/external/demonstrations.json")
"""What stage `external` found outside of the repository."""
REGISTRATION = Path("metrics/registration")
REPORT = Path("reports")
WORK = Path(".steptool")
"""State of this checkout: checkpoints, merged weights, what could not be logged yet. Never an output."""
MERGED = WORK / "merged"
