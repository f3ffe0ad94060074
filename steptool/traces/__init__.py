"""Attempts that were not sampled here."""
