"""Counts that hold across workers, in memory that they share by inheritance.

Made before the fork; each worker writes only its own column, and reads are sums over all
columns, so there is no lock to wait for or to die with. What is counted per client is a
count-min sketch: a client adds one to a cell in each of four rows, found by a keyed hash,
and its count is the least of its four cells, which is too high only where other clients
meet it in every row. With 10,000 clients connected one in 2,500 is counted one too many,
one in 80 million two too many; and nobody can aim, who does not know the key.

A count is looked at after it was raised, so of two clients who come at the same instant
to the last place both may be sent away, but never both let in.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from struct import Struct
from typing import Final

from mailgw.gate.rates import MINUTE, Event, recent

_ROWS: Final = 4
_WIDTH: Final = 1 << 16  # as many as 16 bits of hash can tell apart
_positions: Final = Struct(f"={_ROWS}H").unpack
_SKETCH: Final = _ROWS * _WIDTH
# Clients of which a process knows their cells by heart, so that memory stays flat.
_MOST_FOUND: Final = 4096
_OCTETS: Final = 4  # of a cell, format "I"

# A column: what is counted plainly, then the sketches. A rate has one for the minute under
# way and one for that before, by turns, with the minute that each one is about.
_PLACES: Final = 0
_MINUTES: Final = 1
_HEAD: Final = mmap.PAGESIZE // _OCTETS
_CONNECTIONS: Final = 0
_RATES: Final[dict[Event, int]] = {"connections": 1, "messages": 3, "guesses": 5}
_SKETCHES: Final = 7
_COLUMN: Final = _HEAD + _SKETCHES * _SKETCH


class SharedCounters:
    """The memory. Pages of it are used as they are written to, 1 MiB a sketch and worker."""

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Make room for `workers`. The clock must be the same in all of them."""
        self._workers = workers
        self._clock = clock
        self._key = os.urandom(16)
        # Without a name: it is there as long as somebody who inherited it is.
        memory = mmap.mmap(-1, workers * _COLUMN * _OCTETS)
        self._cells = memoryview(memory).cast("I")

    def of(self, worker: int) -> Column:
        """The counters of one worker, 0 up to `workers`, to be used in its process only."""
        if not 0 <= worker < self._workers:
            raise ValueError(f"there is no worker {worker}")
        return Column(self._cells, self._key, worker, self._workers, self._clock)

    def clear(self, worker: int) -> None:
        """Forget the clients of a worker that died; before another takes its place.

        What came within the minute came all the same, and stays counted.
        """
        begin = worker * _COLUMN
        self._cells[begin + _PLACES] = 0
        _zero(self._cells, begin + _HEAD + _CONNECTIONS * _SKETCH)


class Column:
    """See gate.rates.Counters."""

    def __init__(
        self,
        cells: memoryview[int],
        key: bytes,
        worker: int,
        workers: int,
        clock: Callable[[], float],
    ) -> None:
        self._cells = cells
        self._clock = clock
        # Who connects also disconnects, and comes again; the hash costs more than all the rest.
        self._find = lru_cache(_MOST_FOUND)(partial(_find, key))
        self._own = worker * _COLUMN
        self._all = range(0, workers * _COLUMN, _COLUMN)

    @property
    def places(self) -> int:
        cells = self._cells
        return sum(cells[column + _PLACES] for column in self._all)

    def take_place(self, most: int | None) -> bool:
        own = self._own + _PLACES
        # Looked at first, so that who only asks again and again takes no place meanwhile.
        if most is not None and self.places >= most:
            return False
        self._cells[own] += 1
        if most is not None and self.places > most:
            self._cells[own] -= 1
            return False
        return True

    def free_place(self) -> None:
        self._lower([_PLACES])

    def connect(self, client: bytes, most: int | None) -> bool:
        cells, places = self._cells, self._find(client, _CONNECTIONS)
        for place in places:
            cells[self._own + place] += 1
        if most is not None and self._count(places, self._all) > most:
            self._lower(places)
            return False
        return True

    def disconnect(self, client: bytes) -> None:
        self._lower(self._find(client, _CONNECTIONS))

    def allow(self, event: Event, client: bytes, most: int) -> bool:
        places = self._raise(event, client)
        if self.recently(event, client) > most:
            self._lower(places)
            return False
        return True

    def note(self, event: Event, client: bytes) -> None:
        self._raise(event, client)

    def recently(self, event: Event, client: bytes) -> float:
        minute, elapsed = self._time()
        now, before = self._sketch(event, minute), self._sketch(event, minute - 1)
        return recent(
            self._count(self._find(client, before), self._about(minute - 1, before)),
            self._count(self._find(client, now), self._about(minute, now)),
            elapsed,
        )

    def _raise(self, event: Event, client: bytes) -> Sequence[int]:
        """Count one more event, and tell in which cells."""
        minute, _ = self._time()
        now = self._sketch(event, minute)
        self._turn_to(minute, now)
        places = self._find(client, now)
        for place in places:
            self._cells[self._own + place] += 1
        return places

    def _time(self) -> tuple[int, float]:
        """The number of the minute, and how much of it is over, 0 to 1."""
        begun, elapsed = divmod(self._clock() / MINUTE, 1.0)
        # A cell that was never written says 0, which no minute is.
        return int(begun) + 1, elapsed

    @staticmethod
    def _sketch(event: Event, minute: int) -> int:
        """The sketch of a rate that is about that minute, by turns."""
        return _RATES[event] + minute % 2

    def _about(self, minute: int, sketch: int) -> list[int]:
        """The columns in which the sketch is about that minute."""
        stamp = _MINUTES + sketch
        return [column for column in self._all if self._cells[column + stamp] == minute]

    def _count(self, places: Sequence[int], columns: Iterable[int]) -> int:
        """The client's count in those columns together."""
        cells = self._cells
        rows = [0] * _ROWS
        for column in columns:
            for row, place in enumerate(places):
                rows[row] += cells[column + place]
        return min(rows)

    def _lower(self, places: Sequence[int]) -> None:
        cells, own = self._cells, self._own
        for place in places:
            count = cells[own + place]
            if count:
                cells[own + place] = count - 1

    def _turn_to(self, minute: int, sketch: int) -> None:
        """Begin anew with a sketch of the own column that is about another minute."""
        stamp = self._own + _MINUTES + sketch
        if self._cells[stamp] != minute:
            self._cells[stamp] = 0  # nobody counts with it meanwhile
            _zero(self._cells, self._own + _HEAD + sketch * _SKETCH)
            self._cells[stamp] = minute


def _find(key: bytes, client: bytes, sketch: int) -> tuple[int, int, int, int]:
    """The cells of a client in a column, one in each row."""
    first, second, third, fourth = _positions(
        blake2b(client, digest_size=2 * _ROWS, key=key).digest()
    )
    row = _HEAD + sketch * _SKETCH
    return row + first, row + _WIDTH + second, row + 2 * _WIDTH + third, row + 3 * _WIDTH + fourth


def _zero(cells: memoryview[int], begin: int) -> None:
    cells[begin : begin + _SKETCH] = memoryview(bytes(_SKETCH * _OCTETS)).cast("I")
