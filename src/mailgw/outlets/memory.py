"""The shortest output: keeps what it is given in a list.

An example for your own, and what tests put where the broker would be.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailgw.mail.publication import Publication
from mailgw.smtp.reply import Reply


class Memory:
    """`publications` holds everything published, in order, for as long as it lives."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []

    async def open(self) -> None:
        """Nothing to get ready."""

    async def publish(self, publications: Sequence[Publication]) -> None:
        self.publications.extend(publications)

    @property
    def largest(self) -> int | None:
        return None

    def trouble(self) -> Reply | None:
        return None

    async def close(self) -> None:
        """Nothing to let go: the list stays readable."""
