"""One channel in confirm mode: documents go in, each comes back settled.

A message is settled once: acked, nacked, returned, or lost with its channel. Documents
that come in the same moment share one write. The library's own publish costs a lock, a
drain and a dozen callbacks a message; here its channel keeps the reading side (it
matches confirms and returns to the futures in `confirmations`), and the frames are ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from mailgw.mail.publication import Publication
from mailgw.outlets.amqp_frames import Framer

# Enough to fill a socket buffer; more would only be memory.
_WRITE_SIZE = 256 * 1024


class ChannelLost(Exception):
    """The channel ended first: whether the broker has the message is not known."""


class Confirm(asyncio.Future[object]):
    """Done when the broker has settled the message with this id. Cancel it to give up."""

    def __init__(self, message_id: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.message_id = message_id
        self.tag = 0  # the broker's number for it, once it is written

    def set_exception(self, exception: type[BaseException] | BaseException, /) -> None:
        """As the library's, but a return that comes in the moment of giving up is no error."""
        if not self.done():
            super().set_exception(exception)


class Publisher:
    """Publishes on `channel`, which must be in confirm mode and used by nobody else.

    `settled` is called once for each message that `send` took, when the broker owes
    nothing for it any more. `run` does the writing; whoever runs it calls `fail` when it
    or the channel has ended.
    """

    def __init__(self, channel: Channel, framer: Framer, settled: Callable[[], None]) -> None:
        self._channel = channel
        self._framer = framer
        self._on_settled = settled
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._waiting: deque[tuple[Confirm, bytes, Iterator[bytes]]] = deque()
        self._unsettled: dict[str, Confirm] = {}
        self._lost: ChannelLost | None = None

    def earlier(self, message_id: str) -> Confirm | None:
        """The message with the same id that is still under way.

        The broker's returns are matched by message id. Two at once with the same one
        could be taken for each other, and a lost mail for a safe one.
        """
        return self._unsettled.get(message_id)

    def send(self, publication: Publication, body: bytes) -> Confirm:
        """Queue one message, whose id must not be under way already.

        The result ends with the broker's ack, or raises PublishError (returned),
        DeliveryError (nacked) or ChannelLost. Cancelling it takes the message back only
        if nothing of it was written. Raises ValueError for what AMQP cannot carry and
        ChannelLost after the end.
        """
        if self._lost is not None:
            raise self._lost
        frames = self._framer.frames(publication, body)
        first = next(frames)
        confirm = Confirm(publication.message_id, self._loop)
        self._unsettled[confirm.message_id] = confirm
        confirm.add_done_callback(self._settle)
        self._waiting.append((confirm, first, frames))
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
        for confirm in list(self._unsettled.values()):
            confirm.set_exception(ChannelLost(reason))

    async def idle(self, limit: float) -> None:
        """Return when nothing is under way any more, or after so many seconds."""
        deadline = self._loop.time() + limit
        while self._unsettled and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(
                self._unsettled.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )

    async def _write_some(self) -> None:
        pieces: list[bytes] = []
        size = 0
        while self._waiting and size < _WRITE_SIZE:
            confirm, first, rest = self._waiting.popleft()
            if confirm.done():
                continue
            self._number(confirm)
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

    def _number(self, confirm: Confirm) -> None:
        # The broker counts the messages of a channel and confirms by that number.
        self._channel.delivery_tag += 1
        confirm.tag = tag = self._channel.delivery_tag
        self._channel.confirmations[tag] = confirm
        self._channel.message_id_delivery_tag[confirm.message_id] = tag

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

    def _settle(self, confirm: Confirm) -> None:
        if self._is_owed(confirm):
            # Given up, but the broker has it: neither its place nor its id is free
            # before the broker says so, or a frozen one would be sent ever more.
            heir = Confirm(confirm.message_id, self._loop)
            heir.tag = confirm.tag
            self._channel.confirmations[heir.tag] = heir
            self._unsettled[heir.message_id] = heir
            heir.add_done_callback(self._settle)
            return
        if not confirm.cancelled():
            confirm.exception()  # perhaps nobody waits for it any more
        del self._unsettled[confirm.message_id]
        self._channel.message_id_delivery_tag.pop(confirm.message_id, None)
        self._on_settled()

    def _is_owed(self, confirm: Confirm) -> bool:
        return (
            confirm.cancelled()
            and self._lost is None
            and self._channel.confirmations.get(confirm.tag) is confirm
        )
