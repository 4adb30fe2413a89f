"""Reading a queue of the broker, for people: `mailgw consume`.

A message is acknowledged after it was handed on, never before: what could not be
printed is still on the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncGenerator, Callable

import aio_pika
from aiormq import spec
from aiormq.abc import AbstractChannel as Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
)

from mailgw.outlets.amqp_connection import BrokerSettings, Unreachable, close, connect
from mailgw.outlets.amqp_connection import read_addresses as read_broker_addresses

_CONNECT_LIMIT = 10.0
# Enough that the broker need not be asked for each message while following.
_PREFETCH = 100


class CannotRead(Exception):
    """Reading is not possible; the text is one plain sentence without credentials."""


async def read_broker(
    settings: BrokerSettings,
    queue: str,
    *,
    limit: int | None,
    follow: bool,
    keep: bool,
    emit: Callable[[bytes], None],
) -> int:
    """Give each document on `queue` to `emit`, then take it off; how many there were.

    Ends after `limit` documents, or when the queue is empty unless `follow`. With `keep`
    all of them are on the queue again, in their order, when this returns. Whatever `emit`
    raises ends it, and that message stays. Raises CannotRead.
    """
    connection = await _connect_to_any(settings)
    read = 0
    try:
        channel = connection.channel(publisher_confirms=False)
        await channel.initialize()
        thin = await channel.get_underlay_channel()
        if limit is not None and limit <= 0:
            return 0
        messages = _follow(thin, queue, limit, keep) if follow else _drain(thin, queue)
        async with contextlib.aclosing(messages):
            async for message in messages:
                emit(json_of(message))
                # Without an ack the broker puts it back to its place when the channel closes.
                if not keep and message.delivery_tag is not None:
                    await thin.basic_ack(message.delivery_tag, wait=False)
                read += 1
                if read == limit:
                    break
        await channel.close()
    # No OSError: from the library it is an AMQPError too, and `emit` may raise its own.
    except (AMQPError, ChannelInvalidStateError) as error:
        raise CannotRead(_sentence(error, queue)) from None
    finally:
        await close(connection)
    return read


def json_of(message: DeliveredMessage) -> bytes:
    """The document, decompressed where the message says that it is compressed."""
    if message.header.properties.content_encoding != "gzip":
        return message.body
    try:
        return gzip.decompress(message.body)
    except (OSError, EOFError) as error:
        raise CannotRead(f"a message claims to be gzip and is not: {error}") from None


async def _connect_to_any(settings: BrokerSettings) -> aio_pika.Connection:
    reasons: list[str] = []
    try:
        addresses = read_broker_addresses(settings.address, verify=settings.verify)
    except Unreachable as error:
        raise CannotRead(f"rabbitmq-address: {error}.") from None
    for address in addresses:
        try:
            return await connect(address, _CONNECT_LIMIT)
        except Unreachable as error:
            reasons.append(f"{address.host}:{address.port}, virtual host {address.vhost}: {error}")
    if not reasons:
        raise CannotRead("There is no broker: rabbitmq-address is empty.")
    raise CannotRead(f"The broker cannot be used ({'; '.join(reasons)}).")


async def _drain(channel: Channel, queue: str) -> AsyncGenerator[DeliveredMessage, None]:
    while True:
        message = await channel.basic_get(queue)
        if isinstance(message.delivery, spec.Basic.GetEmpty):
            return
        yield message


async def _follow(
    channel: Channel, queue: str, limit: int | None, keep: bool
) -> AsyncGenerator[DeliveredMessage, None]:
    arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    ended = asyncio.ensure_future(_end_of(channel, queue))
    # What is kept is never acknowledged, and would soon use up any prefetch.
    prefetch = _PREFETCH if not keep else 0 if limit is None else min(limit, 65_535)
    try:
        await channel.basic_qos(prefetch_count=prefetch)
        await channel.basic_consume(queue, arrived.put)
        while True:
            coming = asyncio.ensure_future(arrived.get())
            try:
                await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                coming.cancel()
            if not coming.done() or coming.cancelled():
                raise ended.exception() or CannotRead("The connection to the broker was lost.")
            yield coming.result()
    finally:
        ended.cancel()
        await asyncio.wait({ended})
        if not ended.cancelled():
            ended.exception()


async def _end_of(channel: Channel, queue: str) -> None:
    """Raise CannotRead when nothing can come any more."""
    gone = asyncio.Event()
    channel.on_consumer_cancel_callbacks.add(lambda _frame: gone.set())
    deleted = asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait({deleted, channel.closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        deleted.cancel()
    if gone.is_set():
        raise CannotRead(f"The queue {queue} was deleted while it was read.")
    raise CannotRead("The connection to the broker was lost.")


def _sentence(error: Exception, queue: str) -> str:
    match error:
        case ChannelNotFoundEntity():
            return f"There is no queue {queue} at the broker."
        case ChannelAccessRefused():
            return f"The broker does not allow this login to read the queue {queue}."
        case ChannelLockedResource():
            return f"The queue {queue} belongs to somebody else alone."
        case _:
            return f"The connection to the broker was lost ({type(error).__name__})."
