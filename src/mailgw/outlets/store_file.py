"""The file of the embedded queue: what is in it, how it is opened, how it is read.

One SQLite file in WAL mode, so that one process may take documents off while another
puts them on. Three laws: the file is ours and of a version we know, or it is not
touched; only its owner can read it; a document leaves it after it was handed over,
so an interrupted reader repeats documents and loses none.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# "mlgw", in the place that file(1) and SQLite keep for it.
APPLICATION_ID = 0x6D6C6777
VERSION = 1

# How long to wait while another process writes.
_PATIENCE = 5.0
# What is taken off in one commit. A reader that is killed repeats at most so many.
_BATCH = 100
_POLL_INTERVAL = 0.2

# AUTOINCREMENT: an id is never given twice, so that "after the last one I saw" holds
# even when everything was taken off in between. The index orders a queue by id.
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS document (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        message_id TEXT NOT NULL,
        transaction_id TEXT NOT NULL,
        dedupe TEXT NOT NULL,
        received TEXT NOT NULL,
        priority INTEGER,
        body BLOB NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS document_queue ON document (queue)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


class StoreError(OSError):
    """The file cannot be used; the text says which file and why, in one sentence."""


def is_busy(error: Exception) -> bool:
    """Whether another process held the file for longer than we wait."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the queue store, ready to write; commits are on disk when they return.

    With `create`, a file that is not there is made, readable to its owner only.
    Raises StoreError.
    """
    connection = None
    try:
        if create:
            _make_private(path)
        if not path.is_file():
            raise StoreError(f"queue store {path}: {_why_no_file(path)}")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,  # we say BEGIN and COMMIT ourselves
        )
        _prepare(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, StoreError):
            raise
        if isinstance(error, OSError):
            raise StoreError(f"queue store {path}: {error.strerror}") from error
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"queue store {path}: {error}") from error
        raise
    return connection


def unused_octets(connection: sqlite3.Connection) -> int:
    """Room inside the file: it never shrinks, what was taken off is written over."""
    return _pragma(connection, "freelist_count") * _pragma(connection, "page_size")


def used_octets(connection: sqlite3.Connection) -> int:
    """What the file holds, with all that belongs to it, and without the room inside."""
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _make_private(path: Path) -> None:
    # Only ever opened when it is new: closing a descriptor of a file that SQLite has
    # open in this process would drop SQLite's POSIX locks. SQLite gives the -wal and
    # -shm beside it the same mode.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    directory = os.open(path.absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a directory"
    return "is not a file" if path.exists() else "does not exist"


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not _is_fresh(connection):
        if _pragma(connection, "application_id") != APPLICATION_ID:
            raise StoreError(f"queue store {path}: is a database of another program")
        if (version := _pragma(connection, "user_version")) != VERSION:
            raise StoreError(f"queue store {path}: has version {version}, this is for {VERSION}")
    _switch_to_wal(connection, path)
    connection.execute("PRAGMA synchronous = FULL")
    # In pages of 4 KB: every checkpoint syncs twice more, so not as often as SQLite's 1,000.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    # After a burst the -wal gives back what is above this many octets.
    connection.execute("PRAGMA journal_size_limit = 67108864")
    # Every statement is harmless when it was done before, and BEGIN IMMEDIATE finds out
    # now, not at the first mail, that we may not write.
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA if _is_fresh(connection) else ():
        connection.execute(statement)
    connection.execute("COMMIT")


def _is_fresh(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables and not _pragma(connection, "application_id")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _switch_to_wal(connection: sqlite3.Connection, path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait here by itself; several workers may start at once.
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreError(f"queue store {path}: this file system cannot share it (no WAL)")


def depths(path: Path) -> dict[str, int]:
    """How many documents each queue holds; queues without any are not there."""
    with closing(connect(path, create=False)) as connection:
        try:
            return dict(connection.execute("SELECT queue, count(*) FROM document GROUP BY queue"))
        except sqlite3.Error as error:
            raise StoreError(f"queue store {path}: {error}") from error


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue in the store: how many documents, their octets, when the oldest was received."""

    name: str
    documents: int
    octets: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """All queues that hold documents, how many of these were set aside, and the file.

    `used` octets of the `file` are taken, the others are room inside.
    """

    queues: tuple[QueueStatus, ...]
    aside: int
    used: int
    file: int

    @property
    def documents(self) -> int:
        return sum(each.documents for each in self.queues)

    @property
    def octets(self) -> int:
        """Of the documents alone."""
        return sum(each.octets for each in self.queues)

    @property
    def oldest(self) -> datetime | None:
        return min((each.oldest for each in self.queues if each.oldest), default=None)


def status(path: Path) -> StoreStatus:
    """What is in the store, by queue, sorted by name. Raises StoreError."""
    with closing(connect(path, create=False)) as connection:
        try:
            rows = connection.execute(
                "SELECT queue, count(*), sum(length(body)), min(received) FROM document"
                " GROUP BY queue ORDER BY queue"
            ).fetchall()
            aside = 0
            # Made by the first who hands documents on to a broker.
            if connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'aside'"
            ).fetchone()[0]:
                (aside,) = connection.execute(
                    "SELECT count(*) FROM aside JOIN document ON id = document"
                ).fetchone()
            used = used_octets(connection)
            unused = unused_octets(connection)
        except sqlite3.Error as error:
            raise StoreError(f"queue store {path}: {error}") from error
    queues = tuple(
        QueueStatus(name, documents, octets, _received(oldest))
        for name, documents, octets, oldest in rows
    )
    return StoreStatus(queues, aside, used, used + unused)


def _received(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # not written by us
        return None


def read_store(
    path: Path,
    queue: str,
    *,
    limit: int | None,
    follow: bool,
    keep: bool,
    emit: Callable[[bytes], None],
) -> int:
    """Pass the documents of `queue` to `emit`, oldest first, and take them off.

    Returns how many. Without `follow` it ends with the youngest that was there when it
    began; with it, it waits for more until `limit` or an exception (KeyboardInterrupt).
    A document counts as handed over when `emit` returned: one for which it raised stays,
    those before it are taken off, then the exception goes on. `keep` takes nothing off.
    Two readers of one queue may both get the same document. Raises StoreError.
    """
    with closing(connect(path, create=False)) as connection:
        try:
            # A delete that is lost with the power repeats a document, no more; the
            # writer's own commits stay synchronous.
            connection.execute("PRAGMA synchronous = NORMAL")
            last = None if follow else _youngest(connection, queue)
            return _read(connection, queue, last, limit, keep, emit)
        except sqlite3.Error as error:
            raise StoreError(f"queue store {path}: {error}") from error


def _youngest(connection: sqlite3.Connection, queue: str) -> int:
    row = connection.execute("SELECT max(id) FROM document WHERE queue = ?", (queue,))
    (youngest,) = row.fetchone()
    return youngest or 0


def _read(
    connection: sqlite3.Connection,
    queue: str,
    last: int | None,
    limit: int | None,
    keep: bool,
    emit: Callable[[bytes], None],
) -> int:
    """Read up to the id `last`; with None, for ever."""
    seen = done = 0
    while limit is None or done < limit:
        batch = _BATCH if limit is None else min(_BATCH, limit - done)
        # The ids first and the bodies one by one: no transaction stays open while we
        # wait for `emit`, and no more than one body is in memory.
        ids = [
            row[0]
            for row in connection.execute(
                "SELECT id FROM document WHERE queue = ? AND id > ? ORDER BY id LIMIT ?",
                (queue, seen, batch),
            )
            if last is None or row[0] <= last
        ]
        if ids:
            done += _hand_over(connection, ids, keep, emit)
            seen = ids[-1]
        elif last is None:
            time.sleep(_POLL_INTERVAL)
        else:
            break
    return done


def _hand_over(
    connection: sqlite3.Connection, ids: list[int], keep: bool, emit: Callable[[bytes], None]
) -> int:
    emitted = []
    try:
        for number in ids:
            row = connection.execute("SELECT body FROM document WHERE id = ?", (number,)).fetchone()
            if row is not None:  # else another reader was faster
                emit(row[0])
                emitted.append((number,))
    finally:
        if emitted and not keep:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM document WHERE id = ?", emitted)
            connection.execute("COMMIT")
    return len(emitted)
