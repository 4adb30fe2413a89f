"""The octets of a message: where they end, dots taken off, what becomes of bare newlines.

Only CRLF.CRLF ends DATA. Nothing else does: not LF.LF, not CR.CR, under no policy. The
end is found by searching the buffer, never line by line, and any cut of the stream
gives the same message.
"""

from __future__ import annotations

import re
from io import IncrementalNewlineDecoder
from typing import Final, Literal

from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

NewlinePolicy = Literal["refuse", "carry", "repair"]

_END: Final = b"\r\n.\r\n"
_ANY_NEWLINE: Final = re.compile(rb"\r\n|\r|\n")


class DotReader:
    """Reads one message of DATA (RFC 5321 4.1.1.4, 4.5.2).

    `read(buffer, start)` gives (octets, position behind what was used, whether the final
    dot came). What it leaves unused must come again in front of the next bytes.
    """

    __slots__ = ("_at_start",)

    def __init__(self) -> None:
        self._at_start = True

    def read(self, buffer: bytes, start: int) -> tuple[bytes, int, bool]:
        begin = start
        if self._at_start:
            # The line before the first is the DATA command's: its CRLF counts.
            if buffer.startswith(b".", start):
                head = buffer[start : start + 3]
                if head == b".\r\n":
                    return b"", start + 3, True
                if b".\r\n".startswith(head):
                    return b"", start, False
                begin += 1
            self._at_start = start == len(buffer)
        first = buffer.find(b"\r\n.", begin)
        if first < 0:
            cut = len(buffer) - _possible_end(buffer, begin)
            return buffer[begin:cut], cut, False
        if buffer.startswith(b"\r\n", first + 3):
            return buffer[begin : first + 2], first + 5, True
        end = buffer.find(_END, first)
        cut = end + 2 if end >= 0 else len(buffer) - _possible_end(buffer, begin)
        octets = buffer[begin:cut].replace(b"\r\n.", b"\r\n")
        return octets, (end + len(_END) if end >= 0 else cut), end >= 0


def _possible_end(buffer: bytes, start: int) -> int:
    """How many octets at the end of `buffer` may be the beginning of CRLF.CRLF."""
    for length in range(min(len(_END) - 1, len(buffer) - start), 0, -1):
        if buffer.endswith(_END[:length]):
            return length
    return 0


class Newlines:
    """Applies a policy to the bare CR and LF of a message that comes in chunks.

    "refuse" and "carry" leave the octets alone; with the first, `bare` says whether a
    bare one was seen. "repair" makes CRLF of each (RFC 5321 2.3.8 forbids to send them).
    """

    __slots__ = ("_held", "_repair", "_seen")

    def __init__(self, policy: NewlinePolicy) -> None:
        # The text layer's decoder notes which newlines it saw, in one pass and across
        # chunks; counting CRLF, CR and LF would take three.
        self._seen = IncrementalNewlineDecoder(None, False) if policy == "refuse" else None
        self._repair = policy == "repair"
        self._held = b""

    @property
    def bare(self) -> bool:
        return self._seen is not None and self._seen.newlines not in (None, "\r\n")

    def feed(self, chunk: bytes, *, last: bool) -> bytes:
        """Take a chunk and give what is settled of it."""
        if self._seen is not None:
            self._seen.decode(chunk.decode("latin-1"), last)
        elif self._repair:
            chunk, self._held = self._held + chunk, b""
            if chunk.endswith(b"\r") and not last:
                # Half of a CRLF, perhaps: it waits for the next chunk.
                chunk, self._held = chunk[:-1], b"\r"
            return _ANY_NEWLINE.sub(b"\r\n", chunk)
        return chunk


class Body:
    """One message on its way in: its size, its newlines, and what is wrong with it.

    `take` gives the octets to hand on; none once the message is refused, so that what
    is too big is read to its end (RFC 1870 6.3) without being kept.
    """

    __slots__ = ("_limit", "_newlines", "dots", "size", "trouble")

    def __init__(self, limit: int, policy: NewlinePolicy) -> None:
        self._limit = limit
        self._newlines = Newlines(policy)
        self.dots = DotReader()
        self.size = 0
        # Why the message cannot be taken, as far as it has been read.
        self.trouble: Reply | None = None

    def take(self, octets: bytes, *, last: bool) -> bytes:
        newlines = self._newlines
        octets = newlines.feed(octets, last=last)
        self.size += len(octets)
        if self.size > self._limit:
            self.trouble = reply.TOO_BIG
        elif newlines.bare:
            self.trouble = reply.BARE_NEWLINE
        return octets if self.trouble is None else b""
