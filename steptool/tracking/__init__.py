"""Runs, metrics and their delivery to MLflow."""
