"""One channel in confirm mode: documents go in, each comes back settled.

Documents that come in the same moment share one write. The library's own publish costs a
lock, a drain and a dozen callbacks a message; here its connection does the reading and
the sending, and the frames are ours.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from mailgw.mail.publication import Publication
from mailgw.outlets.amqp_confirms import ChannelLost, Confirm, Confirms
from mailgw.outlets.amqp_frames import Framer

# Enough to fill a socket buffer; more would only be memory.
_WRITE_SIZE = 256 * 1024


class Publisher:
    """Publishes on `channel`, which must be in confirm mode and used by nobody else.

    `settled` is called once for each message that `send` took, when the broker owes
    nothing for it any more. `run` does the writing; whoever runs it calls `fail` when it
    or the channel has ended.
    """

    def __init__(self, channel: Channel, framer: Framer, settled: Callable[[], None]) -> None:
        self._channel = channel
        self._framer = framer
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        # Taken out again by whoever gives up: it may be much that would be held here.
        self._waiting: OrderedDict[str, tuple[Confirm, bytes, Iterator[bytes]]] = OrderedDict()
        self._on_settled = settled
        self._confirms = Confirms(self._settled)
        self._confirms.listen(channel)
        self._lost: ChannelLost | None = None

    def earlier(self, message_id: str) -> Confirm | None:
        """The message with the same id that is still under way.

        The broker's returns are matched by message id. Two at once with the same one
        could be taken for each other, and a lost mail for a safe one.
        """
        return self._confirms.find(message_id)

    def send(self, publication: Publication, parts: Sequence[bytes]) -> Confirm:
        """Queue one message, whose id must not be under way already.

        The result ends with the broker's ack, or raises Returned, Nacked or ChannelLost.
        Cancelling it takes the message back only if nothing of it was written. Raises
        ValueError for what AMQP cannot carry and ChannelLost after the end.
        """
        if self._lost is not None:
            raise self._lost
        frames = self._framer.frames(publication, parts)
        first = next(frames)
        confirm = self._confirms.expect(publication.message_id)
        self._waiting[confirm.message_id] = (confirm, first, frames)
        self._filled.set()
        return confirm

    async def run(self) -> None:
        """Write what is sent, until cancelled. Raises ChannelLost when the channel closed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                await self._write_some()

    def fail(self, reason: str) -> None:
        """Settle everything as lost. Nothing can be sent any more."""
        self._lost = ChannelLost(reason)
        self._waiting.clear()
        self._confirms.lose(reason)

    async def idle(self, limit: float) -> None:
        """Return when nothing is under way any more, or after so many seconds."""
        deadline = self._loop.time() + limit
        while (owed := self._confirms.all()) and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(owed, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _write_some(self) -> None:
        pieces: list[bytes] = []
        size = 0
        while self._waiting and size < _WRITE_SIZE:
            _, (confirm, first, rest) = self._waiting.popitem(last=False)
            if confirm.done():
                continue
            self._confirms.number(confirm)
            pieces.append(first)
            size += len(first)
            # From here the message must be completed, whoever gave up: the channel
            # takes nothing else in between.
            for piece in rest:
                if size >= _WRITE_SIZE:
                    await self._write(pieces)
                    pieces, size = [], 0
                pieces.append(piece)
                size += len(piece)
        if pieces:
            await self._write(pieces)

    async def _write(self, pieces: list[bytes]) -> None:
        # Once the library has answered a Channel.Close, a further frame on this number
        # would end the whole connection. It notes the reason first, and is "closed"
        # only some turns of the loop later.
        if self._channel.is_closed or self._channel._close_exception is not None:
            raise ChannelLost("the channel was closed")
        written: asyncio.Future[None] = self._loop.create_future()
        # Never full: one write of ours at a time, and the others are heartbeats.
        self._channel.write_queue.put_nowait(
            ChannelFrame(payload=b"".join(pieces), should_close=False, drain_future=written)
        )
        await written

    def _settled(self, message_id: str) -> None:
        self._waiting.pop(message_id, None)
        self._on_settled()
