"""Envelope and wire, B34-B36: clients that are slow, silent, deaf or gone."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack, suppress

import pytest

from client import Client
from gateway import Certificate, Gateway
from hostile.world import MESSAGE, only, peak, taken
from rabbitmq import wait_until

PATIENCE = 1.0
# Deadlines are looked at once a second; the rest is for a busy machine.
SOON = 10.0
KEYS: dict[str, object] = {
    "smtp-timeout": PATIENCE,
    "smtp-username": "anna",
    "smtp-password": "opensesame",
    "smtp-auth-insecure-range": "127.0.0.1",
}
TO_DATA = [b"EHLO a.test", b"MAIL FROM:<joe@there.test>", b"RCPT TO:<bob@ours.test>", b"DATA"]


def at(server: Gateway, *lines: bytes) -> Client:
    """A client that has said this much."""
    client = Client(server.port)
    client.reply()
    for line in lines:
        client.ask(line)
    return client


def in_tls(server: Gateway, certificate: Certificate, *lines: bytes) -> Client:
    client = Client(server.secure_port)
    client.handshake(certificate.authority)
    client.reply()
    for line in lines:
        client.ask(line)
    return client


def test_B34_one_octet_at_a_time_keeps_nobody(mx: Gateway, certificate: Certificate) -> None:
    # Well inside the patience each: it is the line or the message that has a deadline.
    trickles: list[tuple[Client, bytes]] = []
    with ExitStack() as crowd:
        for client, octet in [
            (at(mx), b"E"),
            (at(mx, b"EHLO a.test"), b"N"),
            (at(mx, *TO_DATA), b"x"),
            (at(mx, *TO_DATA), b"\r\n.."),
            (at(mx, *TO_DATA[:3], b"BDAT 7\r\nhello"), b"\0"),
            (at(mx, b"EHLO a.test", b"AUTH LOGIN"), b"Y"),
            (Client(mx.secure_port), b"\x16"),
            (in_tls(mx, certificate, *TO_DATA), b"x"),
        ]:
            trickles.append((crowd.enter_context(client), octet))
        begin = time.monotonic()
        while trickles:
            assert time.monotonic() - begin < SOON, f"{len(trickles)} are kept for ever"
            trickles = [each for each in trickles if still_there(*each)]
    assert taken(mx) == []


def still_there(client: Client, octet: bytes) -> bool:
    client.socket.settimeout(0.05)
    try:
        client.send(octet)
        return bool(client.socket.recv(65536))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_B34_among_six_hundred_idle_ones_a_newcomer_is_served(mx: Gateway) -> None:
    descriptors = mx.descriptors()
    with ExitStack() as crowd, peak(mx) as grown:
        idle = [crowd.enter_context(Client(mx.port)) for _ in range(600)]
        begin = time.monotonic()
        with Client(mx.port) as newcomer:
            newcomer.hello()
            assert newcomer.mail(MESSAGE).startswith("250-2.0.0 ")
        assert time.monotonic() - begin < SOON
        # And they go by themselves.
        assert [each.ended() for each in idle] == [True] * 600
        assert grown() < 40_000_000
    wait_until(lambda: mx.descriptors() <= descriptors, "the sockets are closed")
    assert only(mx)["recipient"] == "bob@ours.test"


def test_B35_who_reads_no_reply_is_cut_and_little_is_kept_for_it(mx: Gateway) -> None:
    with Client(mx.port, buffer=2048) as client, peak(mx) as grown:
        client.hello()
        gone = mx.log.count(" client.gone ")
        # Long replies for few octets.
        pipeline = b"HELP\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@ours.test>\r\nRSET\r\n" * 200
        client.socket.settimeout(0.1)
        deadline = time.monotonic() + 30
        while mx.log.count(" client.gone ") == gone:
            assert time.monotonic() < deadline, "the connection is kept for ever"
            with suppress(OSError):
                client.socket.send(pipeline)
        assert grown() < 8_000_000
    assert taken(mx) == []


def test_B35_a_thousand_recipients_and_no_reader_of_their_reply(mx: Gateway) -> None:
    lines = b"".join(b"RCPT TO:<%b%d@ours.test>\r\n" % (b"u" * 50, n) for n in range(1000))
    with Client(mx.port, buffer=2048) as client, peak(mx) as grown:
        client.hello()
        gone = mx.log.count(" client.gone ")
        client.socket.settimeout(0.5)
        with suppress(OSError):
            client.send(b"MAIL FROM:<joe@there.test>\r\n" + lines + b"DATA\r\nx\r\n.\r\n")
        mx.saw("client.gone", gone + 1)
        assert grown() < 16_000_000
    # Either its dot was read, and the mail is there for all of them, or for nobody.
    assert len(taken(mx)) in (0, 1000)


STATES: dict[str, list[bytes]] = {
    "banner": [],
    "ehlo": TO_DATA[:1],
    "mail": TO_DATA[:2],
    "rcpt": TO_DATA[:3],
    "data": TO_DATA,
    "chunks": [*TO_DATA[:3], b"BDAT 7\r\nhello"],
    "auth": [TO_DATA[0], b"AUTH LOGIN"],
    "starttls": [TO_DATA[0], b"STARTTLS"],
}
UNFINISHED = {
    "banner": b"EHL",
    "ehlo": b"MAIL FROM:<joe@there.test>",
    "mail": b"RCPT TO:<bo",
    "rcpt": b"DATA\r",
    "data": MESSAGE + b".\r",
    "chunks": b"BDAT 100 LAST\r\nhalf of it",
    "auth": b"YW5u",
    "starttls": b"\x16\x03\x01\x02\x00\x01",
}


@pytest.mark.parametrize("how", ["reset", "half-close", "close"])
def test_B36_who_vanishes_in_any_state_publishes_nothing(mx: Gateway, how: str) -> None:
    gone = mx.log.count(" client.gone ")
    for state, lines in STATES.items():
        with at(mx, *lines) as client:
            client.send(UNFINISHED[state])
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            elif how == "half-close":
                client.socket.shutdown(socket.SHUT_WR)
                assert client.ended()
    mx.saw("client.gone", gone + len(STATES))
    assert taken(mx) == []


def test_B36_who_half_closes_behind_the_final_dot_has_sent_a_mail(mx: Gateway) -> None:
    with at(mx, *TO_DATA) as client:
        client.send(MESSAGE + b".\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.reply().startswith("250-2.0.0 ")
        assert client.ended()
    assert only(mx)["mime"].encode() == MESSAGE
