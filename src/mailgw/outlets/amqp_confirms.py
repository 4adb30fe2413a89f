"""What the broker owes on one channel in confirm mode, and how it says so.

Laws: a message is settled once: acked, nacked, returned or lost with its channel. One that
came back is never taken for safe, although an ack follows it. One that its publisher gave
up keeps its place and its id until the broker has settled it.

The library reads and parses the frames. It would hand each through a queue to a task and
each confirm on to a callback of its own; here they are taken as they come off the wire,
and an ack for many settles them in one go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiormq.abc import FrameType
from aiormq.channel import Channel
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader


class ChannelLost(Exception):
    """The channel ended first: whether the broker has the message is not known."""


class Nacked(Exception):
    """The broker says that it does not have the message."""


class Returned(Exception):
    """No queue has the message; the text is the broker's."""

    def __init__(self, reason: str, queue: str) -> None:
        super().__init__(reason)
        self.queue = queue


class Confirm(asyncio.Future[None]):
    """Done when the broker has settled the message with this id. Cancel it to give up."""

    def __init__(self, message_id: str, confirms: Confirms) -> None:
        super().__init__(loop=confirms.loop)
        self.message_id = message_id
        self.tag = 0  # the broker's number for it, once it is written
        self._confirms = confirms

    def cancel(self, msg: object = None) -> bool:
        """As any future's; the message is taken back if nothing of it was written."""
        given_up = super().cancel(msg)
        if given_up:
            self._confirms.given_up(self)
        return given_up


class Confirms:
    """The messages under way on a channel, by id and by the broker's number.

    `settled` is called once with the id of each, when the broker owes nothing for it any more.
    """

    def __init__(self, settled: Callable[[str], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._on_settled = settled
        self._under_way: dict[str, Confirm] = {}
        # In the order of their numbers, because that is how they are written.
        self._owed: dict[int, Confirm] = {}
        self._last_tag = 0
        self._coming_back: Basic.Return | None = None

    def listen(self, channel: Channel) -> None:
        """From now on hear what the broker says of messages before the library does."""
        channel.frames = _Frames(channel.frames, self._take)

    def find(self, message_id: str) -> Confirm | None:
        """The message with this id that is under way."""
        return self._under_way.get(message_id)

    def all(self) -> list[Confirm]:
        """What is under way."""
        return list(self._under_way.values())

    def expect(self, message_id: str) -> Confirm:
        """A message that will be written; none with the same id may be under way."""
        confirm = self._under_way[message_id] = Confirm(message_id, self)
        return confirm

    def number(self, confirm: Confirm) -> None:
        """The message is written next: the broker counts those of a channel (from 1)."""
        self._last_tag += 1
        confirm.tag = self._last_tag
        self._owed[confirm.tag] = confirm

    def given_up(self, confirm: Confirm) -> None:
        """Nobody waits for it any more."""
        if self._under_way.get(confirm.message_id) is not confirm:
            return
        if confirm.tag in self._owed:
            # The broker has it: neither its place nor its id is free before it says so, or
            # a frozen one would be sent ever more.
            heir = self.expect(confirm.message_id)
            heir.tag = confirm.tag
            self._owed[heir.tag] = heir
        else:
            self._settle(confirm, None)

    def lose(self, reason: str) -> None:
        """The channel is gone: settle everything so."""
        self._owed.clear()
        for confirm in self.all():
            self._settle(confirm, ChannelLost(reason))

    def _take(self, frame: FrameType | Frame) -> bool:
        """Whether that was about a message of ours, and nobody else has to know it."""
        match frame:
            case Basic.Ack():
                self._confirm(frame.delivery_tag or 0, frame.multiple, None)
            case Basic.Nack():
                self._confirm(frame.delivery_tag or 0, frame.multiple, Nacked)
            case Basic.Return():
                self._coming_back = frame
            case ContentHeader():
                # Of a message that comes back: nothing is consumed on this channel.
                self._come_back(frame.properties.message_id or "")
            case ContentBody():
                pass
            case _:
                return False
        return True

    def _confirm(self, tag: int, multiple: bool, trouble: type[Nacked] | None) -> None:
        if not multiple:
            tags = [tag] if tag in self._owed else []
        else:
            tags = []
            for each in self._owed:
                # Zero stands for all (AMQP 0-9-1, 1.8.3.13).
                if each > tag > 0:
                    break
                tags.append(each)
        for each in tags:
            self._settle(self._owed.pop(each), None if trouble is None else trouble())

    def _come_back(self, message_id: str) -> None:
        said, self._coming_back = self._coming_back, None
        confirm = self._under_way.get(message_id)
        if said is None or confirm is None:
            return
        # The ack that follows is about no message any more.
        self._owed.pop(confirm.tag, None)
        self._settle(confirm, Returned(str(said.reply_text), str(said.routing_key)))

    def _settle(self, confirm: Confirm, trouble: Exception | None) -> None:
        del self._under_way[confirm.message_id]
        self._on_settled(confirm.message_id)
        if confirm.done():
            return
        if trouble is None:
            confirm.set_result(None)
        else:
            confirm.set_exception(trouble)
            confirm.exception()  # perhaps nobody waits for it any more


class _Frames(asyncio.Queue[tuple[int, FrameType]]):
    """The queue between the library's connection and its channel, less what `take` takes."""

    def __init__(
        self, rest: asyncio.Queue[tuple[int, FrameType]], take: Callable[[FrameType], bool]
    ) -> None:
        super().__init__()
        # The channel waits at the old one already.
        self._rest = rest
        self._take = take

    async def put(self, item: tuple[int, FrameType]) -> None:
        if not self._take(item[1]):
            await self._rest.put(item)

    async def get(self) -> tuple[int, FrameType]:
        return await self._rest.get()

    def task_done(self) -> None:
        self._rest.task_done()
