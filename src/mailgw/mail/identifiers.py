"""Names for connections and transactions that nobody else has used or will use.

No clock is asked: a process draws 62 random bits once and counts on from there, so a
restart, a second process or a clock that jumps cannot repeat a name.
"""

from __future__ import annotations

import secrets
from itertools import count

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PREFIX_LENGTH = 12


class Identifiers:
    """Makes them; one per process, made after the fork. `server_id` stands in front."""

    def __init__(self, server_id: str = "") -> None:
        drawn = "".join(secrets.choice(_DIGITS) for _ in range(_PREFIX_LENGTH))
        self._prefix = server_id + drawn
        self._count = count(1)

    def next(self) -> str:
        """A new name of digits and lower-case letters, about 16 characters long."""
        return f"{self._prefix}{next(self._count):x}"
