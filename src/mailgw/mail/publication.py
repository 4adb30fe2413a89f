"""One document on its way to a queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(init=False, slots=True)
class Publication:
    """A finished document and where it goes.

    `parts` joined are the JSON in UTF-8, not compressed; the recipients of a mail share
    the large one. `dedupe` is equal for the same envelope and bytes. `priority` is what
    `x-mq-priority` asked for, if it did.
    """

    queue: Final[str]
    parts: Final[tuple[bytes, ...]]
    message_id: Final[str]
    transaction_id: Final[str]
    dedupe: Final[str]
    received: Final[datetime]
    priority: Final[int | None]

    def __init__(
        self,
        queue: str,
        parts: tuple[bytes, ...],
        message_id: str,
        transaction_id: str,
        dedupe: str,
        received: datetime,
        priority: int | None = None,
    ) -> None:
        self.queue = queue
        self.parts = parts
        self.message_id = message_id
        self.transaction_id = transaction_id
        self.dedupe = dedupe
        self.received = received
        self.priority = priority

    @property
    def body(self) -> bytes:
        """The JSON as one object, made anew: hold it no longer than it takes to write it."""
        return b"".join(self.parts)

    @property
    def size(self) -> int:
        """Octets of the body."""
        return sum(map(len, self.parts))
