"""Freed memory stays, in one heap for all threads."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from steptool.system.memory import without_garbage_collection

CHURN = """
import resource, sys
from steptool.system.memory import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
def churn():
    for _ in range(20):
        blocks = [bytearray(b"x") * (40 << 20) for _ in range(3)]  # large: mapped on their own by default
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

RESIDENT = """
print(int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20)  # MiB
"""

THREADS = """
import sys, threading
from steptool.system.memory import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
learnt = bytearray(b"x") * (8 << 20)  # freeing it teaches glibc to keep blocks of this size in its heaps
del learnt
def work():
    blocks = []
    for _ in range(40):
        blocks.append(bytearray(b"x") * (1 << 20))
        pins.append(bytes(10_000))  # keeps the heap from shrinking
    blocks.clear()
    freed.set()
    forever.wait()  # a thread that has ended would leave its heap to the next
pins, forever = [], threading.Event()
for _ in range(8):
    freed = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    freed.wait()
"""

HOLES = """
import sys
from steptool.system.memory import keep_freed_memory, return_freed_memory
assert keep_freed_memory()
blocks = [bytearray(b"x") * (1 << 20) for _ in range(400)]
blocks = blocks[::8]  # what stays keeps the heap from shrinking
if sys.argv[1] == "returned":
    assert return_freed_memory()
"""


def run(program: str, setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", program, setting], capture_output=True, text=True, check=True)
    return int(done.stdout)


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")


@needs_glibc
def test_free_pages_between_blocks_in_use_are_given_back() -> None:
    """400 MiB, of which every eighth stays."""
    assert run(HOLES + RESIDENT, "kept") > 400
    assert run(HOLES + RESIDENT, "returned") < 130


@needs_glibc
def test_large_blocks_are_used_again_without_page_faults() -> None:
    assert run(CHURN, "kept") < run(CHURN, "default") / 50


@needs_glibc
def test_what_one_thread_has_freed_the_next_uses() -> None:
    """Eight threads, one after the other, free 40 MiB each between small blocks that stay."""
    assert run(THREADS + RESIDENT, "kept") < run(THREADS + RESIDENT, "default") - 200  # MiB resident


def test_what_a_block_leaves_behind_is_never_looked_through_again() -> None:
    before = gc.get_freeze_count()
    with without_garbage_collection():
        assert not gc.isenabled()
        kept = [[i] for i in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)
    gc.unfreeze()


def test_collection_goes_on_after_a_failure() -> None:
    with pytest.raises(ImportError), without_garbage_collection():
        raise ImportError("no such package")
    assert gc.isenabled()
    gc.unfreeze()
