"""What goes into the documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.networks import NOWHERE, Networks, networks
from mailgw.config.values import BadValue, dsn_notify, server_id, truth, word


@dataclass(frozen=True, slots=True)
class Extract:
    """Who may use x-mq-* headers; `networks` counts only where `who` is "networks"."""

    who: Literal["everybody", "nobody", "authenticated", "networks"] = "everybody"
    networks: Networks = NOWHERE


def extract(text: str) -> Extract:
    """true, false, authenticated, or a list of address ranges; empty is false."""
    if text.lower() == "authenticated":
        return Extract("authenticated")
    try:
        return Extract("everybody" if truth(text) else "nobody")
    except BadValue:
        pass
    try:
        return Extract("networks", networks(text))
    except BadValue:
        raise BadValue(
            "is not who may use x-mq-* headers",
            "try true, false, authenticated or 192.0.2.0/24; 198.51.100.7",
        ) from None


@section("document")
class DocumentSettings:
    """The documents"""

    extract: Extract = key(
        "smtp-extract",
        extract,
        default="true",
        reload=True,
        doc="Who may use x-mq-* headers: true is everybody; false is nobody, and the headers stay "
        "where they are; authenticated, or a list of address ranges as in "
        "smtp-auth-insecure-range: from all others they are removed unread.",
    )
    server_id: str = key(
        "server-id",
        server_id,
        default="1",
        doc="Makes message ids differ between servers: up to 16 letters and digits.",
    )
    received: bool = key(
        "smtp-received",
        truth,
        default="false",
        reload=True,
        doc="Put a Received field on top of the message.",
    )
    dsn_notify: str = key(
        "dsn-notify",
        dsn_notify,
        default="",
        reload=True,
        doc="When delivery reports are wanted for mail that does not say so itself: NEVER, or a "
        "list of FAILURE, DELAY and SUCCESS; it goes into dsn. Empty: nothing is put there, and "
        "the sender of the mail decides.",
    )
    dsn_ret: Literal["", "FULL", "HDRS"] = key(
        "dsn-ret",
        word("", "FULL", "HDRS"),
        default="",
        reload=True,
        doc="What delivery reports should return of mail that does not say so itself, FULL or "
        "HDRS; it goes into dsn. Empty: nothing is put there.",
    )
