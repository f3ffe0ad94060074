"""Settings of glibc's allocator, and of Python's garbage collector.

glibc reads the same settings from the environment too (MALLOC_ARENA_MAX and others), but only as a process starts: a
stage that `dvc repro` starts would not have them.

Every step of a training or of an engine allocates the same memory again, so the process keeps what it frees. If it
returned it, each step of SmolLM2-135M would need 30 000 fresh pages that the kernel has to clear: an eighth of the
time.

All threads share one heap. By default each thread has heaps of its own, of 64 MiB; after 500 trajectories these were
half empty and took 4 GiB.

Loading PyTorch, Transformers and vLLM makes a million objects that all stay. The search for garbage among them would
take a fifth of the loading time: 1.3 s in each stage, 2.2 s with vLLM.
"""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # of malloc.h
_LARGE = (1 << 31) - 1
_MIB = 1 << 20


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is the one whose settings these are. Asking reads the interpreter's file."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_freed_memory() -> bool:
    """To be called before threads start. False where the C library is not glibc."""
    options = {_TRIM_THRESHOLD: _LARGE, _TOP_PAD: 64 * _MIB, _MMAP_THRESHOLD: _LARGE, _ARENA_MAX: 1}
    glibc = _glibc()
    return glibc is not None and all(glibc.mallopt(option, value) == 1 for option, value in options.items())


def return_freed_memory() -> bool:
    """Return the free pages of the heap to the system. Call it now and then. False if there were none, or without
    glibc.

    Memory that an engine frees is too fragmented to be used again: after evaluating four policies, 3.9 of 6.9 GiB were
    free.
    """
    glibc = _glibc()
    return glibc is not None and glibc.malloc_trim(0) == 1


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Run the block without garbage collection. The objects that it leaves are never looked at later either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
