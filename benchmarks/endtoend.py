"""Part 2: mail that ends in a quorum queue, beside publishers that know no SMTP.

Everybody has 50 documents of the same size in flight, persistent, mandatory, confirmed,
into the same queue, which is counted and emptied after every turn.
"""

from __future__ import annotations

import asyncio
import os
import smtplib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
from pamqp.common import FieldTable
from processes import Failed, Process, cpu_seconds, machine_cpu_seconds, running, wait_for
from reception import Server, Shape, mailgw, send
from samples import Case, Contender, Sample, compare

if TYPE_CHECKING:
    from rabbitmq import RabbitMQ

SHAPE = Shape(4096, reused=True)
_QUEUE = "benchmark"
_HERE = Path(__file__).parent
_QUORUM: FieldTable = {"x-queue-type": "quorum"}


@dataclass(frozen=True, slots=True)
class Broker:
    url: str
    pid: int
    version: str


@contextmanager
def private_broker() -> Iterator[Broker]:
    """A RabbitMQ node of our own: the one that the tests use."""
    sys.path.append(str(_HERE.parent / "tests"))
    from rabbitmq import RabbitMQ

    node: RabbitMQ = RabbitMQ()
    try:
        node.start()
        said = node.ctl("eval", 'os:getpid() ++ " " ++ rabbit_misc:version().')
        pid, version = said.strip().strip('"').split()
        yield Broker(node.url, int(pid), version)
    finally:
        node.close()


def measure(broker: Broker, rounds: int, seconds: float) -> Case:
    """Compare the whole gateway with the bare publishers."""
    asyncio.run(_empty(broker))
    keys = {"MAILGW_RABBITMQ_ADDRESS": broker.url, "MAILGW_RABBITMQ_INBOX": _QUEUE}
    with mailgw(keys) as server, tempfile.TemporaryDirectory(prefix="mailgw-bench-") as folder:
        wait_for(lambda: _takes_mail(server.port), "it takes mail", server.process)
        body = Path(folder) / "document.json"
        body.write_bytes(_document(broker, server))
        with (
            _publisher("aio-pika", broker, body) as aio_pika_,
            _publisher("outlet", broker, body) as outlet,
        ):
            contenders = [
                Contender("mailgw", lambda n: _through_gateway(server, broker, n)),
                Contender(aio_pika_.name, lambda n: _bare(aio_pika_, broker, n)),
                Contender(outlet.name, lambda n: _bare(outlet, broker, n)),
            ]
            title = f"{SHAPE.title}, documents of {body.stat().st_size} octets"
            return compare(title, contenders, rounds, seconds)


@contextmanager
def _publisher(kind: str, broker: Broker, body: Path) -> Iterator[Process]:
    command = [sys.executable, str(_HERE / "publisher.py"), kind, _QUEUE, str(body)]
    # In the environment, because the URL holds a password.
    environ = {**os.environ, "MAILGW_RABBITMQ_ADDRESS": broker.url}
    with running(kind, command, environ=environ, pipes=True) as process:
        yield process


def _takes_mail(port: int) -> bool:
    """The gateway connects to the broker by itself, and says 451 until it has."""
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=5) as client:
        client.ehlo()
        return client.mail("sender@example.com")[0] == 250


def _document(broker: Broker, server: Server) -> bytes:
    """What the gateway publishes for one message of smtp-source."""
    asyncio.run(_empty(broker))
    send(server, SHAPE, 1)
    return asyncio.run(_first(broker))


def _through_gateway(server: Server, broker: Broker, count: int) -> Sample:
    sample = send(server, SHAPE, count, broker.pid)
    _settle(broker, "mailgw", count)
    return sample


def _bare(publisher: Process, broker: Broker, count: int) -> Sample:
    before, all_before = cpu_seconds(publisher.pid), machine_cpu_seconds()
    broker_before = cpu_seconds(broker.pid)
    started = time.perf_counter()
    answer = publisher.ask(str(count))
    seconds = time.perf_counter() - started
    if answer != "done":
        raise Failed(f"{publisher.name} said {answer!r}")
    cpu = cpu_seconds(publisher.pid) - before
    broker_cpu = cpu_seconds(broker.pid) - broker_before
    others = machine_cpu_seconds() - all_before - cpu - broker_cpu
    _settle(broker, publisher.name, count)
    return Sample(count, seconds, cpu, 0.0, broker_cpu, max(0.0, others))


def _settle(broker: Broker, name: str, sent: int) -> None:
    """Count what lies in the queue, and empty it for the next turn."""
    found = asyncio.run(_empty(broker))
    if found != sent:
        raise Failed(f"{name}: {sent} messages were confirmed and {found} are in the queue")


async def _empty(broker: Broker) -> int:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        # Fails where the queue that is there is none of these.
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments=_QUORUM)
        purged = await queue.purge()
        return purged.message_count or 0


async def _first(broker: Broker) -> bytes:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments=_QUORUM)
        message = await queue.get(no_ack=True)
        if message is None:
            raise Failed("mailgw: one message was confirmed and none is in the queue")
        return message.body
