"""The stages of dvc.yaml, and a stage as a process and as a Prefect task."""
