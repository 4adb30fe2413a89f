"""How many and how often: the counts behind the limits, and what stands for one client.

A count may be held by several processes together, so it is a Protocol; `Alone` is the
plain one, for a process that has nobody to share with. A count may be too high, never
too low: then a client is told to come again although it need not, which a 4xx mends, and
no limit is passed.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

MINUTE = 60.0
# Clients whose rate one process remembers, so that memory stays flat in a flood.
_MOST_REMEMBERED = 100_000
_MAPPED = bytes(10) + b"\xff\xff"

# What is counted by the minute.
Event = Literal["connections", "messages", "guesses"]


class Counters(Protocol):
    """The counts of all processes together. A `most` of None counts and lets pass."""

    @property
    def places(self) -> int:
        """Places that are taken."""

    def take_place(self, most: int | None, /) -> bool:
        """Take one more place; False, and nothing taken, where that would be too many."""

    def free_place(self) -> None:
        """Give back a place that this process took."""

    def connect(self, client: bytes, most: int | None, /) -> bool:
        """Count one more connection of the client; False, and not counted, if too many."""

    def disconnect(self, client: bytes, /) -> None:
        """Forget a connection that this process counted."""

    def allow(self, event: Event, client: bytes, most: int, /) -> bool:
        """Count one more event, unless the last minute would have more than `most`."""

    def note(self, event: Event, client: bytes, /) -> None:
        """Count one more event, however many there were."""

    def recently(self, event: Event, client: bytes, /) -> float:
        """How many events the last minute had."""


def client_of(address: str) -> bytes:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits.

    The smallest that a site gets is such a network (RFC 6177 2), so its addresses are no
    more than ports are. A zone id is not part of it. What is no address counts as itself.
    """
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        octets = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address.encode("utf-8", "replace")
    return octets[12:] if octets.startswith(_MAPPED) else octets[:8]


def recent(before: int, now: int, elapsed: float) -> float:
    """Events of the last minute, out of the counts of a whole minute and the one begun.

    `elapsed` is how much of the present minute is over, 0 to 1. What came before is taken
    to have come evenly; so two numbers a client are enough.
    """
    return before * (1.0 - elapsed) + now


class Alone:
    """The counts of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places = 0
        self._connections = Counter[bytes]()
        self._minute = 0
        self._now: dict[tuple[Event, bytes], int] = {}
        self._before: dict[tuple[Event, bytes], int] = {}

    @property
    def places(self) -> int:
        return self._places

    def take_place(self, most: int | None) -> bool:
        if most is not None and self._places >= most:
            return False
        self._places += 1
        return True

    def free_place(self) -> None:
        self._places -= 1

    def connect(self, client: bytes, most: int | None) -> bool:
        if most is not None and self._connections[client] >= most:
            return False
        self._connections[client] += 1
        return True

    def disconnect(self, client: bytes) -> None:
        self._connections[client] -= 1
        if self._connections[client] <= 0:
            del self._connections[client]

    def allow(self, event: Event, client: bytes, most: int) -> bool:
        if self.recently(event, client) + 1 > most:
            return False
        self.note(event, client)
        return True

    def note(self, event: Event, client: bytes) -> None:
        self._turn()
        who = (event, client)
        if who not in self._now and len(self._now) >= _MOST_REMEMBERED:
            # Whoever came first in this minute begins anew.
            del self._now[next(iter(self._now))]
        self._now[who] = self._now.get(who, 0) + 1

    def recently(self, event: Event, client: bytes) -> float:
        elapsed = self._turn()
        who = (event, client)
        return recent(self._before.get(who, 0), self._now.get(who, 0), elapsed)

    def _turn(self) -> float:
        """Go on to the minute that it is, and tell how much of it is over, 0 to 1."""
        now, elapsed = divmod(self._clock() / MINUTE, 1.0)
        minute = int(now)
        if minute != self._minute:
            self._before = self._now if minute == self._minute + 1 else {}
            self._now = {}
            self._minute = minute
        return elapsed


@dataclass(frozen=True, slots=True)
class MessageRate:
    """How many messages one client may begin in a minute."""

    counters: Counters
    most: int

    def refuse(self, peer: Peer) -> Reply | None:
        """Count one more message, or say that it is too many. Who is refused is not counted."""
        if self.counters.allow("messages", client_of(peer.remote_ip), self.most):
            return None
        return reply.TOO_MANY_MESSAGES
