"""The right to drain a queue store: one process at a time, whoever else has the file open.

The lock is the kernel's and goes with its holder, also with one that is killed. It is on a
file of its own beside the store, because closing a descriptor of the store would drop
SQLite's locks; the file holds the process id for people to read, and is never removed.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def lease_path(store: Path) -> Path:
    """Where the lease of that queue store is."""
    return store.with_name(store.name + "-drain")


class Lease:
    """A lease that may be taken and given back any number of times, in one process."""

    def __init__(self, store: Path) -> None:
        self._path = lease_path(store)
        self._file: int | None = None

    def take(self) -> bool:
        """Have it from now on; False while another process has it. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            os.close(file)
            raise
        self._file = file
        return True

    def give_back(self) -> None:
        """Let go of it, if it is ours."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def holder(store: Path) -> int | None:
    """The process that drains that queue store now, None where nobody does."""
    try:
        file = os.open(lease_path(store), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(file, 20, 0).strip()
        return int(written) if written.isdigit() else None
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(file)
