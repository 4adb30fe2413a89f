"""The counters of whichever worker this process is.

A house is built before the fork and belongs to a worker after it; this stands between.
"""

from __future__ import annotations

from mailgw.gate.rates import Event
from mailgw.process.shared import SharedCounters


class Seat:
    """See gate.rates.Counters. Before `take` it counts for nobody, and is not to be asked."""

    def __init__(self, shared: SharedCounters) -> None:
        self._shared = shared
        self._own = shared.of(0)

    def take(self, worker: int) -> None:
        """Be this worker's; for after the fork."""
        self._own = self._shared.of(worker)

    @property
    def places(self) -> int:
        return self._own.places

    def take_place(self, most: int | None) -> bool:
        return self._own.take_place(most)

    def free_place(self) -> None:
        self._own.free_place()

    def connect(self, client: bytes, most: int | None) -> bool:
        return self._own.connect(client, most)

    def disconnect(self, client: bytes) -> None:
        self._own.disconnect(client)

    def allow(self, event: Event, client: bytes, most: int) -> bool:
        return self._own.allow(event, client, most)

    def note(self, event: Event, client: bytes) -> None:
        self._own.note(event, client)

    def recently(self, event: Event, client: bytes) -> float:
        return self._own.recently(event, client)
