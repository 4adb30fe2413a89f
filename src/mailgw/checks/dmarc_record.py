"""The DMARC policy record: what a domain asks for, read out of a TXT record (RFC 9989 4.7, 4.8).

Laws: nothing here raises or asks anybody, whatever the text. What does not begin as a
record of this version is none; behind that beginning a mistake costs the tag it is in,
never its neighbours. Only the policies are more than that: where one of them cannot be
read, the record asks for nothing (4.10.1). Report addresses are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

Policy: TypeAlias = Literal["none", "quarantine", "reject"]
Psd: TypeAlias = Literal["y", "n", "u"]

# The first is the mildest.
POLICIES: tuple[Policy, ...] = ("none", "quarantine", "reject")

# RFC 9989 4.8: the version is the first tag, and the only value that has a case.
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_VALUE = re.compile(rb"[ -~]+")
# RFC 3986 3.1 and, for mailto, RFC 6068: a scheme, and something that it can be used on.
_URI = re.compile(rb"(?!mailto:)[a-z][a-z0-9+.-]*:[!-~]+|mailto:[^@\s]+@[!-?A-~]+", re.IGNORECASE)
# What is kept of the records that were read lately; larger ones are read each time.
_REMEMBERED, _LARGEST_REMEMBERED = 2048, 512


@dataclass(frozen=True, slots=True)
class Record:
    """One policy record.

    `sp` and `np` are what holds for subdomains and for those that do not exist, whether
    written or inherited. A record that is not `usable` says whose the domain is, and
    takes no part in anything else.
    """

    p: Policy = "none"
    sp: Policy = "none"
    np: Policy = "none"
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: Psd = "u"
    testing: bool = False
    usable: bool = True

    def asks(self, *, subdomain: bool, exists: bool) -> Policy:
        """The policy for a failing message, by who the author is to the record's domain."""
        policy = (self.sp if exists else self.np) if subdomain else self.p
        # RFC 9989 4.7 (t): while a domain tests, one level below what it says.
        return POLICIES[max(0, POLICIES.index(policy) - 1)] if self.testing else policy


def records(texts: Iterable[bytes]) -> list[Record]:
    """The policy records among the TXT records of a name; other text is passed by."""
    return [read(text) for text in texts if _VERSION.match(text)]


def read(text: bytes) -> Record:
    """Read a record that begins with the version."""
    return _remembered(text) if len(text) <= _LARGEST_REMEMBERED else _read(text)


def _read(text: bytes) -> Record:
    tags = _tags(text)
    # RFC 9989 4.7: without p it is none, without sp it is p, without np it is sp.
    p = _policy(tags.get("p", b"none"))
    sp = _policy(tags["sp"]) if "sp" in tags else p
    np = _policy(tags["np"]) if "np" in tags else sp
    usable = True
    if p is None or sp is None or np is None:
        # 4.10.1: one that is there but cannot be read makes the whole record p=none where
        # somebody wants reports, and nothing otherwise.
        p = sp = np = "none"
        usable = _has_uri(tags.get("rua", b""))
    return Record(
        p=p,
        sp=sp,
        np=np,
        strict_dkim=tags.get("adkim") in (b"s", b"S"),
        strict_spf=tags.get("aspf") in (b"s", b"S"),
        psd=_psd(tags.get("psd", b"")),
        testing=tags.get("t") in (b"y", b"Y"),
        usable=usable,
    )


_remembered = lru_cache(maxsize=_REMEMBERED)(_read)


def _tags(text: bytes) -> dict[str, bytes]:
    """The tags by name; b"" for one that was given two different values.

    RFC 6376 3.2 forbids a second one, so which of them was meant is not known.
    """
    found: dict[str, bytes] = {}
    for part in text.split(b";")[1:]:
        written, equals, value = part.partition(b"=")
        name = written.strip(b" \t").decode("latin-1").lower()
        if not equals:
            continue
        value = value.strip(b" \t")
        if not _VALUE.fullmatch(value) or found.setdefault(name, value).lower() != value.lower():
            found[name] = b""
    return found


def _policy(value: bytes) -> Policy | None:
    text = value.decode("ascii").lower()
    return next((policy for policy in POLICIES if policy == text), None)


def _psd(value: bytes) -> Psd:
    text = value.decode("ascii").lower()
    return "y" if text == "y" else "n" if text == "n" else "u"


def _has_uri(value: bytes) -> bool:
    return any(_URI.fullmatch(each.strip(b" \t")) for each in value.split(b","))
