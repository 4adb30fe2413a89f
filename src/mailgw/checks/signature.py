"""One signature field read: DKIM-Signature, ARC-Message-Signature, ARC-Seal.

dkimpy reads the list of tags and applies the rules that RFC 6376 has for their values.
It is fenced: what it gets is bounded and has no runs of blanks, which its patterns
would take quadratic time for, and whatever it raises is a verdict. What it does after
that (canonical forms, choosing fields, RSA) is not used, since it holds the event loop
for as long as a stranger likes; see canonical.py, signed.py and keys.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dkim import (
    DKIMException,
    validate_signature_fields,
)
from dkim.util import InvalidTagValueList, parse_tag_value

from mailgw.checks.canonical import relaxed_field
from mailgw.mail.finding import Verdict
from mailgw.observe import log

Tags = Mapping[bytes, bytes]

# Real ones have less than 4 KB, with every field of the message in h=.
_LARGEST_FIELD = 16_384
_MOST_NAMES = 1_000
_LONGEST_NAME = 253
# RFC 5321 4.5.3.1: the longest mailbox, with room for its encoding.
_LONGEST_IDENTITY = 512
# Far more than 4096 bits in base64.
_LONGEST_SIGNATURE = 1_024
# RFC 6376 3.5 asks for 12 digits in t= and x=; more in l= than 76 is no number there.
_MOST_DIGITS = 76
# How far another machine's clock may be from ours, in seconds.
_CLOCK_LEEWAY = 300
_CANONICAL = {b"simple": False, b"relaxed": True}
_BLANKS = b" \t\r\n"
# RFC 6376 3.1 and 3.5: labels of a host name, and the underscore that some have. dkimpy
# takes others, too, that end the name for who reads it less strictly: bank.test'.evil.test.
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something cannot be a `pass`: the verdict it leads to, and a line for people."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature says of itself. `domain` and `selector` are A-labels in lower case.

    `relaxed_header` and `relaxed_body` are its c=, `length` its l=, `expires` its x=.
    `names` is h=, in lower case. A seal has no `names` and no `body_hash`.
    """

    raw: bytes
    algorithm: str
    domain: str
    selector: str
    identity_domain: str
    signed: bytes
    names: tuple[bytes, ...] = ()
    body_hash: bytes = b""
    relaxed_header: bool = True
    relaxed_body: bool = True
    length: int | None = None
    expires: int | None = None

    def expired(self, now: float) -> Trouble | None:
        """Why its time is over, `now` being seconds since 1970; it is not (None)."""
        if self.expires is not None and self.expires + _CLOCK_LEEWAY < now:
            # RFC 6376 3.5: it "MAY be considered invalid": intact, and not accepted by us.
            return Trouble("policy", "the signature has expired")
        return None

    @property
    def key_name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


def read_tags(raw: bytes) -> dict[bytes, bytes] | Trouble:
    """The tags of a field, without the blanks around their values."""
    if len(raw) > _LARGEST_FIELD:
        return Trouble("permerror", "the signature field is too large")
    try:
        tags: dict[bytes, bytes] = parse_tag_value(relaxed_field(raw).partition(b":")[2])
    except InvalidTagValueList as trouble:
        # The class says what; the text is the stranger's.
        return Trouble("permerror", f"the signature is no list of tags ({_kind(trouble)})")
    for name in (b"b", b"bh"):
        # RFC 6376 3.5: blanks inside of base64 are no part of it.
        if name in tags:
            tags[name] = tags[name].translate(None, _BLANKS)
    return tags


def dkim_signature(raw: bytes, tags: Tags) -> Signature | Trouble:
    """A DKIM-Signature (RFC 6376 6.1.1)."""
    read = _message_signature(raw, tags, (b"v",), b"simple/simple")
    if isinstance(read, Signature) and b"from" not in read.names:
        return Trouble("permerror", "the signature does not cover From")
    return read


def arc_message_signature(raw: bytes, tags: Tags) -> Signature | Trouble:
    """An ARC-Message-Signature (RFC 8617 4.1.2); without c= both forms are relaxed."""
    read = _message_signature(raw, _as_in_arc(tags), (b"i",), b"relaxed/relaxed")
    if isinstance(read, Signature) and b"arc-seal" in read.names:
        return Trouble("permerror", "an ARC-Message-Signature covers ARC-Seal")
    return read


def arc_seal(raw: bytes, tags: Tags) -> Signature | Trouble:
    """An ARC-Seal (RFC 8617 4.1.3)."""
    if b"h" in tags:
        return Trouble("permerror", "an ARC-Seal has h=")
    tags = _as_in_arc(tags)
    return _broken_rule(tags, (b"i", b"cv")) or _common(raw, tags)


def a_labels(name: bytes) -> str:
    """A domain name in lower case and A-labels (RFC 8616 4), "" for what cannot be one."""
    try:
        text = name.decode("utf-8")
        if len(text) > _LONGEST_NAME:
            return ""
        return (text if text.isascii() else text.encode("idna").decode("ascii")).lower()
    except UnicodeError:
        return ""


def _message_signature(
    raw: bytes, tags: Tags, mandatory: tuple[bytes, ...], default: bytes
) -> Signature | Trouble:
    if trouble := _broken_rule(tags, (*mandatory, b"bh", b"h")):
        return trouble
    # RFC 6376 3.5: a name alone is that of the header, the body is simple then.
    header, _, body = tags.get(b"c", default).partition(b"/")
    if header not in _CANONICAL or (body or b"simple") not in _CANONICAL:
        return Trouble("permerror", "c= names a canonical form that nobody knows")
    hashed = _decoded(tags[b"bh"])
    if hashed is None:
        return Trouble("permerror", "bh= is not base64")
    names = tags[b"h"].lower().split(b":")
    if len(names) > _MOST_NAMES:
        return Trouble("permerror", "h= names too many fields")
    common = _common(raw, tags)
    if isinstance(common, Trouble):
        return common
    return Signature(
        raw=raw,
        algorithm=common.algorithm,
        domain=common.domain,
        selector=common.selector,
        identity_domain=common.identity_domain,
        signed=common.signed,
        names=tuple(name.strip() for name in names),
        body_hash=hashed,
        relaxed_header=_CANONICAL[header],
        relaxed_body=_CANONICAL[body or b"simple"],
        length=int(tags[b"l"]) if b"l" in tags else None,
        expires=int(tags[b"x"]) if b"x" in tags else None,
    )


def _common(raw: bytes, tags: Tags) -> Signature | Trouble:
    """What all three have: who signed, how, and the signature itself."""
    domain, selector = a_labels(tags[b"d"]), a_labels(tags[b"s"])
    if not (_NAME.fullmatch(domain) and _NAME.fullmatch(selector)):
        return Trouble("permerror", "d= or s= is not a name")
    signed = _decoded(tags[b"b"])
    if not signed:
        return Trouble("permerror", "b= is not base64")
    identity = tags.get(b"i", b"").rpartition(b"@")[2]
    return Signature(
        raw=raw,
        algorithm=tags[b"a"].decode("ascii"),
        domain=domain,
        selector=selector,
        identity_domain=a_labels(identity) or domain,
        signed=signed,
    )


def _broken_rule(tags: Tags, mandatory: tuple[bytes, ...]) -> Trouble | None:
    """Which rule for the values a signature breaks: our bounds first, then dkimpy's rules."""
    if trouble := _beyond_bounds(tags):
        return trouble
    # dkimpy has a clock of its own and ten hours of leeway; see `Signature.expired`.
    given = {name: value for name, value in tags.items() if name not in (b"t", b"x")}
    try:
        validate_signature_fields(given, [*mandatory, b"a", b"b", b"d", b"s"])
    except DKIMException as broken:
        return Trouble("permerror", f"the signature is not well formed ({_missing(broken)})")
    except Exception as unforeseen:  # noqa: BLE001 - an IndexError for i= without "@", and its kin
        log.debug("dkim.unforeseen", error=_kind(unforeseen))
        return Trouble("permerror", "the signature is not well formed")
    return None


def _beyond_bounds(tags: Tags) -> Trouble | None:
    if tags.get(b"a") == b"rsa-sha1":
        # RFC 8301 3.1: it must not be verified, so there is no sum to do.
        return Trouble("policy", "rsa-sha1 is not accepted")
    if b"a" in tags and tags[b"a"] not in (b"rsa-sha256", b"ed25519-sha256"):
        # RFC 8601 2.7.1: it could not be processed; that is not the signer's error.
        return Trouble("neutral", "the algorithm in a= is not known")
    limits = {b"d": _LONGEST_NAME, b"s": _LONGEST_NAME, b"i": _LONGEST_IDENTITY}
    limits[b"b"] = limits[b"bh"] = _LONGEST_SIGNATURE
    for name, most in limits.items():
        if len(tags.get(name, b"")) > most:
            return Trouble("permerror", f"{name.decode()}= is too long")
    for name in (b"l", b"t", b"x"):
        if name in tags and not (tags[name].isdigit() and len(tags[name]) <= _MOST_DIGITS):
            return Trouble("permerror", f"{name.decode()}= is not a number")
    if b"t" in tags and b"x" in tags and int(tags[b"x"]) < int(tags[b"t"]):
        return Trouble("permerror", "x= is before t=")
    return None


def _as_in_arc(tags: Tags) -> Tags:
    """The tags as dkimpy may judge them: i= is an instance in ARC, and v= says nothing."""
    given = {name: value for name, value in tags.items() if name != b"v"}
    if b"i" in given:
        given[b"i"] = b"@" + given.get(b"d", b"")
    return given


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _kind(trouble: BaseException) -> str:
    return type(trouble).__name__


def _missing(trouble: Exception) -> str:
    """The tag that dkimpy's complaint begins with; the rest holds the stranger's value."""
    first = str(trouble).partition("=")[0].replace("b'", "").replace("'", "")
    return first if first.isascii() and first.isprintable() and len(first) < 60 else _kind(trouble)
