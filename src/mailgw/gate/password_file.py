"""Logins in a file: one `user:hash` a line, hashes of crypt (sha-512, sha-256) or argon2.

Lines that start with "#" and empty lines say nothing. Laws: a line that cannot be used
keeps us from starting, and is named but never quoted. Checking a hash is work of many
milliseconds: it happens beside the event loop, a few at once, and not more may wait than
can be served while a client waits. A name that nobody has is checked against somebody's
hash, always the same one, so that it costs what a real one costs.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import argon2
from passlib.hash import sha256_crypt, sha512_crypt

from mailgw.gate.credentials import BadLogins, CannotTell

_AT_ONCE = 2
_MOST_WAITING = 64
# Seconds from the question to the answer, the wait for the others included.
_PATIENCE = 10.0

# A hash that costs more would keep the others waiting: about a second, and 1 GiB.
_MOST_ROUNDS = 1_000_000
_MOST_MEMORY = 1024 * 1024
_MOST_PASSES = 100
_MOST_LANES = 64
# RFC 9106 3.1: a salt of 8 octets and a tag of 4 at least, in base64.
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)(?:\$v=[0-9]{2})?\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,9})"
    r"\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}"
)


class _BadHash(ValueError):
    pass


class _Hash(NamedTuple):
    """A hash and the way to check it: `check(password, text)`."""

    check: Callable[[str, str], bool]
    text: str


class PasswordFile:
    """The logins of one file, as it was when it was read.

    Raises BadLogins with every bad line at once. `at_once` checks run side by side, each
    with the memory that its hash asks for; `most_waiting` more may wait.
    """

    def __init__(
        self, path: Path, *, at_once: int = _AT_ONCE, most_waiting: int = _MOST_WAITING
    ) -> None:
        self._hashes = _load(path)
        self._any = tuple(self._hashes.values())
        # The same in every worker, and not to be known without the hashes.
        self._draw = hashlib.sha256("".join(each.text for each in self._any).encode()).digest()
        # Its threads start with the first login.
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="passwords")
        self._most = at_once + most_waiting
        self._under_way = 0
        self._closed = False

    async def verify(self, username: str, password: str) -> bool:
        if not self._any:
            return False
        if self._closed:
            raise CannotTell("the password file is asked no more")
        if self._under_way >= self._most:
            raise CannotTell("too many logins wait to be checked")
        known = self._hashes.get(username)
        check, text = known or self._somebody(username)
        self._under_way += 1
        try:
            async with asyncio.timeout(_PATIENCE):
                right = await asyncio.wrap_future(self._pool.submit(check, password, text))
        except TimeoutError:
            raise CannotTell("checking a password took too long") from None
        except asyncio.CancelledError:
            if self._closed:
                raise CannotTell("the password file is asked no more") from None
            raise
        finally:
            self._under_way -= 1
        return right and known is not None

    async def close(self) -> None:
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _somebody(self, username: str) -> _Hash:
        drawn = hashlib.sha256(self._draw + username.encode()).digest()
        return self._any[int.from_bytes(drawn[:8], "big") % len(self._any)]


def _load(path: Path) -> dict[str, _Hash]:
    hashes: dict[str, _Hash] = {}
    bad = []
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    # A byte order mark is no part of the first name.
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    if line and not line.startswith("#"):
                        _add(hashes, line)
                except UnicodeDecodeError:
                    bad.append(f"{path}:{number}: is not UTF-8")
                except _BadHash as error:
                    bad.append(f"{path}:{number}: {error}")
    except OSError as error:
        raise BadLogins([f"{path}: {error.strerror}"]) from error
    if bad:
        raise BadLogins(bad)
    return hashes


def _add(hashes: dict[str, _Hash], line: str) -> None:
    username, _, text = line.partition(":")
    if not username or not text:
        raise _BadHash("is not user:hash")
    if username in hashes:
        raise _BadHash("has a name that stands above already")
    hashes[username] = _Hash(_checker(text), text)


def _checker(text: str) -> Callable[[str, str], bool]:
    """How to check this hash. Raises _BadHash where nobody could."""
    if text.startswith("$6$"):
        return _crypt_checker(sha512_crypt, text)
    if text.startswith("$5$"):
        return _crypt_checker(sha256_crypt, text)
    if text.startswith(("$argon2id$", "$argon2i$", "$argon2d$")):
        _look_at_argon2(text)
        return _check_argon2
    raise _BadHash(
        "has a hash of an unknown kind (make one with openssl passwd -6, or with argon2)"
    )


def _crypt_checker(kind: type[sha512_crypt], text: str) -> Callable[[str, str], bool]:
    try:
        parsed = kind.from_string(text)
    except ValueError:
        parsed = None
    # Without a checksum it is a setting, which no password has.
    if parsed is None or parsed.checksum is None:
        raise _BadHash("has a broken hash")
    if parsed.rounds > _MOST_ROUNDS:
        raise _BadHash(f"has a hash of more than {_MOST_ROUNDS} rounds")

    def check(password: str, text: str) -> bool:
        return bool(kind.verify(password, text))

    return check


def _look_at_argon2(text: str) -> None:
    # The library itself looks closely only when a password is checked.
    found = _ARGON2.fullmatch(text)
    if found is None:
        raise _BadHash("has a broken hash")
    memory, passes, lanes = map(int, found.groups())
    if not passes or not lanes or memory < 8 * lanes:
        raise _BadHash("has a broken hash")
    if memory > _MOST_MEMORY or passes > _MOST_PASSES or lanes > _MOST_LANES:
        raise _BadHash("has a hash that would take for ever")


def _check_argon2(password: str, text: str) -> bool:
    kind = argon2.extract_parameters(text).type
    try:
        return argon2.low_level.verify_secret(text.encode(), password.encode(), kind)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except argon2.exceptions.VerificationError as error:  # out of memory, mostly
        raise CannotTell(f"argon2: {error}") from None
