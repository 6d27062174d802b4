"""Memory of native libraries, given back to the operating system."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Return what was freed to the system, where the C library keeps it otherwise.

    glibc holds freed blocks below its top for the next allocation; after a model is let go that is most of it.
    Source: malloc_trim(3).
    """
    gc.collect()
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps nothing
    if trim is not None:
        trim(ctypes.c_size_t(0))
