"""The output for benchmarks: says that it is safe, and drops it.

Chosen by `output: null` alone; it breaks the promise of the 250, on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailgw.mail.publication import Publication
from mailgw.smtp.reply import Reply


class Null:
    """Accepts everything and keeps nothing."""

    async def open(self) -> None:
        """Nothing to get ready."""

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Forget them."""

    @property
    def largest(self) -> int | None:
        return None

    def trouble(self) -> Reply | None:
        return None

    async def close(self) -> None:
        """Nothing to let go."""
