"""Between the supervisor and one worker: short lines over a pair of sockets.

The end of either side, kill -9 included, ends the channel for the other one; that is how
a worker learns that nobody watches over it any more.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

# A line is a word and a sentence; what is longer is cut.
_LONGEST = 4000


class Channel:
    """One end. Nothing here waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._unread = b""
        self.ended = False

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        one, other = socket.socketpair()
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self._sock.fileno()

    def say(self, *words: object) -> None:
        """Send a line. Who has ended, or does not listen, is not waited for."""
        line = " ".join(" ".join(str(word).split()) for word in words)
        with suppress(OSError):
            self._sock.send(line.encode("utf-8", "backslashreplace")[:_LONGEST] + b"\n")

    def hear(self) -> Iterator[tuple[str, str]]:
        """Yield what was said by now, as first word and rest; then `ended` may be true."""
        with suppress(BlockingIOError):
            while not self.ended:
                data = self._receive()
                self.ended = not data
                self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            word, _, rest = line.decode("utf-8", "replace").partition(" ")
            yield word, rest

    def close(self) -> None:
        self._sock.close()

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except ConnectionError:  # ended with something unread
            return b""
