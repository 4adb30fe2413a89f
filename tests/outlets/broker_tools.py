"""What the tests of the RabbitMQ outlet share: settings, documents, a look into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustChannel

from mailgw.mail.publication import Publication
from mailgw.outlets.amqp import Amqp
from mailgw.outlets.amqp_connection import Backoff
from rabbitmq import RabbitMQ, eventually

# Short steps, so that a test does not wait for the broker longer than the broker needs.
QUICKLY = Backoff(first=0.05, longest=0.2)


@dataclass(frozen=True)
class Settings:
    """The broker section as the room sees it, with the defaults of the product."""

    address: tuple[str, ...]
    inbox: str
    local: str = ""
    reports: str = ""
    quarantine: str = ""
    refused: str = ""
    verify: bool = True
    exchange: str = ""
    declare: bool = True
    durable: bool = True
    persistent: bool = True
    lazy: bool = False
    maxpriority: int | None = None
    encoding: str = ""
    queue_type: str = "quorum"
    throttle: int = 100


def fresh(word: str = "inbox") -> str:
    """A queue name that no other test has."""
    return f"{word}-{uuid.uuid4().hex[:8]}"


def document(
    queue: str,
    body: bytes = b'{"recipient":"bob@ours.test"}',
    *,
    dedupe: str = "d41d8cd9",
    priority: int | None = None,
) -> Publication:
    return Publication(
        queue=queue,
        parts=(body,),
        message_id=uuid.uuid4().hex,
        transaction_id="t1",
        dedupe=dedupe,
        received=datetime(2024, 5, 1, 8, 15, 42, tzinfo=UTC),
        priority=priority,
    )


@contextlib.asynccontextmanager
async def opened(outlet: Amqp, *, connected: bool = True) -> AsyncIterator[Amqp]:
    await outlet.open()
    try:
        if connected:
            await eventually(lambda: outlet.trouble() is None, "the outlet is connected")
        yield outlet
    finally:
        await outlet.close()


@contextlib.asynccontextmanager
async def channel(broker: RabbitMQ) -> AsyncIterator[AbstractRobustChannel]:
    """A test's own look at the broker."""
    connection = await aio_pika.connect_robust(broker.url)
    async with connection:
        opened = await connection.channel()
        assert isinstance(opened, AbstractRobustChannel)
        yield opened


async def take(broker: RabbitMQ, queue: str) -> list[AbstractIncomingMessage]:
    """Everything that is on the queue, taken off it."""
    messages: list[AbstractIncomingMessage] = []
    async with channel(broker) as here:
        source = await here.get_queue(queue, ensure=False)
        while (message := await source.get(no_ack=True, fail=False)) is not None:
            messages.append(message)
    return messages


async def count(broker: RabbitMQ, queue: str) -> int:
    async with channel(broker) as here:
        source = await here.declare_queue(queue, passive=True)
        return source.declaration_result.message_count or 0


async def end_of(act: Awaitable[None]) -> BaseException | None:
    """How the act ended: None for success."""
    [end] = await asyncio.gather(act, return_exceptions=True)
    return end


async def within(seconds: float, act: Awaitable[None]) -> None:
    """The deadline that a publish has from its caller."""
    async with asyncio.timeout(seconds):
        await act


async def settle(*acts: asyncio.Task[None]) -> list[BaseException | None]:
    """How each act ended: None for success."""
    return list(await asyncio.gather(*acts, return_exceptions=True))
