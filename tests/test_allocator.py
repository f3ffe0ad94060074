"""Freed memory stays with a trainer, and goes back from an engine."""

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

SCATTER = """
import sys
from steptool.allocator import return_freed_memory
assert sys.argv[1] == "default" or return_freed_memory()
learnt = bytearray(b"x") * (31 << 20)  # freeing it teaches glibc to keep blocks of this size in its heap
del learnt
blocks, pins = [], []
for _ in range(20):
    blocks.append(bytearray(b"x") * (20 << 20))
    pins.append(bytes(100_000))
blocks.clear()
print(int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20)
"""


def page_faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", CHURN, setting], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_large_blocks_are_used_again_without_page_faults() -> None:
    assert page_faults("kept") < page_faults("default") / 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_large_blocks_between_small_ones_go_back() -> None:
    held = {}
    for setting in ("default", "returned"):
        command = [sys.executable, "-c", SCATTER, setting]
        held[setting] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert held["returned"] < held["default"] - 300  # MiB, of 400 that were freed
