"""Reading a queue by hand: everything comes, in order, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aio_pika
import pytest
from broker_tools import Settings, channel, count, document, fresh, opened, take

from mailgw.outlets.amqp import Amqp
from mailgw.outlets.amqp_reader import CannotRead, read_broker
from rabbitmq import RabbitMQ, eventually


async def filled(ours: Settings, count: int) -> list[bytes]:
    bodies = [b'{"n":%d}' % n for n in range(count)]
    async with opened(Amqp(ours)) as outlet:
        for body in bodies:
            await outlet.publish([document(ours.inbox, body)])
    return bodies


@pytest.fixture
def ours(broker: RabbitMQ) -> Settings:
    return Settings(address=(broker.url,), inbox=fresh())


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_all_documents_come_in_order_and_leave_the_queue(
    broker: RabbitMQ, ours: Settings, encoding: str
) -> None:
    bodies = await filled(replace(ours, encoding=encoding), 5)
    seen: list[bytes] = []

    read = await read_broker(
        ours, ours.inbox, limit=None, follow=False, keep=False, emit=seen.append
    )

    assert (read, seen) == (5, bodies)
    assert await count(broker, ours.inbox) == 0


@pytest.mark.parametrize("follow", [False, True])
async def test_no_more_than_the_limit_is_taken(
    broker: RabbitMQ, ours: Settings, follow: bool
) -> None:
    bodies = await filled(ours, 5)
    seen: list[bytes] = []

    read = await read_broker(ours, ours.inbox, limit=2, follow=follow, keep=False, emit=seen.append)

    assert (read, seen) == (2, bodies[:2])
    assert [m.body for m in await take(broker, ours.inbox)] == bodies[2:]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("limit", [None, 3])
async def test_kept_documents_stay_in_their_order(
    broker: RabbitMQ, ours: Settings, queue_type: str, limit: int | None
) -> None:
    bodies = await filled(replace(ours, queue_type=queue_type), 6)
    seen: list[bytes] = []

    await read_broker(ours, ours.inbox, limit=limit, follow=False, keep=True, emit=seen.append)

    assert seen == bodies[:limit]
    assert [m.body for m in await take(broker, ours.inbox)] == bodies


async def test_a_document_that_could_not_be_printed_stays(broker: RabbitMQ, ours: Settings) -> None:
    bodies = await filled(ours, 3)
    seen: list[bytes] = []

    def until_the_reader_leaves(body: bytes) -> None:
        if seen:
            raise BrokenPipeError
        seen.append(body)

    with pytest.raises(BrokenPipeError):
        await read_broker(
            ours, ours.inbox, limit=None, follow=False, keep=False, emit=until_the_reader_leaves
        )

    assert [m.body for m in await take(broker, ours.inbox)] == bodies[1:]


async def test_following_waits_for_what_comes_later(broker: RabbitMQ, ours: Settings) -> None:
    [first] = await filled(ours, 1)
    seen: list[bytes] = []
    reading = asyncio.create_task(
        read_broker(ours, ours.inbox, limit=None, follow=True, keep=False, emit=seen.append)
    )
    await eventually(lambda: seen == [first], "the first came")

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox, b'{"later":1}')])
    await eventually(lambda: len(seen) == 2, "the second came")
    reading.cancel()
    await asyncio.wait({reading})

    assert seen == [first, b'{"later":1}']
    assert await count(broker, ours.inbox) == 0


async def test_a_queue_deleted_while_followed_is_said(broker: RabbitMQ, ours: Settings) -> None:
    await filled(ours, 1)
    seen: list[bytes] = []
    reading = asyncio.create_task(
        read_broker(ours, ours.inbox, limit=None, follow=True, keep=False, emit=seen.append)
    )
    await eventually(lambda: len(seen) == 1, "it follows")

    async with channel(broker) as here:
        await here.queue_delete(ours.inbox)

    with pytest.raises(CannotRead, match="was deleted"):
        await asyncio.wait_for(reading, 10)


async def test_a_queue_that_does_not_exist_is_said(broker: RabbitMQ, ours: Settings) -> None:
    for follow in (False, True):
        with pytest.raises(CannotRead, match="There is no queue nowhere at the broker"):
            await read_broker(ours, "nowhere", limit=None, follow=follow, keep=False, emit=print)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("amqp://u:s3cret@127.0.0.1:1/", "cannot be used.*127.0.0.1:1"),
        ("amqp://guest:s3cret@127.0.0.1:{port}/", "it refuses the login"),
        ("amqp://guest:guest@127.0.0.1:{port}/other", "virtual host other: it refuses"),
        ("http://u:s3cret@h/", "not of the form"),
    ],
)
async def test_a_broker_that_cannot_be_used_is_a_plain_sentence(
    broker: RabbitMQ, address: str, sentence: str
) -> None:
    ours = Settings(address=(address.format(port=broker.port),), inbox="inbox")

    with pytest.raises(CannotRead, match=sentence) as refused:
        await read_broker(ours, "inbox", limit=None, follow=False, keep=False, emit=print)

    assert "s3cret" not in str(refused.value)


async def test_a_message_that_is_not_the_gzip_it_claims_to_be_stays(
    broker: RabbitMQ, ours: Settings
) -> None:
    async with channel(broker) as here:
        await here.declare_queue(ours.inbox, durable=True)
        message = aio_pika.Message(b"{}", content_encoding="gzip")
        await here.default_exchange.publish(message, ours.inbox)

    with pytest.raises(CannotRead, match="gzip"):
        await read_broker(ours, ours.inbox, limit=None, follow=False, keep=False, emit=print)

    assert await count(broker, ours.inbox) == 1
