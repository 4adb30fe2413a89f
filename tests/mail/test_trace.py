"""The Received field: RFC 5321 4.4, and nothing a stranger said can leave its place."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgw.mail.headers import header_end, read_fields
from mailgw.mail.peer import Peer, Tls
from mailgw.mail.trace import hops, received_field

NOON = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
PEER = Peer(
    connection_id="c1",
    remote_ip="198.51.100.7",
    remote_port=40112,
    local_ip="192.0.2.10",
    local_port=25,
    helo="client.example",
    esmtp=True,
)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")


def test_the_field_says_who_by_whom_how_and_when() -> None:
    field = received_field("mx1.gateway.test", PEER, "k3x9a1", NOON)

    assert field == (
        b"Received: from client.example ([198.51.100.7]) by mx1.gateway.test with ESMTP\r\n"
        b"\tid k3x9a1; Wed, 01 May 2024 12:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("peer", "smtputf8", "protocol"),
    [
        (replace(PEER, esmtp=False), False, "SMTP"),
        (PEER, False, "ESMTP"),
        (replace(PEER, tls=TLS), False, "ESMTPS"),
        (replace(PEER, user="alice"), False, "ESMTPA"),
        (replace(PEER, tls=TLS, user="alice"), False, "ESMTPSA"),
        (PEER, True, "UTF8SMTP"),
        (replace(PEER, tls=TLS, user="alice"), True, "UTF8SMTPSA"),
    ],
)
def test_the_protocol_is_named_after_what_was_used(
    peer: Peer, smtputf8: bool, protocol: str
) -> None:
    field = received_field("mx1.gateway.test", peer, "k3x9a1", NOON, smtputf8=smtputf8)

    assert re.findall(rb"with (\S+)", field) == [protocol.encode()]


def test_an_ipv6_client_stands_in_a_tagged_literal() -> None:
    field = received_field("mx1.gateway.test", replace(PEER, remote_ip="2001:db8::7"), "k", NOON)

    assert b"([IPv6:2001:db8::7])" in field


def test_the_date_is_in_utc() -> None:
    one_oclock = NOON.astimezone(timezone(timedelta(hours=1)))

    assert received_field("mx1.gateway.test", PEER, "k", one_oclock) == received_field(
        "mx1.gateway.test", PEER, "k", NOON
    )


@pytest.mark.parametrize(
    ("helo", "shown"),
    [
        (None, b"from unknown ("),
        ("", b"from unknown ("),
        ("[192.0.2.1]", b"from [192.0.2.1] ("),
        ("a\r\nBcc: victim@x.test", b"from a??Bcc:?victim?x.test ("),
        ("a) by evil; (", b"from a??by?evil??? ("),
        ("<script>\x1b[2J\u2028é", b"from ?script??[2J?? ("),
    ],
)
def test_the_name_a_client_gave_cannot_leave_its_place(helo: str | None, shown: bytes) -> None:
    field = received_field("mx1.gateway.test", replace(PEER, helo=helo), "k", NOON)

    assert shown in field


@given(st.text())
@example("a" * 5000)
def test_whatever_the_client_is_called_there_is_one_field_with_short_lines(helo: str) -> None:
    field = received_field("mx1.gateway.test", replace(PEER, helo=helo), "k3x9a1", NOON)

    (read,) = read_fields(field)
    assert read.name == "received"
    assert re.fullmatch(
        rb"from \S+\s\(\[198\.51\.100\.7\]\)\sby mx1\.gateway\.test\swith ESMTP\s"
        rb"id k3x9a1;\sWed, 01 May 2024 12:00:00 \+0000",
        read.value,
    )
    assert all(len(line) < 998 for line in field.split(b"\r\n"))


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"", 0),
        (b"Subject: none\r\n\r\nReceived: in the body\r\n", 0),
        (b"Received: a\r\nreceived: b\r\n\tby c\r\nSubject: two\r\n\r\n", 2),
        (b"X-Received: no\r\nReceived: " + b"a" * 2000 + b"\r\n\r\n", 1),
        (b"Received: a\n" * 120 + b"\nbody", 120),
        # hostile-input B55: with blanks before the colon it is read all the same.
        (b"Received : a\r\nReceived\t \t: b\r\nReceived-SPF: c\r\nReceived d\r\n\r\n", 2),
    ],
)
def test_hops_are_the_received_fields_of_the_header_block(content: bytes, count: int) -> None:
    assert hops(content[: header_end(content)]) == count
