"""The transaction under way: what was agreed with the client, and what has come of the message.

Law: where there is no room for the message it is read to its end and refused there, so the
session stands; what has come of it, and what still comes, takes no room.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.observe import log
from mailgw.smtp.events import MailFrom


class UnderWay:
    """One at a time, from MAIL to the reply; `memory` and `directory` are the spool's."""

    __slots__ = ("_content", "_directory", "_memory", "failed", "recipients", "sender")

    def __init__(self, memory: int, directory: Path | None) -> None:
        self._memory = memory
        self._directory = directory
        self._content: Spool | None = None
        self.sender: MailFrom | None = None
        self.recipients: list[Recipient] = []
        # Whether there was no room.
        self.failed = False

    def keep(self, octets: bytes, connection_id: str) -> None:
        """Some octets of the message came, in order."""
        if self.failed:
            return
        if self._content is None:
            self._content = Spool(self._memory, self._directory)
        try:
            self._content.write(octets)
        except OSError as trouble:
            log.error("spool.failed", id=connection_id, reason=trouble.strerror)
            self.failed = True
            self._content.close()

    def message(self, transaction_id: str, peer: Peer) -> Message:
        """All of it is here; whoever gets the message closes its content."""
        sender, content = self.sender, self._content
        if sender is None:
            raise RuntimeError("a message without MAIL")
        self._content = None  # the message owns it now
        return Message(
            transaction_id,
            peer,
            sender.reverse_path,
            tuple(self.recipients),
            content if content is not None else Spool(0),
            datetime.now(UTC),
            sender.smtputf8,
            sender.eight_bit,
            sender.ret,
            sender.envid,
        )

    def forget(self) -> None:
        """There is none any more."""
        self.sender = None
        self.recipients = []
        self.failed = False
        if self._content is not None:
            self._content.close()
            self._content = None
