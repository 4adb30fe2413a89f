"""How many, how often, how slow: what clients of the whole gateway meet."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from client import Client
from gateway import Certificate, Gateway
from nameserver import nameserver
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
# An address of the public internet: it is only spoken of, never spoken to.
STRANGER = "8.7.6.5"
IN: dict[str, object] = {"smtp-connections-in": 2}


def proxied(server: Gateway, address: str = STRANGER) -> Client:
    """A client of that address, behind a balancer that says so."""
    client = Client(server.port)
    family = "TCP6" if ":" in address else "TCP4"
    here = "::1" if ":" in address else "127.0.0.1"
    client.send(f"PROXY {family} {address} {here} 40000 25\r\n".encode())
    return client


def test_only_clients_in_the_range_get_a_banner(
    gateway: Callable[..., Gateway], certificate: Certificate
) -> None:
    keys = certificate.keys | {"smtp-range": "192.0.2.0/24; 10.0.0.1-10.0.0.9"}
    server = gateway(keys | {"smtp-proxy": "127.0.0.1"})
    with proxied(server) as client:
        assert client.reply().startswith("554 5.7.1 ")
        assert client.reply() == ""
    with proxied(server, "10.0.0.9") as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    # On a TLS port nothing can be said that would not be taken for a handshake.
    with Client(server.secure_port) as client:
        client.send(f"PROXY TCP4 {STRANGER} 127.0.0.1 40000 465\r\n".encode())
        assert client.socket.recv(1) == b""
    server.saw("client.refused", 2)
    assert "rule=smtp-range" in server.log


def test_connections_per_address(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"smtp-connections-per-ip": 2, "smtp-proxy": "127.0.0.1"})
    with proxied(server) as one, proxied(server) as two, proxied(server) as three:
        assert {each.reply()[:4] for each in (one, two)} == {"220 "}
        assert three.reply().startswith("421 4.7.0 ")
        with proxied(server, "8.7.6.4") as other:
            assert other.reply().startswith("220 ")
        one.ask("QUIT")
        server.saw("client.gone")
        with proxied(server) as again:
            assert again.reply().startswith("220 ")


def test_an_ipv6_network_is_one_client(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"smtp-connections-per-ip": 1, "smtp-proxy": "127.0.0.1"})
    with (
        proxied(server, "2a00:1234:0:1::1") as one,
        proxied(server, "2a00:1234:0:1::2") as neighbour,
        proxied(server, "2a00:1234:0:2::1") as other,
    ):
        said = [one.reply()[:4], neighbour.reply()[:4], other.reply()[:4]]
    # Which of the two was first is for the network to say.
    assert sorted(said[:2]) == ["220 ", "421 "]
    assert said[2] == "220 "


def test_connections_and_messages_by_the_minute(gateway: Callable[..., Gateway]) -> None:
    server = gateway(
        {"smtp-rate": "connections=2,messages=3", "smtp-proxy": "127.0.0.1", "output": "null"}
    )
    with proxied(server) as client:
        client.hello()
        assert [client.mail(MESSAGE)[:4] for _ in range(4)] == ["250 "] * 3 + ["450 "]
    with proxied(server) as client:
        assert client.hello().startswith("250-")
        assert client.ask("MAIL FROM:<joe@there.test>").startswith("450 4.7.1 ")
    with proxied(server) as client:
        assert client.reply().startswith("421 4.7.0 ")
    with proxied(server, "8.7.6.4") as other:
        other.hello()
        assert other.mail(MESSAGE).startswith("250 ")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "keys",
    [{"smtp-connections": 2}, {"smtp-connections-in": 2}, {"smtp-connections": 9} | IN],
    ids=["all", "in", "the-lower-of-both"],
)
def test_the_excess_waits_outside_across_all_workers(
    gateway: Callable[..., Gateway], keys: dict[str, object], workers: int
) -> None:
    # hostile-input G09: the two who fit are idle; with three workers they are fewer than those.
    server = gateway(keys | {"smtp-threads": workers})
    with ExitStack() as crowd:
        waiting = [crowd.enter_context(Client(server.port)) for _ in range(8)]
        here = [_greeted(waiting), _greeted(waiting)]
        while waiting:
            assert not _readable(waiting, 0.2)
            leaver = here.pop(0)
            assert leaver.ask("EHLO client.test").startswith("250-")
            assert leaver.mail(MESSAGE).startswith("250-2.0.0 ")
            assert leaver.ask("QUIT").startswith("221 ")
            here.append(_greeted(waiting))
        server.saw("client.connected", 8)
    assert len(server.consume()) == 6


def _readable(clients: list[Client], seconds: float) -> list[Client]:
    sockets = {client.socket: client for client in clients}
    return [sockets[each] for each in select.select(list(sockets), [], [], seconds)[0]]


def _greeted(waiting: list[Client]) -> Client:
    """Whoever is let in first; it waits no more."""
    client = _readable(waiting, 15)[0]
    waiting.remove(client)
    assert client.reply().startswith("220 ")
    return client


def test_a_worker_that_dies_takes_no_places_with_it(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"smtp-connections": 2, "smtp-connections-per-ip": 2})
    for round_ in range(1, 4):
        with Client(server.port) as one, Client(server.port) as two:
            assert one.reply().startswith("220 ")
            assert two.reply().startswith("220 ")
            [worker] = server.workers()
            os.kill(worker, signal.SIGKILL)
            assert one.ended()
        wait_until(lambda: _alive(server), f"worker {round_} is replaced")


def _alive(server: Gateway) -> bool:
    try:
        with Client(server.port) as client:
            return client.reply().startswith("220 ")
    except OSError:
        return False


def test_who_talks_before_the_banner_is_refused(
    gateway: Callable[..., Gateway], certificate: Certificate
) -> None:
    # hostile-input B26.
    server = gateway(certificate.keys | {"smtp-greeting-delay": "0.5"})
    session = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@ours.test>\r\nDATA\r\n" + MESSAGE + b".\r\n"
    with Client(server.port) as client:
        client.send(session)
        assert client.reply().startswith("554 5.5.1 ")
        assert client.ended()
    with Client(server.port) as client:
        begin = time.monotonic()
        assert client.hello().startswith("250-")
        assert time.monotonic() - begin >= 0.4
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    # A handshake comes before the banner, and is what is asked for.
    with Client(server.secure_port) as client:
        client.handshake(certificate.authority)
        assert client.hello().startswith("250-")
    assert "rule=smtp-greeting-delay" in server.log
    assert len(server.consume()) == 1


@pytest.mark.parametrize(("rate", "ended"), [(0, False), (10_000_000, True)])
def test_how_slow_a_sender_may_be(gateway: Callable[..., Gateway], rate: int, ended: bool) -> None:
    server = gateway({"smtp-timeout": 1, "smtp-minimum-rate": rate})
    with Client(server.port) as client:
        client.hello()
        client.transaction()
        end = time.monotonic() + 4
        while time.monotonic() < end and not _readable([client], 0.05):
            client.send(b"y" * 98 + b"\r\n")
        if ended:
            assert client.reply().startswith("421 4.4.2 ")
        else:
            client.send(b".\r\n")
            assert client.reply().startswith("250-2.0.0 ")


def test_a_listed_client_is_refused_and_a_list_that_is_down_stops_nobody(
    gateway: Callable[..., Gateway],
) -> None:
    zone = {("5.6.7.8.bad.test", "A"): ["127.0.0.2"]}
    with nameserver(zone) as names:
        names.behaviour |= {f"{host}.6.7.8.down.test": "silent" for host in (4, 5)}
        server = gateway(
            {
                "smtp-dnsbl": "down.test, bad.test",
                "smtp-proxy": "127.0.0.1",
                "dns-server": f"127.0.0.1:{names.port}",
                "dns-timeout": 1,
            }
        )
        with proxied(server) as client:
            assert client.reply() == "554 5.7.1 Your address is listed in bad.test"
            assert client.ask("EHLO client.test").startswith("503 ")
            assert client.ask("QUIT").startswith("221 ")
        with proxied(server, "8.7.6.4") as client:
            assert client.hello().startswith("250-")
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        # Nobody asks about a client of this machine.
        asked = names.asked.total()
        with proxied(server, "127.0.0.9") as client:
            assert client.hello().startswith("250-")
        assert names.asked.total() == asked
        assert "dnsbl.listed" in server.log
        assert server.stop() == 0
    assert "Traceback" not in server.log


def test_with_no_name_server_at_all_mail_goes_on(gateway: Callable[..., Gateway]) -> None:
    with nameserver({}) as names:
        port = names.port
    server = gateway(
        {
            "smtp-dnsbl": "bad.test",
            "smtp-dnsbl-action": "log",
            "smtp-proxy": "127.0.0.1",
            "dns-server": f"127.0.0.1:{port}",
            "dns-timeout": 1,
        }
    )
    for _ in range(4):
        with proxied(server) as client:
            assert client.hello().startswith("250-")
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    server.saw("dnsbl.resting")
    assert len(server.consume()) == 4
