"""Judgements of steps."""
