"""Many clients that send one large message each, all of them at the same time.

One thread and one buffer serve them all, a slice to each in turn, so that what grows is
the gateway and not the sender. Nobody sends its final dot before all have sent everything
else: then all messages are complete in the same moment.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from client import Client
from gateway import Gateway

_SLICE = 256 * 1024
_HEADER = b"From: joe@there.test\r\nSubject: large\r\n\r\n"
_LINE = b"x" * 76 + b"\r\n"


def octets(size: int) -> bytes:
    """A message of about so many octets."""
    return _HEADER + _LINE * ((size - len(_HEADER)) // len(_LINE))


@dataclass
class Most:
    """The most that a gateway's workers had, of those times at which it was looked."""

    memory: int = 0
    descriptors: int = 0


@dataclass
class Flock:
    """What became of the clients: the last reply of each, and what they cost meanwhile."""

    replies: list[str] = field(default_factory=list)
    most: Most = field(default_factory=Most)

    @property
    def codes(self) -> set[str]:
        return {reply[:9] if reply[:1] != "2" else reply[:3] for reply in self.replies}


def send_together(server: Gateway, message: bytes, clients: int, *, limit: float) -> Flock:
    """Send it from so many, within `limit` seconds."""
    flock, deadline = Flock(), time.monotonic() + limit
    with ExitStack() as stack:
        crowd = [stack.enter_context(Client(server.port)) for _ in range(clients)]
        for number, client in enumerate(crowd):
            client.hello()
            assert client.transaction(f"user{number}@ours.test")[-1].startswith("354 ")
        with _looking(server, flock.most, deadline) as look:
            _send_all(crowd, message, look)
            for client in crowd:
                client.socket.setblocking(True)
                client.send(b".\r\n")
            flock.replies = _replies(crowd, look)
    return flock


def _send_all(crowd: list[Client], message: bytes, look: Callable[[], None]) -> None:
    view, sent = memoryview(message), [0] * len(crowd)
    with selectors.DefaultSelector() as waiting:
        for number, client in enumerate(crowd):
            client.socket.setblocking(False)
            waiting.register(client.socket, selectors.EVENT_WRITE, number)
        while waiting.get_map():
            look()
            for key, _ in waiting.select(0.1):
                number = key.data
                sent[number] += crowd[number].socket.send(view[sent[number] :][:_SLICE])
                if sent[number] == len(message):
                    waiting.unregister(key.fileobj)


def _replies(crowd: list[Client], look: Callable[[], None]) -> list[str]:
    replies = [""] * len(crowd)
    with selectors.DefaultSelector() as waiting:
        for number, client in enumerate(crowd):
            waiting.register(client.socket, selectors.EVENT_READ, number)
        while waiting.get_map():
            look()
            for key, _ in waiting.select(0.1):
                replies[key.data] = crowd[key.data].reply()
                waiting.unregister(key.fileobj)
    return replies


@contextmanager
def _looking(server: Gateway, most: Most, deadline: float) -> Iterator[Callable[[], None]]:
    again = 0.0

    def look() -> None:
        nonlocal again
        now = time.monotonic()
        assert now < deadline, "the clients were not served in time"
        if now >= again:
            again = now + 0.05
            most.memory = max(most.memory, server.memory())
            most.descriptors = max(most.descriptors, server.descriptors())

    yield look
