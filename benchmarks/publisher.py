"""The bare publishers: one document again and again, 50 in flight, without SMTP.

    publisher.py (aio-pika | aiormq | pika | outlet) QUEUE BODY-FILE

The broker's URL comes in MAILGW_RABBITMQ_ADDRESS. For each line with a number on standard
input so many documents are published, persistent, mandatory and confirmed, and "done" is
said; anything but an ack ends the program. A second number is a rate: one is published whenever
its time has come, however many are unconfirmed, and "done P50 P99" tells the milliseconds from
each publish to its confirm. pika is no dependency of ours: publishers.py brings it along.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import aio_pika
import aiormq
import uvloop
from pamqp.commands import Basic
from sender import percentiles

from mailgw.config import load
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.publication import Publication
from mailgw.outlets.amqp import Amqp

IN_FLIGHT = 50
_CONNECT_LIMIT = 15.0

PublishOne = Callable[[], Awaitable[None]]


@asynccontextmanager
async def aio_pika_publisher(address: str, queue: str, body: bytes) -> AsyncIterator[PublishOne]:
    """The library as its documentation shows it."""
    identifiers = Identifiers()
    connection = await aio_pika.connect(address)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = channel.default_exchange

        async def publish() -> None:
            message = aio_pika.Message(
                body,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=identifiers.next(),
                timestamp=datetime.now(UTC),
                type="mailgw.message",
            )
            answer = await exchange.publish(message, routing_key=queue, mandatory=True)
            if not isinstance(answer, Basic.Ack):
                raise RuntimeError(f"not confirmed: {answer!r}")

        yield publish


@asynccontextmanager
async def aiormq_publisher(address: str, queue: str, body: bytes) -> AsyncIterator[PublishOne]:
    """What aio-pika is made of; with `wait=False` the write is not waited for."""
    identifiers = Identifiers()
    connection = await aiormq.connect(address)
    async with connection:
        channel = await connection.channel(on_return_raises=True)

        async def publish() -> None:
            properties = Basic.Properties(
                content_type="application/json",
                delivery_mode=2,
                message_id=identifiers.next(),
                timestamp=datetime.now(UTC),
                message_type="mailgw.message",
            )
            answer = await channel.basic_publish(
                body, routing_key=queue, properties=properties, mandatory=True, wait=False
            )
            if not isinstance(answer, Basic.Ack):
                raise RuntimeError(f"not confirmed: {answer!r}")

        yield publish


@asynccontextmanager
async def outlet_publisher(address: str, queue: str, body: bytes) -> AsyncIterator[PublishOne]:
    """The gateway's own outlet, driven by tasks instead of conversations."""
    identifiers = Identifiers()
    settings = load(arguments=[("rabbitmq-address", address), ("rabbitmq-inbox", queue)])
    outlet = Amqp(settings.broker, confirm_timeout=settings.smtp.confirm_timeout)

    async def publish() -> None:
        name = identifiers.next()
        publication = Publication(
            queue=queue,
            parts=(body,),
            message_id=name,
            transaction_id=name,
            dedupe="0" * 64,
            received=datetime.now(UTC),
        )
        await outlet.publish([publication])

    await outlet.open()
    try:
        deadline = time.monotonic() + _CONNECT_LIMIT
        while outlet.trouble() is not None:
            if time.monotonic() > deadline:
                raise TimeoutError("the outlet does not connect")
            await asyncio.sleep(0.02)
        yield publish
    finally:
        await outlet.close()


PUBLISHERS: dict[str, Callable[[str, str, bytes], AbstractAsyncContextManager[PublishOne]]] = {
    "aio-pika": aio_pika_publisher,
    "aiormq": aiormq_publisher,
    "outlet": outlet_publisher,
}
if find_spec("pika"):
    from publisher_pika import pika_publisher

    PUBLISHERS["pika"] = pika_publisher


async def publish_all(publish: PublishOne, count: int) -> None:
    """Publish `count` documents, never more than IN_FLIGHT unconfirmed."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            await publish()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(work())


async def publish_paced(publish: PublishOne, count: int, rate: float) -> list[float]:
    """Publish `count` documents, so many a second; the seconds until each was confirmed."""
    waited = []

    async def publish_one() -> None:
        began = time.perf_counter()
        await publish()
        waited.append(time.perf_counter() - began)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            tasks.create_task(publish_one())
    return waited


async def main(kind: str, queue: str, body: bytes) -> None:
    """Obey the lines of standard input until it ends."""
    async with PUBLISHERS[kind](os.environ["MAILGW_RABBITMQ_ADDRESS"], queue, body) as publish:
        while line := await asyncio.to_thread(sys.stdin.readline):
            count, *rate = line.split()
            if rate:
                waited = await publish_paced(publish, int(count), float(rate[0]))
                print("done {:.3f} {:.3f}".format(*percentiles(waited)), flush=True)
            else:
                await publish_all(publish, int(count))
                print("done", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
