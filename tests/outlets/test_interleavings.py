"""Two workers, one store, a broker that is there by chance: no interleaving loses or overtakes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailgw.mail.publication import Publication
from mailgw.outlets import drain
from mailgw.outlets.memory import Memory
from mailgw.outlets.store import Store
from mailgw.outlets.store_file import depths
from mailgw.outlets.waiting_room import Shared, WaitingRoom
from mailgw.plugins import Unavailable
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from rabbitmq import eventually

RECEIVED = datetime(2026, 1, 2, tzinfo=UTC)


class Moody(Memory):
    """A connection to one queue, which is lost or stands still by chance, as real ones are.

    What was sent on it has its place in the queue. Where a mail is lost on the way, all are
    that were sent behind it; where it stands still, no confirm comes any more.
    """

    def __init__(self, queue: list[Publication], chance: random.Random) -> None:
        super().__init__()
        self.publications = queue
        self.chance = chance
        self.calm = False
        self._lost = asyncio.Event()
        self._frozen = False

    @property
    def there(self) -> bool:
        return not self._lost.is_set()

    def lose(self) -> None:
        self._lost.set()

    def connect(self) -> None:
        if not self.there:
            self._lost, self._frozen = asyncio.Event(), False

    def unreachable(self) -> Reply | None:
        return None if self.there else reply.TRY_AGAIN

    def trouble(self) -> Reply | None:
        return self.unreachable()

    def check(self, publications: Sequence[Publication]) -> None:
        """Everything is small enough."""

    async def publish(self, publications: Sequence[Publication]) -> None:
        if not self.there:
            raise Unavailable("away")
        lost, throw = self._lost, 1.0 if self.calm else self.chance.random()
        if throw < 0.02:
            lost.set()
        else:
            self.publications.extend(publications)
        self._frozen = self._frozen or 0.02 <= throw < 0.03
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self._frozen and not lost.is_set():
            await lost.wait()
        if lost.is_set():
            raise Unavailable("the connection was lost")


async def client(name: int, rooms: list[WaitingRoom], chance: random.Random, mails: int) -> None:
    """Every mail over whichever worker takes the connection, one after the other."""
    for number in range(mails):
        word = f"{name}-{number}"
        mail = Publication("inbox", (word.encode(),), word, word, word, RECEIVED)
        await chance.choice(rooms).publish([mail])
        await asyncio.sleep(chance.random() * 0.004)


@pytest.mark.parametrize("seed", range(8))
async def test_each_mail_arrives_behind_all_that_had_a_250_before_it_was_sent(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_REST", 0.01)
    chance = random.Random(seed)
    path = tmp_path / "queue.sqlite"
    queue: list[Publication] = []
    shared = Shared()
    brokers = [Moody(queue, chance) for _ in range(2)]
    rooms = [
        WaitingRoom(broker, Store(path), deadline=0.3, shared=shared)  # patience: a tenth
        for broker in brokers
    ]
    for room in rooms:
        await room.open()

    async def weather() -> None:
        while True:
            await asyncio.sleep(chance.random() * 0.02)
            for broker in brokers:
                if chance.random() < 0.6:
                    broker.connect()
                else:
                    broker.lose()

    change = asyncio.create_task(weather())
    await asyncio.gather(*(client(name, rooms, chance, 40) for name in range(6)))
    change.cancel()
    for broker in brokers:
        broker.calm = True
        broker.lose()
        broker.connect()
    await eventually(lambda: not shared.something_waits, "the line is empty")
    await client(9, rooms, chance, 5)
    for room in rooms:
        await room.close()

    there = list(dict.fromkeys(each.message_id for each in queue))
    expected = {f"{name}-{n}" for name in range(6) for n in range(40)}
    assert set(there) == expected | {f"9-{n}" for n in range(5)}
    assert depths(path) == {}
    # The first copy counts: who knows a repetition by its id has seen the mail by then.
    for name in (*range(6), 9):
        mine = [int(word.split("-")[1]) for word in there if word.startswith(f"{name}-")]
        assert mine == sorted(mine)
    assert there[-5:] == [f"9-{n}" for n in range(5)]
