"""Bodies go to their place before the documents that name them go to the queue.

Laws. A body is safe before its document is published. What is in no document is removed,
at once where that is known here, else by the sweep; what may be in one never is. No step
waits for a place longer than `timeout`, and none of its troubles is told to a client.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial

from mailgw.config.sections.storage import StorageSettings
from mailgw.config.storage_urls import FolderUrl, StorageUrl
from mailgw.mail.budget import Budget
from mailgw.mail.octets import Octets, pieces
from mailgw.mail.transaction import Message
from mailgw.observe import log
from mailgw.plugins import Unavailable
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from mailgw.storage.folder import Folder
from mailgw.storage.names import PUBLISHING, WRITING, is_compressed, mark, new_key
from mailgw.storage.place import Place, StorageError, Unclear

# Marks that wait to be removed; those that come on top stay, and the sweep tells of them.
_MOST_MARKS = 10_000
# After a failure of the place, in seconds: how long mail is put off before it is sent, how
# soon marks are tried again, and how long the same trouble is not said once more.
_WARY, _AGAIN, _QUIET = 2.0, 5.0, 60.0


def place_of(address: StorageUrl, *, threads: int, timeout: float) -> Place:
    """The place that an address names. Opens nothing yet."""
    if isinstance(address, FolderUrl):
        return Folder(address.path, threads)
    # Imported here: who has a folder, or nothing, need not have the library.
    from mailgw.storage.bucket import Bucket

    return Bucket(address, timeout, threads)


def bodies_of(settings: StorageSettings, budget: Budget) -> Bodies | None:
    """What keeps the bodies that these settings send elsewhere; None where they send none."""
    every = settings.policy in ("in", "all")
    address = settings.address
    if address is None or not (every or settings.above is not None):
        return None
    return Bodies(
        place_of(address, threads=settings.threads, timeout=settings.timeout),
        above=None if every else settings.above,
        compress=address.compress,
        writers=settings.threads,
        timeout=settings.timeout,
        budget=budget,
    )


class Bodies:
    """Keeps bodies at a place, for one process.

    Those larger than `above` octets, or every one where it is None. `writers` mails are
    written at once, and where a place holds what it writes, no more of it than `budget`
    gives. The methods belong in this order: `keep`, then the publish, then
    `settle` where every document is safe, or `forget` where none is; neither where nobody
    knows.
    """

    def __init__(
        self,
        place: Place,
        *,
        above: int | None = None,
        compress: bool = False,
        writers: int = 8,
        timeout: float = 20.0,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget or Budget()
        self._place = place
        self._above = above
        self._compress = compress
        self._writers = asyncio.Semaphore(writers)
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: list[str] = []
        self._settling: asyncio.Task[None] | None = None
        self._wary_until = 0.0
        self._said: tuple[str, float] = ("", 0.0)

    def keys_for(self, message: Message) -> Callable[[int], str | None]:
        """Names for the bodies of one message, by their size; None for those that stay."""
        return partial(self._key, message)

    def trouble(self) -> Reply | None:
        """The 4xx to give before a message is sent, where we know now that it would fail."""
        if self._above is None and time.monotonic() < self._wary_until:
            return reply.TRY_AGAIN
        return None

    async def keep(self, bodies: Mapping[str, Octets]) -> None:
        """Return once all of them are safe under their names.

        Raises Unavailable; then they are removed meanwhile, as when it is cancelled.
        """
        writing: asyncio.Task[None] | None = None
        safe = False
        try:
            async with asyncio.timeout(self._timeout), AsyncExitStack() as turn:
                # In this order: whoever waits for memory keeps no writer from the others.
                await turn.enter_async_context(self._budget.share(self._held(bodies)))
                await turn.enter_async_context(self._writers)
                writing = self._begin(self._write(bodies, turn.pop_all()))
                # A write that is under way is not broken off: what became of it would be
                # known to nobody.
                await asyncio.shield(writing)
            safe = True
        except StorageError as trouble:
            raise self._failed(str(trouble)) from None
        except TimeoutError:
            waited = "stored" if writing else "begun"
            raise self._failed(f"not {waited} within {self._timeout:g} s") from None
        finally:
            if writing is not None and not safe:
                self._begin(self._undo(writing, bodies))

    def settle(self, keys: Collection[str]) -> None:
        """Their documents are safe: they stay for good."""
        if len(self._settled) + len(keys) > _MOST_MARKS:
            self._tell("marks of published bodies stay: too many wait")
            return
        self._settled.extend(keys)
        if self._settling is None:
            self._settling = self._begin(self._remove_marks())

    def forget(self, keys: Collection[str]) -> None:
        """They are in no document: they are removed."""
        self._begin(self._remove(keys))

    async def close(self) -> None:
        """Let go, after a while for what is under way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._place.close()

    # --- one mail -----------------------------------------------------------------------

    def _key(self, message: Message, size: int) -> str | None:
        if self._above is not None and size <= self._above:
            return None
        return new_key(message.transaction_id, message.received, compressed=self._compress)

    def _held(self, bodies: Mapping[str, Octets]) -> int:
        """The octets that are in memory while they are written, one after the other."""
        return max(map(len, bodies.values()), default=0) if self._place.holds_whole else 0

    async def _write(self, bodies: Mapping[str, Octets], turn: AsyncExitStack) -> None:
        async with turn:
            for key in bodies:
                await self._place.put(mark(WRITING, key), ())
            for key, content in bodies.items():
                body = pieces(content)
                await self._place.put(key, _compressed(body) if is_compressed(key) else body)
            for key in bodies:
                await self._place.put(mark(PUBLISHING, key), ())

    async def _undo(self, writing: asyncio.Task[None], keys: Collection[str]) -> None:
        """Remove what a write that nobody waits for any more has made, once it has ended."""
        await asyncio.wait({writing})
        # What a place may write later still is the sweep's, by the mark that stays.
        unclear = not writing.cancelled() and isinstance(writing.exception(), Unclear)
        await self._remove(keys, leave_mark=unclear)

    async def _remove(self, keys: Collection[str], *, leave_mark: bool = False) -> None:
        with suppress(StorageError):  # then the marks are there, for the sweep
            # First the mark that keeps the sweep away: the other one alone says "in none".
            await self._place.remove([mark(PUBLISHING, key) for key in keys])
            await self._place.remove(list(keys))
            if not leave_mark:
                await self._place.remove([mark(WRITING, key) for key in keys])

    async def _remove_marks(self) -> None:
        """Take the marks off what is published, many at a time, until none is left."""
        try:
            while self._settled:
                keys = self._settled[:]
                try:
                    # In this order: WRITING alone would say that they are in no document.
                    await self._place.remove([mark(WRITING, key) for key in keys])
                    await self._place.remove([mark(PUBLISHING, key) for key in keys])
                    del self._settled[: len(keys)]
                except StorageError as trouble:
                    self._tell(str(trouble))
                    await asyncio.sleep(_AGAIN)
        finally:
            self._settling = None

    # --- trouble ------------------------------------------------------------------------

    def _failed(self, reason: str) -> Unavailable:
        self._wary_until = time.monotonic() + _WARY
        self._tell(reason)
        return Unavailable(f"storage: {reason}")

    def _tell(self, reason: str) -> None:
        now = time.monotonic()
        if reason != self._said[0] or now > self._said[1] + _QUIET:
            self._said = (reason, now)
            log.error("storage.failed", reason=reason)

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        trouble = None if task.cancelled() else task.exception()
        if trouble is not None and not isinstance(trouble, StorageError):
            # Whoever waits for it tells it too, but not everything is waited for.
            self._tell(f"an error of our own: {type(trouble).__name__}")


def _compressed(body: Iterator[bytes]) -> Iterator[bytes]:
    made = zlib.compressobj(6, wbits=31)
    for piece in body:
        yield made.compress(piece)
    yield made.flush()
