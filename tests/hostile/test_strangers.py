"""Envelope and wire, B26 and B27: early talkers, and who says that it speaks for somebody."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from client import Client
from gateway import Certificate, Gateway
from hostile.world import ENVELOPE, MESSAGE, Stranger, all_replies, only, taken

# The one peer that may say so; everybody else here comes from 127.0.0.1.
BALANCER = "127.0.0.9"
KEYS: dict[str, object] = {
    "smtp-proxy": BALANCER,
    "smtp-range": "127.0.0.0/8; 192.0.2.0/24; 2001:db8::/32",
    "smtp-timeout": 2,
}
SESSION = b"EHLO client.test\r\n" + ENVELOPE + b"DATA\r\n" + MESSAGE + b".\r\nQUIT\r\n"

VECTORS = Path(__file__).parents[1] / "vectors" / "proxy" / "vectors.json"
CASES = {case["id"]: case for case in json.loads(VECTORS.read_text("utf-8"))["cases"]}
# Told in words in the file.
GENERATED = {"P19": b"PROXY TCP4 " + b"1" * 5000}


def octets(case: str) -> bytes:
    return GENERATED[case] if case in GENERATED else bytes.fromhex(CASES[case]["hex"])


def test_B26_a_session_in_one_packet_is_one_mail(mx: Gateway) -> None:
    with Client(mx.port) as client:
        client.send(SESSION)
        said = [each[:3] for each in all_replies(client)]
    assert said == ["220", "250", "250", "250", "354", "250", "221"]
    assert only(mx)["mime"].encode() == MESSAGE


def test_B26_with_a_delay_who_speaks_first_is_refused(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"smtp-greeting-delay": 1})
    with ExitStack() as crowd:
        early = [crowd.enter_context(Client(server.port)) for _ in range(4)]
        patient = crowd.enter_context(Client(server.port))
        begin = time.monotonic()
        for client, said in zip(early, (SESSION, b"E", b"\r\n", b"\x16\x03\x01"), strict=True):
            client.send(said)
            assert [each[:9] for each in all_replies(client)] == ["554 5.5.1"]
        # At once, not when the banner would have come; and who waits gets it.
        assert time.monotonic() - begin < 0.9
        patient.hello()
        assert patient.mail(MESSAGE).startswith("250-2.0.0 ")
    assert len(taken(server)) == 1


@pytest.mark.parametrize("case", CASES)
def test_B27_the_header_decides_and_nobody_else_can_send_one(mx: Gateway, case: str) -> None:
    header, expected = octets(case), CASES[case]["expect"]
    with Stranger(mx.port, BALANCER) as client:
        client.send(header + SESSION)
        said = [each[:3] for each in all_replies(client)]
    published = taken(mx)
    if expected.startswith("accept"):
        assert said[:1] == ["220"]
        assert len(published) == said.count("354") == 1
        [document] = published
        named = document["connection"]["remote-ip"] != BALANCER
        assert named == ("used for IP ranges" in expected)
    else:
        assert said == []
        assert published == []
    # From anybody else it is a bad command, and what follows is that client's own.
    with Client(mx.port) as client:
        client.send(header + b"\r\n" + SESSION)
        said = [each[:3] for each in all_replies(client)]
    assert said[1] in ("500", "501", "421")
    assert {each["connection"]["remote-ip"] for each in taken(mx)} <= {"127.0.0.1"}


V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"


def test_B27_a_second_header_is_a_bad_command(mx: Gateway) -> None:
    with Stranger(mx.port, BALANCER) as client:
        client.send(V1 + b"PROXY TCP4 192.0.2.66 198.51.100.1 1 25\r\n" + SESSION)
        said = [each[:3] for each in all_replies(client)]
    assert said == ["220", "500", "250", "250", "250", "354", "250", "221"]
    assert only(mx)["connection"]["remote-ip"] == "192.0.2.7"


def test_B27_a_balancer_without_a_header_and_a_silent_one_are_cut(
    mx: Gateway, certificate: Certificate
) -> None:
    with ExitStack() as crowd:
        silent = []
        for port in (mx.port, mx.secure_port):
            for begin in (b"", b"PROXY TCP4 192.0.2.7", V1[:-1], b"\r\n\r\n\0\r\nQUIT\n\x21\x11"):
                client = crowd.enter_context(Stranger(port, BALANCER))
                client.send(begin)
                silent.append(client)
        for begin in (SESSION, b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.0\r\n\r\n"):
            client = crowd.enter_context(Stranger(mx.port, BALANCER))
            client.send(begin)
            assert all_replies(client) == []
        assert [all_replies(each) for each in silent] == [[]] * 8
    assert taken(mx) == []
    # The header comes in clear, before TLS; inside it is a bad command.
    with Stranger(mx.secure_port, BALANCER) as client:
        client.send(V1)
        client.handshake(certificate.authority)
        client.hello()
        assert client.ask(V1.strip()).startswith("500 ")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    connection = only(mx)["connection"]
    assert (connection["remote-ip"], connection["proxy-ip"]) == ("192.0.2.7", BALANCER)


def test_B27_the_client_of_the_header_is_held_to_the_range(mx: Gateway) -> None:
    for address, code in [("192.0.2.1", "220"), ("203.0.113.1", "554"), ("10.0.0.1", "554")]:
        with Stranger(mx.port, BALANCER) as client:
            client.send(f"PROXY TCP4 {address} 198.51.100.1 40000 25\r\n".encode())
            assert client.reply()[:3] == code
    assert taken(mx) == []
