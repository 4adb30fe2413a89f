"""A real HAProxy in front: whoever connects to it is the client, over TLS too."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import Certificate, Gateway, Json, content, running
from haproxy import HAProxy
from parts import needs
from rabbitmq import wait_until

pytestmark = needs("haproxy")

MESSAGE = b"From: joe@there.test\r\nSubject: hello\r\n\r\nHello Bob.\r\n"
# Where the client is, and where it believes the server to be.
CLIENTS = {"127.0.0.2": "127.0.0.3", "::1": "::1"}
GATEWAYS = ("127.0.0.1", "::1")
OPTIONS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    # What comes behind the addresses, its checksum first.
    "tlvs": "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl",
}


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Gateway]:
    keys = certificate.keys | {"smtp-ip": ";".join(GATEWAYS), "smtp-proxy": "127.0.0.1;::1"}
    with running(tmp_path_factory.mktemp("gateway"), keys) as started:
        yield started


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory, gateway: Gateway) -> Iterator[HAProxy]:
    endpoints = [(address, way) for address in GATEWAYS for way in ("plain", "tls")]
    servers = {
        f"{version}-{way}-{address}": f"{address}:{port} {options}"
        for version, options in OPTIONS.items()
        for (address, way), port in zip(endpoints, gateway.ports, strict=True)
    }
    balancer = HAProxy(tmp_path_factory.mktemp("haproxy"), servers, tuple(CLIENTS.values()))
    try:
        yield balancer.start()
    finally:
        balancer.close()


def context(certificate: Certificate) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=certificate.authority)
    # It is for the gateway's name, and the client was told HAProxy's.
    found.check_hostname = False
    return found


def send(way: str, client: str, server: tuple[str, int], certificate: Certificate) -> Json:
    """Send one mail and give what its connection must look like, without the balancer."""
    source = (client, 0)
    if way == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(
            *server, "client.test", source_address=source, context=context(certificate)
        )
    else:
        smtp = smtplib.SMTP(*server, "client.test", source_address=source)
    with smtp:
        if way == "starttls":
            smtp.starttls(context=context(certificate))
        smtp.sendmail("joe@there.test", ["bob@ours.test"], MESSAGE)
        assert smtp.sock is not None
        remote = smtp.sock.getsockname()
    return {
        "remote-ip": remote[0],
        "remote-port": remote[1],
        "local-ip": server[0],
        "local-port": server[1],
        "secure": way != "plain",
    }


@pytest.mark.parametrize("way", ["plain", "starttls", "tls"])
@pytest.mark.parametrize("version", OPTIONS)
def test_the_document_names_the_client_and_its_balancer(
    gateway: Gateway, haproxy: HAProxy, certificate: Certificate, version: str, way: str
) -> None:
    wanted = []
    for behind in GATEWAYS:
        name = f"{version}-{'tls' if way == 'tls' else 'plain'}-{behind}"
        for client, front in CLIENTS.items():
            server = (front, haproxy.ports[name, front])
            wanted.append(send(way, client, server, certificate) | {"proxy-ip": behind})
    documents = gateway.consume()
    found = [document["connection"] for document in documents]
    assert [{key: each[key] for key in wanted[0]} for each in found] == wanted
    assert {each["helo"] for each in found} == {"client.test"}
    assert {content(document) for document in documents} == {MESSAGE}


def test_the_log_names_both(gateway: Gateway, haproxy: HAProxy, certificate: Certificate) -> None:
    port = haproxy.ports["v2-plain-127.0.0.1", "127.0.0.3"]
    send("plain", "127.0.0.4", ("127.0.0.3", port), certificate)
    gateway.saw(f"peer=127.0.0.4 port={port} proxy=127.0.0.1")


# As many good checks in a row as bring a server back.
RISE = 20


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_health_checks_succeed_fill_no_log_and_count_as_nobody(
    tmp_path: Path, certificate: Certificate, version: str
) -> None:
    checks = {"connect": "check", "smtp": "check", "tls": "check", "handshake": "check check-ssl"}
    # The balancer itself would not be let in, and a second client at once neither.
    keys = certificate.keys | {
        "smtp-proxy": "127.0.0.1",
        "smtp-range": "127.0.0.2",
        "smtp-connections-per-ip": 1,
        "smtp-rate": "connections=1",
    }
    with running(tmp_path, keys) as gateway:
        servers = {
            name: f"127.0.0.1:{gateway.ports[name in ('tls', 'handshake')]} "
            f"{version} {check} verify none inter 20ms fall 1 rise {RISE}"
            for name, check in checks.items()
        }
        balancer = HAProxy(tmp_path, servers, smtp_checks=frozenset({"smtp"}))
        try:
            balancer.start()
            for name in checks:
                balancer.take_down(name)
                assert balancer.status(name).startswith("DOWN")
            for name in checks:
                wait_until(lambda name=name: balancer.status(name) == "UP", f"{name} is back")
            events = [line.split()[2].partition(".")[0] for line in gateway.log.splitlines()]
            assert set(events) <= {"serve", "worker"}
            # A client is still a client.
            port = balancer.ports["connect", "127.0.0.1"]
            send("plain", "127.0.0.2", ("127.0.0.1", port), certificate)
            gateway.saw("client.gone")
            with pytest.raises(smtplib.SMTPConnectError, match="554"):
                send("plain", "127.0.0.3", ("127.0.0.1", port), certificate)
        finally:
            balancer.close()
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


def test_the_balancer_of_the_deployment_says_when_there_is_no_gateway(tmp_path: Path) -> None:
    # Nobody listens there, and nobody else will while the sockets are bound.
    with socket.socket() as one, socket.socket() as other:
        places = []
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
            places.append(f"127.0.0.1:{each.getsockname()[1]}")
        servers = dict(zip(("mailgw-1", "mailgw-2"), places, strict=True))
        balancer = HAProxy.deployed(tmp_path, servers)
        try:
            balancer.start()
            wait_until(lambda: balancer.health() == 503, "it says that there is none")
        finally:
            balancer.close()
