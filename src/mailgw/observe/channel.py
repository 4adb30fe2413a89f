"""Lines on their way: gathered for a turn of the loop, kept while nobody takes them.

Law: who says something never waits, and what waits has a bound. Lines above it are
lost, counted, and told when there is somebody to tell.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Sequence

from mailgw.observe.destinations import Destination, Line

# Characters that wait for one destination, at most.
MOST_WAITING = 4_000_000
# Seconds until a destination that was busy is tried again, and one that failed.
_BUSY = 0.1
_FAILED = 1.0

# Hears of trouble: the event, the name of the destination, and what else there is to say.
Trouble = Callable[[str, str, str], None]


class Channel:
    """What leads to some destinations.

    It writes at once until a loop is given to it. Other threads may add lines too.
    """

    def __init__(self, destinations: Sequence[Destination], trouble: Trouble) -> None:
        self._trouble = trouble
        self._branches = [_Branch(each, trouble) for each in destinations]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._gathered: list[Line] = []
        self._flush_comes = False
        _channels.add(self)

    def add(self, level: int, text: str) -> None:
        """Send a line, which holds no line ends, on its way."""
        loop = self._loop
        if loop is None:
            self._pass_on([(level, text)])
            return
        self._gathered.append((level, text))
        if not self._flush_comes:
            self._flush_comes = True
            if threading.get_ident() == self._thread:
                loop.call_soon(self._flush)
            else:
                loop.call_soon_threadsafe(self._flush)

    def gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on write once per turn of the running loop, and wait on its clock."""
        self._loop, self._thread = loop, threading.get_ident()
        for branch in self._branches:
            branch.loop = loop

    def end(self) -> None:
        """The loop ends: write what is gathered, and from now on at once."""
        self._loop = None
        self._flush()
        for branch in self._branches:
            branch.end()

    def direct(self, destinations: Sequence[Destination]) -> None:
        """Lead elsewhere from now on; what was gathered goes where it was meant to go."""
        self._flush()
        for branch in self._branches:
            branch.end()
        self._branches = [_Branch(each, self._trouble) for each in destinations]
        for branch in self._branches:
            branch.loop = self._loop

    def reopen(self) -> None:
        """Look now whether files were rotated away."""
        self._flush()
        for branch in self._branches:
            branch.reopen()

    def forget(self) -> None:
        """Drop what waits: this is a copy of a process, and the other one will write it."""
        self._loop = None
        self._gathered.clear()
        self._flush_comes = False
        self._branches = [_Branch(each.destination, self._trouble) for each in self._branches]

    def _flush(self) -> None:
        self._flush_comes = False
        # Other threads append meanwhile, behind what is taken here.
        count = len(self._gathered)
        lines = self._gathered[:count]
        del self._gathered[:count]
        if lines:
            self._pass_on(lines)

    def _pass_on(self, lines: list[Line]) -> None:
        for branch in self._branches:
            branch.take(lines)


def reopen_all() -> None:
    """Look now, for every channel there is, whether files were rotated away."""
    for channel in tuple(_channels):
        channel.reopen()


def _forget_all() -> None:
    for channel in tuple(_channels):
        channel.forget()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_all)


class _Branch:
    """One destination, and what waits for it."""

    def __init__(self, destination: Destination, trouble: Trouble) -> None:
        self.destination = destination
        self.loop: asyncio.AbstractEventLoop | None = None
        self._trouble = trouble
        self._waiting: list[Line] = []
        self._size = 0
        self._lost = 0
        self._failed = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self, lines: list[Line]) -> None:
        if not self._waiting:
            taken = self._write(lines)
            if taken < len(lines):
                self._keep(lines[taken:])
                self._try_later()
            elif self._failed or self._lost:
                self._recover()
        else:
            # In their order: behind those that wait.
            self._keep(lines)
            if self._timer is None:
                self._try_again()

    def end(self) -> None:
        """Try a last time."""
        self.loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._try_again()

    def reopen(self) -> None:
        try:
            self.destination.reopen()
        except OSError as trouble:
            self._trouble("log.kept", self.destination.name, str(trouble.strerror))

    def _write(self, lines: list[Line]) -> int:
        try:
            return self.destination.write(lines)
        except OSError as trouble:
            if not self._failed:
                self._failed = True
                self._trouble("log.stuck", self.destination.name, str(trouble.strerror))
            return 0

    def _keep(self, lines: list[Line]) -> None:
        for level, text in lines:
            if self._size + len(text) > MOST_WAITING:
                self._lost += 1
            else:
                self._size += len(text)
                self._waiting.append((level, text))

    def _try_later(self) -> None:
        if self.loop is not None:
            seconds = _FAILED if self._failed else _BUSY
            self._timer = self.loop.call_later(seconds, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        taken = self._write(self._waiting)
        self._size -= sum(len(text) for _, text in self._waiting[:taken])
        del self._waiting[:taken]
        if self._waiting:
            self._try_later()
        elif self._failed or self._lost:
            self._recover()

    def _recover(self) -> None:
        lost, self._lost, self._failed = self._lost, 0, False
        self._trouble("log.resumed", self.destination.name, f"lost {lost} lines")
