#!/usr/bin/env python3
"""Read one queue of mailgw, let through what passes, and put it on another queue.

    filter-and-forward.py --from inbox --to outbox --dropped junk --require dmarc=pass
    filter-and-forward.py --from inbox --to outbox --once 3600

An example to copy: plain aio-pika, nothing of mailgw; the rule is the function `passes`.
The document is forwarded as it came, byte by byte, since a received document is also one
that can be sent. The law it keeps: acknowledged after the broker has confirmed the copy
(mandatory, so a missing queue is no success). A mail is never lost; when we are stopped
between the two steps it is forwarded twice, with the same message-id. With --once, a mail
with the `dedupe` of one that was forwarded a while ago is acknowledged and goes nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage


def document_of(message: AbstractIncomingMessage) -> dict[str, Any]:
    """The JSON document in an AMQP message. Raises ValueError if it is none."""
    body = message.body
    if message.content_encoding == "gzip":
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError) as error:
            raise ValueError(f"not gzip: {error}") from error
    document = json.loads(body)
    if not isinstance(document, dict) or "recipient" not in document:
        raise ValueError("a document without recipient")
    return document


def passes(document: dict[str, Any], required: Sequence[tuple[str, str]], largest: int) -> bool:
    """Whether every required check has its verdict and the mail is not too large."""
    checks = [check for check in document.get("checks", []) if isinstance(check, dict)]
    for name, verdict in required:
        if not any(check.get(name) == verdict for check in checks):
            return False
    return largest <= 0 or int(document.get("mime-size", 0)) <= largest


class Forwarded:
    """The dedupe keys of the last hour or so, for one program. Several share a table instead."""

    def __init__(self, seconds: float, most: int = 100_000) -> None:
        self._seconds = seconds
        self._most = most
        self._times: dict[str, float] = {}

    def __contains__(self, key: object) -> bool:
        now = time.monotonic()
        return isinstance(key, str) and now - self._times.get(key, -1e9) < self._seconds

    def add(self, key: object) -> None:
        """Remember it; to be called when the mail is safe, never before."""
        if self._seconds and isinstance(key, str):
            self._times.pop(key, None)
            self._times[key] = time.monotonic()
            if len(self._times) > self._most:
                del self._times[next(iter(self._times))]


async def forward(message: AbstractIncomingMessage, channel: AbstractChannel, queue: str) -> None:
    """Publish a copy and return when the broker has it. Raises DeliveryError if not."""
    copy = aio_pika.Message(
        message.body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=message.headers,
        message_id=message.message_id,
        priority=message.priority,
        timestamp=message.timestamp,
        type=message.type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await channel.default_exchange.publish(copy, queue, mandatory=True, timeout=30)


async def take(
    message: AbstractIncomingMessage,
    channel: AbstractChannel,
    arguments: argparse.Namespace,
    forwarded: Forwarded,
) -> None:
    """Judge one message, forward or drop it, then acknowledge it."""
    # In the document too; here it need not be unpacked for it.
    dedupe = message.headers.get("x-mailgw-dedupe")
    if dedupe in forwarded:
        await message.ack()
        print(message.message_id or "?", "-> was there before", flush=True)
        return
    try:
        document = document_of(message)
        target = arguments.to
        if not passes(document, arguments.require, arguments.largest):
            target = arguments.dropped
    except (ValueError, TypeError) as error:
        print(f"not a mail, rejected: {error}", file=sys.stderr, flush=True)
        await message.reject(requeue=False)
        return
    if target:
        await forward(message, channel, target)
        forwarded.add(dedupe)
    await message.ack()
    print(document.get("message-id", "?"), "->", target or "dropped", flush=True)


async def run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = await aio_pika.connect_robust(arguments.broker)
    async with connection:
        # Without on_return_raises a message for a missing queue would look like success.
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=arguments.prefetch)
        for name in filter(None, (arguments.to, arguments.dropped)):
            await channel.get_queue(name)
        source = await channel.get_queue(arguments.source)
        waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await source.consume(waiting.put)
        stopping = asyncio.ensure_future(stop.wait())
        forwarded = Forwarded(arguments.once)
        while not stop.is_set():
            coming = asyncio.ensure_future(waiting.get())
            await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                # What was not taken is not acknowledged, and the broker keeps it.
                coming.cancel()
                break
            await take(coming.result(), channel, arguments, forwarded)


def requirement(text: str) -> tuple[str, str]:
    name, equals, verdict = text.partition("=")
    if not (name and equals and verdict):
        raise argparse.ArgumentTypeError(f"{text!r} is not CHECK=VERDICT (try dmarc=pass)")
    return name, verdict


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Read one queue of mailgw, let through what passes, put it on another queue.",
        epilog="Queues must exist. SIGINT and SIGTERM end it after the mail at hand.",
    )
    parser.add_argument("--from", dest="source", default="inbox", help="default: inbox")
    parser.add_argument("--to", required=True, help="the queue for what passes")
    parser.add_argument("--dropped", default="", help="the queue for the rest; default: none")
    parser.add_argument(
        "--require",
        type=requirement,
        action="append",
        default=[],
        metavar="CHECK=VERDICT",
        help="a check and the verdict it must have, such as dmarc=pass; may be repeated",
    )
    parser.add_argument(
        "--largest", type=int, default=0, metavar="OCTETS", help="largest mail; default: any"
    )
    parser.add_argument(
        "--broker",
        default=os.environ.get("BROKER", "amqp://guest:guest@localhost/"),
        help="amqp[s]://login:password@host/vhost; default: $BROKER, or guest at localhost",
    )
    parser.add_argument(
        "--once",
        type=float,
        default=0,
        metavar="SECONDS",
        help="forward the same envelope and bytes once in so many seconds; default: always",
    )
    parser.add_argument("--prefetch", type=int, default=20, help="mails fetched ahead; default: 20")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments))
    except (aio_pika.exceptions.AMQPError, OSError) as error:
        # Never the URL: it holds the password.
        sys.exit(f"filter-and-forward: the broker failed: {error}")


if __name__ == "__main__":
    main()
