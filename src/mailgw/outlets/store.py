"""The embedded queue: documents into one SQLite file, safe before the 250.

Laws: `publish` returns after its documents are committed and synced to disk. The
documents of one call are committed together or not at all. All that wait share one
commit and one sync, so a slow disk makes groups larger, not queues longer. And what
fails for one transaction alone fails for that one alone.

With a limit the file never holds more than that, and says "full" a little before.

One thread owns the connection. Publishers put their transaction into its inbox; it
takes all there is, commits, and wakes the loop once for the whole group. Who takes
documents off puts that into the same inbox, so that it shares the sync too.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from mailgw.mail.publication import Publication
from mailgw.outlets.store_file import StoreError, connect, is_busy, unused_octets, used_octets
from mailgw.plugins import Unavailable, Undeliverable
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

# Bounds of one group: how long its first transaction waits, how far the WAL grows.
_GROUP_TRANSACTIONS = 1_000
_GROUP_OCTETS = 64 * 1024 * 1024
# Taking documents off writes too. On a disk that is full to the brim nobody could, and it
# would stay full; so the last octets are the readers' and the checkpoint's.
_RESERVE = 48 * 1024 * 1024
# After a failure, refuse before the message is sent for so long; then try the disk again.
_REFUSE_FOR = 1.0
# Of the limit, the part that is kept for mail that was let in before it was nearly reached.
_LAST_PART = 16

# Statements for so many rows at once, largest first. Python lets other threads in around
# every statement, and a busy event loop takes its time to give way: fewer is faster.
_INTO = (
    "INSERT INTO document"
    " (queue, message_id, transaction_id, dedupe, received, priority, body) VALUES "
)
_INSERTS = tuple(
    (rows, _INTO + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * rows)) for rows in (64, 16, 4, 1)
)

_INSERT_ZEROS = f"{_INTO}(?, ?, ?, ?, ?, ?, zeroblob(?))"

_LARGE = 256 * 1024  # octets

_Value = str | int | bytes | None
_Failure = Unavailable | Undeliverable
# What else is to be done to the file, within a transaction that is already open.
Change = Callable[[sqlite3.Connection], None]


class _Transaction(NamedTuple):
    documents: Sequence[Publication]
    change: Change | None
    safe: asyncio.Future[None]


class _Wish:
    """A transaction in the inbox. Whoever gives up takes it out again, with all it holds."""

    __slots__ = ("transaction",)

    def __init__(self, transaction: _Transaction) -> None:
        self.transaction: _Transaction | None = transaction


class NoRoom(StoreError):
    """Less is free on the disk than must stay free, or the store's own limit is reached."""


def explain(error: Exception) -> _Failure:
    """What went wrong in the file, as the publisher's trouble. New for each publisher."""
    if isinstance(error, sqlite3.DataError):
        # "string or blob too big": over SQLite's own limit, about 1 GB.
        return Undeliverable(f"queue store: {error}", reply.TOO_BIG)
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
        return Unavailable(f"queue store: {error}", reply.STORAGE_FULL)
    if isinstance(error, NoRoom):
        return Unavailable(str(error), reply.STORAGE_FULL)
    if isinstance(error, StoreError):
        return Unavailable(str(error))
    return Unavailable(f"queue store: {type(error).__name__}: {error}")


def _insert(connection: sqlite3.Connection, documents: Sequence[Publication]) -> None:
    if any(p.size > _LARGE for p in documents):
        for p in documents:
            _insert_alone(connection, p)
        return
    start = 0
    for rows, statement in _INSERTS:
        while len(documents) - start >= rows:
            values: list[_Value] = []
            for p in documents[start : start + rows]:
                values += (*_described(p), p.body)
            connection.execute(statement, values)
            start += rows


def _insert_alone(connection: sqlite3.Connection, p: Publication) -> None:
    """One document, part by part: of what a statement binds SQLite makes two copies."""
    row = connection.execute(_INSERT_ZEROS, (*_described(p), p.size)).lastrowid or 0
    with connection.blobopen("document", "body", row) as blob:
        for part in p.parts:
            blob.write(part)


def _described(p: Publication) -> tuple[_Value, ...]:
    received = p.received.isoformat()
    return (p.queue, p.message_id, p.transaction_id, p.dedupe, received, p.priority)


def _signal(done: asyncio.Future[None]) -> _Transaction:
    return _Transaction((), None, done)


def _settle(group: Sequence[_Transaction], outcome: Sequence[_Failure | None]) -> None:
    for (_, _, safe), failure in zip(group, outcome, strict=True):
        if safe.done():  # its publisher was cancelled; the documents are where they are
            continue
        if failure is None:
            safe.set_result(None)
        else:
            safe.set_exception(failure)


class _Writer:
    """The connection and its thread's work. `refusal` is a reply and when to forget it.

    `full` says whether the limit was nearly reached when it was last looked at.
    """

    def __init__(self, path: Path, most: int | None) -> None:
        self._path = path
        self.most = most
        self._connection: sqlite3.Connection | None = None
        self._file: os.stat_result | None = None
        self.refusal: tuple[Reply, float] | None = None
        self.full = False

    def open(self) -> sqlite3.Connection:
        """The connection; opened again when it failed or the file is another by now."""
        if self._connection is not None:
            # A file that was removed or replaced takes our commits and nobody finds them.
            with suppress(OSError):
                if self._file and os.path.samestat(self._file, self._path.stat()):
                    return self._connection
            self.close()
        self._connection = connect(self._path, create=True)
        self._file = self._path.stat()
        return self._connection

    def commit(self, group: Sequence[_Transaction]) -> list[_Failure | None]:
        """Make the group safe; says for each transaction what became of it."""
        try:
            fitting = self._write(group)
        except Exception as error:  # noqa: BLE001 - this thread must outlive every failure
            self._recover(error)
            alone = isinstance(error, NoRoom) or not isinstance(error, StoreError)
            if len(group) > 1 and alone and not is_busy(error):
                # The room or the flaw may be a single transaction's: each for itself.
                return [self.commit((transaction,))[0] for transaction in group]
            return [explain(error) for _ in group]
        if any(transaction.documents for transaction in group):
            self.refusal = None
        if not all(fitting):
            self.refusal = (reply.STORAGE_FULL, time.monotonic() + _REFUSE_FOR)
        return [None if fits else explain(self._over()) for fits in fitting]

    def _write(self, group: Sequence[_Transaction]) -> list[bool]:
        """Commit those that the limit leaves room for, and say which."""
        connection = self.open()
        if any(transaction.documents for transaction in group):
            disk = os.statvfs(self._path)
            free = disk.f_bavail * disk.f_frsize
            if free < _RESERVE and free + unused_octets(connection) < _RESERVE:
                raise NoRoom(f"queue store {self._path}: the disk is nearly full")
        connection.execute("BEGIN IMMEDIATE")
        for transaction in group:
            if transaction.change is not None:
                transaction.change(connection)
        fitting = self._fitting(connection, group)
        documents: list[Publication] = []
        for transaction, fits in zip(group, fitting, strict=True):
            if fits:
                documents += transaction.documents
        _insert(connection, documents)
        if self.most is not None:
            nearly = self.most - self.most // _LAST_PART
            self.full = used_octets(connection) >= nearly
        connection.execute("COMMIT")
        return fitting

    def _fitting(self, connection: sqlite3.Connection, group: Sequence[_Transaction]) -> list[bool]:
        if self.most is None:
            return [True] * len(group)
        room = self.most - used_octets(connection)
        fitting = []
        for transaction in group:
            size = sum(each.size for each in transaction.documents)
            fitting.append(not transaction.documents or size <= room)
            room -= size if fitting[-1] else 0
        return fitting

    def _over(self) -> NoRoom:
        return NoRoom(f"queue store {self._path}: queue-store-max is reached")

    def _recover(self, error: Exception) -> None:
        if isinstance(error, sqlite3.OperationalError | StoreError):
            failure = explain(error)
            self.refusal = (failure.reply, time.monotonic() + _REFUSE_FOR)
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()
        if isinstance(error, sqlite3.DatabaseError) and not is_busy(error):
            # After an I/O error nothing is known of this connection; a new one reads
            # the file as it is.
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class Store:
    """The queue store at `path` as an Output. Used from one event loop.

    `most` is how many octets it may hold, None for as many as the disk has.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        self.path = path
        self._writer = _Writer(path, most)
        self._inbox: SimpleQueue[_Wish | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._next_look = 0.0

    async def open(self) -> None:
        """Open or make the file. Raises Unavailable when it cannot be used."""
        loop = asyncio.get_running_loop()
        self._inbox = SimpleQueue()
        opened: asyncio.Future[None] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(
            target=self._run, args=(loop, opened, ended), name="queue-store", daemon=True
        )
        thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._inbox.put(None)
            raise
        self._loop, self._thread, self._ended = loop, thread, ended

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Commit the documents, all or none, and wait until they are on disk.

        Raises Unavailable, or Undeliverable for a document that SQLite cannot hold.
        Cancelling it leaves open whether they are committed.
        """
        await self._do(publications, None)

    @property
    def largest(self) -> int | None:
        return self._writer.most

    async def change(self, act: Change) -> None:
        """Do something else to the file in the next commit, and wait until that is done.

        `act` runs in the store's thread, perhaps a second time where the first failed.
        Raises as `publish` does.
        """
        await self._do((), act)

    def trouble(self) -> Reply | None:
        """STORAGE_FULL while there is no room, as far as is known; it is looked at again.

        Else what the last commit failed with, for a second; then the next mail tries.
        """
        if self._writer.full:
            self.look()
            return reply.STORAGE_FULL
        refusal = self._writer.refusal
        if refusal is None or time.monotonic() > refusal[1]:
            return None
        return refusal[0]

    def look(self) -> None:
        """Find out whether there is room, within a moment; not more often than is useful."""
        now = time.monotonic()
        if self._loop is not None and self._writer.most is not None and now >= self._next_look:
            self._next_look = now + _REFUSE_FOR
            self._inbox.put(_Wish(_Transaction((), None, self._loop.create_future())))

    async def _do(self, documents: Sequence[Publication], change: Change | None) -> None:
        if self._loop is None:
            raise Unavailable("the queue store is not open")
        safe = self._loop.create_future()
        wish = _Wish(_Transaction(documents, change, safe))
        self._inbox.put(wish)
        try:
            await safe
        except asyncio.CancelledError:
            # On a disk that hangs there may be more and more of them.
            wish.transaction = None
            raise

    async def close(self) -> None:
        """Commit what was published so far and let go of the file."""
        if self._loop is None or self._ended is None or self._thread is None:
            return
        self._loop = None
        self._inbox.put(None)
        await self._ended
        self._thread.join()

    # --- the thread ---------------------------------------------------------------

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        opened: asyncio.Future[None],
        ended: asyncio.Future[None],
    ) -> None:
        # RuntimeError: the loop is gone without close(); nobody is left to be told, and
        # what was committed stays committed.
        with suppress(RuntimeError):
            try:
                self._writer.open()
            except (StoreError, ValueError) as error:
                loop.call_soon_threadsafe(_settle, [_signal(opened)], [Unavailable(str(error))])
                return
            loop.call_soon_threadsafe(_settle, [_signal(opened)], [None])
            last = False
            while not last:
                group, last = self._take()
                if group:
                    loop.call_soon_threadsafe(_settle, group, self._writer.commit(group))
                del group  # it may be long until there is another
            self._writer.close()
            loop.call_soon_threadsafe(_settle, [_signal(ended)], [None])

    def _take(self) -> tuple[list[_Transaction], bool]:
        """Wait for a transaction and take all that is there; True when it is the end."""
        group: list[_Transaction] = []
        octets = 0
        wish = self._inbox.get()
        while wish is not None:
            if (transaction := wish.transaction) is not None:
                group.append(transaction)
                octets += sum(publication.size for publication in transaction.documents)
            if len(group) == _GROUP_TRANSACTIONS or octets > _GROUP_OCTETS:
                return group, False
            try:
                wish = self._inbox.get_nowait()
            except Empty:
                return group, False
        return group, True
