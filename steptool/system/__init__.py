"""The machine under a process: progress, memory, environment."""
