"""What a client asked for, or told us.

Events that ask wait for exactly one `Session.answer`; the others (`DataChunk`,
`DataRefused`, `Reset`) only tell. The order is the order of the mail's path. They are
tuples with names, because they are made by the thousand: compare them with None, for
those without fields are as false as any empty tuple.
"""

from __future__ import annotations

from typing import NamedTuple

from mailgw.smtp.address import Address
from mailgw.smtp.reply import Reply


class Connected(NamedTuple):
    """A client is there and waits for the banner. Asks: 220 lets it in."""


class Hello(NamedTuple):
    """EHLO or HELO (`esmtp` false). Asks: any 2xx; the session says the extensions itself."""

    name: str
    esmtp: bool


class StartTls(NamedTuple):
    """Asks: after a 220 start the handshake, then call `tls_started`."""


class Credentials(NamedTuple):
    """What an AUTH exchange brought. Asks: 235 makes the client `username`."""

    mechanism: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.mechanism!r}, {self.username!r})"


class MailFrom(NamedTuple):
    """MAIL. Asks. `reverse_path` is None for "<>"; `size` is what the client announced, 0 if
    it did not.

    `ret` and `envid` are as written (xtext), "" where not given.
    """

    reverse_path: Address | None
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


class RcptTo(NamedTuple):
    """RCPT. Asks. `notify` and `orcpt` are as written, "" where not given."""

    recipient: Address
    notify: str = ""
    orcpt: str = ""


class DataRequested(NamedTuple):
    """DATA, or the first BDAT of a message. Asks: 354 lets the bytes come."""


class DataChunk(NamedTuple):
    """Some octets of the message, unstuffed, in order; more will come. Tells."""

    data: bytes


class DataDone(NamedTuple):
    """The message is complete; `data` holds what no chunk did. Asks: 250 says it is safe."""

    data: bytes


class DataRefused(NamedTuple):
    """The session refused the message itself and has said `reply`. Tells."""

    reply: Reply


class Reset(NamedTuple):
    """RSET: what was agreed is void, as after a Hello. Tells."""


class Courtesy(NamedTuple):
    """NOOP, VRFY, RSET or QUIT, where `Rules.courtesies` lets somebody else reply. Asks.

    `usual` is what the session would say. After RSET what was agreed is void, after QUIT
    the connection ends, whatever the answer is.
    """

    verb: str
    argument: str
    usual: Reply


Event = (
    Connected
    | Hello
    | StartTls
    | Credentials
    | MailFrom
    | RcptTo
    | DataRequested
    | DataChunk
    | DataDone
    | DataRefused
    | Reset
    | Courtesy
)
