"""After the final dot: documents, routing, publishing, the reply.

The law of this module: 250 is said only when every document of the transaction is safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailgw.document.build import Builder, Built
from mailgw.mail.publication import Publication
from mailgw.mail.trace import hops
from mailgw.mail.transaction import Message
from mailgw.observe import log
from mailgw.observe.received import ReceivedLog
from mailgw.outlets.router import Queues
from mailgw.plugins import Output, Unavailable, Undeliverable
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

# RFC 5321 6.3: a loop is assumed from a count, at least 100.
MOST_HOPS = 100


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes messages. How long that may take is the conversation's to say.

    `received` is told of every document that is safe.
    """

    builder: Builder
    queues: Queues
    output: Output
    received: ReceivedLog[Built] | None = None

    async def message(self, message: Message) -> Reply:
        """Make it safe and say so, or say why not. Closes the message's content."""
        try:
            if hops(message.content.read()) > MOST_HOPS:
                return self._refuse_loop(message)
            documents = self.builder.build(message)
        except OSError as trouble:  # the spool cannot be read back
            log.error("spool.failed", id=message.peer.connection_id, reason=trouble.strerror)
            return reply.STORAGE_FULL
        finally:
            message.content.close()
        answer = await self._publish(message, documents)
        self._log(message, documents, answer)
        if self.received is not None and answer.positive:
            self.received.note(documents)
        return answer

    def _refuse_loop(self, message: Message) -> Reply:
        log.warning(
            "message.loop", id=message.peer.connection_id, transaction=message.transaction_id
        )
        return reply.MAIL_LOOP

    async def _publish(self, message: Message, documents: list[Built]) -> Reply:
        publications = [self._publication(message, document) for document in documents]
        try:
            await self.output.publish(publications)
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
                f"{document.message_id} for {_fit_to_say(document, message)}"
                for document in documents
            )
        )

    def _publication(self, message: Message, document: Built) -> Publication:
        return Publication(
            queue=self.queues.route(document.recipient),
            parts=document.parts,
            message_id=document.message_id,
            transaction_id=message.transaction_id,
            dedupe=document.dedupe,
            received=message.received,
            priority=document.priority,
        )

    def _log(self, message: Message, documents: list[Built], answer: Reply) -> None:
        log.info(
            "message.taken" if answer.positive else "message.refused",
            id=message.peer.connection_id,
            transaction=message.transaction_id,
            sender=message.reverse_path or "<>",
            message=documents[0].message_id if len(documents) == 1 else None,
            recipients=len(documents),
            size=message.content.size,
            rule=answer.rule or None,
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


def discard(message: Message) -> Reply:
    """The intake of `output: null`: forgets the message, and says nothing in the log."""
    message.content.close()
    return reply.OK


def _fit_to_say(document: Built, message: Message) -> str:
    """The recipient as a reply to this client may name it (RFC 6531 3.7.4.1)."""
    address = document.recipient.address
    return str(address) if message.smtputf8 else address.written
