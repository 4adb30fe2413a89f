"""Ports that a test has for itself, while a server listens there and while none does.

A port that was free a moment ago may be somebody else's when the server binds it, or when it
binds it again after it was killed. So a port is kept by a socket that is bound to it and does
not listen. Two laws of Linux make that work: the kernel gives away no port that is bound, and
who says SO_REUSEADDR, as servers do, may bind beside a socket that says so too and is not
listening. Meanwhile whoever connects is refused.
"""

from __future__ import annotations

import socket
import sys

_EVERY_ADDRESS = "0.0.0.0"


class KeptPort:
    """A port of the machine, ours until `close`; any, or `number` if it is free (OSError)."""

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket()
        try:
            # Without SO_REUSEADDR, so that of two who want it one is told.
            self._socket.bind((_EVERY_ADDRESS, number))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.number: int = self._socket.getsockname()[1]
        except OSError:
            self._socket.close()
            raise
        if sys.platform != "linux":  # where nobody could bind beside it
            self._socket.close()

    def close(self) -> None:
        self._socket.close()
