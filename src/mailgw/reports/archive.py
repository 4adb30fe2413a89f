"""Attachments as they were before somebody packed them: gzip (RFC 1952), zip, or not at all.

Laws: nothing is written to disk, and no name in an archive is a path to anything; one member
of a zip is read, once, and what is inside of it is not unpacked again; all of it streams, and
ends at the first bound that is passed.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

# What comes out at most, and how many times more than went in. Reports are repetitive, 30 is
# common; a bomb is beyond 500.
MOST_UNPACKED = 20 << 20
MOST_PACKED = 12 << 20
_MOST_RATIO = 200
_RATIO_COUNTS_FROM = 1 << 20
# Of the directory of a zip: that is some 200 members, where RFC 7489 7.2.1.1 has one.
_LARGEST_DIRECTORY = 16 << 10
_PIECE = 24 << 10

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x07"
# What zipfile raises on damaged archives, over all its versions.
_ZIP_TROUBLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    IndexError,
)


class BadArchive(Exception):
    """It cannot be unpacked; the text says why. What came before it is good."""


def unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give what is inside in small pieces, empty ones between them; raises BadArchive."""
    beginning = b""
    for chunk in chunks:
        beginning += chunk
        if len(beginning) >= len(_ZIP):
            break
        yield b""
    if beginning.startswith(_GZIP):
        pieces = _gunzipped(_chain(beginning, chunks))
    elif beginning.startswith(_ZIP):
        pieces = _unzipped(_chain(beginning, chunks))
    else:
        pieces = _chain(beginning, chunks)
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > MOST_UNPACKED:
            raise BadArchive(f"it is larger than {MOST_UNPACKED >> 20} MiB")
        yield piece


def _chain(beginning: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield beginning
    yield from chunks


def _gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    engine = zlib.decompressobj(wbits=31)
    taken = given = 0
    for chunk in chunks:
        taken += len(chunk)
        while chunk and not engine.eof:
            try:
                piece = engine.decompress(chunk, _PIECE)
            except zlib.error:
                raise BadArchive("the gzip data is damaged") from None
            chunk = engine.unconsumed_tail
            given += len(piece)
            _weigh(taken, given)
            yield piece
        if engine.eof:
            # Behind its end there may be padding, which is none of the report.
            return
        yield b""
    raise BadArchive("the gzip data ends too early")


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    packed = bytearray()
    for chunk in chunks:
        packed += chunk
        if len(packed) > MOST_PACKED:
            raise BadArchive(f"the zip archive is larger than {MOST_PACKED >> 20} MiB")
        yield b""
    try:
        with zipfile.ZipFile(io.BytesIO(_vetted(packed))) as archive:
            member = _member(archive)
            taken, given = max(member.compress_size, 1), 0
            with archive.open(member) as opened:
                while piece := opened.read(_PIECE):
                    given += len(piece)
                    _weigh(taken, given)
                    yield piece
    except _ZIP_TROUBLE:
        raise BadArchive("the zip archive is damaged") from None


def _vetted(packed: bytearray) -> bytearray:
    """The archive, its directory known to be small; zipfile reads all of it at once."""
    # APPNOTE 4.3.16: at the very end, but for a comment of up to 64 KiB.
    end = packed.rfind(_END, max(len(packed) - 22 - 65535, 0))
    if end < 0 or len(packed) < end + 22:
        raise BadArchive("the zip archive ends too early")
    if int.from_bytes(packed[end + 12 : end + 16], "little") > _LARGEST_DIRECTORY:
        raise BadArchive("the zip archive has too many members")
    if packed[max(end - 20, 0) : end].startswith(_END64):
        raise BadArchive("the zip archive is one of ZIP64")
    # Without the comment, in which a second end could hide from us.
    packed[end + 20 :] = b"\0\0"
    return packed


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [
        each
        for each in archive.infolist()
        if not each.is_dir() and not each.filename.startswith("__MACOSX/")
    ]
    if not members:
        raise BadArchive("the zip archive is empty")
    named = [each for each in members if each.filename.lower().endswith((".xml", ".json"))]
    member = (named or members)[0]
    if member.flag_bits & 1:
        raise BadArchive("the zip archive is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadArchive("the zip archive is packed in an unusual way")
    return member


def _weigh(taken: int, given: int) -> None:
    if given > _RATIO_COUNTS_FROM and given > taken * _MOST_RATIO:
        raise BadArchive(f"it is packed more than {_MOST_RATIO} times")
