"""A running system with one thing in it that is about to break.

Real processes: the gateway with its workers, a broker or the embedded queue, a line
between them that can be held. A test lets the ledger's clients send, breaks something,
mends it, and asks for the verdict; what must hold in every fault is asserted there, once.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from ledger import MARK, Ledger, Verdict
from link import Link
from table import Row

from client import Client
from gateway import Gateway, Json
from mailgw.outlets.store_file import depths, read_store
from rabbitmq import RabbitMQ, wait_until

# Short, so that a fault is over soon; the default is 30 s.
DEADLINE = 2.0
# What a busy machine may add to it.
SLACK = 3.0
# Octets that the workers may grow by while they are in trouble.
GROWTH = 60_000_000
USER, PASSWORD, VHOST, EXCHANGE = "gateway", "Losungswort", "faults", "mail"


@dataclass
class Scene:
    """One gateway and what it publishes to: `broker`, or the embedded queue where it is None.

    `keys`: what only this scene has in its configuration.
    """

    folder: Path
    broker: RabbitMQ | None = None
    address: str = ""
    outage: str = "refuse"
    queue: str = "inbox"
    keys: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = self.folder / "queue.sqlite"
        # Outages before the fault of now.
        self._earlier = 0
        self.gateway = Gateway(
            self.folder,
            {
                "smtp-threads": 2,
                "smtp-confirm-timeout": DEADLINE,
                "rabbitmq-address": self.address,
                "rabbitmq-inbox": self.queue,
                **({"rabbitmq-outage": self.outage} if self.broker else {}),
                **self.keys,
            },
        )

    def take(self) -> list[Json]:
        """Every document there is, taken off its queue; the waiting room must empty itself."""
        if self.broker is None:
            return self._take_stored()
        if self.outage == "store":
            wait_until(lambda: depths(self.store) == {}, "the waiting room is empty", 60)
        bodies = [message.body for message in take(self.broker, self.queue, self.vhost)]
        return [json.loads(body) for body in bodies]

    @property
    def vhost(self) -> str:
        return self.address.rpartition("/")[2].partition("?")[0]

    def _take_stored(self) -> list[Json]:
        found: list[bytes] = []
        read_store(self.store, self.queue, limit=None, follow=False, keep=False, emit=found.append)
        return [json.loads(body) for body in found]

    def troubles(self, ledger: Ledger, what: str, count: int = 1, limit: float = 60) -> None:
        """Return when clients heard it so often; or, with a waiting room, when mail goes there.

        What the broker itself says no to is told with a waiting room too.
        """
        if self.outage == "refuse":
            ledger.hears(what, count, limit)
            return

        def waits() -> bool:
            return self._outages() > self._earlier or depths(self.store) != {}

        wait_until(lambda: waits() or ledger.times(what) >= count, f"{what}, or mail waits", limit)
        if waits():
            ledger.more(count, limit)

    def _outages(self) -> int:
        return self.gateway.log.count(" outage.began ")

    def joined(self) -> None:
        """Return when every worker is connected to the broker."""

        def connections() -> int:
            log = self.gateway.log
            return log.count(" amqp.connected ") - log.count(" amqp.lost ")

        self._earlier = self._outages()
        if self.broker is not None:
            workers = len(self.gateway.workers())
            wait_until(lambda: connections() == workers, "every worker has joined the broker", 30)

    def is_clean(self) -> None:
        """The log tells no secret, quotes no message, and knows no error of ours."""
        log = self.gateway.log
        for word in ("Traceback", PASSWORD, "guest:guest", MARK):
            assert word not in log, log[max(0, log.index(word) - 500) :][:5000]

    def ends(self) -> None:
        """It ends when it is asked to, with 0."""
        assert self.gateway.stop() == 0
        self.is_clean()


@contextmanager
def playing(scene: Scene) -> Iterator[Scene]:
    """The gateway runs for the length of a block, takes mail first, and ends with 0."""
    try:
        scene.gateway.start()
        yield scene
        scene.ends()
    finally:
        scene.gateway.close()


class Stage(Protocol):
    """What a trial asks of a scene, or of several gateways that are one for clients."""

    @property
    def gateway(self) -> Gateway: ...
    def joined(self) -> None: ...
    def take(self) -> list[Json]: ...
    def is_clean(self) -> None: ...


class Trial:
    """One fault in one scene: the clients that send meanwhile, and the row in the table."""

    def __init__(self, number: str, fault: str, made: str, rows: list[Row]) -> None:
        self._row = (number, fault, made)
        self._rows = rows
        self._before: list[Json] = []

    @contextmanager
    def load(self, scene: Stage, *, port: int = 0, **load: Any) -> Iterator[Ledger]:
        """Clients send; the block begins when mail is taken. They settle what they began.

        `port`: where they connect, instead of the gateway's own. `load`: see Ledger.
        """
        scene.joined()
        self._growth = Growth(scene.gateway)
        ledger = Ledger(lambda: port or scene.gateway.port, **load)
        try:
            ledger.more(20)
            ledger.mark()
            yield ledger
        finally:
            ledger.stop()
            self._growth.stop()

    def take(self, scene: Stage) -> list[Json]:
        """Read the queue now, because the fault will take it away or the test looks inside."""
        taken = scene.take()
        self._before += taken
        return taken

    def verdict(self, scene: Stage, ledger: Ledger, *, growth: int = GROWTH) -> Verdict:
        """Read the queue, hold it against the ledger, and assert the promise.

        `growth`: octets that the workers may have grown by.
        """
        verdict = ledger.verdict([*self._before, *scene.take()])
        number, fault, made = self._row
        print(f"{number} {fault}: {verdict}")  # noqa: T201  what -s and a failure show
        assert verdict.lost == ()
        assert verdict.strange == ()
        assert verdict.unrecognisable == 0
        assert verdict.unsettled == 0
        assert verdict.heard["silence"] == 0
        assert verdict.slowest < DEADLINE + SLACK
        assert self._growth.most < growth
        scene.is_clean()
        self._rows.append(
            Row(number, fault, made, verdict.saw, verdict.accepted, 0, verdict.duplicated)
        )
        return verdict


class Growth:
    """Looks at the memory of the workers again and again; `most` is what they grew by."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._first = gateway.memory()
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            # A worker may end between two looks, and its supervisor with it.
            with suppress(OSError, IndexError):
                self.most = max(self.most, self._gateway.memory() - self._first)


def take(broker: RabbitMQ, queue: str, vhost: str = "") -> list[AbstractIncomingMessage]:
    """Everything on the queue, taken off; past the gateway's line, as the administrator."""

    async def read() -> list[AbstractIncomingMessage]:
        connection = await aio_pika.connect(broker.url + vhost)
        async with connection:
            channel = await connection.channel(on_return_raises=True)
            source = await channel.get_queue(queue)
            # Queues keep their order: what was promised stands before this.
            last = uuid.uuid4().hex
            await channel.default_exchange.publish(aio_pika.Message(b"", message_id=last), queue)
            found: list[AbstractIncomingMessage] = []
            async with asyncio.timeout(60), source.iterator(no_ack=True) as messages:
                async for message in messages:
                    if message.message_id == last:
                        break
                    found.append(message)
        return found

    return asyncio.run(read())


def delete(broker: RabbitMQ, queue: str, vhost: str) -> None:
    """Delete a queue with all that is in it, as the administrator, and at once.

    rabbitmqctl takes seconds to start on a busy machine. Where publishes are held meanwhile,
    their connection would end for want of a heartbeat, and a new one declares the queue anew.
    """

    async def act() -> None:
        connection = await aio_pika.connect(broker.url + vhost)
        async with connection:
            await (await connection.channel()).queue_delete(queue)

    asyncio.run(act())


@contextmanager
def on_their_way(scene: Scene, link: Link, trial: Trial, ledger: Ledger) -> Iterator[None]:
    """In the block publishes wait on the line, and the queue holds nothing that was promised.

    So a queue can be taken away under load without taking away accepted mail.
    """
    ledger.pause()
    trial.take(scene)
    link.to_server.hold()
    try:
        begun = ledger.begun
        ledger.resume()
        # More than a heartbeat.
        wait_until(lambda: link.to_server.waiting > 500 and ledger.begun > begun, "mail waits")
        yield
    finally:
        link.to_server.release()


def allow(broker: RabbitMQ, write: str = ".*") -> None:
    """Set what the gateway's user may do."""
    broker.ctl("set_permissions", "-p", VHOST, USER, ".*", write, ".*")


def send(gateway: Gateway, message: bytes) -> str:
    """One mail from a client of its own, and the reply to it."""
    with Client(gateway.port) as client:
        client.hello()
        return client.mail(message)


def fault(number: str, name: str, made: str, *, store: bool = False) -> pytest.MarkDecorator:
    """The fault that a test injects: its number where it has one, its name, how it is made.

    `store`: every run injects it with a waiting room too, and not only a soak.
    """
    return pytest.mark.fault(number, name, made, store=store)
