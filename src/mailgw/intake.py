"""After the final dot: checks, verdict, documents, routing, publishing, the reply.

Laws. 250 is said only when every document of the transaction is safe, and before it every
body that is kept elsewhere. A verdict stands: who was refused or is to try again hears so,
whatever becomes of the documents. A large message is looked at where it lies, and what is
made of it in memory has a share of the budget.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailgw.checks.evidence import Evidence
from mailgw.checks.runner import Runner
from mailgw.checks.verdict import Judgement, judge
from mailgw.config.sections.checks import CheckSettings
from mailgw.document.build import Builder
from mailgw.document.built import Built, Draft, Notes, TooLarge
from mailgw.mail.budget import Budget, Share
from mailgw.mail.decision import Route
from mailgw.mail.finding import Finding
from mailgw.mail.headers import MOST_HEADER, header_end
from mailgw.mail.identifiers import document_id
from mailgw.mail.octets import Octets
from mailgw.mail.publication import Publication
from mailgw.mail.report import Report
from mailgw.mail.trace import hops
from mailgw.mail.transaction import Message, Recipient
from mailgw.mail.unseen import Unseen
from mailgw.observe import log
from mailgw.observe.received import ReceivedLog
from mailgw.outlets.router import Queues
from mailgw.plugins import Output, Unavailable, Undeliverable
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from mailgw.storage.bodies import Bodies

# RFC 5321 6.3: a loop is assumed from a count, at least 100.
MOST_HOPS: Final = 100
# Octets without an empty line and without a field are a message that has no header.
_FIELD: Final = re.compile(rb"^[!-9;-~]{1,998}+[ \t]*+:", re.MULTILINE)
# From here on a message, or its header, is worked on beside the event loop.
_LARGE: Final = 256 * 1024
_LARGE_HEADER: Final = 32 * 1024
# Seconds that a client who is refused waits at most for the copy that is kept of its mail.
_REFUSED_PATIENCE: Final = 5.0

# How often it is asked what became of the same transaction, in seconds: it may be under way
# in another process, from which nobody can wake us.
_LOOK_AGAIN: Final = 0.05

# Recognises and reads a report; the second argument is the sender, "" for the null sender.
ReadReport = Callable[[Octets, str | None], Awaitable[Report | None]]

_ACCEPTED: Final = Judgement("accept", ())


@dataclass(frozen=True, slots=True)
class Examination:
    """What is found out about a message, and what is to follow from it.

    `deadline` is how long the client waits for its reply, in seconds. `told` hears of each
    judgement.
    """

    runner: Runner
    settings: CheckSettings
    deadline: float
    told: Callable[[Judgement], None] | None = None

    async def run(self, message: Message, content: Octets) -> tuple[Judgement, Evidence]:
        """What follows, and from what. Raises nothing."""
        evidence = await self.runner.run(message, content)
        authenticated = message.peer.user is not None
        judgement = judge(evidence, self.settings, authenticated=authenticated)
        if self.told is not None:
            self.told(judgement)
        return judgement, evidence


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes messages. How long that may take is the conversation's to say.

    Nothing is checked without an `examination`, and no report recognised without
    `read_report`. The documents of refused mail are kept where `queues` has a place for
    them, with the message if `keep_refused_bodies`. `received` is told of every document
    that is safe. A transaction that `unseen` knows to be safe is not published once more.
    `bodies` keeps those that do not travel in their documents. `budget` is for those that do.
    """

    builder: Builder
    queues: Queues
    output: Output
    received: ReceivedLog[Built] | None = None
    examination: Examination | None = None
    keep_refused_bodies: bool = False
    read_report: ReadReport | None = None
    unseen: Unseen | None = None
    bodies: Bodies | None = None
    budget: Budget = field(default_factory=Budget)

    async def message(self, message: Message) -> Reply:
        """Make it safe and say so, or say why not. Closes the message's content."""
        try:
            content = message.content.octets()
            # One that is too long is not searched to its end.
            beginning = content[: MOST_HEADER + 4]
            end = header_end(beginning)
            if end > MOST_HEADER and _FIELD.search(beginning, 0, MOST_HEADER):
                return _refuse(message, "message.header", reply.HEADER_TOO_BIG)
            # A loop adds its fields on top.
            if hops(beginning[: min(end, MOST_HEADER)]) > MOST_HOPS:
                return _refuse(message, "message.loop", reply.MAIL_LOOP)
            del beginning
            # Looked at before anything else is done, since what vanishes may be back soon.
            if self.unseen is not None and (earlier := await _earlier(message, self.unseen)):
                return _said_again(message, earlier)
            judgement, findings = _ACCEPTED, None
            if self.examination is not None:
                began = time.monotonic()
                judgement, evidence = await self.examination.run(message, content)
                findings = evidence.findings
                if judgement.reply is not None:
                    left = self.examination.deadline - (time.monotonic() - began)
                    await self._turn_away(message, end, judgement, findings, left)
                    return judgement.reply
            read = self.read_report
            report = None if read is None else await _report(read, message, content)
            del content
            routes = self.routes(message.recipients, judgement, report)
            keys, most = self._keys(message), self.output.largest
            notes = Notes(routes, findings, judgement.steps, report, keys=keys, most=most)
            draft = await self._draft(message, notes, end)
        except (OSError, TooLarge) as trouble:
            return _no_documents(message, trouble)
        finally:
            message.content.close()
        async with self.budget.share(draft.octets) as share:
            try:
                documents = await _documents(message, draft, share)
            except (OSError, TooLarge) as trouble:
                return _no_documents(message, trouble)
            answer = await self._publish(message, documents, routes)
        self._log(message, documents, judgement, answer)
        if self.received is not None and answer.positive:
            self.received.note(documents)
        return answer

    def routes(
        self, recipients: Sequence[Recipient], judgement: Judgement, report: Report | None
    ) -> list[Route]:
        """Where the documents of a mail go that is not refused, one way for each recipient."""
        if judgement.action == "quarantine":
            return [self.queues.quarantined] * len(recipients)
        is_report = report is not None
        return [self.queues.route(each, report=is_report) for each in recipients]

    async def _draft(self, message: Message, notes: Notes, header: int) -> Draft:
        """What is to become the documents of a message with so many octets of header."""
        if message.content.size > _LARGE or header > _LARGE_HEADER:
            return await asyncio.to_thread(self.builder.draft, message, notes, header)
        return self.builder.draft(message, notes, header)

    async def _turn_away(
        self,
        message: Message,
        header: int,
        judgement: Judgement,
        findings: Sequence[Finding],
        seconds: float,
    ) -> None:
        """Note down that it is refused or put off, and keep its documents where they are wanted.

        The client waits meanwhile, for no more than half of the `seconds` it has left.
        """
        _log_verdict(message, judgement)
        way = self.queues.refused if judgement.action == "refuse" else None
        if way is None:
            return
        routes = [way] * len(message.recipients)
        try:
            notes = Notes(
                routes,
                findings,
                judgement.steps,
                body=self.keep_refused_bodies,
                keys=self._keys(message),
                most=self.output.largest,
            )
            draft = await self._draft(message, notes, header)
            async with (
                asyncio.timeout(min(_REFUSED_PATIENCE, seconds / 2)),
                self.budget.share(draft.octets) as share,
            ):
                documents = await _documents(message, draft, share)
                await self._make_safe(message, documents, routes)
        except (Unavailable, Undeliverable, TooLarge, OSError) as trouble:
            # TimeoutError is an OSError.
            log.warning(
                "refused.unsafe",
                id=message.peer.connection_id,
                transaction=message.transaction_id,
                reason=str(trouble) or "no confirm in time",
            )
        except Exception:  # noqa: BLE001 - a bug of the output takes no refusal back
            log.failure("refused.failed", id=message.peer.connection_id)

    async def _publish(
        self, message: Message, documents: list[Built], routes: Sequence[Route]
    ) -> Reply:
        try:
            await self._make_safe(message, documents, routes)
        except (Unavailable, Undeliverable) as trouble:
            log.warning(
                "message.unsafe",
                id=message.peer.connection_id,
                transaction=message.transaction_id,
                reason=trouble.reason,
            )
            return trouble.reply
        return reply.queued(
            "\n".join(
                f"{document.message_id} for {_fit_to_say(document.recipient, message)}"
                for document in documents
            )
        )

    async def _make_safe(
        self, message: Message, documents: Sequence[Built], routes: Sequence[Route]
    ) -> None:
        """Keep the bodies that go elsewhere, then publish. Raises as `Output.publish` does."""
        publications = _publications(message, documents, routes)
        if self.bodies is None or not (stored := _stored(documents)):
            await self.output.publish(publications)
            return
        await self.bodies.keep(stored)
        try:
            await self.output.publish(publications)
        except (Unavailable, Undeliverable) as trouble:
            # Where some of the documents may be safe, their bodies have to stay.
            if trouble.nowhere:
                self.bodies.forget(stored)
            raise
        self.bodies.settle(stored)

    def _keys(self, message: Message) -> Callable[[int], str | None] | None:
        return None if self.bodies is None else self.bodies.keys_for(message)

    def _log(
        self, message: Message, documents: list[Built], judgement: Judgement, answer: Reply
    ) -> None:
        quarantined = judgement.action == "quarantine"
        event = "message.quarantined" if quarantined else "message.taken"
        log.info(
            event if answer.positive else "message.refused",
            id=message.peer.connection_id,
            transaction=message.transaction_id,
            sender=message.reverse_path or "<>",
            message=documents[0].message_id if len(documents) == 1 else None,
            recipients=len(documents),
            size=message.content.size,
            rule=answer.rule or (judgement.rule if quarantined else None),
            value=judgement.value if quarantined else None,
            reply=answer.code,
        )
        if len(documents) > 1 and log.wanted("debug"):
            for document in documents:
                log.debug(
                    "message.document",
                    id=message.peer.connection_id,
                    transaction=message.transaction_id,
                    message=document.message_id,
                    rcpt=document.recipient.address,
                )
        if documents and documents[0].rejected:
            log.info(
                "xmq.rejected",
                id=message.peer.connection_id,
                transaction=message.transaction_id,
                fields=",".join(documents[0].rejected),
            )


async def _report(read: ReadReport, message: Message, content: Octets) -> Report | None:
    """What the message reports to somebody who is local."""
    if not any(each.local for each in message.recipients):
        return None
    sender = message.reverse_path
    return await read(content, "" if sender is None else str(sender))


async def _documents(message: Message, draft: Draft, share: Share) -> list[Built]:
    large = message.content.size > _LARGE
    return await share.aside(draft.documents) if large else draft.documents()


def _no_documents(message: Message, trouble: OSError | TooLarge) -> Reply:
    """What there is to say where they cannot be made."""
    if isinstance(trouble, TooLarge):
        log.info(
            "message.refused",
            id=message.peer.connection_id,
            transaction=message.transaction_id,
            sender=message.reverse_path or "<>",
            recipients=len(message.recipients),
            size=message.content.size,
            reason="larger than the queue takes",
            reply=reply.TOO_BIG.code,
        )
        return reply.TOO_BIG
    log.error("spool.failed", id=message.peer.connection_id, reason=trouble.strerror)
    return reply.STORAGE_FULL


def _refuse(message: Message, event: str, answer: Reply) -> Reply:
    log.warning(event, id=message.peer.connection_id, transaction=message.transaction_id)
    return answer


def _log_verdict(message: Message, judgement: Judgement) -> None:
    log.info(
        "message.refused" if judgement.action == "refuse" else "message.deferred",
        id=message.peer.connection_id,
        transaction=message.transaction_id,
        sender=message.reverse_path or "<>",
        recipients=len(message.recipients),
        size=message.content.size,
        rule=judgement.rule,
        value=judgement.value,
        reason=judgement.steps[-1].reason or None,
        reply=None if judgement.reply is None else judgement.reply.code,
    )


def _publications(
    message: Message, documents: Sequence[Built], routes: Sequence[Route]
) -> list[Publication]:
    return [
        # Names would double what it takes.
        Publication(
            route.queue,
            document.parts,
            document.message_id,
            message.transaction_id,
            document.dedupe,
            message.received,
            document.priority,
        )
        for document, route in zip(documents, routes, strict=True)
    ]


def _stored(documents: Sequence[Built]) -> dict[str, Octets]:
    """The bodies that are to be kept elsewhere, by their keys."""
    return {
        each.document.key: each.stored
        for each in documents
        if isinstance(each.document.key, str) and each.stored is not None
    }


def discard(message: Message) -> Reply:
    """The intake of `output: null`: forgets the message, and says nothing in the log."""
    message.content.close()
    return reply.OK


async def _earlier(message: Message, unseen: Unseen) -> str | None:
    """The same transaction of before, whose 250 was not seen; waits for one under way."""
    # Asked for in any case: a message is remembered by it.
    if message.content.size > _LARGE:
        await asyncio.to_thread(message.content.digest)
    else:
        message.content.digest()
    while not unseen.empty and (earlier := unseen.find(message)) is not None:
        if earlier.safe:
            return earlier.transaction_id
        await asyncio.sleep(_LOOK_AGAIN)
    return None


def _said_again(message: Message, earlier: str) -> Reply:
    """The 250 of the same transaction of before, under whose name its documents are."""
    log.info(
        "message.replayed",
        id=message.peer.connection_id,
        transaction=message.transaction_id,
        earlier=earlier,
        sender=message.reverse_path or "<>",
        recipients=len(message.recipients),
        size=message.content.size,
        reply=250,
    )
    return reply.queued(
        "\n".join(
            f"{document_id(earlier, number)} for {_fit_to_say(recipient, message)}"
            for number, recipient in enumerate(message.recipients, 1)
        )
    )


def _fit_to_say(recipient: Recipient, message: Message) -> str:
    """The recipient as a reply to this client may name it (RFC 6531 3.7.4.1)."""
    address = recipient.address
    return str(address) if message.smtputf8 else address.written
