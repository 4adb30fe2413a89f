"""The store in front of a real broker that breaks: nothing is lost, old mail before new."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from broker_tools import QUICKLY, Settings, channel, count, document, end_of, fresh, take

from mailgw.mail.publication import Publication
from mailgw.observe import log
from mailgw.outlets import backlog, drain
from mailgw.outlets.amqp import Amqp
from mailgw.outlets.store import Store
from mailgw.outlets.store_file import depths, status
from mailgw.outlets.waiting_room import Shared, WaitingRoom
from mailgw.plugins import Refused, Unavailable, Undeliverable
from mailgw.smtp import reply
from parts import needs
from rabbitmq import MAX_MESSAGE, RabbitMQ, eventually

pytestmark = needs("rabbitmq")


@pytest.fixture
def own() -> Iterator[RabbitMQ]:
    """A node of the test's own, not started."""
    node = RabbitMQ()
    yield node
    node.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """What the log says."""
    log.to_stderr()
    yield Said(capfd)
    log.direct([])


class Said:
    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._captured.readouterr().err
        return self._text


def settings(broker: RabbitMQ) -> Settings:
    return Settings(address=(broker.url,), inbox=fresh())


def away() -> Settings:
    """Nobody listens on port 1."""
    return Settings(address=("amqp://127.0.0.1:1/",), inbox=fresh())


@contextlib.asynccontextmanager
async def opened(
    ours: Settings,
    path: Path,
    *,
    deadline: float = 6.0,
    most: int | None = None,
    shared: Shared | None = None,
) -> AsyncIterator[WaitingRoom]:
    broker = Amqp(ours, confirm_timeout=1, backoff=QUICKLY, watch=0.05)
    room = WaitingRoom(broker, Store(path, most), deadline=deadline, shared=shared)
    await room.open()
    try:
        yield room
    finally:
        await room.close()


async def fill(path: Path, mails: list[Publication]) -> None:
    """Mail that waits from an earlier life."""
    store = Store(path)
    await store.open()
    await store.publish(mails)
    await store.close()


async def arrive(broker: RabbitMQ, queue: str, number: int) -> list[str]:
    """The ids on the queue, in order, once so many are there."""
    found: list[str] = []
    deadline = time.monotonic() + 30
    while len(found) < number and time.monotonic() < deadline:
        found += [str(message.message_id) for message in await take(broker, queue)]
        await asyncio.sleep(0.05)
    return found


def ids(mails: list[Publication]) -> list[str]:
    return [mail.message_id for mail in mails]


async def test_mail_waits_for_a_broker_that_comes_later_and_goes_in_order(
    own: RabbitMQ, path: Path, said: Said
) -> None:
    ours = settings(own)
    mails = [document(ours.inbox, b"{}", dedupe=f"d{n}", priority=n % 5) for n in range(300)]
    async with opened(ours, path) as room:
        assert room.trouble() is None
        for mail in mails[:299]:
            await room.publish([mail])
        assert depths(path) == {ours.inbox: 299}

        await asyncio.to_thread(own.start)
        await eventually(lambda: "outage.over" in said.text, "the line is empty", 60)
        await room.publish([mails[299]])
        assert depths(path) == {}

    taken = await take(own, ours.inbox)
    assert [message.message_id for message in taken] == ids(mails)
    assert [message.priority for message in taken] == [mail.priority for mail in mails]
    assert [message.timestamp for message in taken] == [mail.received for mail in mails]
    assert [m.headers["x-mailgw-dedupe"] for m in taken] == [mail.dedupe for mail in mails]
    events = [line.split()[2] for line in said.text.splitlines() if " outage." in line]
    assert events == ["outage.began", "outage.draining", "outage.over"]
    assert 'outage.began reason="the broker is away"' in said.text
    assert "outage.over documents=299 rate=" in said.text


@pytest.mark.soak  # every run has it with processes, in tests/e2e/test_outage.py
async def test_a_broker_killed_under_load_costs_no_250_and_no_order(
    own: RabbitMQ, path: Path, said: Said
) -> None:
    await asyncio.to_thread(own.start)
    ours = settings(own)
    safe: list[list[str]] = [[] for _ in range(20)]
    refused: list[BaseException] = []
    stop = asyncio.Event()

    async def client(room: WaitingRoom, ledger: list[str]) -> None:
        while not stop.is_set():
            mail = document(ours.inbox, b"x" * 4096)
            if (end := await end_of(room.publish([mail]))) is None:
                ledger.append(mail.message_id)
            else:
                refused.append(end)
            # Thousands would do, but the look into the queue at the end takes its time.
            await asyncio.sleep(0.02)

    shared = Shared()
    async with (
        opened(ours, path, shared=shared) as one,
        opened(ours, path, shared=shared) as other,
    ):
        await eventually(lambda: not shared.something_waits, "nothing waits")
        await own.rabbitmqctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
        clients = [
            asyncio.create_task(client(one if n % 2 else other, ledger))
            for n, ledger in enumerate(safe)
        ]
        await eventually(lambda: sum(map(len, safe)) > 500, "some are safe")
        await asyncio.to_thread(own.kill)
        before = sum(map(len, safe))
        await eventually(lambda: sum(map(len, safe)) > before + 500, "it goes on without")
        await asyncio.to_thread(own.start)
        # While all go on sending.
        await eventually(lambda: "outage.over" in said.text, "the line is empty", 60)
        before = sum(map(len, safe))
        await eventually(lambda: sum(map(len, safe)) > before + 200, "it goes on")
        stop.set()
        await asyncio.gather(*clients)
        await eventually(lambda: not shared.something_waits, "nothing waits")

    first: dict[str, int] = {}
    for place, message in enumerate(await take(own, ours.inbox)):
        first.setdefault(str(message.message_id), place)
    assert refused == []
    assert [name for ledger in safe for name in ledger if name not in first] == []
    assert [
        [first[name] for name in ledger] == sorted(first[name] for name in ledger)
        for ledger in safe
    ] == [True] * 20
    assert depths(path) == {}


async def test_mail_for_a_broker_short_of_memory_waits_in_the_store(
    broker: RabbitMQ, path: Path, said: Said
) -> None:
    ours = settings(broker)
    mails = [document(ours.inbox) for _ in range(20)]
    async with opened(ours, path, deadline=1.5) as room:
        await room.publish(mails[:1])
        await broker.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")
        try:
            for mail in mails[1:]:
                await room.publish([mail])
            waiting = depths(path)
        finally:
            await broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
        await eventually(lambda: depths(path) == {}, "the store is empty")

    assert waiting[ours.inbox] >= 18
    there = [str(message.message_id) for message in await take(broker, ours.inbox)]
    assert list(dict.fromkeys(there)) == ids(mails)


async def test_mail_for_a_broker_that_stands_still_waits_in_the_store(
    broker: RabbitMQ, path: Path, said: Said
) -> None:
    ours = settings(broker)
    mails = [document(ours.inbox) for _ in range(20)]
    shared = Shared()
    async with opened(ours, path, deadline=1.5, shared=shared) as room:
        await eventually(lambda: not shared.something_waits, "nothing waits")
        await room.publish(mails[:1])
        broker.freeze()
        try:
            began = time.monotonic()
            for mail in mails[1:]:
                await room.publish([mail])
            took = time.monotonic() - began
        finally:
            broker.thaw()
        await eventually(lambda: "outage.over" in said.text, "the store is empty")

    # One of them found it out, half a second long. Each of the others as long would be ten.
    assert took < 5
    assert 'outage.began reason="no confirm in time"' in said.text
    there = [str(message.message_id) for message in await take(broker, ours.inbox)]
    assert list(dict.fromkeys(there)) == ids(mails)


async def test_a_queue_that_is_gone_when_its_mail_is_handed_on_is_made_again(
    broker: RabbitMQ, path: Path
) -> None:
    ours = settings(broker)
    mails = [document(ours.inbox) for _ in range(250)]
    shared = Shared()
    async with opened(ours, path, shared=shared) as room:
        await eventually(lambda: not shared.something_waits, "nothing waits")
        await room.publish([document(ours.inbox)])
        async with channel(broker) as here:
            await here.queue_delete(ours.inbox)
        await fill(path, mails)
        await eventually(lambda: depths(path) == {}, "the store is empty")

    assert await arrive(broker, ours.inbox, 250) == ids(mails)


async def test_what_is_refused_for_good_lets_the_others_pass_and_is_tried_again(
    broker: RabbitMQ, path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_TRIES", (0.05,))
    monkeypatch.setattr(backlog, "_FIRST_PAUSE", 0.2)
    ours = settings(broker)
    nowhere = fresh("nowhere")
    good = [document(ours.inbox) for _ in range(40)]
    lost = [document(nowhere) for _ in range(40)]
    # Larger than a frame, and than any queue name may be.
    never = document("q" * 300)
    huge = document(ours.inbox, b"x" * (MAX_MESSAGE + 1))
    await fill(
        path, [never, huge, *(mail for pair in zip(lost, good, strict=True) for mail in pair)]
    )
    shared = Shared()
    async with opened(ours, path, shared=shared) as room:
        await eventually(lambda: not shared.something_waits, "the line is empty", 30)
        assert await arrive(broker, ours.inbox, 40) == ids(good)
        await room.publish([document(ours.inbox)])
        assert status(path).aside == 42

        async with channel(broker) as here:
            await here.declare_queue(nowhere, durable=True, arguments={"x-queue-type": "quorum"})
        await eventually(lambda: nowhere not in depths(path), "it was tried again", 30)

    assert sorted(await arrive(broker, nowhere, 40)) == sorted(ids(lost))
    assert depths(path) == {"q" * 300: 1, ours.inbox: 1}
    assert status(path).aside == 2
    assert "error outage.set-aside documents=" in said.text


async def test_a_full_queue_keeps_its_mail_in_line_and_the_other_queues_go_on(
    broker: RabbitMQ, path: Path
) -> None:
    ours = replace(settings(broker), local=fresh("local"), queue_type="classic")
    mails = [document(ours.inbox if n % 2 else ours.local) for n in range(60)]
    async with channel(broker) as here:
        await here.declare_queue(
            ours.inbox,
            durable=True,
            arguments={"x-max-length": 10, "x-overflow": "reject-publish"},
        )
    await fill(path, mails)
    inbox = [mail for mail in mails if mail.queue == ours.inbox]
    async with opened(ours, path) as room:
        await eventually(lambda: ours.local not in depths(path), "the other queue is done")
        waiting = depths(path)[ours.inbox]
        new = document(ours.inbox)
        await room.publish([new])
        there = await arrive(broker, ours.inbox, 31)
        await eventually(lambda: depths(path) == {}, "the store is empty")

    assert waiting >= 15
    assert there == ids([*inbox, new])
    assert await count(broker, ours.local) == 30


async def test_a_queue_that_is_full_is_said_before_the_next_mail_is_sent(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), queue_type="classic")
    async with channel(broker) as here:
        await here.declare_queue(
            ours.inbox,
            durable=True,
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        )
    outlet = Amqp(ours, backoff=QUICKLY)
    await outlet.open()
    await eventually(lambda: outlet.trouble() is None, "it is connected")
    ends = [await end_of(outlet.publish([document(ours.inbox)])) for _ in range(3)]

    assert [type(end) for end in ends] == [type(None), Refused, Refused]
    assert outlet.trouble() is reply.STORAGE_FULL
    assert outlet.unreachable() is None
    await take(broker, ours.inbox)
    await eventually(lambda: outlet.trouble() is None, "it is forgotten")
    await outlet.publish([document(ours.inbox)])
    await outlet.close()


async def test_one_full_queue_of_two_keeps_nobody_out(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), local=fresh("local"), queue_type="classic")
    async with channel(broker) as here:
        await here.declare_queue(
            ours.local,
            durable=True,
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        )
    outlet = Amqp(ours, backoff=QUICKLY)
    await outlet.open()
    await eventually(lambda: outlet.trouble() is None, "it is connected")
    await outlet.publish([document(ours.local)])
    with pytest.raises(Refused):
        await outlet.publish([document(ours.local)])

    assert outlet.trouble() is None
    await outlet.close()


async def test_a_refusal_of_one_document_is_no_outage(broker: RabbitMQ, path: Path) -> None:
    ours = settings(broker)
    shared = Shared()
    async with opened(ours, path, shared=shared) as room:
        await eventually(lambda: not shared.something_waits, "nothing waits")
        with pytest.raises(Refused):
            await room.publish([document(fresh("nowhere"))])
        with pytest.raises(Undeliverable):
            await room.publish([document(ours.inbox, b"x" * (128 * 1024 * 1024))])

    assert depths(path) == {}


async def test_what_the_broker_would_never_take_is_not_kept_for_it(path: Path) -> None:
    async with opened(away(), path) as room:
        with pytest.raises(Undeliverable):
            await room.publish([document("inbox", b"x" * (128 * 1024 * 1024))])

    assert depths(path) == {}


async def test_a_store_that_is_full_says_so_before_the_next_mail_and_recovers(
    broker: RabbitMQ, path: Path
) -> None:
    away_from_it = away()
    mails = [document(away_from_it.inbox, b"x" * 100_000) for _ in range(12)]
    async with opened(away_from_it, path, most=1_000_000) as room:
        ends = [await end_of(room.publish([mail])) for mail in mails]
        kept = ends.count(None)
        assert room.trouble() is reply.STORAGE_FULL

    assert 7 <= kept <= 9
    assert [e.reply for e in ends[kept:] if isinstance(e, Unavailable)] == (
        [reply.STORAGE_FULL] * (12 - kept)
    )
    assert status(path).used <= 1_000_000
    size = status(path).file
    ours = replace(settings(broker), inbox=away_from_it.inbox)
    async with opened(ours, path, most=1_000_000) as room:
        await eventually(lambda: depths(path) == {}, "the store is empty")
        await eventually(lambda: room.trouble() is None, "it takes mail")
        assert await arrive(broker, ours.inbox, kept) == ids(mails[:kept])
    async with opened(away_from_it, path, most=1_000_000) as room:
        for mail in mails[:kept]:
            await room.publish([mail])
    # The room inside was used again.
    assert status(path).file <= size
