"""`rabbitmq-outage: store`: mail goes to the broker, and waits in the store while it cannot.

Laws. A mail is safe in one of the two before its 250. While anything waits, new mail goes
behind it into the store, in all workers: whoever had a 250 before another mail was sent is
before it in the queue. A document leaves the store when the broker has confirmed it, so a
crash repeats some, with the same ids, and loses none. The draining itself is in drain.py.

What the workers must know of each other stands in a few numbers in memory that they
inherit. `STORED` is changed after every commit, to a number that was never there before;
who drains takes note of it, finds the line empty, and only then writes it to `DRAINED`.
So where both are equal nothing waits, however the processes are interleaved.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from mailgw.mail.publication import Publication
from mailgw.observe import log
from mailgw.outlets.drain import Drain
from mailgw.outlets.lease import Lease
from mailgw.outlets.store import Store
from mailgw.plugins import Output, Refused, Unavailable
from mailgw.smtp.reply import Reply

_STORED, _DRAINED, _HOLD, _BEGAN = range(4)

# How often it is looked whether something waits, while something does and while not.
_TICK, _CALM_TICK = 0.05, 0.25
# How often the file itself is looked at: a worker may have died between commit and telling.
_LOOK_EVERY = 5.0
# While mail is held back, how often it is looked whether it may go.
_HELD_TICK = 0.01
# How finely a publish's patience is measured.
_TURNS = 8
# After trouble with the store, in seconds.
_REST = 1.0


class Broker(Output, Protocol):
    """The output that the store stands in for."""

    def unreachable(self) -> Reply | None:
        """The 4xx while it cannot take any document, for whatever queue."""

    def check(self, publications: Sequence[Publication]) -> None:
        """Raise Undeliverable for what it would never take, as far as that is known."""


class Shared:
    """What all workers know. Make it before the fork; the numbers are seconds or tokens."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._cells = memoryview(memory).cast("Q")
        # Something may wait from the last time: nobody knows until it was looked at.
        self._cells[_STORED] = 1

    @property
    def something_waits(self) -> bool:
        cells = self._cells
        return cells[_STORED] != cells[_DRAINED]

    def stored(self) -> None:
        """Something was committed to the store."""
        self._cells[_STORED] = int.from_bytes(os.urandom(8))

    def mark(self) -> int:
        """To be taken before the line is found empty, and given to `drained` afterwards."""
        return self._cells[_STORED]

    def drained(self, mark: int) -> None:
        self._cells[_DRAINED] = mark

    def hold(self, seconds: float) -> None:
        """Let new mail wait so long for the line to become empty, from now on; 0 ends it.

        The end is a time, so that it comes also where whoever wanted it has died.
        """
        self._cells[_HOLD] = int((time.monotonic() + seconds) * 1000) if seconds else 0

    @property
    def hold_left(self) -> float:
        """How long new mail is to wait still, in seconds; 0 for not at all."""
        held = self._cells[_HOLD]
        return max(0.0, held / 1000 - time.monotonic()) if held else 0.0

    def begin(self) -> bool:
        """Note that an outage began; False where it is known already."""
        if self._cells[_BEGAN]:
            return False
        self._cells[_BEGAN] = int(time.time())
        return True

    def end(self) -> int | None:
        """Note that it is over, and tell when it began, if it did, in seconds of the epoch."""
        began = self._cells[_BEGAN]
        self._cells[_BEGAN] = 0
        return began or None


@dataclass(slots=True)
class _Watch:
    """The chores of a room that is open, and what wakes the first."""

    task: asyncio.Task[None]
    clock: asyncio.Task[None]
    wake: asyncio.Event


class WaitingRoom:
    """The Output that keeps mail in `store` while `broker` cannot take it.

    `deadline` is how long a client is waited for, in seconds; a third of it is what a
    publish may take before its mail goes to the store instead. Make it before the fork, or
    give the rooms of one store the same `shared`.
    """

    def __init__(
        self, broker: Broker, store: Store, *, deadline: float, shared: Shared | None = None
    ) -> None:
        self._broker = broker
        self._store = store
        self._patience = deadline / 3
        self._shared = shared or Shared()
        self._watch: _Watch | None = None
        self._held: asyncio.Task[None] | None = None
        self._closing = False
        # What is being published, oldest first, with the turn of the clock in which it began.
        self._under_way: dict[asyncio.Task[object] | None, int] = {}
        self._late: set[asyncio.Task[object] | None] = set()
        self._turn = 0

    # --- Output -----------------------------------------------------------------------

    async def open(self) -> None:
        """Open both. Raises Unavailable where the store, or an address, cannot be used."""
        await self._store.open()
        try:
            await self._broker.open()
        except BaseException:
            await self._store.close()
            raise
        self._closing = False
        wake = asyncio.Event()
        task = asyncio.create_task(self._look_after(wake), name="waiting room")
        clock = asyncio.create_task(self._end_late_ones(), name="waiting room's clock")
        self._watch = _Watch(task, clock, wake)

    @property
    def largest(self) -> int | None:
        return self._broker.largest

    def trouble(self) -> Reply | None:
        """The broker's where it would be asked, the store's where mail goes there."""
        if self._shared.something_waits:
            return self._store.trouble()
        trouble = self._broker.trouble()
        if trouble is not None and self._broker.unreachable() is not None:
            return self._store.trouble()
        return trouble

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Make them safe at the broker or in the store. See `Output.publish`."""
        if self._shared.something_waits and not await self._line_is_over():
            if self._broker.unreachable() is not None:
                self._began("the broker is away")
            await self._keep(publications)
            return
        # A timer for each would cost a third of the publish itself: `_end_late_ones` looks.
        task = asyncio.current_task()
        self._under_way[task] = self._turn
        try:
            await self._broker.publish(publications)
        except Refused:
            raise
        except Unavailable as trouble:
            reason = trouble.reason
        except asyncio.CancelledError:
            if task not in self._late or task is None or task.uncancel():
                raise
            # The broker may have it all the same. Then it gets it twice, with the same ids.
            reason = "no confirm in time"
        else:
            return
        finally:
            del self._under_way[task]
            self._late.discard(task)
        self._began(reason)
        await self._keep(publications)

    async def close(self) -> None:
        """End the drain with what it has in hand, then close both."""
        self._closing = True
        if self._watch is not None:
            self._watch.wake.set()
            await asyncio.wait({self._watch.task}, timeout=self._patience)
            tasks = {self._watch.task, self._watch.clock}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._watch = None
        if self._held is not None:
            self._held.cancel()
            await asyncio.wait({self._held})
        await self._broker.close()
        await self._store.close()

    # --- one transaction --------------------------------------------------------------

    def _began(self, reason: str) -> None:
        if self._shared.begin():
            log.warning("outage.began", reason=reason)

    async def _keep(self, publications: Sequence[Publication]) -> None:
        # A mail that the broker will never take must not be a 250 first.
        self._broker.check(publications)
        try:
            await self._store.publish(publications)
        finally:
            # Whoever is cancelled does not know whether it is there.
            self._shared.stored()
            if self._watch is not None:
                self._watch.wake.set()

    async def _line_is_over(self) -> bool:
        """Wait as long as who drains wants it; True where nothing waits any more."""
        if self._held is None and (left := self._shared.hold_left):
            self._held = asyncio.create_task(self._until_let_go(left), name="mail on hold")
        if self._held is not None:
            await asyncio.wait({self._held})
        return not self._shared.something_waits

    async def _until_let_go(self, seconds: float) -> None:
        """One for all that are held back: thousands of clients need no clock each.

        No longer than was wanted when it began: a hold may be renewed again and again.
        """
        end = time.monotonic() + seconds
        try:
            # Another process ends it, which can set no event of ours.
            while self._shared.hold_left and self._shared.something_waits:
                if time.monotonic() >= end:
                    return
                await asyncio.sleep(_HELD_TICK)
        finally:
            self._held = None

    # --- the chore --------------------------------------------------------------------

    async def _look_after(self, wake: asyncio.Event) -> None:
        """Drain whenever something waits, the broker is there, and nobody else does it."""
        drain = Drain(self._broker, self._store, self._shared, self._patience)
        lease = Lease(self._store.path)
        next_look, said = 0.0, ""
        try:
            while not self._closing:
                try:
                    if time.monotonic() >= next_look:
                        next_look = time.monotonic() + _LOOK_EVERY
                        if await drain.finds_something():
                            self._shared.stored()
                        said = ""
                    if drain.is_wanted():
                        await self._drain_once(drain, lease)
                except (OSError, sqlite3.Error, Unavailable) as trouble:
                    if said != (said := str(trouble)):
                        log.warning("outage.store-trouble", reason=said)
                    await asyncio.sleep(_REST)
                except Exception:  # noqa: BLE001 - our own bug must not end the draining
                    log.failure("outage.failed")
                    await asyncio.sleep(_REST)
                waits = self._shared.something_waits
                await self._pause(wake, _TICK if waits else _CALM_TICK)
        finally:
            lease.give_back()
            drain.close()

    async def _drain_once(self, drain: Drain, lease: Lease) -> None:
        if not lease.take():
            return
        try:
            await drain.run(lambda: self._closing)
        finally:
            self._shared.hold(0)
            lease.give_back()

    async def _end_late_ones(self) -> None:
        """Cancel what the broker does not confirm in time; `publish` then goes to the store."""
        while True:
            await asyncio.sleep(self._patience / _TURNS)
            self._turn += 1
            for task, began in self._under_way.items():
                if task is None or self._turn - began <= _TURNS:
                    break
                if task not in self._late:
                    self._late.add(task)
                    task.cancel()

    async def _pause(self, wake: asyncio.Event, seconds: float) -> None:
        wake.clear()
        if not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await wake.wait()
