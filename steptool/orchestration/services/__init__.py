"""Servers that start, answer and end together."""
