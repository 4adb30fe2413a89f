"""A mail transaction (RFC 5321 3.3) as it was agreed with the client.

Tuples with names, because every mail makes some.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.smtp.address import Address


class Recipient(NamedTuple):
    """One accepted forward-path.

    `notify` and `orcpt` are the DSN parameters (RFC 3461) as the client wrote them,
    xtext included, "" where it gave none.
    """

    address: Address
    local: bool = False
    notify: str = ""
    orcpt: str = ""


class Transaction(NamedTuple):
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


class Message(NamedTuple):
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
