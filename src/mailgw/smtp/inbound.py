"""What a client sent and nobody has read yet: lines and counted octets out of a stream.

Memory stays flat whatever comes: a line without an end is thrown away as it grows.
"""

from __future__ import annotations

from typing import Final

from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

# RFC 5321 4.5.3.1.4 asks for 512 octets, the extensions for about 1,700 more.
LONGEST_COMMAND: Final = 2048
# RFC 4954 4: AUTH and the lines of its exchange.
LONGEST_AUTH_LINE: Final = 12288

# RFC 8446 5.1: the first octet of TLS, on a plain port. No SMTP command begins with it.
_TLS_HANDSHAKE: Final = 0x16


class Inbound:
    """`buffer` from `position` on is unread."""

    __slots__ = ("_discard", "_discarding_line", "buffer", "position")

    def __init__(self) -> None:
        self.buffer = b""
        self.position = 0
        self._discard = 0
        self._discarding_line = False

    def receive(self, data: bytes) -> None:
        if self.position == len(self.buffer):
            self.buffer = data
        else:
            self.buffer = self.buffer[self.position :] + data
        self.position = 0

    def clear(self) -> None:
        self.buffer, self.position = b"", 0

    def discard(self, octets: int) -> None:
        """Drop that many octets, as they come, before the next line."""
        self._discard = octets

    def take(self, most: int) -> bytes:
        """What is there of the next `most` octets."""
        octets = self.buffer[self.position : self.position + most]
        self.position += len(octets)
        return octets

    def take_line(self, *, auth: bool = False) -> bytes | Reply | None:
        """The next line without its CRLF, None where there is none yet.

        A Reply stands for a line that is none. `auth` says that an AUTH exchange is under
        way, whose lines are longer.
        """
        if self._discard:
            self._discard -= len(self.take(self._discard))
        buffer, begin = self.buffer, self.position
        end = buffer.find(b"\n", begin)
        if end < 0:
            return self._bound(auth)
        self.position = end + 1
        if self._discarding_line:
            self._discarding_line = False
            return reply.LINE_TOO_LONG
        if buffer[begin] == _TLS_HANDSHAKE:
            return reply.NOT_SMTP
        # Most lines are short: only the long ones are worth the question what they are.
        if end - begin >= LONGEST_COMMAND and end - begin >= self._longest(begin, auth):
            return reply.LINE_TOO_LONG
        if end > begin and buffer[end - 1] == 0x0D:
            return buffer[begin : end - 1]
        # A bare LF ends no command (RFC 5321 2.3.8); to say so ends the client's wait.
        return reply.BARE_LF_COMMAND

    def _longest(self, begin: int, auth: bool) -> int:
        auth = auth or self.buffer[begin : begin + 5].upper() == b"AUTH "
        return LONGEST_AUTH_LINE if auth else LONGEST_COMMAND

    def _bound(self, auth: bool) -> Reply | None:
        """Keep the memory flat while no end of line comes."""
        waiting = len(self.buffer) - self.position
        if not waiting:
            return None
        if self.buffer[self.position] == _TLS_HANDSHAKE and not self._discarding_line:
            return reply.NOT_SMTP
        if self._discarding_line or waiting >= self._longest(self.position, auth):
            self._discarding_line = True
            self.clear()
        return None
