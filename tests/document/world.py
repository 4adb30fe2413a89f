"""The literal world of the document tests: one client, one mail, one policy."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jsonschema import Draft202012Validator

from mailgw.document.built import Built
from mailgw.document.schema import json_schema
from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.smtp.address import Address

PEER = Peer(
    connection_id="c1",
    remote_ip="198.51.100.7",
    remote_port=40112,
    local_ip="192.0.2.10",
    local_port=25,
)
ALICE = Address("alice", "sender.test")
BOB = Recipient(Address("bob", "ours.test"))
CAROL = Recipient(Address("carol", "ours.test"))
MAIL = b"From: alice@sender.test\r\nSubject: hi\r\n\r\nhello\r\n"

_VALIDATOR = Draft202012Validator(json.loads(json_schema()))


class Ranges:
    """Networks as a policy has them."""

    def __init__(self, *ranges: str) -> None:
        self._ranges = [ipaddress.ip_network(text) for text in ranges]

    def __contains__(self, address: str, /) -> bool:
        return any(ipaddress.ip_address(address) in network for network in self._ranges)


NO_RANGES = Ranges()


@dataclass(frozen=True)
class Trust:
    """A value of `smtp-extract`."""

    who: str
    networks: Ranges = NO_RANGES


EVERYBODY = Trust("everybody")


def message(
    content: bytes,
    *,
    peer: Peer = PEER,
    reverse_path: Address | None = ALICE,
    recipients: Sequence[Recipient] = (BOB,),
    received: datetime = datetime(2024, 5, 1, 8, 15, 42, 999_999, tzinfo=UTC),
    ret: str = "",
    envid: str = "",
) -> Message:
    spool = Spool(memory=1 << 30)
    spool.write(content)
    return Message(
        transaction_id="k3x9a1",
        peer=peer,
        reverse_path=reverse_path,
        recipients=tuple(recipients),
        content=spool,
        received=received,
        ret=ret,
        envid=envid,
    )


def read(built: Built) -> dict[str, Any]:
    """What a consumer sees: the JSON, which the schema has found valid."""
    document: dict[str, Any] = json.loads(built.body)
    _VALIDATOR.validate(document)
    return document
