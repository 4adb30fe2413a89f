"""What keeps the gateway from starting."""

from __future__ import annotations

FAILED = 2


class CannotStart(Exception):
    """The text says why, for who started it; `code` is the exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code
