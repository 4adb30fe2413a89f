"""What a worker asks of the machine before it serves: descriptors, and memory that stays."""

from __future__ import annotations

import ctypes
import gc
import resource
from contextlib import suppress

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MIB = 1024 * 1024


def ready_for_load() -> None:
    """Set the process up; call it once, after everything is loaded."""
    _raise_file_limit()
    _spare_the_collector()
    _keep_freed_memory()


def _raise_file_limit() -> None:
    """One client is one descriptor: take as many as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_the_collector() -> None:
    """What was loaded stays, and mails make few cycles: look for them less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _keep_freed_memory() -> None:
    """Let malloc keep some memory of a mail for the next one.

    By default glibc gives what a body of 100 KB used back to the kernel and takes it
    anew with the next, and the faults cost as much as making the document.
    """
    with suppress(OSError, AttributeError):  # another C library: it has its own ways
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 4 * _MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 32 * _MIB)
        libc.mallopt(_M_TOP_PAD, 1 * _MIB)
