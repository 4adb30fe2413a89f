"""Which words EHLO says, and when (RFC 5321 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from mailgw.smtp.command import Grammar
from mailgw.smtp.data import NewlinePolicy
from mailgw.smtp.reply import Reply
from mailgw.smtp.sasl import MECHANISMS


@dataclass(frozen=True, slots=True)
class Rules:
    """What a listener offers and how far its sessions may go; the same for all of them.

    Sizes are in octets. `auth` says that somebody could be authenticated here; whether
    the client must start TLS first is the session's `auth_in_clear`. `courtesies`: NOOP,
    VRFY, RSET and QUIT ask for their reply, and a 2xx to Hello is said as it is given.
    `grammar` and `hellos`, the replies to EHLO and HELO by `esmtp`, `tls` and `auth` of
    `hello_reply`, follow from the rest.
    """

    hostname: str
    max_size: int = 100_000_000
    max_errors: int = 10
    addresses: Literal["strict", "loose"] = "strict"
    newlines: NewlinePolicy = "refuse"
    starttls: bool = False
    auth: bool = False
    dsn: bool = False
    courtesies: bool = False
    grammar: Grammar = field(init=False, repr=False, compare=False)
    hellos: Mapping[tuple[bool, bool, bool], Reply] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grammar = Grammar(self.addresses == "strict", self.dsn, self.auth)
        object.__setattr__(self, "grammar", grammar)
        hellos = {
            (esmtp, tls, auth): hello_reply(self, esmtp=esmtp, tls=tls, auth=auth)
            for esmtp, tls, auth in product((False, True), repeat=3)
        }
        object.__setattr__(self, "hellos", hellos)


def hello_reply(rules: Rules, *, esmtp: bool, tls: bool, auth: bool) -> Reply:
    """The reply to EHLO or HELO: our name, then a line per extension."""
    if not esmtp:
        return Reply(250, "", rules.hostname)
    words = [
        rules.hostname,
        "PIPELINING",  # RFC 2920
        f"SIZE {rules.max_size}",  # RFC 1870
        "8BITMIME",  # RFC 6152
        "SMTPUTF8",  # RFC 6531
        "ENHANCEDSTATUSCODES",  # RFC 2034
        "CHUNKING",  # RFC 3030
    ]
    # RFC 3207 4.2: not again once TLS is active.
    if rules.starttls and not tls:
        words.append("STARTTLS")
    if auth:
        words.append("AUTH " + " ".join(MECHANISMS))  # RFC 4954
    if rules.dsn:
        words.append("DSN")  # RFC 3461
    # RFC 2034 4: the reply to EHLO carries no enhanced code.
    return Reply(250, "", "\n".join(words))
