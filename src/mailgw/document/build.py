"""A message becomes documents: JSON, one for each recipient.

Laws: `mime` gives back the message octet by octet, whatever was in it. What the
recipients share is read, hashed and escaped once; a recipient adds its own few
properties. Where an Authentication-Results field is for local recipients alone, or for
the others alone, there are two messages, and each is made once. A message on disk is
never held as a whole besides its JSON. Nothing here waits, or raises because of what a
stranger sent, except that it is too large.
"""

from __future__ import annotations

import hashlib
import math
from binascii import b2a_base64
from codecs import getincrementaldecoder
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mailgw.document.addresses import ANY, Outgoing
from mailgw.document.extract import Extraction, Policy, extract
from mailgw.document.schema import CheckResult, Connection, Document, Dsn, Requested, Step
from mailgw.mail import decision
from mailgw.mail.authentication import results_field, without_ours
from mailgw.mail.finding import Finding
from mailgw.mail.headers import MOST_HEADER, header_end
from mailgw.mail.identifiers import document_id
from mailgw.mail.octets import SLICE, Octets, Spliced, pieces
from mailgw.mail.peer import Peer
from mailgw.mail.report import Report
from mailgw.mail.trace import received_field
from mailgw.mail.transaction import Message, Recipient

_encoder: Final = msgspec.json.Encoder()
_NOTHING_REQUESTED: Final = Requested()
_NO_DSN: Final = Dsn()
_MIME_FOLLOWS: Final = Raw(b"")
_NO_MIME: Final = (b'""',)
_Utf8: Final = getincrementaldecoder("utf-8")


class Notes(NamedTuple):
    """What is known of a message, and has a place in its documents.

    `findings` is None where nothing was checked. `steps` are those that led to the
    `routes`, of which there is one for each recipient, or none where nobody asks. `report`
    is for the documents of local recipients. Without `body` the message is left out, and
    its size and digest still say what it was. `keys` names the bodies, by their size, that
    are kept elsewhere; None for those that are not. What makes documents of more than
    `most` octets is TooLarge.
    """

    routes: Sequence[decision.Route] = ()
    findings: Sequence[Finding] | None = None
    steps: Sequence[decision.Step] = ()
    report: Report | None = None
    body: bool = True
    keys: Callable[[int], str | None] | None = None
    most: int | None = None


NOTHING_KNOWN: Final = Notes()


class Built(NamedTuple):
    """The document of one recipient.

    `parts` joined are JSON in UTF-8, without line ends; those of the message itself are
    the same objects for all recipients of the mail. `dedupe` is equal for the same envelope
    and received bytes. `priority` is what x-mq-priority asked for. `rejected` names the
    x-mq-* fields of the message that brought nothing: for the log. `document`, `requested`
    and `custom` are what the parts were made of, less the message. `stored` is the message
    where it is to be kept elsewhere, under the key of the document; one object for all
    recipients who share it, and good for as long as anybody has it.
    """

    recipient: Recipient
    message_id: str
    dedupe: str
    priority: int | None
    rejected: tuple[str, ...]
    parts: tuple[bytes, ...]
    document: Document
    requested: Requested
    custom: dict[str, str]
    stored: Octets | None = None

    @property
    def body(self) -> bytes:
        """The JSON as one object."""
        return b"".join(self.parts)


class TooLarge(Exception):
    """The documents of this message would be larger than anybody takes."""


class Draft(NamedTuple):
    """Documents that are not made yet: `documents` makes them, and may be called in a thread.

    It holds `octets` of the message then, as JSON, which is a little more; six times as
    much where all of it are control characters. Raises TooLarge, and OSError where the
    spool cannot be read back.
    """

    octets: int
    documents: Callable[[], list[Built]]


class _Published(NamedTuple):
    """The message as it is published; `key` names it where it is kept elsewhere."""

    content: Octets
    key: str | None
    sha256: str | None


class _Mime(NamedTuple):
    """The parts of its JSON value or where it is, and what describes it."""

    value: tuple[bytes, ...]
    encoding: str | UnsetType
    size: int
    sha256: str
    key: str | UnsetType = UNSET
    stored: Octets | None = None


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
        published: dict[bool, _Published] = {}
        for marked in {self._results[recipient.local] for recipient in message.recipients}:
            beginning = without_ours(found.content, self._hostname) if marked else found.content
            # A message that begins with a blank would continue our field with its own text.
            if whole[:1] not in (b" ", b"\t"):
                beginning = self._on_top(beginning, message, notes, marked=marked)
            rest = len(whole) - len(head)
            content: Octets = Spliced(beginning, whole, len(head)) if rest else beginning
            key = notes.keys(len(content)) if notes.keys is not None and notes.body else None
            same = beginning is head
            published[marked] = _Published(content, key, digest if same else None)
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
        published: dict[bool, _Published],
    ) -> list[Built]:
        mimes = {marked: _mime(each, notes) for marked, each in published.items()}
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


def _mime(published: _Published, notes: Notes) -> _Mime:
    """Encode the message once. Raises TooLarge."""
    content, sha256 = published.content, published.sha256
    size = len(content)
    if sha256 is None:
        made = hashlib.sha256()
        for piece in pieces(content):
            made.update(piece)
        sha256 = made.hexdigest()
    if not notes.body:
        return _Mime(_NO_MIME, UNSET, size, sha256)
    if published.key is not None:
        return _Mime((), UNSET, size, sha256, published.key, content)
    try:
        return _Mime(_text(content, notes.most), UNSET, size, sha256)
    except UnicodeDecodeError:
        return _Mime(_base64(content), "base64", size, sha256)


def _text(content: Octets, most: int | None) -> tuple[bytes, ...]:
    """Octets that are UTF-8 as a JSON string. Raises UnicodeDecodeError for others."""
    if len(content) <= SLICE:
        return (_encoder.encode(content[:].decode()),)
    # In slices, because a call that takes long keeps the interpreter from everybody else.
    decoder = _Utf8()
    texts, size = [b'"'], 0
    for piece in pieces(content):
        texts.append(_encoder.encode(decoder.decode(piece))[1:-1])
        size += len(texts[-1])
        # A control character is one octet here, and six in JSON.
        if most is not None and size > most:
            raise TooLarge("as JSON")
    decoder.decode(b"", final=True)
    return (*texts, b'"')


def _base64(content: Octets) -> tuple[bytes, ...]:
    """Octets as a JSON string in base64."""
    # The length of a slice is a multiple of three, so that the parts are one text.
    return (b'"', *(b2a_base64(piece, newline=False) for piece in pieces(content)), b'"')


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
