"""Limits and manners of the SMTP dialogue."""

from __future__ import annotations

from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.values import duration, pause, size_of_at_least, truth, whole, word


@section("smtp")
class SmtpSettings:
    """The SMTP dialogue"""

    maxsize: int = key(
        "smtp-maxsize",
        size_of_at_least(1),
        default="100MB",
        reload=True,
        doc="Largest message accepted, and the number announced as SIZE. Sizes are octets, or "
        "have a unit: KB, MB, GB are powers of 1000, KiB, MiB, GiB powers of 1024.",
    )
    # RFC 5321 4.5.3.1.8: a server must take at least 100 recipients.
    max_recipients: int = key(
        "smtp-max-recipients",
        whole(100, 1_000_000),
        default="1000",
        reload=True,
        doc="Recipients in one transaction, at least 100. Further ones are answered 452 and the "
        "client sends them separately.",
    )
    max_errors: int = key(
        "smtp-max-errors",
        whole(1, 1_000_000),
        default="10",
        reload=True,
        doc="Commands that were refused before the connection is closed with 421.",
    )
    timeout: float = key(
        "smtp-timeout",
        duration,
        default="300",
        reload=True,
        doc="Seconds to wait for a silent client before the connection is closed with 421. "
        "Units such as 5m are understood, here and wherever seconds are meant.",
    )
    confirm_timeout: float = key(
        "smtp-confirm-timeout",
        duration,
        default="30",
        reload=True,
        doc="Seconds to wait, after the message was received, until all its documents are safe. "
        "After that the client is told to try again with 451.",
    )
    # RFC 5321 4.5.4.1: who retries at once does so after some minutes, most after half an hour.
    replay_window: float = key(
        "smtp-replay-window",
        pause,
        default="3600",
        doc="Seconds for which a mail is remembered whose client was lost before it can have seen "
        "the 250. Where it sends the same mail again, it gets the same identifiers, and nothing "
        "is published twice. 0: such a mail is published again.",
    )
    validate_address: Literal["strict", "loose"] = key(
        "smtp-validate-address",
        word("strict", "loose"),
        default="strict",
        reload=True,
        doc="Syntax of addresses in MAIL FROM and RCPT TO: strict keeps to RFC 5321, loose wants "
        "only an @ with a valid domain behind it.",
    )
    bare_newlines: Literal["refuse", "carry", "repair"] = key(
        "smtp-bare-newlines",
        word("refuse", "carry", "repair"),
        default="refuse",
        reload=True,
        doc="A CR or LF alone inside a message: refuse the message, carry it as it is, or repair "
        "it to CRLF. Under none of them does it end the message.",
    )
    dsn: bool = key(
        "dsn-advertise",
        truth,
        default="false",
        reload=True,
        doc="Announce the DSN extension and put its parameters into the documents.",
    )
