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
from contextlib import suppress
from typing import Final, Protocol, cast

from mailgw.mail.peer import Tls
from mailgw.wire.tls import Tunnel, plain

# How long a closing connection may take to drain its last reply, in seconds.
_FAREWELL: Final = 10.0
# The state of a connection of which nothing is left, as Linux numbers them.
_TCP_CLOSE: Final = 7


class Receiver(Protocol):
    """Who hears what happens on a link."""

    def started(self) -> None:
        """The client may be spoken to; not called where TLS comes first."""

    def secured(self) -> None:
        """A handshake is done, and what is said from now on is inside TLS."""

    def received(self, data: bytes) -> None: ...

    def half_closed(self) -> None:
        """The client sends nothing more, but may still read."""

    def writable(self) -> None:
        """The client has read what it was sent."""

    def ended(self) -> None: ...


class Link:
    """One TCP connection. Its receiver is set before the first byte.

    With `tls` a handshake comes before anything else. It has all that an asyncio.Protocol has, and
    is none by name, since a class with a base that is not compiled cannot be compiled.
    """

    # Compiled, an attribute cannot be deleted otherwise.
    __deletable__ = ("receiver",)
    receiver: Receiver

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tunnel = Tunnel(tls) if tls is not None else None
        self.transport: asyncio.Transport | None = None
        self.choked = False
        self.closing = False
        # The client ended it and had all that was sent by then; or it broke.
        self.ended_in_order = False
        self.broken = False
        # What went wrong with TLS.
        self.trouble = ""
        self._farewell: asyncio.TimerHandle | None = None

    # --- asyncio calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._tunnel is None:
            self.receiver.started()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is None:
            self.receiver.received(data)
        else:
            self._receive_records(self._tunnel, data)

    def eof_received(self) -> bool:
        self.ended_in_order = self.delivered() is True
        if self._tunnel is not None:
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
        self.broken = exc is not None or bool(self.trouble)
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

    @property
    def tls(self) -> Tls | None:
        """What a handshake agreed on; None in clear, and before it is done."""
        return self._tunnel.negotiated if self._tunnel is not None else None

    @property
    def shaking_hands(self) -> bool:
        """Whether a handshake is under way, or was when the connection ended."""
        return self._tunnel is not None and self._tunnel.negotiated is None

    def delivered(self) -> bool | None:
        """Whether the client's system has all that was sent; None when it never will.

        Behind a balancer it is the balancer's system. True where ours cannot tell.
        """
        if self.transport is None:
            return None
        if self.transport.get_write_buffer_size():
            return False
        sock = self._socket()
        if sock is None:
            return True
        try:
            left = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (OSError, ValueError):  # the descriptor is no more
            return None
        return None if state == _TCP_CLOSE else struct.unpack("=i", left) == (0,)

    def _socket(self) -> socket.socket | None:
        """Ours, where the system lets TCP be asked and told; None elsewhere."""
        if self.transport is None or sys.platform != "linux":
            return None
        return cast("socket.socket | None", self.transport.get_extra_info("socket"))

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Send it; nothing more after the `last`."""
        if self.transport is None or self.closing:
            return
        if self._tunnel is not None:
            self._tunnel.send(data)
            if last:
                self._tunnel.close()
            data = self._tunnel.data_to_send()
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
        if self._tunnel is not None:
            self._tunnel.close()
            self._say_of_tls(self._tunnel)
        self.transport.close()
        if self.transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            self._farewell = loop.call_later(_FAREWELL, self.abort)

    def abort(self, trouble: str = "") -> None:
        """End it now, whatever is left to send."""
        self.trouble = self.trouble or trouble
        if self.transport is not None:
            self.transport.abort()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Take what comes from now on for a handshake: `secured` tells of its end.

        Where it fails the connection ends, and `trouble` may say why.
        """
        self._tunnel = Tunnel(context)

    # --- TLS ------------------------------------------------------------------------

    def _receive_records(self, tunnel: Tunnel, records: bytes) -> None:
        was_shaking_hands = self.shaking_hands
        try:
            said = tunnel.receive(records)
        except ssl.SSLError as trouble:
            self.trouble = plain(trouble)
            # With what RFC 8446 6.2 has us tell the client.
            self.close()
            return
        self._say_of_tls(tunnel)
        if was_shaking_hands and not self.shaking_hands:
            self.receiver.secured()
            if not said:
                self._acknowledge()
        if said and self.open:
            self.receiver.received(said)
        if tunnel.ended:
            self.ended_in_order = self.delivered() is True
            self.close()

    def _acknowledge(self) -> None:
        """Tell the client's system at once that all has come.

        It is the client's turn, and nothing of ours would carry that. A system that holds small
        packets back until then (RFC 9293 3.7.4) would wait for as long as ours delays it, which
        is 40 ms.
        """
        sock = self._socket()
        if sock is not None:
            with suppress(OSError):  # the descriptor is no more
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _say_of_tls(self, tunnel: Tunnel) -> None:
        """Send what has nothing to do with what is said inside."""
        data = tunnel.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)
            # Who only makes TLS answer, and reads nothing, is told nothing more.
            if self.choked:
                self.pause()
