"""Mailboxes and paths: what stands between "<" and ">" (RFC 5321 4.1.2, RFC 6531 3.3).

Parsing here never decodes, unquotes or rewrites: an address is what the client wrote,
cut in two at its "@". So nothing (encoded-words, comments, source routes) can turn one
address into another.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# RFC 5321 4.5.3.1.1 to 4.5.3.1.3, in octets.
LONGEST_LOCAL_PART: Final = 64
LONGEST_DOMAIN: Final = 255
LONGEST_PATH: Final = 256
# Loose addresses have no limit of their own but that of the line; this one is for us.
LONGEST_LOOSE: Final = 512

_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# No group is possessive: before Python 3.11.5 that takes what it should have given back.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{1,62}+(?<!-))?"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
# Local part and domain of a path in ASCII, as an expression; lengths are not in it.
USUAL_PATH: Final = rf"<([{_ATEXT}]++(?:\.[{_ATEXT}]++)*)@({_DOMAIN})>"
_usual_path: Final = re.compile(USUAL_PATH).match
_DOT_STRING: Final = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*")
_QUOTED_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_ULABEL: Final = (
    r"[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\u0080-\U0010ffff-]*[A-Za-z0-9\u0080-\U0010ffff])?"
)
_UDOMAIN: Final = re.compile(rf"{_ULABEL}(?:\.{_ULABEL})*")
_SOURCE_ROUTE: Final = re.compile(rf"@{_ULABEL}(?:\.{_ULABEL})*(?:,@{_ULABEL}(?:\.{_ULABEL})*)*:")

# RFC 5892 2.1, letters and digits: what a decoded label may consist of.
_LABEL_CATEGORIES: Final = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})


class BadAddress(ValueError):
    """Not an address in the grammar that was asked for."""


@dataclass(init=False, slots=True, unsafe_hash=True)
class Address:
    """A mailbox as the client wrote it: its local part and its domain.

    `domain` is "" for the bare postmaster of RFC 5321 4.5.1 only. str() is the form
    that is published: UTF-8, with the A-labels of the domain as U-labels.
    """

    local: Final[str]
    domain: Final[str]

    def __init__(self, local: str, domain: str) -> None:
        self.local = local
        self.domain = domain

    def __str__(self) -> str:
        if not self.domain:
            return self.local
        return f"{self.local}@{to_unicode(self.domain)}"

    @property
    def written(self) -> str:
        """As the client wrote it, fit for a reply to that client."""
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def ascii(self) -> bool:
        return self.local.isascii() and self.domain.isascii()


def parse_path(text: str, *, strict: bool) -> tuple[Address | None, str]:
    """Read the path that `text` begins with; return it and what follows it.

    None is the null path "<>". Raises BadAddress. Strict obeys the grammar of RFC 5321
    (and RFC 6531: non-ASCII is taken here; whether the client may use it is asked
    elsewhere). Loose wants an "@", something before it and a valid domain after it, and
    does without the angle brackets.
    """
    usual = _usual_path(text)
    if usual is not None:
        local, domain = usual.groups()
        if len(local) <= LONGEST_LOCAL_PART and usual.end() <= LONGEST_PATH:
            return Address(local, domain), text[usual.end() :]
    if text.startswith("<>"):
        return None, text[2:]
    if not strict and not text.startswith("<"):
        bare, space, rest = text.partition(" ")
        return _mailbox(bare, strict=False), space + rest
    if not text.startswith("<"):
        raise BadAddress("a path stands in angle brackets")
    end = _closing_bracket(text)
    return _mailbox(_without_source_route(text[1:end]), strict=strict), text[end + 1 :]


def parse_mailbox(text: str, *, strict: bool = True) -> Address:
    """Read an address that stands alone, without brackets; raises BadAddress."""
    return _mailbox(text, strict=strict)


def _closing_bracket(text: str) -> int:
    """Where the path ends: the first ">" that is not inside a quoted local part."""
    begin = 1
    route = _SOURCE_ROUTE.match(text, 1)
    if route is not None:
        begin = route.end()
    quoted = _QUOTED_STRING.match(text, begin)
    end = text.find(">", quoted.end() if quoted is not None else begin)
    if end < 0:
        raise BadAddress("the angle bracket is not closed")
    return end


def _without_source_route(inner: str) -> str:
    # RFC 5321 4.1.1.3 and appendix C: accepted, and ignored.
    route = _SOURCE_ROUTE.match(inner)
    return inner[route.end() :] if route is not None else inner


def _mailbox(text: str, *, strict: bool) -> Address:
    if not text.isprintable():
        raise BadAddress("control characters in an address")
    # RFC 5321 4.5.1: the one address that needs no domain.
    if text.lower() == "postmaster":
        return Address(text, "")
    local, at, domain = text.rpartition("@")
    if not at or not local:
        raise BadAddress("an address has a local part, an @ and a domain")
    _check_domain(domain)
    if strict:
        _check_local_part(local)
        if len(text.encode()) > LONGEST_PATH - 2:
            raise BadAddress("the path is too long")
    elif len(text) > LONGEST_LOOSE:
        raise BadAddress("the address is too long")
    return Address(local, domain)


def _check_local_part(local: str) -> None:
    if len(local.encode()) > LONGEST_LOCAL_PART:
        raise BadAddress("the local part is too long")
    if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise BadAddress("bad local part")


def _check_domain(domain: str) -> None:
    if domain.startswith("[") and domain.endswith("]"):
        _check_literal(domain[1:-1])
        return
    if len(domain.encode()) > LONGEST_DOMAIN or not _UDOMAIN.fullmatch(domain):
        raise BadAddress("bad domain")
    if any(len(label.encode()) > 63 for label in domain.split(".")):
        raise BadAddress("a label of the domain is too long")


def _check_literal(literal: str) -> None:
    # RFC 5321 4.1.3. No standardized tag but IPv6 exists, so none other is taken.
    try:
        if literal[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        raise BadAddress("bad address literal") from None


@lru_cache(maxsize=1024)
def to_unicode(domain: str) -> str:
    """The domain with its A-labels as U-labels (RFC 5890), other labels as they are.

    A label that does not decode to letters and digits and back to itself stays as it is.
    """
    if "xn--" not in domain.lower():
        return domain
    return ".".join(_label_to_unicode(label) for label in domain.split("."))


def _label_to_unicode(label: str) -> str:
    if label[:4].lower() != "xn--":
        return label
    encoded = label[4:].lower()
    try:
        decoded = encoded.encode("ascii").decode("punycode")
        if decoded.encode("punycode").decode("ascii") != encoded:
            return label
    except UnicodeError:
        return label
    categories = [unicodedata.category(c) for c in decoded if c != "-"]
    # RFC 5891 5.4: NFC, no leading combining mark, letters and digits only.
    plain = (
        bool(categories)
        and categories[0] not in ("Mn", "Mc")
        and _LABEL_CATEGORIES.issuperset(categories)
        and unicodedata.is_normalized("NFC", decoded)
        and not decoded.isascii()
    )
    return decoded if plain else label
