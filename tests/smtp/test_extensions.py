"""EHLO: a word for each extension that is really there."""

from __future__ import annotations

import pytest

from mailgw.smtp.extensions import Rules, hello_reply

ALWAYS = ["mx", "PIPELINING", "SIZE 9", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]


@pytest.mark.parametrize(
    ("rules", "tls", "auth", "more"),
    [
        (Rules("mx", max_size=9), False, False, []),
        (Rules("mx", max_size=9, starttls=True), False, False, ["STARTTLS"]),
        (Rules("mx", max_size=9, starttls=True), True, False, []),
        (Rules("mx", max_size=9, auth=True), False, True, ["AUTH PLAIN LOGIN"]),
        (Rules("mx", max_size=9, auth=True), False, False, []),
        (Rules("mx", max_size=9, dsn=True), False, False, ["DSN"]),
        (
            Rules("mx", max_size=9, starttls=True, auth=True, dsn=True),
            False,
            True,
            ["STARTTLS", "AUTH PLAIN LOGIN", "DSN"],
        ),
    ],
)
def test_ehlo_offers(rules: Rules, tls: bool, auth: bool, more: list[str]) -> None:
    said = hello_reply(rules, esmtp=True, tls=tls, auth=auth)

    assert (said.code, said.detail, said.text.split("\n")) == (250, "", ALWAYS + more)


def test_helo_hears_the_name_alone() -> None:
    rules = Rules("mx", starttls=True, auth=True, dsn=True)

    assert hello_reply(rules, esmtp=False, tls=False, auth=True).wire == b"250 mx\r\n"
