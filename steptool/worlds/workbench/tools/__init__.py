"""The tools of WorkBench, a file for each domain."""
