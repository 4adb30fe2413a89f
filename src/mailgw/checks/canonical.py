"""The canonical forms of RFC 6376 3.4, for headers and bodies, over bytes.

Laws. The time is linear in the octets, whatever they are, and a body may come in slices
of any length: what cannot be decided yet is carried as two octets and a number. A line
ends with CRLF and with nothing else. A CR or LF alone is an octet like any other, so two
messages that differ on the way to a reader differ in their hash.
"""

from __future__ import annotations

from collections.abc import Iterator

_CRLF = b"\r\n"
# Empty lines come back in pieces of this many octets, however many there were.
_PIECE = 65_536


def relaxed_field(raw: bytes) -> bytes:
    """One header field in its relaxed form, with its line end (RFC 6376 3.4.2)."""
    name, _, value = raw.partition(b":")
    value = _single_blanks(value.removesuffix(_CRLF).replace(_CRLF, b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value + _CRLF


def unsigned_field(raw: bytes) -> bytes:
    """A signature's own field as it was hashed: the value of b= deleted, no line end.

    RFC 6376 3.7: the blanks around the value are deleted with it.
    """
    name, _, value = raw.removesuffix(_CRLF).partition(b":")
    specs = value.split(b";")
    for index, spec in enumerate(specs):
        tag, equals, _ = spec.partition(b"=")
        if equals and tag.strip() == b"b":
            specs[index] = tag + equals
    return name + b":" + b";".join(specs)


class Body:
    """A body that becomes canonical as its slices are fed (RFC 6376 3.4.3 and 3.4.4).

    Both methods give pieces, to be hashed in their order; no piece is longer than what
    was fed or 64 KB. The end of the body is the end of a line.
    """

    __slots__ = ("_begun", "_carried", "_empty_lines", "_relaxed")

    def __init__(self, *, relaxed: bool) -> None:
        self._relaxed = relaxed
        # The end of the last slice, while it may be the beginning of a line end.
        self._carried = b""
        self._empty_lines = 0
        self._begun = False

    def feed(self, octets: bytes) -> Iterator[bytes]:
        octets, carried = self._carried + octets, b""
        if octets.endswith(b"\r"):
            octets, carried = octets[:-1], b"\r"
        if self._relaxed:
            octets = _single_blanks(octets).replace(b" \r\n", _CRLF)
            if octets.endswith(b" "):
                octets, carried = octets[:-1], b" " + carried
        self._carried = carried
        return self._pieces(octets)

    def finish(self) -> Iterator[bytes]:
        """What was held back, and the one line end that every body but an empty one has."""
        # A blank at the end is one at the end of a line; a CR alone is an octet.
        yield from self._pieces(b"" if self._carried == b" " else self._carried)
        # RFC 6376 3.4.3 has one CRLF for a body without any line, 3.4.4 has nothing.
        if self._begun or not self._relaxed:
            yield _CRLF

    def _pieces(self, octets: bytes) -> Iterator[bytes]:
        """Empty lines are kept back until something follows them."""
        end = _end_of_text(octets)
        if end:
            whole, rest = divmod(2 * self._empty_lines, _PIECE)
            for _ in range(whole):
                yield _CRLF * (_PIECE // 2)
            if rest:
                yield _CRLF * (rest // 2)
            yield octets[:end]
            self._begun, self._empty_lines = True, 0
        self._empty_lines += (len(octets) - end) // 2


def _single_blanks(octets: bytes) -> bytes:
    """Every run of blanks and tabs as one blank."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    # Each pass halves the runs; a pattern of `re` would look at each blank as a beginning.
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets


def _end_of_text(octets: bytes) -> int:
    """Where the CRLFs begin with which the octets end, their length where there are none."""
    if not octets.endswith(_CRLF):
        return len(octets)
    start = len(octets.rstrip(_CRLF))
    # Behind the last CR or LF that has no partner, only pairs are left.
    lone_cr, lone_lf = octets.rfind(b"\r\r", start), octets.rfind(b"\n\n", start)
    if lone_cr < 0 and lone_lf < 0:
        return start + 1 if octets.startswith(b"\n", start) else start
    return max(lone_cr + 1, lone_lf + 2 if lone_lf >= 0 else 0)
