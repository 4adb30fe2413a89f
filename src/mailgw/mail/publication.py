"""One document on its way to a queue."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Publication(NamedTuple):
    """A finished document and where it goes.

    `parts` joined are the JSON in UTF-8, not compressed; the recipients of a mail share
    the large one. `dedupe` is equal for the same envelope and bytes. `priority` is what
    `x-mq-priority` asked for, if it did.
    """

    queue: str
    parts: tuple[bytes, ...]
    message_id: str
    transaction_id: str
    dedupe: str
    received: datetime
    priority: int | None = None

    @property
    def body(self) -> bytes:
        """The JSON as one object, made anew: hold it no longer than it takes to write it."""
        return b"".join(self.parts)

    @property
    def size(self) -> int:
        """Octets of the body."""
        return sum(map(len, self.parts))
