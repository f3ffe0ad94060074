"""Where the files of a project lie, from its root."""

from pathlib import Path

PARAMS = Path("params.yaml")
TASKS = Path("data/tasks")
REFERENCES = TASKS / "references.jsonl"
DEMONSTRATIONS = TASKS / "demonstrations.jsonl"
TRACES = Path("traces")
"""Folders that `steptool traces import` wrote, which is no stage."""
TRAJECTORIES = Path("data/trajectories")
PROMPTS = "prompts.json"
"""What the format shortened in the prompts of a round, in its folder of trajectories."""
CANARY = "canary.json"
"""What the engine said to the policy's canary, beside it; none where it was not asked."""
SCORED = Path("data/scored")
VALIDATED = Path("data/validated")
MODELS = Path("models")
BASE = MODELS / "base"
EVALUATION = Path("metrics/evaluation")
JUDGED = ".trajectories.jsonl.gz"
"""Behind the name of an arm, the file of its judged attempts there and in the selection."""
COMPARISONS = "comparisons.json"
"""Of pairs of arms, in that folder."""
SELECTION = Path("metrics/selection")
"""Of the arms on the dev tasks, where `register.best_on` asks for it."""
REPORT = Path("reports")
REVISIONS = Path("data/revisions")
"""What DVC does not see by itself, one file a stage: what its code means, its settings, and what lies outside."""
WORK = Path(".steptool")
"""State of this checkout: checkpoints, merged weights, what could not be logged yet. Never an output."""
MERGED = WORK / "merged"
REGISTRATION = WORK / "registration.json"
"""Receipt of the last `steptool register`."""
