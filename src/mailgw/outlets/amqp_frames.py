"""A publication as AMQP 0-9-1 says it: bytes, ready to be written to a channel.

Pure: no connection, no clock. pamqp does the encoding; what never changes on a channel
is encoded once.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from mailgw.mail.publication import Publication

TYPE = "mailgw.message"
SCHEMA = 1
# A frame's type, channel, size and end (AMQP 0-9-1, 4.2.3).
_FRAME_OVERHEAD = 8
# A short string has one octet for its length (4.2.5.3).
_LONGEST_SHORT = 255


def compress(body: bytes) -> bytes:
    """The body as gzip; the same body gives the same octets."""
    return gzip.compress(body, compresslevel=6, mtime=0)


class Framer:
    """Turns publications into frames for one channel of one connection.

    `channel` and `frame_max` are what the connection negotiated.
    """

    __slots__ = ("_channel", "_chunk", "_encoding", "_exchange", "_methods", "_mode")

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

    def frames(self, publication: Publication, body: bytes) -> Iterator[bytes]:
        """The frames that publish `body`, joined to pieces of moderate size.

        `body` is what goes over the wire (compressed or not). A usual document is one
        piece; a large one is several, so that nobody holds it twice. Raises ValueError,
        with the first piece, for a queue name or an id that AMQP cannot carry.
        """
        head = self._method(publication.queue) + self._header(publication, len(body))
        if not body:
            yield head
        for start in range(0, len(body), self._chunk):
            part = body[start : start + self._chunk]
            yield head + marshal(ContentBody(part), self._channel)
            head = b""

    def _method(self, queue: str) -> bytes:
        frame = self._methods.get(queue)
        if frame is None:
            _check_short(queue)
            publish: Frame = Basic.Publish(
                exchange=self._exchange, routing_key=queue, mandatory=True
            )
            frame = marshal(publish, self._channel)
            # Bounded, in case somebody routes by what a message says.
            if len(self._methods) < 1000:
                self._methods[queue] = frame
        return frame

    def _header(self, publication: Publication, size: int) -> bytes:
        _check_short(publication.message_id)
        headers: FieldTable = {"x-mailgw-schema": SCHEMA, "x-mailgw-dedupe": publication.dedupe}
        properties = Basic.Properties(
            content_type="application/json",
            content_encoding=self._encoding,
            headers=headers,
            delivery_mode=self._mode,
            priority=publication.priority,
            message_id=publication.message_id,
            timestamp=publication.received,
            message_type=TYPE,
        )
        frame = marshal(ContentHeader(body_size=size, properties=properties), self._channel)
        # A header has one frame; a longer one would end the whole connection.
        if len(frame) > self._chunk + _FRAME_OVERHEAD:
            raise ValueError(f"{len(frame)} octets of properties do not fit a frame")
        return frame


def _check_short(text: str) -> None:
    if len(text.encode()) > _LONGEST_SHORT:
        raise ValueError(f"{len(text.encode())} octets do not fit a short string")
