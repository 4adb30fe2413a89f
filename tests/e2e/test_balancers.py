"""Balancers that are trusted, and everybody who would like to be taken for one."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from client import Client
from gateway import Gateway

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"
TRUSTED = {"smtp-proxy": "127.0.0.0/8"}
LOGIN = {"smtp-username": "anna", "smtp-password": "opensesame"}
# hostile-input G08: what the header names is in every range below, the balancer in none.
RANGES = {
    "smtp-range": "192.0.2.0/24",
    "smtp-auth-insecure-range": "192.0.2.7",
    "smtp-extract": "192.0.2.7",
    "smtp-mappable-ips": "198.51.100.0/24",
}


@pytest.mark.parametrize(
    ("begin", "why"),
    [
        (b"EHLO <script>alert(1)</script>\r\n", "not there"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "not there"),
        (b"PROXY TCP4 256.0.2.7 198.51.100.1 40000 25\r\n", "an address is none of its family"),
        (HEADER[:-2], "not whole in time"),
        (b"", "not whole in time"),
    ],
    ids=["SMTP", "TLS", "bad address", "half a header", "silence"],
)
def test_a_balancer_without_its_header_is_closed_without_a_word_and_logged(
    gateway: Callable[..., Gateway], begin: bytes, why: str
) -> None:
    server = gateway(TRUSTED | {"smtp-timeout": "1s"})
    with Client(server.port) as client:
        client.send(begin)
        client.socket.settimeout(10)
        try:
            said = client.socket.recv(65536)
        except ConnectionResetError:  # closed with octets unread
            said = b""
        assert said == b""
    server.saw("proxy.refused")
    [line] = [line for line in server.log.splitlines() if " proxy.refused " in line]
    fields = line.partition(" id=")[2].partition(" ")[2]
    assert fields == f'peer=127.0.0.1 rule=smtp-proxy reason="{why}"'
    assert " client." not in server.log


def test_the_end_waits_for_no_header(gateway: Callable[..., Gateway]) -> None:
    server = gateway(TRUSTED)
    with Client(server.port) as silent, Client(server.port) as halfway, Client(server.port) as last:
        halfway.send(HEADER[:20])
        last.send(HEADER)
        # Who came before is being waited for when the last one is served.
        last.hello()
        server.signal()
        assert server.wait() == 0
        assert "not whole in time" not in server.log
        assert silent.ended()
        assert halfway.ended()
    assert "Traceback" not in server.log


def test_every_rule_sees_the_client_that_a_trusted_balancer_names(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TRUSTED | LOGIN | RANGES)
    with Client(server.port) as client:
        client.send(HEADER)
        assert "AUTH PLAIN LOGIN" in client.hello()
        assert client.ask("AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ==").startswith("235 ")
        assert client.mail(b"x-mq-tag: honoured\r\n" + MESSAGE).startswith("250-")
    [document] = server.consume()
    assert document["tags"] == ["honoured"]
    assert document["ips"] == ["198.51.100.1"]
    assert document["connection"] == document["connection"] | {
        "remote-ip": "192.0.2.7",
        "remote-port": 40000,
        "local-ip": "198.51.100.1",
        "local-port": 25,
        "proxy-ip": "127.0.0.1",
    }


def test_a_balancer_that_names_nobody_gives_no_rights_but_its_own(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TRUSTED | RANGES)
    with Client(server.port) as client:
        client.send(b"PROXY UNKNOWN\r\n")
        assert client.reply().startswith("554 5.7.1 ")
        assert client.ended()
    server.saw("client.refused")
    assert " peer=127.0.0.1 " in server.log
    assert " proxy=127.0.0.1 " in server.log


def test_a_header_from_somebody_else_changes_nothing(gateway: Callable[..., Gateway]) -> None:
    keys = {"smtp-proxy": "192.0.2.0/24", "smtp-mappable-ips": "198.51.100.0/24"}
    server = gateway(keys | LOGIN | {"smtp-auth-insecure-range": "192.0.2.7"})
    with Client(server.port) as client:
        client.send(HEADER)
        assert client.reply().startswith("220 ")
        assert client.reply().startswith("500 ")
        assert "AUTH" not in client.ask("EHLO client.test")
    assert "192.0.2.7" not in server.log
    assert "proxy=" not in server.log


def test_a_client_that_talks_to_a_balancer_cannot_hide_behind_a_second_header(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(TRUSTED | {"smtp-recipients": "any"})
    with Client(server.port) as client:
        client.send(HEADER + HEADER.replace(b"192.0.2.7", b"127.0.0.1"))
        assert client.reply().startswith("220 ")
        assert client.reply().startswith("500 ")
        client.ask("EHLO client.test")
        assert client.mail(MESSAGE).startswith("250-")
    [document] = server.consume()
    assert document["connection"]["remote-ip"] == "192.0.2.7"


def test_a_balancer_that_vanishes_leaves_nothing_open(gateway: Callable[..., Gateway]) -> None:
    server = gateway(TRUSTED)
    with Client(server.port) as client:
        client.send(HEADER)
        client.hello()
        before = server.descriptors()
        for count in range(1, 11):
            with Client(server.port) as vanishing:
                vanishing.send(HEADER[: 4 * count])
                vanishing.socket.shutdown(socket.SHUT_WR)
                assert vanishing.ended()
            server.saw("proxy.refused", count)
        assert server.descriptors() <= before
    assert "Traceback" not in server.log
