"""Verbs of the command line that are no stages, a file each. Heavy imports stay inside the functions."""
