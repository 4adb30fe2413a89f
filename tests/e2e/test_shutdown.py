"""SIGTERM: what was begun is finished, what got 250 is there."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from client import Client
from gateway import Gateway, content
from parts import needs
from rabbitmq import RabbitMQ, wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
SHUTTING_DOWN = "421 4.3.2 "


def test_idle_clients_are_told_and_the_exit_is_clean(gateway: Callable[..., Gateway]) -> None:
    server = gateway()
    with Client(server.port) as greeted, Client(server.port) as ready:
        greeted.reply()
        ready.hello()
        server.signal()
        assert greeted.reply().startswith(SHUTTING_DOWN)
        assert ready.reply().startswith(SHUTTING_DOWN)
        assert greeted.reply() == ready.reply() == ""
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_who_asks_again_and_again_changes_nothing_of_the_exit(
    gateway: Callable[..., Gateway],
) -> None:
    # As systemd and containers do: all processes are told, and some more than once.
    server = gateway({"smtp-threads": 2})
    everybody = [server.process.pid, *server.workers()]
    while server.process.poll() is None:
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    assert server.wait() == 0
    assert "worker.died" not in server.log


def test_a_transaction_under_way_is_finished_and_newcomers_are_refused(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway()
    with Client(server.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        server.signal()
        server.saw("serve.draining")
        with pytest.raises(ConnectionRefusedError):
            Client(server.port)
        assert client.ask("RCPT TO:<bob@ours.test>").startswith("250 ")
        assert client.ask("DATA").startswith("354 ")
        client.send(MESSAGE + b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")
        assert client.reply().startswith(SHUTTING_DOWN)
        assert client.reply() == ""
    assert server.wait() == 0
    [document] = server.consume()
    assert content(document) == MESSAGE


def test_no_second_transaction_is_begun(gateway: Callable[..., Gateway]) -> None:
    server = gateway()
    with Client(server.port) as client:
        client.hello()
        client.transaction()
        server.signal()
        server.saw("serve.draining")
        client.send(MESSAGE + b".\r\nMAIL FROM:<joe@there.test>\r\n")
        assert client.reply().startswith("250-2.0.0 ")
        assert client.reply().startswith(SHUTTING_DOWN)
        assert client.ended()
    assert server.wait() == 0
    assert len(server.consume()) == 1


def test_who_asks_twice_does_not_wait_for_clients(gateway: Callable[..., Gateway]) -> None:
    server = gateway()
    with Client(server.port) as client:
        client.hello()
        client.transaction()
        client.send(b"half a mess")
        server.signal()
        server.saw("serve.draining")
        begin = time.monotonic()
        server.signal()
        assert client.reply().startswith(SHUTTING_DOWN)
        assert server.wait() == 0
        assert time.monotonic() - begin < 10
    assert server.consume() == []


def test_it_ends_at_once_while_the_broker_is_away(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"rabbitmq-address": "amqp://guest:guest@127.0.0.1:1/"})
    with Client(server.port) as client:
        client.hello()
        assert client.ask("MAIL FROM:<>").startswith("451 4.3.0 ")
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 10


@needs("rabbitmq")
def test_a_broker_that_stands_still_holds_up_the_end_no_longer_than_a_confirm(
    gateway: Callable[..., Gateway], broker: RabbitMQ
) -> None:
    server = gateway(
        {
            "rabbitmq-address": broker.url,
            "rabbitmq-inbox": "shutdown-frozen",
            "smtp-confirm-timeout": "2s",
        }
    )
    with Client(server.port) as client:
        client.hello()
        wait_until(lambda: client.ask("MAIL FROM:<>").startswith("250 "), "it has joined", 60)
        client.ask("RCPT TO:<bob@ours.test>")
        client.ask("DATA")
        broker.freeze()
        try:
            client.send(MESSAGE + b".\r\n")
            server.signal()
            assert client.reply().startswith("451 4.3.0 ")
            assert client.reply().startswith(SHUTTING_DOWN)
            assert server.wait() == 0
        finally:
            broker.thaw()
    assert "Traceback" not in server.log


class Ledger:
    """Clients that send until they are told to go, and write down what got 250."""

    def __init__(self, port: int, clients: int) -> None:
        self.promised: set[str] = set()
        self.refused = 0
        self._port = port
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _send(self) -> None:
        while True:
            try:
                with Client(self._port) as client:
                    client.hello()
                    while (said := client.mail(MESSAGE)).startswith("250-2.0.0 "):
                        self.promised.add(said.split()[-3])
            except ConnectionRefusedError:
                return
            except (OSError, AssertionError):
                continue
            self.refused += 1


def under_load(server: Gateway) -> Ledger:
    """Take mail from many clients, and be asked to end amid it."""
    ledger = Ledger(server.port, clients=8)
    try:
        wait_until(lambda: len(ledger.promised) > 100, "mail comes")
        server.signal()
        assert server.wait(60) == 0
    finally:
        server.close()
        ledger.join()
    return ledger


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_that_got_250_is_missing_in_the_embedded_queue(
    gateway: Callable[..., Gateway], workers: int
) -> None:
    server = gateway({"smtp-threads": workers})
    ledger = under_load(server)
    documents = server.consume()
    assert {document["message-id"] for document in documents} == ledger.promised
    assert len(documents) == len(ledger.promised)


@needs("rabbitmq")
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_that_got_250_is_missing_in_the_broker(
    gateway: Callable[..., Gateway], broker: RabbitMQ, workers: int
) -> None:
    inbox = f"shutdown-inbox-{workers}"
    server = gateway(
        {
            "smtp-threads": workers,
            "rabbitmq-address": broker.url,
            "rabbitmq-inbox": inbox,
        }
    )
    ledger = under_load(server)
    documents = server.consume(inbox)
    assert {document["message-id"] for document in documents} == ledger.promised
    assert len(documents) == len(ledger.promised)
