"""What the C library does with memory that is given back: keep it for the next step.

A step frees hundreds of megabytes and asks for as much a moment later. By default glibc returns
them to the system, and every page of the next step is then faulted in and zeroed again, which on a
virtual machine costs more than the arithmetic that fills it.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""`mallopt`'s names, from malloc.h."""
LARGEST = 32 << 20
"""The most that glibc takes for the size from which a block is the system's own."""


def keep() -> bool:
    """Have freed memory kept, where the C library is glibc; whether it is."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
