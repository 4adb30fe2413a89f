"""Who signs in these tests: keys, their records, and signatures that dkimpy did not make.

The canonical forms are dkimpy's, so what we verify was not made by what verifies it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from dkim import rfc822_parse, select_headers
from dkim.canonicalization import Relaxed, Simple

DOMAIN, SELECTOR = "sender.test", "s1"
KEY_NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
FORMS = {"relaxed": Relaxed, "simple": Simple}
MAIL = (
    b"From: Anna <anna@sender.test>\r\n"
    b"To: bob@example.org\r\n"
    b"Subject: dinner,\r\n\tperhaps\r\n"
    b"\r\n"
    b"Are you  hungry yet? \r\n\r\nAnna\r\n"
)


@dataclass(frozen=True)
class Signer:
    """One pair of keys; `record` is the public half as it stands in the DNS."""

    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519-sha256"

    @property
    def public_text(self) -> str:
        public = self.private.public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            return base64.b64encode(public.public_bytes_raw()).decode()
        octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(octets).decode()

    @property
    def record(self) -> str:
        kind = self.algorithm.partition("-")[0]
        return f"v=DKIM1; k={kind}; p={self.public_text}"

    @property
    def for_dkimpy(self) -> bytes:
        """The private half in the form that dkimpy reads."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return base64.b64encode(self.private.private_bytes_raw())
        return self.private.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )

    def sign(self, digest: bytes, algorithm: str) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(digest)
        kind = SHA1() if algorithm == "rsa-sha1" else SHA256()
        return self.private.sign(digest, padding.PKCS1v15(), Prehashed(kind))


@cache
def rsa_signer(bits: int = 2048) -> Signer:
    return Signer(rsa.generate_private_key(65537, bits))


@cache
def ed25519_signer() -> Signer:
    return Signer(ed25519.Ed25519PrivateKey.generate())


def signature(
    content: bytes,
    tags: Mapping[str, str] | None = None,
    signer: Signer | None = None,
    without: str = "",
    name: str = "DKIM-Signature",
) -> bytes:
    """A signature field over the content, with these tags in place of, or besides, ours."""
    signer = signer or rsa_signer()
    given = {"v": "1", "a": signer.algorithm, "c": "relaxed/relaxed", "d": DOMAIN, "s": SELECTOR}
    given |= {"h": "from:to:subject"} | dict(tags or {})
    make = hashlib.sha1 if given["a"] == "rsa-sha1" else hashlib.sha256
    head, _, tail = given["c"].partition("/")
    headers, body = rfc822_parse(content)
    if "bh" not in given:
        canonical = FORMS[tail or "simple"].canonicalize_body(body)
        octets = canonical[: int(given.get("l") or 2**40)]
        given["bh"] = base64.b64encode(make(octets).digest()).decode()
    value = "; ".join(f"{tag}={text}" for tag, text in given.items() if tag != without)
    text = f" {value}; b=".encode()
    wanted = [each.strip().encode() for each in given["h"].lower().split(":")]
    hashed = select_headers(headers, wanted)
    own = FORMS[head].canonicalize_headers([(name.encode(), text + b"\r\n")])
    [*fields, last] = [*FORMS[head].canonicalize_headers(hashed), *own]
    octets = b"".join(b"%s:%s" % (each, rest) for each, rest in fields)
    octets += b"%s:%s" % (last[0], last[1].rstrip())
    signed = base64.b64encode(signer.sign(make(octets).digest(), given["a"]))
    return name.encode() + b":" + text + signed + b"\r\n"


def signed(
    content: bytes = MAIL, tags: Mapping[str, str] | None = None, signer: Signer | None = None
) -> bytes:
    return signature(content, tags, signer) + content


def chain(
    content: bytes,
    number: int,
    statuses: Mapping[int, str] | None = None,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """The content below this many ARC sets.

    `statuses` are other cv= than the right ones, `extra` more tags of each signature.
    """
    sets: list[bytes] = []
    for n in range(1, number + 1):
        tags = {"i": str(n), "h": "from:to:subject"} | dict(extra or {})
        results = b"ARC-Authentication-Results: i=%d; r%d.test; spf=pass; dkim=fail\r\n" % (n, n)
        over_message = signature(content, tags, name="ARC-Message-Signature", without="v")
        status = (statuses or {}).get(n, "none" if n == 1 else "pass")
        sets += [results, over_message, seal([*sets, results, over_message], n, status)]
    return b"".join(reversed(sets)) + content


def seal(fields: list[bytes], instance: int, status: str) -> bytes:
    """An ARC-Seal over these fields, from the oldest."""
    start = f" i={instance}; a=rsa-sha256; cv={status}; d=r{instance}.test; s={SELECTOR}; b="
    own = b"ARC-Seal:" + start.encode()
    pairs = [each.partition(b":")[::2] for each in [*fields, own + b"\r\n"]]
    octets = b"".join(b"%s:%s" % pair for pair in Relaxed.canonicalize_headers(pairs))[:-2]
    signed = rsa_signer().sign(hashlib.sha256(octets).digest(), "rsa-sha256")
    return own + base64.b64encode(signed) + b"\r\n"


def chain_world(number: int) -> dict[str, list[str]]:
    """The TXT records for a chain of this many sets."""
    names = [KEY_NAME, *(f"{SELECTOR}._domainkey.r{n}.test" for n in range(1, number + 1))]
    return {name: [rsa_signer().record] for name in names}
