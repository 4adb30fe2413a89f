"""A publication as AMQP 0-9-1 says it: bytes, ready to be written to a channel.

Pure: no connection, no clock. pamqp does the encoding, and as our messages look alike,
once: the header is encoded with values of the right length, and each message puts its own
in their places. Only the seven octets before a piece of the body are made here.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from pamqp.base import Frame
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.constants import FRAME_BODY, FRAME_END_CHAR
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from mailgw.mail.publication import Publication

TYPE = "mailgw.message"
SCHEMA = 1
# Above this, compressing would hold up everybody else on the event loop.
_COMPRESS_ASIDE = 64 * 1024
# zlib's: a header and trailer of gzip around it, and no time in it.
_GZIP = 31
# A frame's type, channel and size, before its payload, and its end (AMQP 0-9-1, 4.2.3).
_FRAME = struct.Struct(">BHI")
_FRAME_OVERHEAD = _FRAME.size + 1
# A short string has one octet for its length (4.2.5.3).
_LONGEST_SHORT = 255
# Of a timestamp's eight octets, those that are not zero in any year a datetime knows.
_TIME_OCTETS = 5

K = TypeVar("K")
V = TypeVar("V")


async def compress(parts: Sequence[bytes]) -> list[bytes]:
    """The parts as one gzip, in parts too; the same parts give the same octets.

    What is large is not compressed on the event loop, and cancelling ends it soon.
    """
    made = zlib.compressobj(6, wbits=_GZIP)
    pieces = [
        made.compress(part)
        if len(part) <= _COMPRESS_ASIDE
        else await asyncio.to_thread(made.compress, part)
        for part in parts
    ]
    return [*pieces, made.flush()]


class Framer:
    """Turns publications into frames for one channel of one connection.

    `channel` and `frame_max` are what the connection negotiated.
    """

    __slots__ = ("_channel", "_chunk", "_encoding", "_exchange", "_headers", "_methods", "_mode")

    def __init__(
        self, channel: int, frame_max: int, *, exchange: str, persistent: bool, gzipped: bool
    ) -> None:
        self._channel = channel
        # 0 means no limit (Connection.Tune); 128 KiB is what RabbitMQ says.
        self._chunk = (frame_max or 131_072) - _FRAME_OVERHEAD
        self._exchange = exchange
        self._encoding = "gzip" if gzipped else None
        self._mode = 2 if persistent else 1
        self._methods: dict[str, bytes] = {}
        self._headers: dict[tuple[int, int, int | None], list[bytes]] = {}

    def frames(self, publication: Publication, parts: Sequence[bytes]) -> Iterator[bytes]:
        """The frames that publish `parts`, joined to pieces of moderate size.

        `parts` are what goes over the wire (compressed or not). A usual document is one
        piece; a large one is several, so that nobody holds it twice. Raises ValueError,
        with the first piece, for a queue name or an id that AMQP cannot carry.
        """
        size = sum(map(len, parts))
        pieces = [self._method(publication.queue), *self._header(publication, size)]
        if size <= self._chunk:
            if size:
                pieces += (_FRAME.pack(FRAME_BODY, self._channel, size), *parts, FRAME_END_CHAR)
            yield b"".join(pieces)
            return
        for body in parts:
            for start in range(0, len(body), self._chunk):
                part = body[start : start + self._chunk]
                pieces += (_FRAME.pack(FRAME_BODY, self._channel, len(part)), part, FRAME_END_CHAR)
                yield b"".join(pieces)
                pieces = []

    def _method(self, queue: str) -> bytes:
        frame = self._methods.get(queue)
        if frame is None:
            _check_short(len(queue.encode()))
            publish: Frame = Basic.Publish(
                exchange=self._exchange, routing_key=queue, mandatory=True
            )
            frame = marshal(publish, self._channel)
            _remember(self._methods, queue, frame)
        return frame

    def _header(self, publication: Publication, size: int) -> tuple[bytes, ...]:
        message_id, dedupe = publication.message_id.encode(), publication.dedupe.encode()
        key = (len(message_id), len(dedupe), publication.priority)
        constant = self._headers.get(key)
        if constant is None:
            constant = self._constant_parts(*key)
            _remember(self._headers, key, constant)
        first, second, third, fourth, last = constant
        time = int(publication.received.timestamp()).to_bytes(_TIME_OCTETS)
        return (first, size.to_bytes(8), second, dedupe, third, message_id, fourth, time, last)

    def _constant_parts(
        self, id_length: int, dedupe_length: int, priority: int | None
    ) -> list[bytes]:
        """The header frame without a message's size, dedupe, id and time: five parts."""
        _check_short(id_length)
        one, other = (
            self._encoded_header(octet, id_length, dedupe_length, priority) for octet in (1, 2)
        )
        # A header has one frame; a longer one would end the whole connection.
        if len(one) > self._chunk + _FRAME_OVERHEAD:
            raise ValueError(f"{len(one)} octets of properties do not fit a frame")
        # Where the two differ stand the message's own values; each has its length before
        # it or a constant, so no two of them touch.
        parts, inside = [bytearray()], False
        for octet, counterpart in zip(one, other, strict=True):
            if octet == counterpart:
                parts[-1].append(octet)
            elif not inside:
                parts.append(bytearray())
            inside = octet != counterpart
        # What is empty has no place of its own, but nothing before it and behind it either.
        if not dedupe_length:
            parts.insert(2, bytearray())
        if not id_length:
            parts.insert(3, bytearray())
        return [bytes(part) for part in parts]

    def _encoded_header(
        self, octet: int, id_length: int, dedupe_length: int, priority: int | None
    ) -> bytes:
        """A header frame all of whose own values consist of that octet."""
        size = int.from_bytes(bytes([octet] * 8))
        time = int.from_bytes(bytes([octet] * _TIME_OCTETS))
        headers: FieldTable = {
            "x-mailgw-schema": SCHEMA,
            "x-mailgw-dedupe": chr(octet) * dedupe_length,
        }
        properties = Basic.Properties(
            content_type="application/json",
            content_encoding=self._encoding,
            headers=headers,
            delivery_mode=self._mode,
            priority=priority,
            message_id=chr(octet) * id_length,
            timestamp=datetime.fromtimestamp(time, UTC),
            message_type=TYPE,
        )
        return marshal(ContentHeader(body_size=size, properties=properties), self._channel)


def _remember(cache: dict[K, V], key: K, value: V) -> None:
    # Bounded, in case somebody routes by what a message says.
    if len(cache) < 1000:
        cache[key] = value


def _check_short(length: int) -> None:
    if length > _LONGEST_SHORT:
        raise ValueError(f"{length} octets do not fit a short string")
