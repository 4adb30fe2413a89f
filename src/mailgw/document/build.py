"""A message becomes documents: JSON, one for each recipient.

Laws: what the recipients share is read, hashed and escaped once; a recipient adds its own
few properties. Where an Authentication-Results field is for local recipients alone, or for
the others alone, there are two messages, and each is made once. Nothing here waits, or
raises because of what a stranger sent, except that it is too large.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mailgw.document.addresses import ANY, Outgoing
from mailgw.document.built import NOTHING_KNOWN, Built, Draft, Notes, TooLarge
from mailgw.document.extract import Extraction, Policy, extract
from mailgw.document.mime import Published, encoded
from mailgw.document.schema import CheckResult, Connection, Document, Dsn, Requested, Step
from mailgw.mail import decision
from mailgw.mail.authentication import results_field, without_ours
from mailgw.mail.finding import Finding
from mailgw.mail.headers import MOST_HEADER, header_end
from mailgw.mail.identifiers import document_id
from mailgw.mail.octets import Octets, Spliced
from mailgw.mail.peer import Peer
from mailgw.mail.trace import received_field
from mailgw.mail.transaction import Message, Recipient

_encoder: Final = msgspec.json.Encoder()
_NOTHING_REQUESTED: Final = Requested()
_NO_DSN: Final = Dsn()
_MIME_FOLLOWS: Final = Raw(b"")


class Builder:
    """Makes the documents; one serves a whole process.

    `hostname` is ours, `policy` says whose x-mq-* fields count, `received` puts a
    Received field on top of every message, `outgoing` names the addresses to send from
    for mail that brings none; `notify` and `ret` go into its dsn likewise. `results` are
    the classes of recipients, "local" and "nonlocal", whose message has our
    Authentication-Results field, and none that only says it were ours.
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
        results: Collection[str] = (),
    ) -> None:
        self._hostname = hostname
        self._policy = policy
        self._received = received
        self._outgoing = outgoing
        self._dsn = Dsn(notify=notify or UNSET, ret=ret or UNSET)
        # By whether a recipient is local.
        self._results = ("nonlocal" in results, "local" in results)
        # There are as many as there are queues in the configuration.
        self._last_steps: dict[decision.Route, Step] = {}

    def build(self, message: Message, notes: Notes = NOTHING_KNOWN) -> list[Built]:
        """Make one document for each recipient, in their order.

        The message ids are the transaction id and the number of the recipient. Raises
        as Draft does; `message` stays open.
        """
        return self.draft(message, notes).documents()

    def draft(
        self, message: Message, notes: Notes = NOTHING_KNOWN, end: int | None = None
    ) -> Draft:
        """What `build` does, up to where the message is held. Raises as Draft does.

        `end` is `header_end` of the message, where it is known.
        """
        whole = message.content.octets()
        if end is None:
            end = header_end(whole[: MOST_HEADER + 4])
        head = _head(whole, end)
        digest = message.content.digest()
        found = extract(head, message.peer, self._policy, min(end, len(head)))
        published: dict[bool, Published] = {}
        for marked in {self._results[recipient.local] for recipient in message.recipients}:
            beginning = without_ours(found.content, self._hostname) if marked else found.content
            # A message that begins with a blank would continue our field with its own text.
            if whole[:1] not in (b" ", b"\t"):
                beginning = self._on_top(beginning, message, notes, marked=marked)
            rest = len(whole) - len(head)
            content: Octets = Spliced(beginning, whole, len(head)) if rest else beginning
            key = notes.keys(len(content)) if notes.keys is not None and notes.body else None
            same = beginning is head
            published[marked] = Published(content, key, digest if same else None)
        held = [len(each.content) for each in published.values() if each.key is None]
        held = held if notes.body else []
        if notes.most is not None and max(held, default=0) > notes.most:
            raise TooLarge(f"{max(held)} octets")
        return Draft(
            sum(held),
            partial(self._documents, message, notes, digest, found, published),
        )

    def _documents(
        self,
        message: Message,
        notes: Notes,
        digest: str,
        found: Extraction,
        published: dict[bool, Published],
    ) -> list[Built]:
        mimes = {marked: encoded(each, notes) for marked, each in published.items()}
        connection = _connection(message.peer)
        reverse_path = "" if message.reverse_path is None else _clean(str(message.reverse_path))
        envelope = reverse_path if found.envelope is None else found.envelope
        received = _timestamp(message.received)
        requested = self._with_ips(found.requested, message.peer)
        appendix = _appendix(requested, found.custom)
        priority = None if found.requested.priority is UNSET else found.requested.priority
        checks = UNSET if notes.findings is None else [_check(each) for each in notes.findings]
        decided = [_step(each) for each in notes.steps] if notes.steps else []
        routes = notes.routes

        built = []
        for number, recipient in enumerate(message.recipients, 1):
            address = _clean(str(recipient.address))
            message_id = document_id(message.transaction_id, number)
            dedupe = _dedupe(reverse_path, address, digest)
            mime = mimes[self._results[recipient.local]]
            document = Document(
                message_id=message_id,
                transaction_id=message.transaction_id,
                received=received,
                hostname=self._hostname,
                envelope=envelope,
                recipient=address,
                connection=connection,
                dsn=_dsn(message, recipient, found.dsn, self._dsn),
                checks=checks,
                decision=[*decided, self._last_step(routes[number - 1])] if routes else decided,
                report=notes.report if notes.report is not None and recipient.local else UNSET,
                dedupe=dedupe,
                mime_size=mime.size,
                mime_sha256=mime.sha256,
                mime_encoding=mime.encoding,
                key=mime.key,
                mime=_MIME_FOLLOWS if mime.key is UNSET else UNSET,
            )
            # mime is the last member, so all but the brace stands before its value.
            parts = (_encoder.encode(document)[:-1], *mime.value, appendix + b"}")
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
                    mime.stored,
                )
            )
        return built

    def _with_ips(self, requested: Requested, peer: Peer) -> Requested:
        """What was asked for, with our addresses to send from where it names none."""
        if requested.ips is not UNSET or not (ips := self._outgoing.ips(peer.local_ip)):
            return requested
        return msgspec.structs.replace(requested, ips=list(ips))

    def _last_step(self, route: decision.Route) -> Step:
        step = self._last_steps.get(route)
        if step is None:
            step = self._last_steps[route] = _step(route.step)
        return step

    def _on_top(self, content: bytes, message: Message, notes: Notes, *, marked: bool) -> bytes:
        """The message, or its header, below our fields, the results first (RFC 8601 4)."""
        if self._received:
            received = received_field(
                self._hostname,
                message.peer,
                message.transaction_id,
                message.received,
                smtputf8=message.smtputf8,
            )
            content = received + content
        if marked:
            findings = notes.findings or ()
            content = results_field(self._hostname, findings, smtputf8=message.smtputf8) + content
        return content


def _head(whole: Octets, end: int) -> bytes:
    """What is to be worked on of a message: all that is in memory, else the header."""
    if isinstance(whole, bytes) and len(whole) <= MOST_HEADER:
        return whole
    if end > MOST_HEADER:
        return b""  # octets where no header ends have none
    return whole if isinstance(whole, bytes) else whole[:end]


def _check(finding: Finding) -> CheckResult:
    """A finding as MailerQ's consumers know it: the check is a name, and its verdict the value."""
    result: CheckResult = {finding.check: finding.verdict}
    for name, value in finding.members:
        if isinstance(value, str):
            result[_clean(name)] = _clean(value)
        elif isinstance(value, bool | int | float):
            result[_clean(name)] = value
        else:
            result[_clean(name)] = [_clean(each) for each in value]
    if finding.reason:
        result["reason"] = _clean(finding.reason)
    return result


def _step(step: decision.Step) -> Step:
    return Step(
        step=step.step,
        verdict=step.verdict,
        key=step.key,
        value=step.value,
        ms=round(step.milliseconds, 3),
        reason=step.reason or UNSET,
    )


def _appendix(requested: Requested, custom: dict[str, str]) -> bytes:
    """What x-mq-* fields brought, as the JSON that ends each document; b"" for nothing."""
    members = b""
    if requested != _NOTHING_REQUESTED:
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
    return UNSET if dsn == _NO_DSN else dsn


def _dedupe(reverse_path: str, recipient: str, digest: str) -> str:
    # The length keeps the two addresses apart: no other pair gives the same octets.
    text = f"{len(reverse_path)}:{reverse_path}{recipient}:{digest}"
    return hashlib.sha256(text.encode()).hexdigest()


def _timestamp(received: datetime) -> str:
    return _second(math.floor(received.timestamp()))


@lru_cache(maxsize=4)
def _second(since_1970: int) -> str:
    # Writing it takes as long as hashing a usual message: once for all mail of a second.
    return datetime.fromtimestamp(since_1970, UTC).isoformat(" ", "seconds")[:19]


def _clean(text: str) -> str:
    """Replace what has no UTF-8 (lone surrogates), so that every text can be encoded."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
