"""The line between two programs, in a test's hand: held, cut, slowed, or deaf.

What is held stays in order and is delivered later, as TCP does after a network that was
gone for a while. What is swallowed never arrives. A line that carries nothing reads
nothing either, so the sender feels it as it would feel the network.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rabbitmq import wait_until

# Small, so that a slow line is felt soon and not when the kernel's buffers are full.
_BUFFER = 64 * 1024
_PIECE = 4096


class Way:
    """One direction. `waiting`: octets that were read and are held back now."""

    def __init__(self) -> None:
        self.waiting = 0
        self.carried = 0
        self.swallowed = 0
        self.octets_per_second: float | None = None
        self._deaf = False
        # What is held: whatever begins so. None: nothing.
        self._held: bytes | None = None
        self._moves = threading.Condition()
        self._over = threading.Event()

    def hold(self, beginning: bytes = b"") -> None:
        """Carry nothing, or nothing that begins so and what comes behind it."""
        with self._moves:
            self._held = beginning

    def swallow(self) -> None:
        with self._moves:
            self._deaf = True

    def release(self) -> None:
        """Carry again, what was held first."""
        with self._moves:
            self._held = self.octets_per_second = None
            self._deaf = False
            self._moves.notify_all()

    def end(self) -> None:
        self._over.set()
        self.release()

    def carries(self, octets: int) -> None:
        """Return when it has carried so many more."""
        before = self.carried
        wait_until(lambda: self.carried >= before + octets, f"{octets} octets are carried")

    def carry(self, data: bytes, send: Callable[[bytes], None]) -> None:
        with self._moves:
            self.waiting += len(data)
            self._moves.wait_for(lambda: self._held is None or not data.startswith(self._held))
            self.waiting -= len(data)
            if self._deaf:
                self.swallowed += len(data)
                return
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            if self.octets_per_second is not None:
                self._over.wait(len(piece) / self.octets_per_second)
            send(piece)
            self.carried += len(piece)


class Link:
    """Takes connections on `port` and carries them to `target()`, a port on the loopback."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self.to_server, self.to_client = Way(), Way()
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket()
        # Before listening: connections inherit it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def cut(self) -> None:
        """End every connection, now; new ones are taken."""
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # Closing alone does not wake up who waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.to_server.end()
        self.to_client.end()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _start(self, act: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=act, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target()), 5)
            except OSError:
                near.close()  # nobody there: the near end is told so
                continue
            far.settimeout(None)
            self._ends |= {near, far}
            self._start(self._pump, near, far, self.to_server)
            self._start(self._pump, far, near, self.to_client)

    def _pump(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        try:
            while data := source.recv(_BUFFER):
                way.carry(data, target.sendall)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.discard(source)
        source.close()


@contextmanager
def linked(target: Callable[[], int]) -> Iterator[Link]:
    """A line for the length of a block."""
    link = Link(target)
    try:
        yield link
    finally:
        link.close()
