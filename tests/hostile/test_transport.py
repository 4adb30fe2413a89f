"""Envelope and wire, B13-B18 and B21: TLS, BDAT, and octets without end or beyond a limit."""

from __future__ import annotations

import base64
import socket
import ssl
from contextlib import ExitStack, suppress

import pytest

from client import Client, stuffed
from gateway import Certificate, Gateway
from hostile.world import ENVELOPE, MESSAGE, all_replies, codes, contents, only, peak, taken

LIMIT = 1_000_000
KEYS: dict[str, object] = {
    "smtp-maxsize": LIMIT,
    "smtp-timeout": 1,
    "smtp-username": "anna",
    "smtp-password": "opensesame",
    "smtp-auth-insecure-range": "127.0.0.0/8",
}
SMUGGLED = b"MAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<bob@ours.test>\r\nDATA\r\nx\r\n.\r\n"


@pytest.mark.parametrize(
    "injected",
    [b"NOOP x\r\n", b"EHLO evil.test\r\n" + SMUGGLED, b"RSET\r\nSTARTTLS\r\n", b"\r\n" * 9, b"NO"],
)
def test_B13_what_is_injected_behind_starttls_is_not_answered_in_tls(
    mx: Gateway, certificate: Certificate, injected: bytes
) -> None:
    with Client(mx.port) as client:
        client.hello()
        client.send(b"STARTTLS\r\n" + injected)
        assert client.reply().startswith("220 2.0.0 ")
        client.handshake(certificate.authority)
        # The first reply in TLS is the one to the first question in TLS.
        assert client.ask("VRFY joe").startswith("252 ")
        assert client.ask("MAIL FROM:<joe@there.test>").startswith("503 ")
        client.ask("EHLO client.test")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert only(mx)["envelope"] == "joe@there.test"


def test_B14_starttls_has_its_place_and_what_was_said_in_clear_is_void(
    mx: Gateway, certificate: Certificate
) -> None:
    with Client(mx.port) as client:
        assert client.reply().startswith("220 ")
        assert codes(client, "STARTTLS", "HELO client.test") == ["503", "250"]
        before = ["MAIL FROM:<joe@there.test>", "STARTTLS", "RCPT TO:<bob@ours.test>", "STARTTLS"]
        assert codes(client, *before) == ["250", "503", "250", "503"]
        assert codes(client, "STARTTLS now", "RSET") == ["501", "250"]
        client.starttls(certificate.authority)
        after = ["RCPT TO:<bob@ours.test>", "DATA", "MAIL FROM:<>", "AUTH LOGIN"]
        assert codes(client, *after) == ["503", "503", "503", "503"]
        assert "STARTTLS" not in client.ask("EHLO client.test")
        assert client.ask("STARTTLS").startswith("503 ")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert only(mx)["connection"]["secure"] is True


@pytest.mark.parametrize("where", ["STARTTLS", "the TLS port"])
def test_B15_what_is_no_handshake_ends_the_connection(mx: Gateway, where: str) -> None:
    hellos = [b"EHLO x\r\n" + SMUGGLED, b"\x16\x03\x01\x00\x05hello", bytes(500)]
    # Too short for a record, or nothing: nobody but the gateway's deadline ends these.
    unfinished = [b"\x80\x2e\x01\x03", b"\x16\x03\x01\x02\x00\x01", b""]
    with ExitStack() as crowd:
        clients = []
        for octets in hellos + unfinished:
            client = Client(mx.port if where == "STARTTLS" else mx.secure_port)
            clients.append(crowd.enter_context(client))
            if where == "STARTTLS":
                client.hello()
                client.ask("STARTTLS")
            client.send(octets)
        assert [client.ended() for client in clients] == [True] * 6
    assert taken(mx) == []


def test_B15_a_hello_of_tls_on_the_plain_port_ends_it(mx: Gateway) -> None:
    with Client(mx.port) as client:
        assert client.reply().startswith("220 ")
        with pytest.raises((ssl.SSLError, OSError)):
            ssl.create_default_context().wrap_socket(client.socket, server_hostname="localhost")


def test_B15_silence_after_a_handshake_ends_by_the_deadline(
    mx: Gateway, certificate: Certificate
) -> None:
    with Client(mx.secure_port) as client:
        client.handshake(certificate.authority)
        assert [each[:9] for each in all_replies(client)] == ["220 mx.ou", "421 4.4.2"]


@pytest.mark.parametrize(
    "command", ["DATA", "BDAT 500 LAST", "BDAT 9\r\nSubject: \r\nBDAT 40 LAST"]
)
def test_B16_clear_text_behind_a_close_notify_is_of_no_message(
    mx: Gateway, certificate: Certificate, command: str
) -> None:
    with Client(mx.secure_port) as client:
        client.handshake(certificate.authority)
        client.hello()
        codes(client, *ENVELOPE.splitlines())
        client.send(command.encode() + b"\r\n" + MESSAGE)
        assert isinstance(client.socket, ssl.SSLSocket)
        with suppress(OSError):  # what it had said in TLS, or closed already
            client.socket = client.socket.unwrap()
        with suppress(OSError):
            client.send(b"in clear\r\n.\r\n" + SMUGGLED + b"x" * 600)
        assert client.ended()
    assert taken(mx) == []


def test_B17_bdat_in_every_wrong_form_and_place(mx: Gateway) -> None:
    with Client(mx.port) as client:
        client.hello()
        assert codes(client, "BDAT 0 LAST", "BDAT 7\r\nhello", "NOOP") == ["503", "503", "250"]
        codes(client, *ENVELOPE.splitlines())
        wrong = ["BDAT -1 LAST", "BDAT", "BDAT LAST", "BDAT 0x5", "BDAT 1e3", "BDAT 5 LAST LAST"]
        assert codes(client, *wrong) == ["501"] * 6
        assert codes(client, "BDAT 7\r\nhello", "DATA", "MAIL FROM:<>") == ["250", "503", "503"]
    with Client(mx.port) as client:
        client.hello()
        codes(client, *ENVELOPE.splitlines())
        assert client.ask("BDAT 7 LAST\r\nhello").startswith("250-2.0.0 ")
        # The octets of the second LAST are no commands either.
        assert client.ask("BDAT 6 LAST\r\nQUIT").startswith("503 ")
        assert client.ask("NOOP").startswith("250 ")
    assert contents(mx) == [b"hello\r\n"]


def test_B17_a_chunk_that_is_too_big_is_refused_before_it_comes(mx: Gateway) -> None:
    with ExitStack() as crowd, peak(mx) as grown:
        clients = []
        for size in (2**63, 2**64, 10**20 - 1, LIMIT + 1):
            client = crowd.enter_context(greeted(mx))
            clients.append(client)
            codes(client, *ENVELOPE.splitlines())
            client.send(b"BDAT %d LAST\r\n" % size + SMUGGLED + b"x" * 20_000)
        # Of so many come only a few: what is said to come is waited for, and not kept.
        assert [[each[:3] for each in all_replies(client)] for client in clients] == (
            [["552", "421"]] * 4
        )
        assert grown() < 8_000_000
    assert taken(mx) == []


def test_B17_bdat_is_not_there_for_who_said_helo(mx: Gateway) -> None:
    with Client(mx.port) as client:
        client.reply()
        assert "CHUNKING" not in client.ask("HELO client.test")
        codes(client, *ENVELOPE.splitlines())
        assert client.ask("BDAT 6 LAST\r\nQUIT").startswith("502 ")
        # Its octets are dropped all the same: as commands they would have been somebody's.
        assert client.ask("NOOP").startswith("250 ")
    assert taken(mx) == []


def test_B18_ten_megabytes_without_a_line_end_leave_memory_flat(mx: Gateway) -> None:
    for before in ((), ("AUTH LOGIN",), ("AUTH PLAIN",)):
        with greeted(mx) as client, peak(mx) as grown:
            codes(client, *before)
            for _ in range(100):
                client.send(b"A" * 100_000)
            assert client.ask(b"").startswith("500 5.")
            assert grown() < 8_000_000
            assert client.ask("NOOP").startswith("250 ")
    with greeted(mx) as client, peak(mx) as grown:
        codes(client, *ENVELOPE.splitlines(), "DATA")
        for _ in range(100):
            client.send(b"A" * 100_000)
        client.send(b"\r\n.\r\n")
        assert client.reply().startswith("552 5.3.4 ")
        # A message is kept up to its limit, in the spool.
        assert grown() < LIMIT + 8_000_000


def test_B18_long_commands_are_refused_and_long_logins_answered(mx: Gateway) -> None:
    with greeted(mx) as client:
        said = [
            client.ask("NOOP " + "x" * 3000),
            client.ask("MAIL FROM:<" + "a" * 3000 + "@there.test>"),
            client.ask("AUTH PLAIN " + "A" * 20_000),
            client.ask("EHLO " + "e" * 2_042),
        ]
        assert [each[:9] for each in said] == ["500 5.5.2"] * 4
        assert client.ask("AUTH LOGIN").startswith("334 ")
        assert client.ask("B" * 20_000).startswith("500 5.5.6 ")
        # 10 KB are an AUTH line still (RFC 4954), but no login that anybody has.
        long = base64.b64encode(b"\0anna\0" + b"x" * 7_500).decode()
        assert client.ask("AUTH PLAIN " + long).startswith("535 ")
        assert client.ask("NOOP").startswith("250 ")


def greeted(server: Gateway) -> Client:
    client = Client(server.port)
    client.hello()
    return client


@pytest.mark.parametrize("announced", ["", " SIZE=5", f" SIZE={LIMIT}"])
def test_B21_data_over_the_limit_is_read_to_its_end_and_refused(
    mx: Gateway, announced: str
) -> None:
    large = b"Subject: large\r\n\r\n" + (b".x" * 499 + b"\r\n") * 20_000
    with greeted(mx) as client, peak(mx) as grown:
        client.ask(f"MAIL FROM:<joe@there.test>{announced}")
        codes(client, "RCPT TO:<bob@ours.test>", "DATA")
        client.send(stuffed(large))
        assert client.reply().startswith("552 5.3.4 ")
        assert client.chunks(large[:LIMIT], large[LIMIT:]).startswith("552 5.3.4 ")
        assert grown() < 3 * LIMIT + 8_000_000
        # One octet below the limit is below it.
        assert client.mail(b"x" * (LIMIT - 2) + b"\r\n").startswith("250-2.0.0 ")
        assert client.mail(b"x" * (LIMIT - 1) + b"\r\n").startswith("552 5.3.4 ")
    assert [each["mime-size"] for each in taken(mx)] == [LIMIT]


def test_B21_who_goes_away_amid_a_message_that_is_too_big_leaves_nothing(mx: Gateway) -> None:
    with greeted(mx) as client:
        codes(client, *ENVELOPE.splitlines(), "DATA")
        client.send(b"x" * (2 * LIMIT))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.ended()
    assert taken(mx) == []
