"""The local addresses that are in force now: asked like a list, replaced like a value.

Laws: a list that cannot be read, or has one bad pattern in it, changes nothing, and the
log says so once. Reading takes place beside the event loop and never holds it up. Who was
told that a recipient is local has been told: nobody asks again for the same recipient.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mailgw.gate.recipients import BadLocalAddresses, Gathering, LocalAddresses, go_on
from mailgw.gate.texts import let_go
from mailgw.observe import log

T = TypeVar("T")

# Seconds that a reading works, and then leaves to the event loop.
_WORK = _TURN = 0.001


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the patterns stand: a file, a table, both or neither."""

    file: Path | None = None
    database: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return self.file is not None or bool(self.database)

    def load(self, between: Callable[[], None] = go_on) -> LocalAddresses:
        """Read both into one list; `between` is called after each block of them.

        Raises BadLocalAddresses with all that is wrong with either.
        """
        gathering = Gathering()
        if self.file is not None:
            gathering.file(self.file, between)
        if self.database:
            _read_table(self.database, gathering, between)
        if complaints := gathering.complaints():
            parts = gathering.parts()
            del gathering
            let_go(parts, between)
            raise BadLocalAddresses(complaints)
        return gathering.finish()

    def stamp(self) -> object:
        """What differs once the file was changed."""
        if self.file is None:
            return None
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def _read_table(database: str, gathering: Gathering, between: Callable[[], None]) -> None:
    # Imported here: who has no database need not wait for its library.
    from mailgw.gate.database import BadDatabase, blocks

    try:
        for rows in blocks(database):
            gathering.rows(rows)
            between()
    except BadDatabase as error:
        gathering.complain(f"database-address: {error}")


class Locals:
    """The list in force, with the questions of LocalAddresses.

    `run` reads the sources again every `ttl` seconds, for as long as it is not cancelled:
    the table always, the file alone only when it was changed.
    """

    def __init__(self, sources: Sources, addresses: LocalAddresses, ttl: float = 600) -> None:
        self._sources = sources
        self._ttl = ttl
        self._addresses = addresses
        self._stamp: object = None
        self._kept = ""
        self._reading = asyncio.Lock()

    @classmethod
    def load(cls, sources: Sources, ttl: float) -> Locals:
        """Read the sources for the first time. Raises BadLocalAddresses."""
        stamp = sources.stamp()
        made = cls(sources, sources.load(), ttl)
        made._stamp = stamp
        return made

    def __bool__(self) -> bool:
        """Whether any address is local at all."""
        return bool(self._addresses)

    def is_local(self, address: str) -> bool:
        """Whether a pattern matches the address, given in its UTF-8 form."""
        return self._addresses.is_local(address)

    def knows_domain(self, domain: str) -> bool:
        """Whether the list names this domain: then an unknown address in it does not exist."""
        return self._addresses.knows_domain(domain)

    async def run(self) -> None:
        """Keep the list up to date. Returns at once where there is nothing to read."""
        if not self._sources:
            return
        self._say_loaded()
        while True:
            await asyncio.sleep(self._ttl)
            if self._sources.database or self._sources.stamp() != self._stamp:
                await self.reload()

    async def reload(self) -> None:
        """Read the sources now and take over what they hold, or keep what we have."""
        async with self._reading:
            self._stamp = self._sources.stamp()
            try:
                found = await _beside(self._changed)
            except BadLocalAddresses as error:
                self._say_kept(error)
                return
            again, self._kept = bool(self._kept), ""
            parts = []
            if found is not None:
                parts, self._addresses = self._addresses.parts(), found
            if found is not None or again:
                self._say_loaded()
            if parts:
                await _beside(lambda: let_go(parts, _Turns()))

    async def close(self) -> None:
        """Let the list go, bit by bit; from now on no address is local."""
        parts, self._addresses = self._addresses.parts(), LocalAddresses.empty()
        await _beside(lambda: let_go(parts, _Turns()))

    def _changed(self) -> LocalAddresses | None:
        """What the sources hold now; None where it is what we have."""
        turns = _Turns()
        found = self._sources.load(turns)
        if not found.same(self._addresses, turns):
            return found
        parts = found.parts()
        del found
        let_go(parts, turns)
        return None

    def _say_kept(self, error: BadLocalAddresses) -> None:
        more = len(error.lines) - 1
        reason = error.lines[0] + (f" (and {more} more)" if more else "")
        if reason != self._kept:
            self._kept = reason
            log.warning("locals.kept", reason=reason)

    def _say_loaded(self) -> None:
        log.info("locals.loaded", exact=self._addresses.exact, patterns=self._addresses.patterns)


class _Turns:
    """Called between two pieces of work: gives the event loop its turn once in a while."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._since >= _WORK:
            # Not sleep(0): who gives the interpreter away for no time has it again first.
            time.sleep(_TURN)
            self._since = time.monotonic()


async def _beside(work: Callable[[], T]) -> T:
    """Do the work in a thread of its own, for which the end of the process does not wait."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():  # cancelled meanwhile
            return
        if error is not None:
            future.set_exception(error)
        else:
            # No error, so there is a result; it may be None where T is.
            future.set_result(result)  # type: ignore[arg-type]  # see above

    def run() -> None:
        result, trouble = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            trouble = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, trouble)

    threading.Thread(target=run, name="locals", daemon=True).start()
    return await future
