"""The socket's side of a conversation: reading, writing, back-pressure, TLS, the end.

Nothing is buffered without a bound: a client that does not read its replies stops being
read, and one that does not let the connection end is cut off.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import sys
import termios
from typing import Protocol, cast

# How long a closing connection may take to drain its last reply, in seconds.
_FAREWELL = 10.0
# The state of a connection of which nothing is left, as Linux numbers them.
_TCP_CLOSE = 7


class Receiver(Protocol):
    """Who hears what happens on a link."""

    def started(self) -> None: ...

    def received(self, data: bytes) -> None: ...

    def half_closed(self) -> None:
        """The client sends nothing more, but may still read."""

    def writable(self) -> None:
        """The client has read what it was sent."""

    def ended(self) -> None: ...


class Link(asyncio.Protocol):
    """One TCP connection. Its receiver is set before the first byte."""

    receiver: Receiver

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.choked = False
        self.closing = False
        # The client ended it and had all that was sent by then; or it broke.
        self.ended_in_order = False
        self.broken = False
        self._early: list[bytes] | None = None
        self._farewell: asyncio.TimerHandle | None = None

    # --- asyncio calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.receiver.started()

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            self.receiver.received(data)
        else:
            self._early.append(data)

    def eof_received(self) -> bool:
        self.ended_in_order = self.delivered() is True
        if self.transport is not None and self.transport.get_extra_info("ssl_object"):
            return False
        self.receiver.half_closed()
        return True

    def pause_writing(self) -> None:
        self.choked = True

    def resume_writing(self) -> None:
        self.choked = False
        self.receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            return
        self.transport = None
        self.broken = exc is not None
        # Inside TLS not every event loop tells of the end before.
        if exc is None and not self.closing:
            self.ended_in_order = True
        if self._farewell is not None:
            self._farewell.cancel()
        receiver = self.receiver
        # It holds us too: memory that waited for the collector is cold when it comes back.
        del self.receiver
        receiver.ended()

    # --- the conversation calls -----------------------------------------------------

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.closing

    def delivered(self) -> bool | None:
        """Whether the client's system has all that was sent; None when it never will.

        Behind a balancer it is the balancer's system. True where ours cannot tell.
        """
        if self.transport is None:
            return None
        if self.transport.get_write_buffer_size():
            return False
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is None or sys.platform != "linux":
            return True
        try:
            left = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (OSError, ValueError):  # the descriptor is no more
            return None
        return None if state == _TCP_CLOSE else struct.unpack("=i", left) == (0,)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def pause(self) -> None:
        if self.transport is not None and self.transport.is_reading():
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.open and self.transport is not None and not self.transport.is_reading():
            self.transport.resume_reading()

    def close(self) -> None:
        """Send what is left, then end; cut off a client that does not read it."""
        if self.transport is None or self.closing:
            return
        self.closing = True
        self.transport.close()
        if self.transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            self._farewell = loop.call_later(_FAREWELL, self.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def start_tls(self, context: ssl.SSLContext, timeout: float) -> bytes | None:
        """Shake hands. Gives what the client sent right behind its handshake, in TLS.

        None if it failed or was cancelled, and the connection is gone then.
        """
        if self.transport is None:
            return None
        # A client may put its EHLO into the packet of its Finished: it is here before we
        # are told that the handshake is done.
        early: list[bytes] = []
        self._early = early
        try:
            upgraded = await asyncio.get_running_loop().start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=timeout
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError and time-outs are among them
            upgraded = None
        finally:
            self._early = None
        if upgraded is None or self.transport is None:
            # Event loops differ in whether they tell that such a connection is lost.
            self.abort()
            self.transport = None
            return None
        self.transport = upgraded
        return b"".join(early)
