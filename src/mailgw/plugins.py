"""What an extension may be.

The parts that come with mailgw keep the same protocols, so they are the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailgw.mail.publication import Publication
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply


class Unavailable(Exception):
    """Not safe, and worth trying again: the client gets `reply`, always a 4xx.

    `reason` is for the log alone; it may name hosts and queues, `reply` never does.
    """

    def __init__(self, reason: str, reply: Reply = reply.TRY_AGAIN) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class Undeliverable(Exception):
    """Not safe, and trying again will not help: the client gets `reply`, always a 5xx."""

    def __init__(self, reason: str, reply: Reply = reply.TOO_BIG) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class Output(Protocol):
    """Takes documents and says when they are safe."""

    async def open(self) -> None:
        """Get ready. Returns also when the other side is away: `trouble` says so then.

        Raises Unavailable only for what waiting cannot mend (a file that cannot be made).
        """

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Hand over the documents of one transaction and wait until every one is safe.

        Takes the whole transaction, because its 250 covers all recipients: a store can
        commit them as one. Raises Unavailable or Undeliverable; some of the documents may
        be safe even then (delivery is at least once). The caller has the deadline, and
        cancels.
        """

    def trouble(self) -> Reply | None:
        """The 4xx to give before a message is sent, where we know now that it would fail."""

    async def close(self) -> None:
        """Wait for what is under way and let go."""
