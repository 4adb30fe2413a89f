"""Transactions whose 250 may not have been seen, in memory that the workers share.

See mail.unseen for what it is about. Made before the fork; a column for each worker, which
it alone fills, so there is no lock to wait for or to die with. An entry carries a checksum:
what is read while another process writes it, or what was half written when one died, is no
entry, and then a mail is published twice, which its `dedupe` shows. The entry of a client
that came back and saw its reply is struck out in whichever column it is.

It outlives a worker, not the service. Its size is fixed: in a flood of vanishing clients
the oldest of those that meet in a bucket goes, and a keyed hash keeps anybody from aiming.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from mailgw.mail.transaction import Message
from mailgw.mail.unseen import Earlier, fingerprint

# Mark, until when, safe or under way, length of the transaction id, the id.
_entry = Struct("=16sd?B62s")
_MARK, _CHECKSUM, _LONGEST_ID = 16, 8, 62
_ENTRY = _entry.size + _CHECKSUM
_BUCKETS, _WAYS = 1024, 4
# A column begins with the time until which anything in it counts, format "d", and a filter
# with a bit for the content of each entry: most mails need not be looked for any further.
_HEAD = 4096
_until = Struct("=d")
_FILTER = range(_until.size, _HEAD)
_COLUMN = _HEAD + _BUCKETS * _WAYS * _ENTRY
_BLANK = bytes(_ENTRY)
# Transactions of this process of which it is known where they are noted, so that memory
# stays flat; one that is dropped here stays noted for its time.
_MOST_KNOWN = 4096
# In place of a transaction's name: it waits for what becomes of the earlier one.
_WAITS = ""


class Entry(NamedTuple):
    """A transaction: the hash of its fingerprint, its name, and until when it is remembered."""

    mark: bytes
    until: float
    safe: bool
    transaction_id: str


class Table:
    """The memory: 4096 entries a worker, 388 KiB, of which pages are used as they are filled.

    What is noted counts for `window` seconds. The clock must be the same in all workers.
    """

    def __init__(
        self, workers: int, window: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.window = window
        self.clock = clock
        self._key = os.urandom(16)
        self._columns = range(0, workers * _COLUMN, _COLUMN)
        # Without a name: it is there as long as somebody who inherited it is.
        self._cells = memoryview(mmap.mmap(-1, workers * _COLUMN))

    @property
    def empty(self) -> bool:
        # Asked for every mail, so there is no generator here.
        now, cells = self.clock(), self._cells
        for column in self._columns:  # noqa: SIM110
            if _until.unpack_from(cells, column)[0] > now:
                return False
        return True

    def may_hold(self, digest: str) -> bool:
        """False: nothing is remembered with that content. True says little."""
        byte, bit = self._filtered(digest)
        cells = self._cells
        for column in self._columns:  # noqa: SIM110 - as above
            if cells[column + byte] & bit:
                return True
        return False

    def mark(self, text: bytes) -> bytes:
        return blake2b(text, digest_size=_MARK, key=self._key).digest()

    def entries(self, mark: bytes) -> Iterator[Entry]:
        """Yield what is remembered under a mark, by any worker."""
        now = self.clock()
        for _, entry in self._marked(mark):
            if entry.until > now:
                yield entry

    def put(self, worker: int, entry: Entry, digest: str) -> None:
        """Remember it, in the place of the same one, or else of the one that ends first."""
        name = entry.transaction_id.encode()
        if len(name) > _LONGEST_ID:
            return
        column = self._columns[worker]
        until = _until.unpack_from(self._cells, column)[0]
        if until <= self.clock():
            self._cells[column + _FILTER.start : column + _FILTER.stop] = bytes(len(_FILTER))
        byte, bit = self._filtered(digest)
        self._cells[column + byte] |= bit
        place = min(self._bucket(column, entry.mark), key=lambda at: self._worth(at, entry))
        packed = _entry.pack(entry.mark, entry.until, entry.safe, len(name), name)
        self._cells[place : place + _ENTRY] = packed + self._checksum(packed)
        if entry.until > until:
            _until.pack_into(self._cells, column, entry.until)

    def drop(self, mark: bytes, transaction_id: str) -> None:
        """Strike out what any worker remembers of a transaction."""
        for place, entry in self._marked(mark):
            if entry.transaction_id == transaction_id:
                self._cells[place : place + _ENTRY] = _BLANK

    def clear(self, worker: int) -> None:
        """Forget what was under way in a worker that died; before another takes its place.

        What was safe is safe, and stays.
        """
        column = self._columns[worker]
        if _until.unpack_from(self._cells, column)[0] <= self.clock():
            return
        for place in range(column + _HEAD, column + _COLUMN, _ENTRY):
            entry = self._read(place)
            if entry is not None and not entry.safe:
                self._cells[place : place + _ENTRY] = _BLANK

    def _filtered(self, digest: str) -> tuple[int, int]:
        # Python's own hash, which is keyed, has the same key in all that were forked.
        bit = hash((self._key, digest)) % (8 * len(_FILTER))
        return _FILTER.start + bit // 8, 1 << bit % 8

    def _bucket(self, column: int, mark: bytes) -> range:
        first = column + _HEAD + int.from_bytes(mark[:2], "big") % _BUCKETS * _WAYS * _ENTRY
        return range(first, first + _WAYS * _ENTRY, _ENTRY)

    def _marked(self, mark: bytes) -> Iterator[tuple[int, Entry]]:
        for column in self._columns:
            for place in self._bucket(column, mark):
                if self._cells[place : place + _MARK] == mark:
                    entry = self._read(place)
                    if entry is not None:
                        yield place, entry

    def _read(self, place: int) -> Entry | None:
        octets = bytes(self._cells[place : place + _ENTRY])
        packed, checksum = octets[: _entry.size], octets[_entry.size :]
        if octets == _BLANK or self._checksum(packed) != checksum:
            return None
        mark, until, safe, length, name = _entry.unpack(packed)
        return Entry(mark, until, safe, name[:length].decode())

    def _worth(self, place: int, to_come: Entry) -> float:
        """What is lost when `to_come` is written there; the least is to be chosen."""
        entry = self._read(place)
        if entry is None:
            return 0.0
        same = (entry.mark, entry.transaction_id) == (to_come.mark, to_come.transaction_id)
        return -1.0 if same else entry.until

    def _checksum(self, packed: bytes) -> bytes:
        return blake2b(packed, digest_size=_CHECKSUM, key=self._key).digest()


class UnseenReplies:
    """See mail.unseen.Unseen. One process's part; before `take` it is worker 0's."""

    def __init__(self, table: Table, worker: int = 0) -> None:
        self._table = table
        self._worker = worker
        # By transaction: its mark, and the name under which its documents are.
        self._known: dict[str, tuple[bytes, str]] = {}

    def take(self, worker: int) -> None:
        """Be this worker's; for after the fork."""
        self._worker = worker

    @property
    def empty(self) -> bool:
        return self._table.empty

    def find(self, message: Message) -> Earlier | None:
        name, found = message.transaction_id, None
        if self._table.may_hold(message.content.digest()):
            mark = self._table.mark(fingerprint(message))
            for entry in self._table.entries(mark):
                if entry.transaction_id != name and (found is None or entry.safe):
                    found = Earlier(entry.transaction_id, entry.safe)
        if found is None:
            self._known.pop(name, None)
        else:
            self._know(name, mark, found.transaction_id if found.safe else _WAITS)
        return found

    def note(self, message: Message, *, safe: bool) -> None:
        name = message.transaction_id
        if name in self._known:
            mark, noted = self._known[name]
        elif message.content.digest_known:
            mark, noted = self._table.mark(fingerprint(message)), name
        else:
            return
        # One that only waits is not to be waited for: two such would wait for each other.
        if not safe and noted != name:
            return
        until = self._table.clock() + self._table.window
        entry = Entry(mark, until, safe, noted)
        self._table.put(self._worker, entry, message.content.digest())
        self._know(name, mark, noted)

    def forget(self, message: Message) -> None:
        known = self._known.pop(message.transaction_id, None)
        if known is not None:
            self._table.drop(*known)

    def _know(self, name: str, mark: bytes, noted: str) -> None:
        self._known[name] = (mark, noted)
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
