"""TLS as hostile and hurried clients use it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from client import Client
from gateway import Certificate, Gateway, content, running
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
ANNA = "AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ=="
LOGIN = {"smtp-username": "anna", "smtp-password": "opensesame"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("starttls"), certificate.keys) as started:
        yield started


@pytest.mark.parametrize(
    "behind",
    [
        b"NOOP injected\r\n",
        b"EHLO evil.test\r\nMAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<bob@ours.test>\r\n",
        b"RSET\r\n" * 500,
    ],
)
def test_what_is_queued_behind_starttls_is_dropped(
    shared: Gateway, certificate: Certificate, behind: bytes
) -> None:
    # CVE-2011-0411, CVE-2021-38371.
    with Client(shared.port) as client:
        client.hello()
        client.send(b"STARTTLS\r\n" + behind)
        assert client.reply().startswith("220 2.0.0 ")
        client.handshake(certificate.authority)
        assert client.ask("MAIL FROM:<joe@there.test>").startswith("503 ")
        assert client.ask("EHLO client.test").startswith("250-mx.ours.test\n")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert [document["envelope"] for document in shared.consume()] == ["joe@there.test"]


def test_starttls_amid_a_transaction_is_out_of_order(shared: Gateway) -> None:
    with Client(shared.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        assert client.ask("STARTTLS").startswith("503 ")
        assert client.ask("RCPT TO:<bob@ours.test>").startswith("250 ")


def test_after_the_handshake_the_client_is_a_stranger_again(
    shared: Gateway, certificate: Certificate
) -> None:
    with Client(shared.port) as client:
        assert "STARTTLS" in client.hello()
        client.starttls(certificate.authority)
        assert client.ask("RCPT TO:<bob@ours.test>").startswith("503 ")
        assert "STARTTLS" not in client.ask("EHLO again.test")
        assert client.ask("STARTTLS").startswith("503 ")
        assert client.mail(MESSAGE).startswith("250-")
    [document] = shared.consume()
    assert document["connection"]["helo"] == "again.test"
    assert document["connection"]["tls-version"] == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_ehlo_in_the_packet_of_the_finished_is_answered(
    shared: Gateway, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with Client(shared.port) as client:
        client.hello()
        client.ask("STARTTLS")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(outgoing.read())
                incoming.write(client.socket.recv(65536))
        tls.write(b"EHLO hurried.test\r\n")
        client.send(outgoing.read())
        said = b""
        while b"\r\n250 " not in said:
            try:
                said += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(client.socket.recv(65536))
    assert said.startswith(b"250-mx.ours.test\r\n")


@pytest.mark.parametrize(
    "bytes_",
    [
        b"EHLO client.test\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x00" * 1000,
        b"\x80\x2e\x01\x03\x01",
    ],
)
@pytest.mark.parametrize("start", ["STARTTLS", "the TLS port"])
def test_what_is_no_handshake_ends_the_connection(
    shared: Gateway, bytes_: bytes, start: str
) -> None:
    failed = shared.log.count(" tls.failed ")
    with Client(shared.port if start == "STARTTLS" else shared.secure_port) as client:
        if start == "STARTTLS":
            client.hello()
            client.ask("STARTTLS")
        client.send(bytes_)
        # What is too short for a record could become one; the client gives up.
        client.socket.shutdown(socket.SHUT_WR)
        assert client.ended()
    shared.saw("tls.failed", failed + 1)
    assert "Traceback" not in shared.log


def test_a_handshake_on_the_plain_port_ends_the_connection(shared: Gateway) -> None:
    with Client(shared.port) as client:
        assert client.reply().startswith("220 ")
        with pytest.raises((ssl.SSLError, OSError)):
            ssl.create_default_context().wrap_socket(client.socket, server_hostname="localhost")


@pytest.mark.parametrize("start", ["STARTTLS", "the TLS port"])
def test_a_handshake_that_stops_does_not_hold_up_the_end(
    gateway: Callable[..., Gateway], certificate: Certificate, start: str
) -> None:
    server = gateway(certificate.keys)
    with Client(server.port if start == "STARTTLS" else server.secure_port) as client:
        if start == "STARTTLS":
            client.hello()
            client.ask("STARTTLS")
        client.send(b"\x16\x03\x01\x02\x00\x01")
        begin = time.monotonic()
        server.signal()
        server.saw("serve.draining")
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - begin < 10
    assert "Traceback" not in server.log


def test_a_failed_handshake_leaves_nobody_to_wait_for(
    gateway: Callable[..., Gateway], certificate: Certificate
) -> None:
    server = gateway(certificate.keys)
    at_first = 0
    for count in range(1, 6):
        with Client(server.port) as client:
            client.hello()
            client.ask("STARTTLS")
            client.send(b"EHLO plain.test\r\n")
            assert client.ended()
        server.saw("client.gone", count)
        # The first client makes the event loop open one of its own.
        at_first = at_first or server.descriptors()
    wait_until(lambda: server.descriptors() <= at_first, "the sockets are closed")
    assert server.stop() == 0
    assert "clients=0" in server.log


def test_silence_in_a_handshake_ends_by_the_deadline_of_decisions(
    gateway: Callable[..., Gateway], certificate: Certificate
) -> None:
    server = gateway(certificate.keys | {"smtp-confirm-timeout": "1s", "smtp-timeout": "1s"})
    with Client(server.port) as client:
        client.hello()
        client.ask("STARTTLS")
        assert client.ended()
    server.saw("client.gone")
    assert "Traceback" not in server.log


def test_close_notify_amid_data_publishes_nothing(
    shared: Gateway, certificate: Certificate
) -> None:
    # CVE-2026-45185: what follows in clear is not of the message.
    with Client(shared.secure_port) as client:
        client.handshake(certificate.authority)
        client.hello()
        client.transaction()
        client.send(MESSAGE)
        assert isinstance(client.socket, ssl.SSLSocket)
        client.socket = client.socket.unwrap()
        with suppress(OSError):  # closed already is as good
            client.send(b"smuggled\r\n.\r\n")
        assert client.ended()
    assert shared.consume() == []
    assert "Traceback" not in shared.log


def test_a_network_may_log_in_without_tls(gateway: Callable[..., Gateway]) -> None:
    server = gateway(LOGIN | {"smtp-auth-insecure-range": "127.0.0.0/8"})
    with Client(server.port) as client:
        assert "AUTH PLAIN LOGIN" in client.hello()
        assert client.ask(ANNA).startswith("235 ")
        assert client.mail(MESSAGE, "x@elsewhere.test").startswith("250-")
    [document] = server.consume()
    assert document["connection"]["user"] == "anna"
    assert document["connection"]["secure"] is False
    assert content(document) == MESSAGE


def test_other_networks_may_not(gateway: Callable[..., Gateway], certificate: Certificate) -> None:
    keys = {"smtp-auth-insecure-range": "192.0.2.0/24"}
    server = gateway(certificate.keys | LOGIN | keys)
    with Client(server.port) as client:
        assert "AUTH" not in client.hello()
        assert client.ask(ANNA).startswith("538 ")
