"""Worlds: where tools live."""
