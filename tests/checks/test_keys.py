"""Key records: what they come to, before any sum is done with the key."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from doubles import FakeResolver
from mailgw.checks import dkim, keys
from mailgw.checks.keys import Key
from mailgw.checks.signature import Trouble
from mailgw.dns import Answer
from signers import KEY_NAME, MAIL, ed25519_signer, rsa_signer, signed

P = rsa_signer().public_text
ODD = int.from_bytes(b"\xa5" * 8192)


def record_of(modulus_bits: int, exponent: int) -> bytes:
    modulus = (ODD & ((1 << modulus_bits) - 1)) | (1 << (modulus_bits - 1)) | 1
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"k=rsa; p=" + base64.b64encode(octets)


def curve_point() -> str:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(octets).decode()


def bare_rsa() -> str:
    public = rsa_signer().private.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()


@pytest.mark.parametrize(
    "record",
    [
        f"v=DKIM1; k=rsa; p={P}",
        f"p={P}",
        f"p={P};",
        f" v = DKIM1 ;\tp = {P[:50]} {P[50:]} ; ",
        f"v=DKIM1; g=*; n=note; p={P}",
        f"s=other:email; p={P}",
        f"p={bare_rsa()}",
        pytest.param(ed25519_signer().record, id="ed25519"),
    ],
)
def test_a_usable_key(record: str) -> None:
    assert isinstance(keys.read(record.encode()), Key)


@pytest.mark.parametrize(
    ("record", "verdict", "reason"),
    [
        ("v=DKIM1; p=", "permerror", "the key was revoked"),
        ("v=DKIM1; k=rsa", "permerror", "the key record has no key"),
        (f"v=DKIM2; p={P}", "permerror", "the key record has another version"),
        (f"p={P}; v=DKIM1", "permerror", "the key record has another version"),
        (f"k=dsa; p={P}", "permerror", "the key is of a kind that nobody knows (k=)"),
        (f"s=tlsrpt; p={P}", "permerror", "the key is not for mail (s=)"),
        ("p=!", "permerror", "the key cannot be read"),
        ("p=AAAA", "permerror", "the key cannot be read"),
        ("k=ed25519; p=AAAA", "permerror", "the key cannot be read"),
        (f"p={curve_point()}", "permerror", "the key is not an RSA key"),
        (f"p={P}; p={P}", "permerror", "the key record is no list of tags"),
        ("v=spf1 -all", "permerror", "the key record has another version"),
        ("hello", "permerror", "the key record is no list of tags"),
        ("", "permerror", "the key record is no list of tags"),
        (
            "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
            "permerror",
            "the key record is no list of tags",
        ),
        ("a=b;" * 3000, "permerror", "the key record is too large"),
        (";" * 3000, "permerror", "the key record is no list of tags"),
    ],
)
def test_a_record_without_a_usable_key(record: str, verdict: str, reason: str) -> None:
    assert keys.read(record.encode("latin-1")) == Trouble(verdict, reason)  # type: ignore[arg-type]  # a str here


@pytest.mark.parametrize(
    ("bits", "exponent", "verdict"),
    [
        (512, 65537, "policy"),
        (1023, 65537, "policy"),
        (1024, 65537, "usable"),
        (4096, 65537, "usable"),
        (2048, 2**32 - 1, "usable"),
        (4097, 65537, "permerror"),
        (2048, 2**32 + 1, "permerror"),
        (8192, 65537, "permerror"),
    ],
)
def test_a_key_is_used_from_1024_to_4096_bits(bits: int, exponent: int, verdict: str) -> None:
    found = keys.read(record_of(bits, exponent))

    assert (found.verdict if isinstance(found, Trouble) else "usable") == verdict


async def test_d2_a_key_of_16384_bits_costs_nothing() -> None:
    # dkimpy did the sum: 8.4 seconds with an exponent of that length.
    record = record_of(16384, (1 << 16000) + 1).decode()
    resolver = FakeResolver({"TXT": {KEY_NAME: [record]}})

    before = time.thread_time()
    [finding] = await dkim.check(resolver, signed(MAIL))

    assert finding.verdict == "permerror"
    assert time.thread_time() - before < 0.1


async def test_d2_the_largest_key_that_is_used_costs_little() -> None:
    resolver = FakeResolver({"TXT": {KEY_NAME: [record_of(4096, 2**32 - 1).decode()]}})
    content = signed(MAIL)

    before = time.thread_time()
    [finding] = await dkim.check(resolver, content)

    assert finding.reason == "the signature does not fit the header"
    assert time.thread_time() - before < 0.1


class EverybodyTogether(FakeResolver):
    """Answers when as many as there are names have asked."""

    async def txt(self, name: str) -> Answer[bytes]:
        answer = await super().txt(name)
        if len(self.asked) == 3:
            self.all_asked.set()
        await self.all_asked.wait()
        return answer

    def __init__(self, names: list[str]) -> None:
        super().__init__({"TXT": {name: [f"p={P}"] for name in names}})
        self.all_asked = asyncio.Event()


async def test_keys_are_asked_for_side_by_side() -> None:
    names = ["a.test", "b.test", "c.test"]

    async with asyncio.timeout(10):
        found = await keys.find(EverybodyTogether(names), names)

    assert list(found) == names


async def test_no_key_and_no_answer_are_two_things() -> None:
    resolver = FakeResolver({"A": {"other.test": ["192.0.2.1"]}}, fail=["silent.test"])

    found = await keys.find(resolver, ["silent.test", "other.test", "none.test"])

    assert [each.verdict for [each] in found.values() if isinstance(each, Trouble)] == [
        "temperror",
        "permerror",
        "permerror",
    ]


async def test_among_several_records_the_usable_is_used() -> None:
    records = ["v=spf1 -all", "p=", ed25519_signer().record, rsa_signer().record]
    resolver = FakeResolver({"TXT": {KEY_NAME: records}})

    [finding] = await dkim.check(resolver, signed(MAIL))

    assert finding.verdict == "pass"
