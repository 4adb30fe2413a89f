"""Trace fields (RFC 5321 4.4): the one that we put on top of a message, and how many it has.

Law: what a stranger said stays inside its place in the field. A client's own name is
reduced to the characters of a domain or an address literal, so it can neither end
the field nor open a comment. There is no "for" clause: with several recipients it
would tell each of them about another (RFC 5321 7.2).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from mailgw.mail.peer import Peer

# RFC 5322 2.1.1: lines of 78 characters for the reader, never more than 998.
_LINE: Final = 78
# RFC 1035 2.3.4: no domain name is longer.
_LONGEST_NAME: Final = 255
# With the blanks before the colon that RFC 5322 4.5 still lets one read.
_RECEIVED: Final = re.compile(rb"\nreceived[ \t]*:")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


def hops(header: bytes) -> int:
    """How many servers a message with this header has passed: its Received fields."""
    return len(_RECEIVED.findall(b"\n" + header.lower()))


def received_field(
    hostname: str, peer: Peer, transaction_id: str, received: datetime, *, smtputf8: bool = False
) -> bytes:
    """Write the Received field, folded, with its line end.

    `received` is in UTC; `hostname` and `transaction_id` are our own and taken as they are.
    """
    if received.tzinfo is None:
        received = received.replace(tzinfo=UTC)
    words = [
        f"from {_name(peer.helo)}",
        f"({_literal(peer.remote_ip)})",
        f"by {hostname}",
        f"with {protocol(peer, smtputf8=smtputf8)}",
        f"id {transaction_id};",
        format_datetime(received.astimezone(UTC)),
    ]
    lines = ["Received:"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _LINE:
            lines.append("\t" + word)
        else:
            lines[-1] += " " + word
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")


def protocol(peer: Peer, *, smtputf8: bool = False) -> str:
    """Name the protocol: SMTP, or ESMTP or UTF8SMTP with S for TLS and A for AUTH.

    RFC 3848, and RFC 6531 4.3 for the UTF8SMTP family. HELO has no such variants.
    """
    if not peer.esmtp:
        return "SMTP"
    return (
        ("UTF8SMTP" if smtputf8 else "ESMTP")
        + ("S" if peer.secure else "")
        + ("A" if peer.user is not None else "")
    )


def _name(helo: str | None) -> str:
    return _NOT_IN_A_NAME.sub("?", (helo or "")[:_LONGEST_NAME]) or "unknown"


def _literal(ip: str) -> str:
    # RFC 5321 4.1.3: IPv6 addresses carry their tag.
    return f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]"
