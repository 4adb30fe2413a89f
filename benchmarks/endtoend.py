"""Part 2: mail that ends in a quorum queue, by mailgw, by its peers and without SMTP.

Everybody has 50 messages in flight, persistent, into the same queue, which is counted and
emptied after every turn. All wait for the confirm, except the peers named "nowait".
"""

from __future__ import annotations

import asyncio
import json
import os
import smtplib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
import peers
from pamqp.common import FieldTable
from processes import Failed, Process, cpu_seconds, machine_cpu_seconds, running, wait_for
from reception import SMALL, send
from samples import Case, Contender, Sample, compare
from servers import Server, builds, mailgw

if TYPE_CHECKING:
    from rabbitmq import RabbitMQ

_QUEUE = "benchmark"
_SETTLE_LIMIT = 30.0
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


def measure(broker: Broker, without: Sequence[str], rounds: int, seconds: float) -> Case:
    """Compare the whole gateway with its peers and with the bare publishers."""
    with ExitStack() as stack:
        servers = stack.enter_context(receivers(broker, without, builds()))
        contenders = [_receiving(server, broker) for server in servers]
        documents = {s.process.name: document(broker, s) for s in servers}
        _compare_sizes(documents)
        body = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "document.json"
        body.write_bytes(documents["mailgw"])
        for kind in ("aio-pika", "outlet"):
            publisher = stack.enter_context(bare_publisher(kind, broker, body))
            contenders.append(_publishing(publisher, broker))
        title = f"{SMALL.title}, documents of {body.stat().st_size} octets"
        return replace(compare(title, contenders, rounds, seconds), part="confirmed")


def keys(broker: Broker) -> dict[str, str]:
    """What makes mailgw publish into the queue, which is there and empty now."""
    asyncio.run(_empty(broker))
    return {"MAILGW_RABBITMQ_ADDRESS": broker.url, "MAILGW_RABBITMQ_INBOX": _QUEUE}


@contextmanager
def receivers(
    broker: Broker,
    without: Sequence[str],
    ours: Iterable[str] = ("mailgw",),
    *,
    unconfirmed: bool = True,
) -> Iterator[list[Server]]:
    """mailgw in the builds `ours`, and its peers; they publish, and the queue is empty."""
    with ExitStack() as stack:
        servers = [stack.enter_context(mailgw(keys(broker), build=build)) for build in ours]
        for name, start, kind in peers.PUBLISHERS:
            if name not in without and (unconfirmed or kind == "confirm"):
                outlet = peers.Outlet(kind, broker.url, _QUEUE)
                servers.append(stack.enter_context(start(outlet, None)))
        for server in servers:
            wait_for(partial(takes_mail, server.port), "it takes mail", server.process)
        yield servers


@contextmanager
def bare_publisher(kind: str, broker: Broker, body: Path) -> Iterator[Process]:
    """publisher.py with this document; `kind` is "aio-pika" or "outlet"."""
    command = [sys.executable, str(_HERE / "publisher.py"), kind, _QUEUE, str(body)]
    # In the environment, because the URL holds a password.
    environ = {**os.environ, "MAILGW_RABBITMQ_ADDRESS": broker.url}
    with running(kind, command, environ=environ, pipes=True) as process:
        yield process


def takes_mail(port: int) -> bool:
    """The gateway connects to the broker by itself, and says 451 until it has."""
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=5) as client:
        client.ehlo()
        return client.mail("sender@example.com")[0] == 250


def document(broker: Broker, server: Server) -> bytes:
    """What a server publishes for one message of smtp-source."""
    asyncio.run(_empty(broker))
    send(server, SMALL, 1)
    return asyncio.run(_first(broker, server.process.name))


def _compare_sizes(documents: Mapping[str, bytes]) -> None:
    """Raise Failed where a peer's document says much less than ours, or much more."""
    ours = len(documents["mailgw"])
    for name, document in documents.items():
        if not (0.9 < len(document) / ours < 1.1 and isinstance(json.loads(document), dict)):
            raise Failed(f"{name}: a document of {len(document)} octets beside our {ours}")


def _receiving(server: Server, broker: Broker) -> Contender:
    def turn(count: int) -> Sample:
        sample = send(server, SMALL, count, broker.pid)
        settle(broker, server.process.name, count)
        return sample

    return Contender(server.process.name, turn)


def _publishing(publisher: Process, broker: Broker) -> Contender:
    return Contender(publisher.name, lambda count: bare(publisher, broker, count))


def bare(publisher: Process, broker: Broker, count: int, rate: float | None = None) -> Sample:
    """Let it publish so many; with a rate each at its time, and the confirms are timed."""
    before, all_before = cpu_seconds(publisher.pid), machine_cpu_seconds()
    broker_before = cpu_seconds(broker.pid)
    started = time.perf_counter()
    answer = publisher.ask(f"{count} {rate}" if rate else str(count))
    seconds = time.perf_counter() - started
    if not answer.startswith("done"):
        raise Failed(f"{publisher.name} said {answer!r}")
    cpu = cpu_seconds(publisher.pid) - before
    broker_cpu = cpu_seconds(broker.pid) - broker_before
    others = machine_cpu_seconds() - all_before - cpu - broker_cpu
    settle(broker, publisher.name, count)
    times = [float(word) for word in answer.split()[1:]]
    return Sample(count, seconds, cpu, 0.0, broker_cpu, max(0.0, others), *times)


def settle(broker: Broker, name: str, sent: int) -> None:
    """Count what lies in the queue, and empty it for the next turn.

    Who does not wait for confirms may have said 250 for what is still under way.
    """
    deadline = time.monotonic() + _SETTLE_LIMIT
    found = asyncio.run(_empty(broker))
    while found < sent and name.endswith("nowait") and time.monotonic() < deadline:
        found += asyncio.run(_empty(broker))
    if found != sent:
        raise Failed(f"{name}: {sent} messages were answered 250 and {found} are in the queue")


async def _empty(broker: Broker) -> int:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        # Fails where the queue that is there is none of these.
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments=_QUORUM)
        purged = await queue.purge()
        return purged.message_count or 0


async def _first(broker: Broker, name: str) -> bytes:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments=_QUORUM)
        deadline = time.monotonic() + _SETTLE_LIMIT
        while (message := await queue.get(no_ack=True, fail=False)) is None:
            if time.monotonic() > deadline:
                raise Failed(f"{name}: one message was answered 250 and none is in the queue")
            await asyncio.sleep(0.01)
        return message.body
