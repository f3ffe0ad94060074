"""Prompts, actions and observations as tokens, and back."""
