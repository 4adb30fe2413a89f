"""Signals as something to be read, one byte each, in a process without an event loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def _note(_number: int, _frame: object) -> None:
    """The byte was written by Python already."""


class Signals:
    """Catches SIGTERM, SIGINT, SIGHUP and SIGCHLD from when it is made; one per process."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A full pipe loses a signal of which there are thousands already.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _WATCHED:
            signal.signal(number, _note)

    def fileno(self) -> int:
        return self._read

    def came(self) -> list[signal.Signals]:
        """Those that came since it was asked last, in order."""
        with suppress(BlockingIOError):
            return [signal.Signals(number) for number in os.read(self._read, 4096)]
        return []

    def close(self) -> None:
        """The process has done all there is to do: who wants it to end is not heard any more.

        By default a second SIGTERM would kill what has only to exit, and its 0 be lost.
        """
        self._let_go(signal.SIG_IGN)

    def leave_to_the_parent(self) -> None:
        """In a worker: what a terminal sends to all is the supervisor's to decide about."""
        self._let_go(signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _let_go(self, how: signal.Handlers) -> None:
        # The dead of others may be waited for again; to ignore SIGCHLD would bury them.
        for number in _WATCHED:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else how)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


@contextmanager
def held_back() -> Iterator[None]:
    """No signal arrives inside: a fork must not leave the child with its parent's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
