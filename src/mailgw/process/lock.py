"""The lock file: one gateway at a time, and its process id for who may stop it.

The lock is the kernel's and goes with the process, so a file that was left behind by a
crash stops nobody. The file is emptied and never removed: who removes a lock file may
remove somebody else's.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path


class Locked(Exception):
    """The lock cannot be had; the text says who holds it, or why."""


class Lock:
    """Holds the lock from when it is made until `release`. Raises Locked."""

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)
        except OSError as trouble:
            holder = _holder(self._file)
            os.close(self._file)
            if isinstance(trouble, BlockingIOError):
                raise Locked(f"lock: {path} is held by {holder}, which runs already") from None
            raise Locked(f"lock: {path}: {trouble.strerror}") from None

    def release(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._file, 0)
        os.close(self._file)

    def leave(self) -> None:
        """In a child: the parent alone holds it."""
        os.close(self._file)


def _open(path: Path) -> int:
    # Not through a link, and not into a pipe: the folder may be everybody's.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # flock(2): whoever may read a file may lock it, and nobody would start any more.
        file = os.open(path, flags, 0o600)
    except OSError as trouble:
        raise Locked(f"lock: {path}: {trouble.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Locked(f"lock: {path} is not a file")
    return file


def _holder(file: int) -> str:
    written = os.pread(file, 20, 0).strip()
    return f"process {int(written)}" if written.isdigit() else "another process"
