"""Evaluation under equal conditions, and paired comparison."""
