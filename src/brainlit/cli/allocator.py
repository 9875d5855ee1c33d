"""Memory that a training step frees stays with the process."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST = 2**31 - 4096


def keep_freed_memory() -> bool:
    """Ask glibc to reuse large freed blocks instead of handing them back to the kernel; True where it understood.

    Every step on a CPU frees and asks again for hundreds of MB; fetched from the kernel each time, they cost a page
    fault per 4 kB, and a step of the tiny model takes about twice as long. A process that was asked keeps its peak
    memory until it ends, so only commands that train do this, never the library.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
