"""Envelope and wire, B01-B12: what ends a message, and what looks as if it did.

One gateway for each value of smtp-bare-newlines, each asked in clear and over TLS.
"""

from __future__ import annotations

import pytest

from client import Client
from gateway import Certificate, Gateway, content
from hostile.world import ENVELOPE, MESSAGE, codes, contents, only, taken

POLICIES = ["refuse", "carry", "repair"]
pytestmark = pytest.mark.parametrize(
    "mx", [{"smtp-bare-newlines": each} for each in POLICIES], ids=POLICIES, indirect=True
)

SMUGGLED = (
    b"MAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<bob@ours.test>\r\nDATA\r\n"
    b"From: smuggled@evil.test\r\n\r\nsmuggled"
)
# What stands before the end that is none: a header, a line, nothing at all, a dot.
BEFORE = [b"Subject: one\r\n\r\nfirst", b"Subject: one\r\n\r\nfirst\r\n", b"", b"\r\n.."]


def policy(server: Gateway) -> str:
    return str(server.keys["smtp-bare-newlines"])


def unstuffed(sent: bytes) -> bytes:
    """DATA line by line (RFC 5321 4.5.2), as one reads it in the RFC."""
    return b"\r\n".join(line.removeprefix(b".") for line in sent.split(b"\r\n"))


def repaired(message: bytes) -> bytes:
    return message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def is_bare(message: bytes) -> bool:
    left = message.replace(b"\r\n", b"")
    return b"\r" in left or b"\n" in left


def wanted(server: Gateway, message: bytes) -> list[bytes]:
    """What is to be published of a message, by the policy."""
    match policy(server):
        case "refuse":
            return [] if is_bare(message) else [message]
        case "repair":
            return [repaired(message)]
        case _:
            return [message]


def connected(server: Gateway, certificate: Certificate, tls: bool) -> Client:
    client = Client(server.secure_port if tls else server.port)
    if tls:
        client.handshake(certificate.authority)
    client.hello()
    return client


def smuggle(server: Gateway, certificate: Certificate, end: bytes) -> None:
    """Send two mails with that between them: it must be one, or a refusal of one."""
    for tls, before in [(tls, before) for tls in (False, True) for before in BEFORE]:
        body = before + end + SMUGGLED
        message = unstuffed(body + b"\r\n")
        with connected(server, certificate, tls) as client:
            assert codes(client, *ENVELOPE.splitlines(), b"DATA") == ["250", "250", "354"]
            # Cut inside the end: a reader that looks at one packet only is fooled else.
            cut = len(before) + len(end) // 2
            for piece in (body[:cut], body[cut:], b"\r\n.\r\n"):
                client.send(piece)
            said = client.reply()
            # A second reply would be the smuggled MAIL's.
            assert client.ask("NOOP") == "250 2.0.0 Ok"
        expected = wanted(server, message)
        assert said.startswith("250-2.0.0 " if expected else "550 5.6.0 ")
        published = taken(server)
        assert [each["envelope"] for each in published] == ["joe@there.test"] * len(expected)
        assert [content(each) for each in published] == expected


def test_B01_lf_dot_lf_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\n.\n")


def test_B02_lf_dot_crlf_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\n.\r\n")


def test_B03_crlf_dot_lf_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r\n.\n")


def test_B04_cr_dot_cr_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r.\r")


def test_B05_cr_dot_crlf_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r.\r\n")


def test_B06_crlf_dot_cr_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r\n.\r")


def test_B07_nul_before_the_dot_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r\n\0.\r\n")


def test_B08_nul_behind_the_dot_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r\n.\0\r\n")


def test_B09_crlf_dot_crcrlf_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\r\n.\r\r\n")


def test_B10_lf_dot_cr_ends_nothing(mx: Gateway, certificate: Certificate) -> None:
    smuggle(mx, certificate, b"\n.\r")


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_B11_a_bare_newline_is_kept_or_refused_by_the_key(
    mx: Gateway, certificate: Certificate, tls: bool
) -> None:
    messages = [
        b"Subject: x\r\n\r\none\ntwo\r\n",
        b"Subject: x\r\n\r\none\rtwo\r\n",
        b"Subject: x\r\n\r\none\r\r\ntwo\n\r\n",
        b"Subject: x\nX-Header: by LF\r\n\r\ntext\r\n",
        b"Subject: x\r\n\r\n" + b"line\n" * 30_000 + b"\r\n",
        b"Subject: x\r\n\r\nno bare one\r\n",
    ]
    for message in messages:
        # Ten refusals would end the connection.
        with connected(mx, certificate, tls) as client:
            said = [client.mail(message), client.chunks(message[:20], message[20:])]
        expected = wanted(mx, message)
        start = "250-2.0.0 " if expected else "550 5.6.0 "
        assert [each.startswith(start) for each in said] == [True, True]
        assert contents(mx) == expected * 2


def test_B12_nul_is_kept_in_a_message_and_refused_in_a_command(mx: Gateway) -> None:
    messages = [
        b"Subject: x\r\n\r\none\0two\0\r\n",
        b"Subject: a\0b\r\nX-\0: y\r\n\r\ntext\r\n",
        b"\0\r\n\0\r\n",
    ]
    commands = [
        b"MAIL FROM:<joe\0@there.test>",
        b"MAIL FROM:<joe@there.test>\0",
        b"MAIL\0FROM:<joe@there.test>",
        b"RCPT TO:<bob@ours.test\0>",
        b"EHLO client\0.test",
        b"NOOP \0",
    ]
    with Client(mx.port) as client:
        client.hello()
        for message in messages:
            assert client.mail(message).startswith("250-2.0.0 ")
        assert contents(mx) == messages
        said = codes(client, *commands)
        # "MAIL\0FROM:" is no verb at all.
        assert said == ["501", "501", "500", "501", "501", "501"]
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert only(mx)["envelope"] == "joe@there.test"
