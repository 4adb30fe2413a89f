"""Who may authenticate: what a source of logins promises, and the one that asks nobody.

Laws of every source: a name that nobody has takes the time of a wrong password, so a
stranger learns nothing by either; what cannot be told is no "no"; and no credential is
in a log, an exception or a repr.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Protocol
from urllib.parse import unquote


class CannotTell(Exception):
    """The source could not be asked, so the client hears that it may try again.

    `reason` is for the log; it may name hosts and files, never who asked or with what.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadLogins(ValueError):
    """The source cannot be used. `lines` says where and why, without quoting what is there."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Authenticator(Protocol):
    """A source of logins."""

    async def verify(self, username: str, password: str) -> bool:
        """Whether that login is right. Raises CannotTell; how long it takes is bounded.

        Names and passwords are not empty and hold printable characters only.
        """

    async def close(self) -> None:
        """Let go of what was opened. Whoever asks after that may get CannotTell."""


class Hardcoded:
    """Logins that stand in the configuration itself."""

    __slots__ = ("_known",)

    def __init__(self, logins: Iterable[tuple[str, str]]) -> None:
        self._known = tuple(_digest(*login) for login in logins)

    @classmethod
    def from_url(cls, url: str) -> Hardcoded:
        """Read hardcoded://user:password,user2:password2, with %XX for what is special there.

        Raises BadLogins.
        """
        logins, bad = [], []
        for number, text in enumerate(url.partition("://")[2].split(","), 1):
            try:
                user, _, password = (unquote(part, errors="strict") for part in text.partition(":"))
            except UnicodeDecodeError:
                bad.append(f"login {number} of hardcoded:// is not UTF-8")
                continue
            if not user or not password:
                bad.append(f"login {number} of hardcoded:// is not user:password")
            logins.append((user, password))
        if bad:
            raise BadLogins(bad)
        return cls(logins)

    async def verify(self, username: str, password: str) -> bool:
        given = _digest(username, password)
        right = False
        # A login is compared whole, and with all there are: nothing ends this early.
        for known in self._known:
            right |= hmac.compare_digest(given, known)
        return right

    async def close(self) -> None:
        """Nothing is open."""


def _digest(username: str, password: str) -> bytes:
    # The length keeps the two apart: no other pair gives the same octets.
    return hashlib.sha256(f"{len(username)}:{username}{password}".encode()).digest()
