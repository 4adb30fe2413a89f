"""Which queue a document goes to (contract section 6)."""

from __future__ import annotations

from dataclasses import dataclass

from mailgw.mail.transaction import Recipient


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues by case; an empty `local` sends local mail to the inbox."""

    inbox: str
    local: str = ""

    def route(self, recipient: Recipient) -> str:
        """The name of the queue for this recipient's document."""
        return self.local if recipient.local and self.local else self.inbox
