"""The header block of a message, read forgivingly over bytes.

Laws: nothing here raises, whatever the bytes; the time is linear in the block; the
fields tile the block, so that every octet of it belongs to exactly one field and a
field can be taken out without touching its neighbours.

A line ends with LF, with or without a CR before it; a CR alone is an octet like any
other. The block ends before the first empty line, or with the message where there is
none. A line that is no header field (no colon, a blank inside the name, an octet that
no name may hold, the "From " line of a mailbox file) is a field without a name: it is
passed by, and the reading goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mailgw.mail.octets import Octets

# RFC 5322 2.2.3: a line that begins with a blank continues the field above it.
_FIELD_END: Final = re.compile(rb"\n(?![ \t])")
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])")
# RFC 5322 2.2 (ftext), with the blanks before the colon that 4.5 still lets one read.
# A name fits into a line (2.1.1); without a way back, because what has no colon may be long.
_NAME: Final = re.compile(rb"([!-9;-~]{1,998}+)[ \t]*+:")
# Octets of a header; no real one has a tenth. Others that read it bound their work by that.
MOST_HEADER: Final = 1024 * 1024
# Octets that are searched at once: a call that takes long keeps everybody else waiting.
_STRIDE: Final = 1024 * 1024


class Field(NamedTuple):
    """One header field: `content[start:end]`, continuation lines and line end included.

    `name` is in lower case, "" for lines that are no field. `raw` is the field's octets.
    """

    name: str
    start: int
    end: int
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded, without the blanks around it.

        Unfolding takes the line ends away and leaves the blanks (RFC 5322 2.2.3). For a
        line that is no field it is the whole line.
        """
        body = self.raw[self.raw.index(b":") + 1 :] if self.name else self.raw
        if b"\n" in body[:-1]:
            body = _FOLD.sub(b"", body)
        return body.strip(b" \t\r\n")

    @property
    def text(self) -> str:
        """The value for display: UTF-8 (RFC 6532), with U+FFFD for what is none."""
        return self.value.decode("utf-8", "replace")


def header_end(content: Octets) -> int:
    """Find where the header block ends: just before the first empty line.

    All of the content where no line is empty, 0 where the first one is.
    """
    if content[:1] == b"\n" or content[:2] == b"\r\n":
        return 0
    for start in range(0, len(content), _STRIDE):
        # What begins in the stride may end behind it.
        stride = content[start : start + _STRIDE + 2]
        end = stride.find(b"\n\r\n")
        # Only what lies before the CRLF pair can end earlier, so a body is not searched twice.
        bare = stride.find(b"\n\n", 0, end + 1 if end >= 0 else _STRIDE + 1)
        if end >= 0 or bare >= 0:
            return start + (bare if bare >= 0 else end) + 1
    return len(content)


def read_fields(content: bytes, end: int | None = None) -> Iterator[Field]:
    """Give the fields of the header block in order; `end` is `header_end`, where known."""
    if end is None:
        end = header_end(content)
    start = 0
    while start < end:
        boundary = _FIELD_END.search(content, start, end)
        stop = boundary.end() if boundary else end
        name = _NAME.match(content, start, stop)
        yield Field(
            name[1].decode("ascii").lower() if name else "", start, stop, content[start:stop]
        )
        start = stop


def remove(content: bytes, fields: Iterable[Field]) -> bytes:
    """Take the fields out of the content they were read from, in their order.

    Every octet outside of them stays as it is.
    """
    kept: list[bytes] = []
    start = 0
    for field in fields:
        if field.start > start:
            kept.append(content[start : field.start])
        start = field.end
    kept.append(content[start:])
    return b"".join(kept)
