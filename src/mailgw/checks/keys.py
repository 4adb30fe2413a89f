"""The public keys of signers: asked for, vetted, and used (RFC 6376 3.6 and 6.1.2, RFC 8463).

Law: a stranger's key does not decide what a verification costs. It is looked at before
any sum is done, and one that is too large, or has an odd exponent, is never used.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailgw.checks.signature import Signature, Trouble
from mailgw.dns import Resolver, Unanswered

_LARGEST_RECORD = 4_096
# RFC 6376 3.6.2.2 leaves it open what several records mean; these many are looked at.
_MOST_RECORDS = 4
_MOST_TAGS = 50
# RFC 8301 3.2: under 1024 bits must not, over 4096 need not be verified.
_FEWEST_BITS, _MOST_BITS = 1_024, 4_096
_LARGEST_EXPONENT = 2**32
_PADDING, _HASH = PKCS1v15(), Prehashed(SHA256())
_BLANKS = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Key:
    """A key that may be used: for mail, and not larger than a verification may cost.

    `testing` is t=y, `own_domain_only` t=s, `hashes` h= (empty: any) of its record.
    """

    public: RSAPublicKey | Ed25519PublicKey
    testing: bool = False
    own_domain_only: bool = False
    hashes: frozenset[bytes] = frozenset()

    def unfit(self, signature: Signature) -> Trouble | None:
        """Why it is not for this signature; it may be (None)."""
        kind = "ed25519" if isinstance(self.public, Ed25519PublicKey) else "rsa"
        if signature.algorithm != f"{kind}-sha256":
            return Trouble("permerror", f"the key is for {kind}, the signature is not")
        if self.hashes and b"sha256" not in self.hashes:
            return Trouble("permerror", "the key is for other hash algorithms (h=)")
        if self.own_domain_only and signature.identity_domain != signature.domain:
            return Trouble("permerror", "the key is not for subdomains (t=s)")
        return None

    def verifies(self, signed: bytes, digest: bytes) -> bool:
        """Whether `signed` was made over the SHA-256 `digest` with the other half."""
        try:
            if isinstance(self.public, Ed25519PublicKey):
                # RFC 8463 3: what is signed is the hash.
                self.public.verify(signed, digest)
            else:
                self.public.verify(signed, digest, _PADDING, _HASH)
        except InvalidSignature:
            return False
        return True


# What stands at one name: keys and what was wrong with records, at least one of them.
Found = tuple[Key | Trouble, ...]

_NO_KEY: Found = (Trouble("permerror", "there is no key at this selector"),)
_UNANSWERED: Found = (Trouble("temperror", "nobody answered the question for the key"),)


async def find(resolver: Resolver, names: Collection[str]) -> dict[str, Found]:
    """Ask for the keys at all names, side by side."""
    if len(names) == 1:
        # The common case does without a task.
        return {name: await _ask(resolver, name) for name in names}
    async with asyncio.TaskGroup() as group:
        asked = {name: group.create_task(_ask(resolver, name)) for name in names}
    return {name: task.result() for name, task in asked.items()}


async def _ask(resolver: Resolver, name: str) -> Found:
    try:
        answer = await resolver.txt(name)
    except Unanswered:
        return _UNANSWERED
    # RFC 8601 2.7.1 has permerror for what will not become better by itself, as RFC 6376
    # 6.1.2 has PERMFAIL for no key and for one that was revoked.
    return tuple(read(record) for record in answer.records[:_MOST_RECORDS]) or _NO_KEY


@lru_cache(maxsize=1_024)
def read(record: bytes) -> Key | Trouble:
    """A key record (RFC 6376 3.6.1); what it comes to is remembered, in a bounded memory."""
    if len(record) > _LARGEST_RECORD:
        return Trouble("permerror", "the key record is too large")
    tags = _tags(record)
    if tags is None:
        return Trouble("permerror", "the key record is no list of tags")
    # RFC 6376 3.6.1: DKIM1 and at the beginning, where it is given.
    if b"v" in tags and (tags[b"v"] != b"DKIM1" or next(iter(tags)) != b"v"):
        return Trouble("permerror", "the key record has another version")
    if b"p" not in tags:
        return Trouble("permerror", "the key record has no key")
    if not _words(tags.get(b"s", b"*")) & {b"*", b"email"}:
        return Trouble("permerror", "the key is not for mail (s=)")
    if not tags[b"p"]:
        return Trouble("permerror", "the key was revoked")
    public = _public(tags.get(b"k", b"rsa"), tags[b"p"].translate(None, _BLANKS))
    if isinstance(public, Trouble):
        return public
    flags = _words(tags.get(b"t", b""))
    hashes = frozenset(_words(tags[b"h"])) if b"h" in tags else frozenset()
    return Key(public, b"y" in flags, b"s" in flags, hashes)


def fitting(found: Found, signature: Signature) -> tuple[Key, ...] | Trouble:
    """The keys that may have made a signature, or why there are none."""
    troubles = [
        (each.unfit(signature) or each) if isinstance(each, Key) else each for each in found
    ]
    keys = tuple(each for each in troubles if isinstance(each, Key))
    return keys or next(each for each in troubles if isinstance(each, Trouble))


def _tags(record: bytes) -> dict[bytes, bytes] | None:
    """RFC 6376 3.2, in the order of the record."""
    tags: dict[bytes, bytes] = {}
    specs = record.strip(_BLANKS).removesuffix(b";").split(b";", _MOST_TAGS)
    for spec in specs:
        name, equals, value = spec.partition(b"=")
        name = name.strip(_BLANKS)
        if not equals or not name or name in tags:
            return None
        tags[name] = value.strip(_BLANKS)
    return tags


def _words(value: bytes) -> set[bytes]:
    return {word.strip(_BLANKS) for word in value.split(b":")}


def _public(kind: bytes, text: bytes) -> RSAPublicKey | Ed25519PublicKey | Trouble:
    try:
        octets = base64.b64decode(text, validate=True)
        if kind == b"ed25519":
            # RFC 8463 4.2: 32 octets and nothing around them.
            return Ed25519PublicKey.from_public_bytes(octets)
        if kind != b"rsa":
            return Trouble("permerror", "the key is of a kind that nobody knows (k=)")
        # SubjectPublicKeyInfo, and the bare RSAPublicKey that RFC 6376 was misread for.
        public = load_der_public_key(octets)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return Trouble("permerror", "the key cannot be read")
    if not isinstance(public, RSAPublicKey):
        return Trouble("permerror", "the key is not an RSA key")
    if public.key_size < _FEWEST_BITS:
        return Trouble("policy", f"the key has {public.key_size} bits")
    if public.key_size > _MOST_BITS or public.public_numbers().e > _LARGEST_EXPONENT:
        return Trouble("permerror", "the key is larger than what is verified")
    return public
