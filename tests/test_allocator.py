"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHURN = """
import resource, sys
from steptool.allocator import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
def churn():
    for _ in range(20):
        blocks = [bytearray(b"x") * (40 << 20) for _ in range(3)]  # large: mapped on their own by default
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", CHURN, setting], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_large_blocks_are_used_again_without_page_faults() -> None:
    assert page_faults("kept") < page_faults("default") / 50
