"""The same transaction once more, where the client may not have seen its 250."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from loops import longest_hold
from mailgw.config.sections.document import Extract
from mailgw.document.build import Builder
from mailgw.intake import Intake
from mailgw.mail.peer import Peer
from mailgw.mail.publication import Publication
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.outlets.memory import Memory
from mailgw.outlets.router import Queues
from mailgw.plugins import Unavailable
from mailgw.process.unseen import Table, UnseenReplies
from mailgw.smtp import reply
from mailgw.smtp.address import Address
from rabbitmq import eventually

PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25, helo="client.test", esmtp=True)
JOE = Address("joe", "there.test")
BOB, EVE = Recipient(Address("bob", "ours.test")), Recipient(Address("eve", "ours.test"))
CONTENT = b"Subject: hello\r\n\r\nHello.\r\n"


class World:
    """Two workers on one queue."""

    def __init__(self) -> None:
        table = Table(2, 600.0)
        self.memory = Memory()
        self.unseen = [UnseenReplies(table, worker) for worker in range(2)]

    def intake(self, worker: int, output: Memory | None = None) -> Intake:
        return Intake(
            Builder("mx.ours.test", Extract()),
            Queues("inbox", ""),
            output or self.memory,
            unseen=self.unseen[worker],
        )

    @property
    def names(self) -> list[str]:
        return [each.message_id for each in self.memory.publications]


def message(
    name: str,
    content: bytes = CONTENT,
    *,
    sender: Address | None = JOE,
    recipients: tuple[Recipient, ...] = (BOB, EVE),
    spool_memory: int = 1_000_000,
) -> Message:
    spool = Spool(spool_memory)
    spool.write(content)
    return Message(name, PEER, sender, recipients, spool, datetime(2026, 1, 2, tzinfo=UTC))


class Held(Memory):
    """Makes safe, or fails, when it is told to."""

    def __init__(self, safe: Memory) -> None:
        super().__init__()
        self._safe = safe
        self.begun = asyncio.Event()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def publish(self, publications: Sequence[Publication]) -> None:
        self.begun.set()
        await self.end
        await self._safe.publish(publications)


@pytest.mark.parametrize("spool_memory", [1_000_000, 1])
async def test_it_gets_the_old_identifiers_and_nothing_is_published_twice(
    spool_memory: int,
) -> None:
    world = World()
    first = message("1a", spool_memory=spool_memory)
    said = await world.intake(0).message(first)
    world.unseen[0].note(first, safe=True)

    again = message("1b", spool_memory=spool_memory)
    assert await world.intake(1).message(again) == said

    assert world.names == ["1ar1", "1ar2"]
    assert again.content.read() == b""


@pytest.mark.parametrize(
    "other",
    [
        message("1b", CONTENT + b".\r\n"),
        message("1b", sender=Address("jim", "there.test")),
        message("1b", recipients=(BOB,)),
        message("1b", recipients=(EVE, BOB)),
    ],
    ids=["bytes", "sender", "recipients", "their order"],
)
async def test_another_mail_is_another_mail(other: Message) -> None:
    world = World()
    first = message("1a")
    await world.intake(0).message(first)
    world.unseen[0].note(first, safe=True)

    said = await world.intake(1).message(other)

    assert f"1br1 for {other.recipients[0].address}" in said.text
    assert "1br1" in world.names


async def test_who_saw_the_reply_means_two_mails() -> None:
    world = World()
    for name in ("1a", "1b"):
        await world.intake(0).message(message(name, recipients=(BOB,)))
    assert world.names == ["1ar1", "1br1"]


async def test_while_the_first_is_under_way_it_waits_and_gets_its_identifiers() -> None:
    world = World()
    held = Held(world.memory)
    first = message("1a")
    under_way = asyncio.ensure_future(world.intake(0, held).message(first))
    await held.begun.wait()
    world.unseen[0].note(first, safe=False)

    again = asyncio.ensure_future(world.intake(1).message(message("1b")))
    done, _ = await asyncio.wait({again}, timeout=0.2)
    assert not done
    held.end.set_result(None)
    said = await under_way
    world.unseen[0].note(first, safe=True)

    assert await again == said
    assert world.names == ["1ar1", "1ar2"]


async def test_when_the_first_fails_the_one_that_waited_is_published() -> None:
    world = World()
    held = Held(world.memory)
    first = message("1a")
    under_way = asyncio.ensure_future(world.intake(0, held).message(first))
    await held.begun.wait()
    world.unseen[0].note(first, safe=False)

    again = asyncio.ensure_future(world.intake(1).message(message("1b")))
    held.end.set_exception(Unavailable("away"))
    assert await under_way == reply.TRY_AGAIN
    world.unseen[0].forget(first)

    assert (await again).positive
    assert world.names == ["1br1", "1br2"]


async def test_one_that_waits_too_long_leaves_nothing_behind() -> None:
    world = World()
    first = message("1a")
    first.content.digest()
    world.unseen[0].note(first, safe=False)

    again = message("1b")
    waiting = asyncio.ensure_future(world.intake(1).message(again))
    await eventually(lambda: again.content.digest_known, "it was looked at")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert world.names == []
    assert again.content.read() == b""


async def test_hashing_a_large_message_does_not_hold_the_others_up() -> None:
    world = World()
    first = message("1a", CONTENT + b"x" * 20_000_000)
    first.content.digest()
    first.content.close()
    world.unseen[0].note(first, safe=True)

    again = message("1b", CONTENT + b"x" * 20_000_000)
    said, held = await longest_hold(world.intake(1).message(again))

    assert "1ar1" in said.text
    # It takes 15 ms and more, all of it in another thread.
    assert held < 10
