"""After the final dot of large mail: it waits for its turn, and what is small does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from document.world import message
from mailgw.config.sections.document import Extract
from mailgw.document.build import Builder
from mailgw.intake import Intake
from mailgw.mail.budget import Budget
from mailgw.mail.publication import Publication
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message
from mailgw.outlets.memory import Memory
from mailgw.outlets.router import Queues
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from mailgw.storage.bodies import Bodies
from mailgw.storage.folder import Folder
from rabbitmq import eventually

MB = 1_000_000
# Of these, 1.5 MB are for those who want at most 375 KB.
BUDGET = 6 * MB
SMALL = b"Subject: small\r\n\r\nHello.\r\n"


class Slow(Memory):
    """An output that makes nothing safe before `go_on` is set, and takes what is small at once."""

    def __init__(self, largest: int | None = None) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.holds = 0
        self._largest = largest

    @property
    def largest(self) -> int | None:
        return self._largest

    async def publish(self, publications: Sequence[Publication]) -> None:
        octets = sum(each.size for each in publications)
        if octets > 100_000:
            self.holds += 1
            try:
                await self.go_on.wait()
            finally:
                self.holds -= 1
        await super().publish(publications)


def intake(output: Memory, bodies: Bodies | None = None) -> Intake:
    builder = Builder("mx.ours.test", Extract())
    return Intake(builder, Queues("inbox", ""), output, bodies=bodies, budget=Budget(BUDGET))


def large(octets: int, folder: Path) -> Message:
    spool = Spool(200_000, folder)
    spool.write(b"Subject: large\r\n\r\n")
    spool.write(b"x" * octets)
    return replace(message(b""), content=spool)


def take(taking: Intake, mail: Message) -> asyncio.Task[Reply]:
    return asyncio.create_task(taking.message(mail))


async def test_large_mail_waits_for_its_turn_and_small_mail_does_not(tmp_path: Path) -> None:
    output = Slow()
    taking = intake(output)
    crowd = [take(taking, large(1_900_000, tmp_path)) for _ in range(5)]
    await eventually(lambda: output.holds == 3, "as many are published as there is room for")

    said = await taking.message(message(SMALL))
    little = take(taking, large(300_000, tmp_path))
    await eventually(lambda: output.holds == 4, "who wants little does not wait for the others")

    assert said.code == 250
    assert not any(each.done() for each in [*crowd, little])
    output.go_on.set()
    assert {(await each).code for each in [*crowd, little]} == {250}
    assert len(output.publications) == 7


async def test_who_is_not_waited_for_any_more_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    output = Slow()
    taking = intake(output)
    published = take(taking, large(5 * MB, tmp_path))
    await eventually(lambda: output.holds == 1, "it is published")
    waiting = take(taking, large(5 * MB, tmp_path))
    last = take(taking, large(2 * MB, tmp_path))

    for each in (waiting, published):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each
    output.go_on.set()

    assert (await last).code == 250
    assert len(output.publications) == 1


async def test_what_the_queue_surely_does_not_take_is_refused_and_never_made(
    tmp_path: Path,
) -> None:
    output = Slow(largest=4 * MB)

    said = [
        await intake(output).message(large(5 * MB, tmp_path)),
        # As JSON it is six times as large.
        await intake(output).message(message(b"\r\n" + b"\x01" * MB)),
    ]

    assert said == [reply.TOO_BIG, reply.TOO_BIG]
    assert output.publications == []


async def test_where_bodies_go_elsewhere_nobody_waits_and_nothing_is_too_large(
    tmp_path: Path,
) -> None:
    output, bodies = Slow(largest=MB), Bodies(Folder(tmp_path / "bodies"))
    taking = intake(output, bodies)

    async with taking.budget.share(BUDGET):
        said = await taking.message(large(2 * MB, tmp_path))

    assert said.code == 250
    assert len(output.publications) == 1
    await bodies.close()
