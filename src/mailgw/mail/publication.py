"""One document on its way to a queue."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Publication(NamedTuple):
    """A finished document and where it goes.

    `body` is the JSON in UTF-8, not compressed. `dedupe` is equal for the same
    envelope and bytes. `priority` is what `x-mq-priority` asked for, if it did.
    """

    queue: str
    body: bytes
    message_id: str
    transaction_id: str
    dedupe: str
    received: datetime
    priority: int | None = None
