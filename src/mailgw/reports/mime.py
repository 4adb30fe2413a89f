"""The parts of a message: a reader of MIME (RFC 2046) that is no larger than reports need.

Laws: no octets make it raise; parts, their depth, their headers and what is decoded of them
are bounded; the message is not copied; messages inside of the message (message/rfc822) are
parts like any other and are not looked into, so that what was only forwarded is not taken
for what was sent.

The email package of the standard library would read the same mails, but all of each in one
go: 15 ms a megabyte, without a bound on parts, and more for hostile ones.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mailgw.mail.headers import header_end
from mailgw.mail.octets import Octets
from mailgw.reports.steps import Steps
from mailgw.reports.text import Fields, decoded, normalised, parameters

MOST_PARTS = 50
DEEPEST = 8
# What comes after that many octets of a message is not looked at.
MOST_OCTETS = 24 << 20
_LONGEST_HEADER = 32 << 10
# RFC 2046 5.1.1 allows 70.
_LONGEST_BOUNDARY = 200
# Of what looks like a delimiter and mostly is none.
_MOST_DELIMITERS = 10_000
_WINDOW = 32 << 10
_SLICE = 24 << 10

_EMPTY_LINE = re.compile(rb"(?:\A|\r?\n|\r(?!\n))(?:\r\n|\n|\r)")
_NOT_BASE64 = bytes(
    octet
    for octet in range(256)
    if octet not in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
)


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of the message: `content[start:end]`, still encoded.

    `kind` is its media type in lower case, `name` the file name it was given, `fields` its
    header.
    """

    content: Octets
    start: int
    end: int
    kind: str
    attributes: Mapping[str, str]
    name: str
    encoding: str
    fields: Fields

    def chunks(self) -> Iterator[bytes]:
        """What the part holds, without its transfer encoding, in small pieces."""
        if self.encoding == "base64":
            return self._base64()
        if self.encoding == "quoted-printable":
            return self._quoted_printable()
        return self._slices()

    def octets(self, most: int) -> Steps[bytes]:
        """The first octets of what the part holds."""
        found = bytearray()
        for chunk in self.chunks():
            found += chunk
            if len(found) >= most:
                break
            yield
        return bytes(found[:most])

    def text(self, most: int) -> Steps[str]:
        """The beginning of the part as text, with LF as line end."""
        octets = yield from self.octets(most)
        return decoded(normalised(octets), self.attributes.get("charset", "utf-8"))

    def _slices(self) -> Iterator[bytes]:
        for start in range(self.start, self.end, _SLICE):
            yield self.content[start : min(start + _SLICE, self.end)]

    def _base64(self) -> Iterator[bytes]:
        rest = b""
        for piece in self._slices():
            # RFC 2045 6.8: what is not of the alphabet is passed by.
            letters = rest + piece.translate(None, _NOT_BASE64)
            padding = letters.find(b"=")
            last = padding >= 0
            if last:
                letters = letters[:padding]
            whole = len(letters) - len(letters) % 4
            yield binascii.a2b_base64(letters[:whole])
            rest = letters[whole:]
            if last:
                break
        if len(rest) > 1:
            yield binascii.a2b_base64(rest + b"=" * (4 - len(rest)))

    def _quoted_printable(self) -> Iterator[bytes]:
        rest = b""
        for piece in self._slices():
            lines = normalised(rest + piece)
            # An escape, a soft line break or a CRLF may be cut in two: the last line waits.
            cut = lines.rfind(b"\n") + 1 or max(len(lines) - 100, 0)
            yield binascii.a2b_qp(lines[:cut])
            rest = lines[cut:]
        yield binascii.a2b_qp(rest)


def header(content: Octets) -> bytes:
    """The header block of a message or part, bounded, with LF as line end."""
    beginning = content[:_LONGEST_HEADER]
    if b"\n" not in beginning:
        beginning = normalised(beginning)
    return normalised(beginning[: header_end(beginning)])


def read_parts(content: Octets) -> Steps[list[Part]]:
    """The leaves of a message in their order; a message that is no multipart is the only one.

    Of a multipart in which no part begins, the text is the only leaf.
    """
    parts: list[Part] = []
    # Start, end, depth; the last is the next.
    waiting = [(0, min(len(content), MOST_OCTETS), 0)]
    while waiting and len(parts) < MOST_PARTS:
        start, end, depth = waiting.pop()
        part = _part(content, start, end)
        if part.kind.startswith("multipart/") and depth < DEEPEST:
            boundary = part.attributes.get("boundary", "")[:_LONGEST_BOUNDARY]
            ranges = yield from _split(part, boundary.encode("utf-8", "replace"))
            if ranges:
                waiting += [(first, last, depth + 1) for first, last in reversed(ranges)]
                continue
        parts.append(part)
        yield
    return parts


def _part(content: Octets, start: int, end: int) -> Part:
    beginning = content[start : min(start + _LONGEST_HEADER, end)]
    empty = _EMPTY_LINE.search(beginning)
    fields = Fields(decoded(normalised(beginning[: empty.start()] if empty else beginning)))
    kind, attributes = parameters(fields.get("content-type"))
    disposition = parameters(fields.get("content-disposition"))[1]
    return Part(
        content=content,
        start=start + (empty.end() if empty else len(beginning)),
        end=end,
        kind=kind or "text/plain",
        attributes=attributes,
        name=disposition.get("filename", "") or attributes.get("name", ""),
        encoding=fields.get("content-transfer-encoding").split(";")[0].strip().lower(),
        fields=fields,
    )


def _split(whole: Part, boundary: bytes) -> Steps[list[tuple[int, int]]]:
    """Where the parts of a multipart lie, without the line ends before the delimiters."""
    if not boundary.strip():
        return []
    content, delimiter = whole.content, b"--" + boundary
    ranges: list[tuple[int, int]] = []
    begin = -1
    position = whole.start
    lines = 0
    while len(ranges) <= MOST_PARTS and lines < _MOST_DELIMITERS:
        at = yield from _find(content, delimiter, position, whole.end)
        if at < 0:
            break
        position = at + len(delimiter)
        lines += 1
        if lines % 100 == 0:
            yield
        if at > whole.start and content[at - 1 : at] not in (b"\r", b"\n"):
            continue
        closing = content[position : position + 2] == b"--"
        after = content[position : position + 1]
        # A longer boundary that begins like this one is another one.
        if not closing and after not in (b"\r", b"\n", b" ", b"\t", b""):
            continue
        if begin >= 0:
            ranges.append((begin, _before_line_end(content, at, begin)))
        if closing:
            return ranges
        begin = _line_end(content, position, whole.end)
    if begin >= 0:
        ranges.append((begin, whole.end))
    return ranges


def _find(content: Octets, wanted: bytes, start: int, end: int) -> Steps[int]:
    while start < end:
        stop = min(start + _WINDOW + len(wanted), end)
        at = content[start:stop].find(wanted)
        if at >= 0 or stop == end:
            return at + start if at >= 0 else -1
        start = stop - len(wanted) + 1
        yield
    return -1


def _line_end(content: Octets, position: int, end: int) -> int:
    """Behind the end of the line, whichever line end it has."""
    stop = min(position + 1000, end)
    line = content[position:stop]
    for number, octet in enumerate(line):
        if octet == 0x0A:
            return position + number + 1
        if octet == 0x0D:
            return position + number + (2 if line[number + 1 : number + 2] == b"\n" else 1)
    return stop


def _before_line_end(content: Octets, at: int, least: int) -> int:
    # RFC 2046 5.1.1: the line end before a delimiter belongs to it.
    if content[at - 2 : at] == b"\r\n":
        at -= 2
    elif at > 0 and content[at - 1 : at] in (b"\r", b"\n"):
        at -= 1
    return max(at, least)
