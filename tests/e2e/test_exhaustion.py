"""The machine runs out of something: who is there is served, and all is well afterwards."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import ExitStack

from client import Client
from gateway import Gateway, content

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 8000


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def no_large_files() -> None:
    # As a disk that is full: writing behind this mark fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))


def test_more_clients_than_descriptors(gateway: Callable[..., Gateway]) -> None:
    server = gateway(before=few_descriptors)
    with ExitStack() as crowd:
        clients = [crowd.enter_context(Client(server.port)) for _ in range(60)]
        server.saw("accept.exhausted")
        # Who was let in is served, as if nobody waited outside.
        assert clients[0].hello().startswith("250-")
        assert clients[0].mail(MESSAGE).startswith("250-2.0.0 ")
        for client in clients[:40]:
            client.socket.close()
        # And who waited is let in when there is room.
        assert clients[-1].hello().startswith("250-")
        assert clients[-1].mail(MESSAGE).startswith("250-2.0.0 ")
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert server.stop() == 0
    assert "Traceback" not in server.log
    assert len(server.consume()) == 3


def test_waiting_for_descriptors_burns_no_core(gateway: Callable[..., Gateway]) -> None:
    server = gateway(before=few_descriptors)
    with ExitStack() as crowd:
        for _ in range(60):
            crowd.enter_context(Client(server.port))
        server.saw("accept.exhausted", 2)
        begin, asked = time.monotonic(), server.log.count(" accept.exhausted ")
        server.saw("accept.exhausted", asked + 2)
        assert time.monotonic() - begin > 0.5


def test_no_descriptor_for_the_spool(gateway: Callable[..., Gateway]) -> None:
    server = gateway(before=few_descriptors)
    with ExitStack() as crowd:
        first = crowd.enter_context(Client(server.port))
        first.hello()
        for _ in range(60):
            crowd.enter_context(Client(server.port))
        server.saw("accept.exhausted")
        assert first.mail(LARGE).startswith("452 4.3.1 ")
        assert first.mail(MESSAGE).startswith("250-2.0.0 ")
    with Client(server.port) as client:
        client.hello()
        assert client.mail(LARGE).startswith("250-2.0.0 ")
    assert [content(document) for document in server.consume()] == [MESSAGE, LARGE]


def test_a_full_disk_under_the_spool(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"spool-memory": "100KB"}, before=no_large_files)
    with Client(server.port) as client:
        client.hello()
        for _ in range(2):
            assert client.mail(LARGE).startswith("452 4.3.1 ")
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        assert client.mail(LARGE[:500_000] + b"\r\n").startswith("250-2.0.0 ")
    assert "Traceback" not in server.log
    assert server.log.count(" spool.failed ") == 2
    assert len(server.consume()) == 3


def test_what_the_spool_does_not_take_is_not_kept_in_memory(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(before=few_descriptors)
    with ExitStack() as crowd:
        first = crowd.enter_context(Client(server.port))
        first.hello()
        for _ in range(60):
            crowd.enter_context(Client(server.port))
        server.saw("accept.exhausted")
        first.transaction()
        before = most = server.memory()
        for _ in range(12):
            # 96 MB in all; the kernel's buffers hold little of it, so the gateway reads on.
            first.send(LARGE)
            most = max(most, server.memory())
        first.send(b".\r\n")
        assert first.reply().startswith("452 4.3.1 ")
    assert most - before < 30_000_000


def test_a_large_mail_to_many_costs_its_size_a_few_times(gateway: Callable[..., Gateway]) -> None:
    # hostile-input G06: the recipients share the bytes.
    server = gateway({"smtp-confirm-timeout": "120"})
    large = b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 3000
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        before = server.memory()
        reply = client.mail(large, *(f"user{n}@ours.test" for n in range(60)))
        assert reply.count("250") == 61
        assert server.memory() - before < 6 * len(large)
