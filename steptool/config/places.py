"""Where the files of a project lie, from its root."""

from pathlib import Path

PARAMS = Path("params.yaml")
TASKS = Path("data/tasks")
REFERENCES = TASKS / "references.jsonl"
DEMONSTRATIONS = TASKS / "demonstrations.jsonl"
TRAJECTORIES = Path("data/trajectories")
SCORED = Path("data/scored")
VALIDATED = Path("data/validated")
MODELS = Path("models")
BASE, SFT, RFT = MODELS / "base", MODELS / "sft", MODELS / "rft"
EVALUATION = Path("metrics/evaluation")
REVISIONS = Path("data/revisions")
"""What stage `revisions` found of what DVC does not see by itself: `code/<stage>.json`, and what lies outside."""
EXTERNAL_BASE, EXTERNAL_WORLD = REVISIONS / "base.json", REVISIONS / "world.json"
EXTERNAL_DEMONSTRATIONS = REVISIONS / "demonstrations.json"
CODE = REVISIONS / "code"
REGISTRATION = Path("metrics/registration")
REPORT = Path("reports")
WORK = Path(".steptool")
"""State of this checkout: checkpoints, merged weights, what could not be logged yet. Never an output."""
MERGED = WORK / "merged"
