"""A stage on another machine."""

CLONE_VARIABLE = "STEPTOOL_CLONE"
"""Environment variable of a worker: the clone that its stages run in."""
GPU_LIMIT = "gpu"
"""Prefect's limit of how many stages may hold a GPU at once."""
