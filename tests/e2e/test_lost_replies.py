"""A client that never saw its 250 and comes back: nothing is in the queue twice."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import Client, stuffed
from gateway import Gateway
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
TWO = {"smtp-threads": 2}
# As /proc/net/tcp writes it.
CLOSE_WAIT = "08"


def client_of(server: Gateway, worker: int) -> Client:
    """A client that this worker has accepted and greeted."""
    others = [each for each in server.workers() if each != worker]
    for each in others:
        os.kill(each, signal.SIGSTOP)
    try:
        client = Client(server.port)
        assert client.hello().startswith("250-")
    finally:
        for each in others:
            os.kill(each, signal.SIGCONT)
    return client


@contextmanager
def nothing_becomes_safe(server: Gateway) -> Iterator[None]:
    """For the length of the block the queue is locked, for less than the gateway's patience."""
    queue = sqlite3.connect(server.folder / "queue.sqlite", isolation_level=None)
    try:
        queue.execute("BEGIN IMMEDIATE")
        yield
        queue.execute("ROLLBACK")
    finally:
        queue.close()


def vanish(client: Client, how: str) -> None:
    if how == "reset":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def was_read_to_its_end(port: int) -> bool:
    """Whether nothing of what a client on that port sent, its end included, waits in the kernel."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state, queues, *_ = line.split()
        if int(remote.partition(":")[2], 16) == port and state == CLOSE_WAIT:
            return int(queues.partition(":")[2], 16) == 0
    return False


def identifiers(said: str) -> list[str]:
    return re.findall(r"(\S+) for ", said)


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("behind", [b"", b"QUIT\r\n"])
def test_who_vanished_after_the_dot_gets_the_old_identifiers_from_another_worker(
    gateway: Callable[..., Gateway], how: str, behind: bytes
) -> None:
    server = gateway(TWO)
    one, other = server.workers()
    with client_of(server, one) as client, nothing_becomes_safe(server):
        client.transaction("bob@ours.test", "eve@ours.test")
        client.send(stuffed(MESSAGE) + behind)
        vanish(client, how)
    server.saw("client.gone")
    with client_of(server, other) as client:
        said = identifiers(client.mail(MESSAGE, "bob@ours.test", "eve@ours.test"))
        # This time it saw the reply: what it sends now is meant.
        assert identifiers(client.mail(MESSAGE, "bob@ours.test", "eve@ours.test")) != said
    documents = server.consume()
    assert [each["message-id"] for each in documents[:2]] == said
    assert len(documents) == 4
    assert server.log.count(" message.replayed ") == 1


def test_who_comes_back_while_the_first_is_under_way_waits_for_it(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TWO)
    one, other = server.workers()
    with client_of(server, one) as client, client_of(server, other) as again:
        with nothing_becomes_safe(server):
            port = client.socket.getsockname()[1]
            client.transaction()
            client.send(stuffed(MESSAGE))
            vanish(client, "close")
            wait_until(lambda: was_read_to_its_end(port), "the worker knows that it went")
            again.transaction()
            again.send(stuffed(MESSAGE))
        said = identifiers(again.reply())
    [document] = server.consume()
    assert [document["message-id"]] == said


def test_a_reply_that_was_not_seen_outlives_its_worker(gateway: Callable[..., Gateway]) -> None:
    server = gateway(TWO)
    one, other = server.workers()
    with client_of(server, one) as client, nothing_becomes_safe(server):
        client.transaction()
        client.send(stuffed(MESSAGE))
        vanish(client, "reset")
    server.saw("client.gone")
    os.kill(one, signal.SIGKILL)
    server.saw("worker.ready", 3)
    with client_of(server, other) as client:
        said = identifiers(client.mail(MESSAGE))
    [document] = server.consume()
    assert [document["message-id"]] == said


@pytest.mark.parametrize(("window", "documents"), [("0", 2), ("1ms", 2), ("1h", 1)])
def test_how_long_it_is_remembered_is_the_operators_choice(
    gateway: Callable[..., Gateway], window: str, documents: int
) -> None:
    server = gateway({"smtp-replay-window": window})
    with Client(server.port) as client, nothing_becomes_safe(server):
        client.hello()
        client.transaction()
        client.send(stuffed(MESSAGE))
        vanish(client, "reset")
    server.saw("client.gone")
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-")
    assert len(server.consume()) == documents


@pytest.mark.parametrize("ending", ["QUIT", "close"])
def test_who_saw_the_reply_and_sends_the_same_again_means_two_mails(
    gateway: Callable[..., Gateway], ending: str
) -> None:
    server = gateway()
    for _ in range(2):
        with Client(server.port) as client:
            client.hello()
            assert client.mail(MESSAGE).startswith("250-")
            if ending == "QUIT":
                assert client.ask("QUIT").startswith("221 ")
    documents = server.consume()
    assert len(documents) == 2
    # By which a consumer can tell, or not, as it likes.
    assert len({each["dedupe"] for each in documents}) == 1
    assert len({each["message-id"] for each in documents}) == 2
