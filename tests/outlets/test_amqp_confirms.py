"""What the broker says of messages settles them: one, a range, all; once; whoever still waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiormq.abc import FrameType
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.header import ContentHeader

from mailgw.outlets.amqp_confirms import ChannelLost, Confirm, Confirms, Nacked, Returned

if TYPE_CHECKING:
    from aiormq.channel import Channel as Thin


class Link:
    """The end of a channel that the library's connection puts parsed frames into."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[int, FrameType]] = asyncio.Queue()
        self.left = self.frames

    async def say(self, *frames: FrameType) -> None:
        for frame in frames:
            await self.frames.put((0, frame))


class World:
    """Messages a, b, c, d: written in this order, the last one not yet."""

    def __init__(self) -> None:
        self.settled = 0
        self.link = Link()
        self.confirms = Confirms(self._settle)
        channel: Thin = self.link  # type: ignore[assignment]  # all that is asked of one
        self.confirms.listen(channel)
        self.a, self.b, self.c, self.d = (self.confirms.expect(name) for name in "abcd")
        for confirm in (self.a, self.b, self.c):
            self.confirms.number(confirm)

    def _settle(self, message_id: str) -> None:
        self.settled += 1

    @property
    def under_way(self) -> str:
        return "".join(confirm.message_id for confirm in self.confirms.all())


def returned(message_id: str) -> tuple[FrameType, ...]:
    """A message that comes back, in a body of two frames."""
    header = ContentHeader(body_size=4, properties=Basic.Properties(message_id=message_id))
    said = Basic.Return(312, "NO_ROUTE", "", "inbox")
    return said, header, ContentBody(b"ab"), ContentBody(b"cd")


@pytest.mark.parametrize(
    ("tag", "multiple", "left"),
    [
        (2, False, "acd"),  # out of order
        (2, True, "cd"),
        (3, True, "d"),
        (0, True, "d"),  # AMQP 0-9-1, 1.8.3.13: all
        (9, True, "d"),
        (9, False, "abcd"),
    ],
)
async def test_an_ack_settles_what_it_names_and_never_what_is_not_written(
    tag: int, multiple: bool, left: str
) -> None:
    world = World()

    await world.link.say(Basic.Ack(tag, multiple))

    assert world.under_way == left
    assert world.settled == 4 - len(left)
    acked = [each for each in (world.a, world.b, world.c, world.d) if each.done()]
    assert [each.message_id for each in acked] == [name for name in "abcd" if name not in left]
    assert all(each.exception() is None for each in acked)


async def test_a_nack_for_many_is_no_success_for_any() -> None:
    world = World()

    await world.link.say(Basic.Ack(1), Basic.Nack(3, multiple=True))

    assert world.a.exception() is None
    for nacked in (world.b, world.c):
        with pytest.raises(Nacked):
            await nacked
    assert world.under_way == "d"


async def test_what_came_back_is_not_made_safe_by_the_ack_behind_it() -> None:
    world = World()

    await world.link.say(*returned("b"), Basic.Ack(3, multiple=True))

    with pytest.raises(Returned, match="NO_ROUTE") as raised:
        await world.b
    assert raised.value.queue == "inbox"
    assert (world.a.exception(), world.c.exception()) == (None, None)
    assert world.settled == 3


async def test_one_that_was_given_up_keeps_its_id_until_the_broker_has_settled_it() -> None:
    world = World()

    world.a.cancel()
    world.d.cancel()

    # Of d nothing was written, so that it can be taken back.
    assert (world.under_way, world.settled) == ("abc", 1)
    heir = world.confirms.find("a")
    assert isinstance(heir, Confirm)
    assert not heir.done()
    await world.link.say(Basic.Ack(1))
    assert heir.done()
    assert (world.under_way, world.settled) == ("bc", 2)


async def test_a_lost_channel_settles_everything_once() -> None:
    world = World()
    world.a.cancel()

    world.confirms.lose("it is gone")
    await world.link.say(Basic.Ack(0, multiple=True))

    assert (world.under_way, world.settled) == ("", 4)
    for lost in (world.b, world.c, world.d):
        with pytest.raises(ChannelLost, match="it is gone"):
            await lost


async def test_everything_else_goes_on_to_the_library_in_its_order() -> None:
    world = World()
    closing = Channel.Close(404, "NOT_FOUND", 60, 40)

    await world.link.say(Channel.FlowOk(True), Basic.Ack(1), closing)

    passed_on = [world.link.left.get_nowait()[1] for _ in range(2)]
    assert [type(frame) for frame in passed_on] == [Channel.FlowOk, Channel.Close]
    assert world.link.left.empty()
