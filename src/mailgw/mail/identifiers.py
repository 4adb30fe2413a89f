"""Names for connections and transactions that nobody else has used or will use.

No clock is asked: a process draws 62 random bits once and counts on from there, so a
restart, a second process or a clock that jumps cannot repeat a name.
"""

from __future__ import annotations

import secrets
from itertools import count
from typing import Final

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PREFIX_LENGTH: Final = 12


def document_id(transaction_id: str, number: int) -> str:
    """The name of a document: that of its transaction, and the recipient's number, from 1."""
    return f"{transaction_id}r{number}"


class Identifiers:
    """Makes them; one per process, made after the fork. `server_id` stands in front."""

    def __init__(self, server_id: str = "") -> None:
        drawn = "".join(secrets.choice(_DIGITS) for _ in range(_PREFIX_LENGTH))
        self._prefix = server_id + drawn
        self._count = count(1)

    def next(self) -> str:
        """A new name of digits and lower-case letters, about 16 characters long."""
        return self._prefix + format(next(self._count), "x")
