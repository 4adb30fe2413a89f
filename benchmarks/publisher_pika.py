"""pika's AsyncioConnection as a bare publisher, for publisher.py.

pika tells of a confirm in a callback, which here settles a future for each message, as
whoever answers a client needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.frame import Method

from mailgw.mail.identifiers import Identifiers


@asynccontextmanager
async def pika_publisher(
    address: str, queue: str, body: bytes
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """One connection, one channel in confirm mode, every message mandatory."""
    loop = asyncio.get_running_loop()
    identifiers = Identifiers()
    connection, channel = await _channel(address, loop)
    waiting: dict[int, asyncio.Future[None]] = {}
    numbers = 0

    def settle(frame: Method) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = [each for each in waiting if each <= tag] if multiple else [tag]
        for each in tags:
            answer = waiting.pop(each)
            if frame.method.NAME == "Basic.Ack":
                answer.set_result(None)
            else:
                answer.set_exception(RuntimeError(f"not confirmed: {frame.method!r}"))

    def came_back(*said: object) -> None:
        raise RuntimeError(f"returned: {said[1]!r}")

    async def publish() -> None:
        nonlocal numbers
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=identifiers.next(),
            timestamp=int(datetime.now(UTC).timestamp()),
            type="mailgw.message",
        )
        channel.basic_publish("", queue, body, properties, mandatory=True)
        numbers += 1
        answer = waiting[numbers] = loop.create_future()
        await answer

    selected: asyncio.Future[Method] = loop.create_future()
    channel.confirm_delivery(settle, selected.set_result)
    channel.add_on_return_callback(came_back)
    await selected
    try:
        yield publish
    finally:
        closed: asyncio.Future[None] = loop.create_future()
        connection.add_on_close_callback(lambda *_: closed.set_result(None))
        connection.close()
        await closed


async def _channel(
    address: str, loop: asyncio.AbstractEventLoop
) -> tuple[AsyncioConnection, Channel]:
    opened: asyncio.Future[AsyncioConnection] = loop.create_future()
    channel: asyncio.Future[Channel] = loop.create_future()
    AsyncioConnection(
        pika.URLParameters(address),
        on_open_callback=opened.set_result,
        on_open_error_callback=lambda _, trouble: opened.set_exception(trouble),
        custom_ioloop=loop,
    )
    connection = await opened
    connection.channel(on_open_callback=channel.set_result)
    return connection, await channel
