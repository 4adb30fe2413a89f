"""A mail transaction (RFC 5321 3.3) as it was agreed with the client."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.smtp.address import Address


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted forward-path.

    `notify` and `orcpt` are the DSN parameters (RFC 3461) as the client wrote them,
    xtext included, "" where it gave none.
    """

    address: Address
    local: bool = False
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """What stands when the final dot is in: envelope, parameters and bytes.

    `reverse_path` is None for the null sender. `ret` and `envid` are the DSN parameters
    as written, "" where not given. `received` is in UTC. `content` is the message as
    received, dot-unstuffed; whoever takes the Message closes it.
    """

    transaction_id: str
    peer: Peer
    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    content: Spool
    received: datetime
    smtputf8: bool = False
    eight_bit: bool = False
    ret: str = ""
    envid: str = ""
