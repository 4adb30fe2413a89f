"""What waits in a queue store, for whoever hands it on: oldest first, and what was set aside.

A document that the broker refuses for good is set aside: it stays in the store and is out
of the line, so that nobody waits behind it, and has a time at which it is tried again.
Laws: reading holds no transaction open; a document leaves the store by `taken_off` alone.
Everything here blocks and belongs to one thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mailgw.mail.publication import Publication
from mailgw.outlets.store import Change
from mailgw.outlets.store_file import StoreError, connect

# Beside what a version 1 file has, and unknown to those who have no broker: who does not
# know it takes documents off all the same, and what is left here then names none.
_ASIDE = """
    CREATE TABLE IF NOT EXISTS aside (
        document INTEGER PRIMARY KEY,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL,
        reason TEXT NOT NULL
    )
"""
_LINE = (
    "SELECT id, length(body) FROM document WHERE id > ? AND queue NOT IN ({})"
    " AND id NOT IN (SELECT document FROM aside) ORDER BY id LIMIT ?"
)
_DOCUMENT = (
    "SELECT d.id, queue, message_id, transaction_id, dedupe, received, priority, body,"
    " coalesce(attempts, 0) FROM document d LEFT JOIN aside ON document = d.id WHERE d.id = ?"
)
# A document set aside is tried again after a minute, then twice as long, up to an hour.
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A document in the store, and how often it was tried in vain since it was set aside."""

    number: int
    publication: Publication
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What is there: the number and time of the oldest in line, how far the line goes.

    `due` is when the first of those set aside is to be tried again, in seconds of the epoch.
    """

    oldest: int | None
    since: datetime | None
    last: int
    due: float | None


class Backlog:
    """Reads one queue store. Every method raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._file: os.stat_result | None = None

    def look(self) -> Look:
        with _explained(self._path):
            connection = self._open()
            first = connection.execute(
                "SELECT id, received FROM document"
                " WHERE id NOT IN (SELECT document FROM aside) ORDER BY id LIMIT 1"
            ).fetchone()
            (last,) = connection.execute("SELECT max(id) FROM document").fetchone()
            (due,) = connection.execute("SELECT min(due) FROM aside").fetchone()
            if first is None:
                return Look(None, None, last or 0, due)
            return Look(first[0], _time(first[1]), last, due)

    def line(
        self, after: int, count: int, octets: int, *, without: Collection[str]
    ) -> list[Waiting]:
        """The next in line behind the number `after`, for other queues than `without`.

        One at least, if there is one, then as many as both bounds allow.
        """
        numbers = _LINE.format(", ".join("?" * len(without)))
        with _explained(self._path):
            connection = self._open()
            sizes = connection.execute(numbers, (after, *without, count)).fetchall()
            return list(_rows(connection, sizes, octets))

    def aside(self, now: float, count: int, octets: int) -> list[Waiting]:
        """Those set aside whose time has come."""
        with _explained(self._path):
            connection = self._open()
            sizes = connection.execute(
                "SELECT id, length(body) FROM aside JOIN document ON id = document"
                " WHERE due <= ? ORDER BY id LIMIT ?",
                (now, count),
            ).fetchall()
            return list(_rows(connection, sizes, octets))

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        """As the writer does it: another file in its place is another queue."""
        if self._connection is not None:
            with suppress(OSError):
                if self._file and os.path.samestat(self._file, self._path.stat()):
                    return self._connection
            self.close()
        self._connection = connect(self._path, create=True)
        self._file = self._path.stat()
        known = "SELECT count(*) FROM sqlite_master WHERE name = 'aside'"
        if not self._connection.execute(known).fetchone()[0]:
            self._connection.execute(_ASIDE)
        return self._connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"queue store {path}: {error}") from error


def taken_off(numbers: Sequence[int]) -> Change:
    """Take these documents off: they are safe elsewhere."""

    def change(connection: sqlite3.Connection) -> None:
        rows = [(number,) for number in numbers]
        connection.executemany("DELETE FROM document WHERE id = ?", rows)
        connection.executemany("DELETE FROM aside WHERE document = ?", rows)

    return change


def set_aside(refused: Sequence[tuple[Waiting, str]], now: float) -> Change:
    """Put these out of the line, each with the reason, to be tried again later."""
    rows = [
        (
            waiting.number,
            now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(waiting.attempts, 10)),
            waiting.attempts + 1,
            reason,
        )
        for waiting, reason in refused
    ]

    def change(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT OR REPLACE INTO aside VALUES (?, ?, ?, ?)", rows)
        # What another reader has taken off meanwhile need not be remembered.
        connection.execute("DELETE FROM aside WHERE document NOT IN (SELECT id FROM document)")

    return change


def _rows(
    connection: sqlite3.Connection, sizes: Sequence[tuple[int, int]], octets: int
) -> Iterator[Waiting]:
    for number, size in sizes:
        octets -= size
        if octets < 0 and number != sizes[0][0]:
            return
        row = connection.execute(_DOCUMENT, (number,)).fetchone()
        if row is not None:  # else another reader was faster
            number, queue, message, transaction, dedupe, received, priority, body, tried = row
            publication = Publication(
                queue, (body,), message, transaction, dedupe, _time(received), priority
            )
            yield Waiting(number, publication, tried)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # somebody else wrote it; the document is worth more than its time
        return datetime.now(UTC)
