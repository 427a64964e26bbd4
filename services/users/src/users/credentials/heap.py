"""Returns memory to the system after a burst of hashing.

A hash needs 19 MiB for 25 ms, and glibc keeps that memory for good, once for each thread. Mapping it for each hash
would cost a quarter more time; the two calls here cost next to nothing. C libraries other than glibc have neither:
there these functions do nothing.
"""

import contextlib
import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8
"""From glibc's `malloc.h`."""


def limit_malloc_arenas() -> None:
    """Makes all threads that start from now on share one heap: `malloc_trim` shrinks no other."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Returns free memory to the system. Takes some milliseconds, in which no thread can allocate."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
