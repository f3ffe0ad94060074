"""Memory that was freed stays with the process: glibc would return large blocks to the kernel and fetch them again.

A training step of SmolLM2-135M touches 30 000 fresh pages that way, and each must be cleared by the kernel:
an eighth of its time.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_LARGE = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Set it for this process; False where the C library is not glibc, whose settings these are."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) == 1
        for option, value in ((_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, 64 << 20), (_MMAP_THRESHOLD, _LARGE))
    )
