"""What a client asked for, or told us.

Events that ask wait for exactly one `Session.answer`; the others (`DataChunk`,
`DataRefused`, `Reset`) only tell. The order is the order of the mail's path. Those that come
with every mail set their own fields: frozen dataclasses and named tuples take twice as long
to make, four times compiled. That nothing changes is for `Final` to see there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailgw.smtp.address import Address
from mailgw.smtp.reply import Reply


@dataclass(init=False, slots=True)
class Connected:
    """A client is there and waits for the banner. Asks: 220 lets it in."""


@dataclass(init=False, slots=True)
class Hello:
    """EHLO or HELO (`esmtp` false). Asks: any 2xx; the session says the extensions itself."""

    name: Final[str]
    esmtp: Final[bool]

    def __init__(self, name: str, esmtp: bool) -> None:
        self.name = name
        self.esmtp = esmtp


@dataclass(init=False, slots=True)
class StartTls:
    """Asks: after a 220 start the handshake, then call `tls_started`."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an AUTH exchange brought. Asks: 235 makes the client `username`."""

    mechanism: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.mechanism!r}, {self.username!r})"


@dataclass(init=False, slots=True)
class MailFrom:
    """MAIL. Asks. `reverse_path` is None for "<>"; `size` is what the client announced, 0 if
    it did not.

    `ret` and `envid` are as written (xtext), "" where not given.
    """

    reverse_path: Final[Address | None]
    size: Final[int]
    eight_bit: Final[bool]
    smtputf8: Final[bool]
    ret: Final[str]
    envid: Final[str]

    def __init__(
        self,
        reverse_path: Address | None,
        size: int = 0,
        eight_bit: bool = False,
        smtputf8: bool = False,
        ret: str = "",
        envid: str = "",
    ) -> None:
        self.reverse_path = reverse_path
        self.size = size
        self.eight_bit = eight_bit
        self.smtputf8 = smtputf8
        self.ret = ret
        self.envid = envid


@dataclass(init=False, slots=True)
class RcptTo:
    """RCPT. Asks. `notify` and `orcpt` are as written, "" where not given."""

    recipient: Final[Address]
    notify: Final[str]
    orcpt: Final[str]

    def __init__(self, recipient: Address, notify: str = "", orcpt: str = "") -> None:
        self.recipient = recipient
        self.notify = notify
        self.orcpt = orcpt


@dataclass(init=False, slots=True)
class DataRequested:
    """DATA, or the first BDAT of a message. Asks: 354 lets the bytes come."""


@dataclass(init=False, slots=True)
class DataChunk:
    """Some octets of the message, unstuffed, in order; more will come. Tells."""

    data: Final[bytes]

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(init=False, slots=True)
class DataDone:
    """The message is complete; `data` holds what no chunk did. Asks: 250 says it is safe."""

    data: Final[bytes]

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(frozen=True, slots=True)
class DataRefused:
    """The session refused the message itself and has said `reply`. Tells."""

    reply: Reply


@dataclass(init=False, slots=True)
class Reset:
    """RSET: what was agreed is void, as after a Hello. Tells."""


@dataclass(frozen=True, slots=True)
class Courtesy:
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
