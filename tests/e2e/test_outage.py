"""`rabbitmq-outage: store` as a user runs it: several workers, a broker that comes and goes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import aio_pika
import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT, Gateway, running
from mailgw.outlets.lease import holder
from mailgw.outlets.store_file import depths
from parts import needs
from rabbitmq import RabbitMQ, wait_until

pytestmark = needs("rabbitmq")

STORING = {"rabbitmq-outage": "store", "application-log": "stderr"}
SUBJECT = re.compile(r"Subject: ([0-9]+)-([0-9]+)")


@pytest.fixture
def own() -> Iterator[RabbitMQ]:
    """A node of the test's own, not started."""
    node = RabbitMQ()
    yield node
    node.close()


def keys_for(broker: RabbitMQ, inbox: str, **more: object) -> dict[str, object]:
    keys = {key.replace("_", "-"): value for key, value in more.items()}
    return STORING | {"rabbitmq-address": broker.url, "rabbitmq-inbox": inbox} | keys


def mail(client: int, number: int) -> bytes:
    return b"Subject: %d-%d\r\n\r\nHello.\r\n" % (client, number)


def subjects(broker: RabbitMQ, inbox: str) -> list[tuple[int, int]]:
    """Client and number of each mail on the queue, in order; a repetition counts once."""

    async def take() -> list[tuple[str, tuple[int, int]]]:
        found = []
        connection = await aio_pika.connect(broker.url)
        async with connection:
            channel = await connection.channel()
            source = await channel.get_queue(inbox, ensure=False)
            while (message := await source.get(no_ack=True, fail=False)) is not None:
                subject = SUBJECT.match(json.loads(message.body)["mime"])
                assert subject is not None
                assert message.message_id is not None
                found.append((message.message_id, (int(subject[1]), int(subject[2]))))
        return found

    first = dict[str, tuple[int, int]]()
    for name, subject in asyncio.run(take()):
        first.setdefault(name, subject)
    return list(first.values())


def send(port: int, client: int, numbers: range) -> list[str]:
    """One connection, one mail after the other; the last reply to each."""
    with Client(port) as connection:
        connection.hello()
        return [connection.mail(mail(client, number))[:5] for number in numbers]


def empty(server: Gateway) -> bool:
    return depths(server.folder / "queue.sqlite") == {}


def in_order(found: list[tuple[int, int]]) -> bool:
    """Whether each client's mails came in the order in which it sent them."""
    clients = {client for client, _ in found}
    return all(
        numbers == sorted(numbers)
        for numbers in ([n for client, n in found if client == each] for each in clients)
    )


def test_mail_waits_over_a_restart_of_the_gateway_and_goes_first(
    gateway: Callable[..., Gateway], own: RabbitMQ, tmp_path: Path
) -> None:
    server = gateway(keys_for(own, "inbox", smtp_threads=2))
    assert send(server.port, 1, range(20)) == ["250-2"] * 20
    assert server.stop() == 0
    status = subprocess.run(
        [*COMMAND, "store", "status", "--json", f"--queue-store={server.folder}/queue.sqlite"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert status.returncode == 1
    assert json.loads(status.stdout)["documents"] == 20

    (tmp_path / "again").mkdir()
    keys = keys_for(own, "inbox", smtp_threads=2, queue_store=tmp_path / "queue.sqlite")
    with running(tmp_path / "again", keys) as again:
        assert send(again.port, 1, range(20, 40)) == ["250-2"] * 20
        own.start()
        wait_until(lambda: empty(server), "the store is empty", 60)
        assert send(again.port, 1, range(40, 60)) == ["250-2"] * 20
        wait_until(lambda: empty(server), "the store is empty", 60)

        assert subjects(own, "inbox") == [(1, number) for number in range(60)]
        assert again.log.count(" outage.over ") >= 1
        assert "Traceback" not in again.log
        assert again.stop() == 0


def test_a_worker_killed_while_it_hands_on_loses_nothing(
    gateway: Callable[..., Gateway], own: RabbitMQ
) -> None:
    server = gateway(keys_for(own, "inbox", smtp_threads=2))
    store = server.folder / "queue.sqlite"
    for client in range(4):
        assert set(send(server.port, client, range(250))) == {"250-2"}
    own.start()
    killed = 0

    def kill_who_drains() -> bool:
        nonlocal killed
        drains = holder(store)
        if drains in server.workers():
            os.kill(drains, signal.SIGKILL)
            killed += 1
        return killed == 2 or empty(server)

    wait_until(kill_who_drains, "somebody drains", 60)
    wait_until(lambda: empty(server), "the store is empty", 60)
    assert set(send(server.port, 9, range(10))) == {"250-2"}

    found = subjects(own, "inbox")
    assert killed >= 1
    assert sorted(found) == sorted(
        [(client, n) for client in range(4) for n in range(250)] + [(9, n) for n in range(10)]
    )
    assert in_order(found)


def test_a_broker_killed_under_load_is_not_noticed_by_clients_of_any_worker(
    gateway: Callable[..., Gateway], own: RabbitMQ
) -> None:
    own.start()
    server = gateway(keys_for(own, "inbox", smtp_threads=2))
    stop = threading.Event()
    sent: dict[int, list[str]] = {client: [] for client in range(8)}

    def client(name: int) -> None:
        with Client(server.port) as connection:
            connection.hello()
            while not stop.is_set():
                sent[name].append(connection.mail(mail(name, len(sent[name])))[:5])
                # Thousands would do, but the look into the queue at the end takes its time.
                stop.wait(0.02)

    def so_many(more: int) -> Callable[[], bool]:
        wanted = sum(map(len, sent.values())) + more
        return lambda: sum(map(len, sent.values())) >= wanted

    clients = [threading.Thread(target=client, args=(name,)) for name in sent]
    for each in clients:
        each.start()
    try:
        wait_until(so_many(100), "mail comes in", 60)
        own.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
        own.kill()
        wait_until(so_many(200), "mail comes in all the same", 60)
        own.start()
        server.saw("outage.over")
        wait_until(so_many(100), "mail comes in", 60)
    finally:
        stop.set()
        for each in clients:
            each.join()
    wait_until(lambda: empty(server), "the store is empty", 60)

    found = subjects(own, "inbox")
    assert {answer for answers in sent.values() for answer in answers} == {"250-2"}
    assert sorted(found) == sorted((name, n) for name in sent for n in range(len(sent[name])))
    assert in_order(found)
    assert "Traceback" not in server.log


def test_a_store_that_is_full_is_a_452_before_data(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    nobody = {"rabbitmq-address": "amqp://127.0.0.1:1/"}
    server = gateway(STORING | nobody | {"queue-store-max": "1MB"})
    with Client(server.port) as client:
        client.hello()
        message = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n"
        message += (b"y" * 70 + b"\r\n") * 1400
        answers = [client.mail(message)]
        while answers[-1].startswith("250") and len(answers) < 20:
            answers.append(client.mail(message))
        said = client.ask("MAIL FROM:<joe@there.test> SIZE=30000000")
    assert 7 <= len(answers) <= 11
    assert said == "452 4.3.1 Temporarily no room for this message, try again later"
    assert (tmp_path / "queue.sqlite").stat().st_size <= 1_100_000
