"""A mail transaction (RFC 5321 3.3) as it was agreed with the client.

What every mail makes sets its own fields; see smtp.events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.smtp.address import Address


@dataclass(init=False, slots=True, unsafe_hash=True)
class Recipient:
    """One accepted forward-path.

    `notify` and `orcpt` are the DSN parameters (RFC 3461) as the client wrote them,
    xtext included, "" where it gave none.
    """

    address: Final[Address]
    local: Final[bool]
    notify: Final[str]
    orcpt: Final[str]

    def __init__(
        self,
        address: Address,
        local: bool = False,
        notify: str = "",
        orcpt: str = "",
    ) -> None:
        self.address = address
        self.local = local
        self.notify = notify
        self.orcpt = orcpt


@dataclass(frozen=True, slots=True)
class Transaction:
    """What was agreed so far, before there is a message.

    `reverse_path` is None for the null sender, `size` what the client announced, 0 if it
    did not, `recipients` those that were accepted. `ret` and `envid` are the DSN
    parameters as written, "" where not given.
    """

    reverse_path: Address | None
    recipients: tuple[Recipient, ...] = ()
    size: int = 0
    smtputf8: bool = False
    eight_bit: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(init=False, slots=True, unsafe_hash=True)
class Message:
    """What stands when the final dot is in: envelope, parameters and bytes.

    `reverse_path` is None for the null sender. `ret` and `envid` are the DSN parameters
    as written, "" where not given. `received` is in UTC. `content` is the message as
    received, dot-unstuffed; whoever takes the Message closes it.
    """

    transaction_id: Final[str]
    peer: Final[Peer]
    reverse_path: Final[Address | None]
    recipients: Final[tuple[Recipient, ...]]
    content: Final[Spool]
    received: Final[datetime]
    smtputf8: Final[bool]
    eight_bit: Final[bool]
    ret: Final[str]
    envid: Final[str]

    def __init__(
        self,
        transaction_id: str,
        peer: Peer,
        reverse_path: Address | None,
        recipients: tuple[Recipient, ...],
        content: Spool,
        received: datetime,
        smtputf8: bool = False,
        eight_bit: bool = False,
        ret: str = "",
        envid: str = "",
    ) -> None:
        self.transaction_id = transaction_id
        self.peer = peer
        self.reverse_path = reverse_path
        self.recipients = recipients
        self.content = content
        self.received = received
        self.smtputf8 = smtputf8
        self.eight_bit = eight_bit
        self.ret = ret
        self.envid = envid
