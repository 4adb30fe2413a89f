"""A message becomes documents: JSON, one for each recipient.

Laws: `mime` gives back the message octet by octet, whatever was in it. What the
recipients share is read, hashed and escaped once; a recipient adds its own few
properties. Nothing here waits or raises because of what a stranger sent.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mailgw.document.addresses import ANY, Outgoing
from mailgw.document.extract import Policy, extract
from mailgw.document.schema import Connection, Document, Dsn, Requested
from mailgw.mail.peer import Peer
from mailgw.mail.trace import received_field
from mailgw.mail.transaction import Message, Recipient

_encoder = msgspec.json.Encoder()
_MIME_FOLLOWS = Raw(b"")


@dataclass(frozen=True, slots=True)
class Built:
    """The document of one recipient.

    `parts` joined are JSON in UTF-8, without line ends; the message itself is one part,
    and the same object for all recipients of the mail. `dedupe` is equal for the same envelope
    and received bytes. `priority` is what x-mq-priority asked for. `rejected` names the
    x-mq-* fields of the message that brought nothing: for the log. `document`, `requested`
    and `custom` are what the parts were made of, less the message.
    """

    recipient: Recipient
    message_id: str
    dedupe: str
    priority: int | None
    rejected: tuple[str, ...]
    parts: tuple[bytes, ...] = field(repr=False)
    document: Document = field(repr=False)
    requested: Requested = field(repr=False)
    custom: dict[str, str] = field(repr=False)

    @property
    def body(self) -> bytes:
        """The JSON as one object."""
        return b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class _Mime:
    """The message as it is published: its JSON value and what describes it."""

    value: bytes
    encoding: str | UnsetType
    size: int
    sha256: str


class Builder:
    """Makes the documents; one serves a whole process.

    `hostname` is ours, `policy` says whose x-mq-* fields count, `received` puts a
    Received field on top of every message, `outgoing` names the addresses to send from
    for mail that brings none; `notify` and `ret` go into its dsn likewise.
    """

    def __init__(
        self,
        hostname: str,
        policy: Policy,
        *,
        received: bool = False,
        outgoing: Outgoing = ANY,
        notify: str = "",
        ret: str = "",
    ) -> None:
        self._hostname = hostname
        self._policy = policy
        self._received = received
        self._outgoing = outgoing
        self._dsn = Dsn(notify=notify or UNSET, ret=ret or UNSET)

    def build(self, message: Message) -> list[Built]:
        """Make one document for each recipient, in their order.

        The message ids are the transaction id and the number of the recipient. Raises
        OSError where the spool cannot be read back; `message` stays open.
        """
        content = message.content.read()
        digest = hashlib.sha256(content).hexdigest()
        found = extract(content, message.peer, self._policy)
        published = self._trace(found.content, message)
        mime = _mime(published, digest if published is content else None)
        connection = _connection(message.peer)
        reverse_path = "" if message.reverse_path is None else _clean(str(message.reverse_path))
        envelope = reverse_path if found.envelope is None else found.envelope
        received = _timestamp(message.received)
        requested = self._with_ips(found.requested, message.peer)
        appendix = _appendix(requested, found.custom)
        priority = None if found.requested.priority is UNSET else found.requested.priority

        built = []
        for number, recipient in enumerate(message.recipients, 1):
            address = _clean(str(recipient.address))
            message_id = f"{message.transaction_id}r{number}"
            dedupe = _dedupe(reverse_path, address, digest)
            document = Document(
                message_id=message_id,
                transaction_id=message.transaction_id,
                received=received,
                hostname=self._hostname,
                envelope=envelope,
                recipient=address,
                connection=connection,
                dsn=_dsn(message, recipient, found.dsn, self._dsn),
                dedupe=dedupe,
                mime_size=mime.size,
                mime_sha256=mime.sha256,
                mime_encoding=mime.encoding,
                mime=_MIME_FOLLOWS,
            )
            # mime is the last member, so all but the brace stands before its value.
            parts = (_encoder.encode(document)[:-1], mime.value, appendix + b"}")
            built.append(
                Built(
                    recipient,
                    message_id,
                    dedupe,
                    priority,
                    found.rejected,
                    parts,
                    document,
                    requested,
                    found.custom,
                )
            )
        return built

    def _with_ips(self, requested: Requested, peer: Peer) -> Requested:
        """What was asked for, with our addresses to send from where it names none."""
        if requested.ips is not UNSET or not (ips := self._outgoing.ips(peer.local_ip)):
            return requested
        return msgspec.structs.replace(requested, ips=list(ips))

    def _trace(self, content: bytes, message: Message) -> bytes:
        # A message that begins with a blank would continue our field with its own text.
        if not self._received or content.startswith((b" ", b"\t")):
            return content
        return (
            received_field(
                self._hostname,
                message.peer,
                message.transaction_id,
                message.received,
                smtputf8=message.smtputf8,
            )
            + content
        )


def _mime(content: bytes, sha256: str | None) -> _Mime:
    """Encode the message once; `sha256` is its digest, where that is known already."""
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        encoded = b2a_base64(content, newline=False)
        return _Mime(b'"%b"' % encoded, "base64", len(content), sha256)
    return _Mime(_encoder.encode(text), UNSET, len(content), sha256)


def _appendix(requested: Requested, custom: dict[str, str]) -> bytes:
    """What x-mq-* fields brought, as the JSON that ends each document; b"" for nothing."""
    members = b""
    if requested != Requested():
        members += b"," + _encoder.encode(requested)[1:-1]
    if custom:
        members += b"," + _encoder.encode(custom)[1:-1]
    return members


def _connection(peer: Peer) -> Connection:
    return Connection(
        local_ip=peer.local_ip,
        local_port=peer.local_port,
        remote_ip=peer.remote_ip,
        remote_port=peer.remote_port,
        secure=peer.secure,
        user=UNSET if peer.user is None else _clean(peer.user),
        helo=UNSET if peer.helo is None else _clean(peer.helo),
        tls_version=UNSET if peer.tls is None else peer.tls.version,
        tls_cipher=UNSET if peer.tls is None else peer.tls.cipher,
        proxy_ip=UNSET if peer.proxy_ip is None else peer.proxy_ip,
    )


def _dsn(message: Message, recipient: Recipient, header: Dsn, default: Dsn) -> Dsn | UnsetType:
    """Join the x-mq-dsn-* fields, the parameters and our default: the more explicit counts."""
    dsn = Dsn(
        notify=header.notify or _clean(recipient.notify) or default.notify or UNSET,
        ret=header.ret or _clean(message.ret) or default.ret or UNSET,
        orcpt=header.orcpt or _clean(recipient.orcpt) or UNSET,
        envid=header.envid or _clean(message.envid) or UNSET,
    )
    return UNSET if dsn == Dsn() else dsn


def _dedupe(reverse_path: str, recipient: str, digest: str) -> str:
    # The length keeps the two addresses apart: no other pair gives the same octets.
    text = f"{len(reverse_path)}:{reverse_path}{recipient}:{digest}"
    return hashlib.sha256(text.encode()).hexdigest()


def _timestamp(received: datetime) -> str:
    if received.tzinfo is not UTC:
        received = received.astimezone(UTC)
    return received.isoformat(" ", "seconds")[:19]


def _clean(text: str) -> str:
    """Replace what has no UTF-8 (lone surrogates), so that every text can be encoded."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
