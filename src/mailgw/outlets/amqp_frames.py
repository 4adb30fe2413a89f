"""A publication as AMQP 0-9-1 says it: bytes, ready to be written to a channel.

Pure: no connection, no clock. Publishing is the hot path and all our messages look
alike, so what never changes is encoded once; only queue, ids, time and size are filled
in. The numbers are those of the specification's grammar (4.2) and of RabbitMQ's
amqp-0-9-1 reference.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from struct import Struct

from mailgw.mail.publication import Publication

TYPE = "mailgw.message"
SCHEMA = 1
# A short string has one octet for its length (4.2.5.3).
LONGEST_SHORT = 255

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_FRAME = Struct(">BHI")
_FRAME_OVERHEAD = _FRAME.size + len(_END)
_LONG = Struct(">I")
_CONTENT_HEADER = Struct(">HHQH")
_TIMESTAMP = Struct(">Q")
_BASIC, _PUBLISH = 60, 40
_MANDATORY = b"\x01"

# Which properties follow, in the order in which they must (class basic, domain table).
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = 1 << 15, 1 << 14, 1 << 13
_DELIVERY_MODE, _PRIORITY = 1 << 12, 1 << 11
_MESSAGE_ID, _TIME, _TYPE = 1 << 7, 1 << 6, 1 << 5


def short(text: str) -> bytes:
    """A short string. Raises ValueError above 255 octets."""
    data = text.encode()
    if len(data) > LONGEST_SHORT:
        raise ValueError(f"{len(data)} octets do not fit a short string")
    return bytes((len(data),)) + data


def compress(body: bytes) -> bytes:
    """The body as gzip; the same body gives the same octets."""
    return gzip.compress(body, compresslevel=6, mtime=0)


class Framer:
    """Turns publications into frames for one channel of one connection.

    `channel` and `frame_max` are what the connection negotiated.
    """

    __slots__ = ("_channel", "_chunk", "_exchange", "_flags", "_front", "_methods", "_mode")

    def __init__(
        self, channel: int, frame_max: int, *, exchange: str, persistent: bool, gzipped: bool
    ) -> None:
        self._channel = channel
        # 0 means no limit (Connection.Tune); 128 KiB is what RabbitMQ says.
        self._chunk = (frame_max or 131_072) - _FRAME_OVERHEAD
        self._exchange = short(exchange)
        self._methods: dict[str, bytes] = {}
        self._flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIME | _TYPE
        self._front = short("application/json")
        if gzipped:
            self._flags |= _CONTENT_ENCODING
            self._front += short("gzip")
        self._mode = b"\x02" if persistent else b"\x01"

    def frames(self, publication: Publication, body: bytes) -> Iterator[bytes]:
        """The frames that publish `body`, joined to pieces of moderate size.

        `body` is what goes over the wire (compressed or not). A usual document is one
        piece; a large one is several, so that nobody holds it twice. Raises ValueError,
        with the first piece, for a queue name or an id that AMQP cannot carry.
        """
        chunk, channel = self._chunk, self._channel
        head = self._method(publication.queue) + self._content_header(publication, len(body))
        if not body:
            yield head
        elif len(body) <= chunk:
            yield b"".join((head, _FRAME.pack(_BODY, channel, len(body)), body, _END))
        else:
            view = memoryview(body)
            for start in range(0, len(body), chunk):
                part = view[start : start + chunk]
                yield b"".join((head, _FRAME.pack(_BODY, channel, len(part)), part, _END))
                head = b""

    def _method(self, queue: str) -> bytes:
        frame = self._methods.get(queue)
        if frame is None:
            payload = b"".join(
                (
                    _LONG.pack(_BASIC << 16 | _PUBLISH),
                    b"\x00\x00",  # reserved, once the access ticket
                    self._exchange,
                    short(queue),
                    _MANDATORY,
                )
            )
            frame = self._frame(_METHOD, payload)
            # Queues are named by the configuration, but x-mq-* may choose them too.
            if len(self._methods) < 1000:
                self._methods[queue] = frame
        return frame

    def _content_header(self, publication: Publication, size: int) -> bytes:
        flags, priority = self._flags, b""
        if publication.priority is not None:
            flags |= _PRIORITY
            priority = bytes((min(max(publication.priority, 0), 255),))
        dedupe = publication.dedupe.encode()
        table = b"".join((_SCHEMA_ENTRY, _DEDUPE_NAME, _LONG.pack(len(dedupe)), dedupe))
        payload = b"".join(
            (
                _CONTENT_HEADER.pack(_BASIC, 0, size, flags),
                self._front,
                _LONG.pack(len(table)),
                table,
                self._mode,
                priority,
                short(publication.message_id),
                _TIMESTAMP.pack(int(publication.received.timestamp())),
                _TYPE_VALUE,
            )
        )
        # A header has one frame; a longer one would end the whole connection.
        if len(payload) > self._chunk:
            raise ValueError(f"{len(payload)} octets of properties do not fit a frame")
        return self._frame(_HEADER, payload)

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return b"".join((_FRAME.pack(kind, self._channel, len(payload)), payload, _END))


_TYPE_VALUE = short(TYPE)
_SCHEMA_ENTRY = short("x-mailgw-schema") + b"I" + _LONG.pack(SCHEMA)
_DEDUPE_NAME = short("x-mailgw-dedupe") + b"S"
