"""Several workers on the same sockets: one that dies is replaced, and the others do not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from client import Client
from gateway import Gateway
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
TWO = {"smtp-threads": 2}


@contextmanager
def only(server: Gateway, worker: int) -> Iterator[None]:
    """Nobody but this worker moves."""
    others = [each for each in server.workers() if each != worker]
    for each in others:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in others:
            os.kill(each, signal.SIGCONT)


def client_of(server: Gateway, worker: int) -> Client:
    """A client that this worker has accepted and greeted."""
    with only(server, worker):
        client = Client(server.port)
        assert client.hello().startswith("250-")
    return client


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_worker_serves(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"smtp-threads": 3})
    workers = server.workers()
    assert len(workers) == 3
    for worker in workers:
        with client_of(server, worker) as client:
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    documents = server.consume()
    # No two of them draw the same names.
    assert len({document["message-id"] for document in documents}) == 3
    assert len({document["message-id"][:12] for document in documents}) == 3
    assert server.stop() == 0
    assert server.log.count(" serve.stopped ") == 3


def test_newcomers_whom_two_workers_reach_for_are_greeted_once_and_nobody_is_lost(
    gateway: Callable[..., Gateway],
) -> None:
    # Both wake up for each client, and one of them finds that it has gone to the other.
    server = gateway(TWO)
    with ExitStack() as crowd:
        for _ in range(10):
            clients = [crowd.enter_context(Client(server.port)) for _ in range(50)]
            for client in clients:
                assert client.hello().startswith("250-")
    server.saw("client.gone", 500)
    assert server.log.count(" client.connected ") == 500
    assert " accept." not in server.log
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_worker_that_was_killed_is_replaced_and_the_other_one_does_not_notice(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TWO)
    victim, survivor = server.workers()
    with client_of(server, victim) as lost, client_of(server, survivor) as kept:
        kept.transaction()
        os.kill(victim, signal.SIGKILL)
        assert lost.reply() == ""
        server.saw("worker.ready", 3)
        kept.send(MESSAGE + b".\r\n")
        assert kept.reply().startswith("250-2.0.0 ")
    assert f"worker.died worker=0 pid={victim} signal=SIGKILL" in server.log
    [replacement] = [each for each in server.workers() if each != survivor]
    assert replacement != victim
    with client_of(server, replacement) as client:
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert server.stop() == 0
    assert len(server.consume()) == 2


def test_the_only_worker_is_replaced_too_and_clients_wait_in_the_backlog(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway()
    [worker] = server.workers()
    os.kill(worker, signal.SIGSTOP)
    with Client(server.port) as client:
        os.kill(worker, signal.SIGKILL)
        assert client.hello().startswith("250-")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")


def test_a_worker_that_is_asked_to_end_ends_as_if_all_did_and_is_replaced(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TWO)
    one, _ = server.workers()
    with client_of(server, one) as client:
        os.kill(one, signal.SIGTERM)
        assert client.reply().startswith("421 4.3.2 ")
    server.saw("worker.ready", 3)
    assert f"worker.ended worker=0 pid={one}" in server.log
    assert server.stop() == 0


def test_without_a_supervisor_the_workers_finish_and_end(gateway: Callable[..., Gateway]) -> None:
    server = gateway(TWO)
    workers = server.workers()
    with client_of(server, workers[0]) as idle, client_of(server, workers[1]) as busy:
        busy.transaction()
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        assert idle.reply().startswith("421 4.3.2 ")
        server.saw("serve.draining", 2)
        with pytest.raises(ConnectionRefusedError):
            Client(server.port)
        busy.send(MESSAGE + b".\r\n")
        assert busy.reply().startswith("250-2.0.0 ")
    wait_until(lambda: all(is_gone(each) for each in workers), "the workers end")
    assert server.log.count(" supervisor.died ") == 2
    assert len(server.consume()) == 1


def test_ctrl_c_in_a_terminal_is_one_wish_though_every_process_hears_it(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TWO, before=os.setpgrp)
    with client_of(server, server.workers()[0]) as client:
        client.transaction()
        assert server.process is not None
        os.killpg(server.process.pid, signal.SIGINT)
        server.saw("serve.draining", 2)
        client.send(MESSAGE + b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")
    assert server.wait() == 0


def test_who_asks_twice_does_not_wait_for_clients(gateway: Callable[..., Gateway]) -> None:
    server = gateway(TWO)
    with client_of(server, server.workers()[0]) as client:
        client.transaction()
        server.signal()
        server.saw("serve.draining", 2)
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert client.ended()


def test_a_worker_that_dies_while_it_drains_is_not_replaced_and_not_hidden(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TWO)
    one, _ = server.workers()
    with client_of(server, one) as client:
        client.transaction()
        server.signal()
        server.saw("serve.draining", 2)
        os.kill(one, signal.SIGKILL)
        assert server.wait() == 1
    assert server.log.count(" worker.ready ") == 2
