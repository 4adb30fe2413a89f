"""DKIM: the verdict for every way to sign, and every way to fail."""

from __future__ import annotations

import subprocess
import sys

import dkim as dkimpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import FakeResolver
from mailgw.checks import dkim
from signers import (
    DOMAIN,
    KEY_NAME,
    MAIL,
    SELECTOR,
    Signer,
    ed25519_signer,
    rsa_signer,
    signature,
    signed,
)

BOTH = pytest.mark.parametrize("signer", [rsa_signer(), ed25519_signer()], ids=["rsa", "ed25519"])
FORMS = [b"relaxed", b"simple"]


def world(record: str | None = None, name: str = KEY_NAME) -> FakeResolver:
    return FakeResolver({"TXT": {name: [rsa_signer().record if record is None else record]}})


async def verdicts(content: bytes, resolver: FakeResolver | None = None) -> list[str]:
    found = await dkim.check(resolver or world(), content, clock=lambda: 1_700_000_000.0)
    return [each.verdict for each in found]


@BOTH
@pytest.mark.parametrize("header", FORMS)
@pytest.mark.parametrize("body", FORMS)
@settings(max_examples=15, deadline=None)
@given(lines=st.lists(st.text(" \tab.é", max_size=90)))
async def test_what_dkimpy_signed_passes(
    signer: Signer, header: bytes, body: bytes, lines: list[str]
) -> None:
    content = MAIL + "".join(f"{line}\r\n" for line in lines).encode()
    field = dkimpy.sign(
        content,
        SELECTOR.encode(),
        DOMAIN.encode(),
        signer.for_dkimpy,
        canonicalize=(header, body),
        signature_algorithm=signer.algorithm.encode(),
    )

    assert await verdicts(field + content, world(signer.record)) == ["pass"]
    assert await verdicts(field + content + b"more\r\n", world(signer.record)) == ["fail"]


async def test_a_finding_tells_who_signed_and_how() -> None:
    content = signed(tags={"d": "Sender.TEST", "i": "anna@mail.sender.test"})

    [found] = await dkim.check(world(), content)

    b = content.partition(b" b=")[2][:8].decode()
    assert (found.verdict, found.domain, found.reason) == ("pass", "sender.test", "")
    assert found.properties == (
        ("header.d", "Sender.TEST"),
        ("header.s", "s1"),
        ("header.i", "anna@mail.sender.test"),
        ("header.b", b),
        ("header.a", "rsa-sha256"),
    )
    assert found.members == (
        ("domain", "Sender.TEST"),
        ("selector", "s1"),
        ("header.i", "anna@mail.sender.test"),
        ("header.b", b),
        ("algorithm", "rsa-sha256"),
    )
    assert found.milliseconds > 0


async def test_without_a_signature_there_is_one_finding() -> None:
    [found] = await dkim.check(world(), MAIL)

    assert (found.verdict, found.properties) == ("none", ())


async def test_signatures_with_the_same_beginning_are_told_apart() -> None:
    # RFC 6008 4; what is said about a broken signature must not look like the good one's.
    good = signature(MAIL)
    start = good.index(b" b=") + 3
    broken = good[: start + 11] + bytes([good[start + 11] ^ 1]) + good[start + 12 :]

    found = await dkim.check(world(), good + broken + good + MAIL)

    shown = [dict(each.members)["header.b"] for each in found]
    assert [each.verdict for each in found][::2] == ["pass", "pass"]
    assert [len(str(each)) for each in shown] == [12, 12, 12]
    assert shown[0] != shown[1]


@pytest.mark.parametrize(
    ("tags", "verdict", "reason"),
    [
        ({"x": "1699999999"}, "pass", ""),
        ({"x": "1600000000"}, "policy", "the signature has expired"),
        ({"t": "2000000000"}, "pass", ""),
        ({"t": "10", "x": "9"}, "permerror", "x= is before t="),
        ({"x": "9" * 5000}, "permerror", "x= is not a number"),
        ({"t": "-1"}, "permerror", "t= is not a number"),
        ({"l": ""}, "permerror", "l= is not a number"),
        ({"l": "10"}, "policy", "l= does not cover the whole body"),
        ({"l": "0"}, "policy", "l= does not cover the whole body"),
        ({"l": "99"}, "fail", "the body is shorter than l= says"),
        ({"a": "rsa-sha1"}, "policy", "rsa-sha1 is not accepted"),
        ({"h": "to:subject"}, "permerror", "the signature does not cover From"),
        ({"h": "from"}, "pass", ""),
        ({"h": "from:from:To : x-not-there:to"}, "pass", ""),
        ({"c": "relaxed"}, "pass", ""),
        ({"c": "simple/relaxed"}, "pass", ""),
        ({"q": "dns/txt"}, "pass", ""),
        ({"q": "other"}, "permerror", "the signature is not well formed (q)"),
        ({"v": "2"}, "permerror", "the signature is not well formed (v)"),
        ({"i": "@other.test"}, "permerror", "the signature is not well formed (i)"),
        ({"i": "xsender.test"}, "permerror", "the signature is not well formed (i)"),
        ({"s": "s2"}, "permerror", "there is no key at this selector"),
        ({"d": "x" * 300, "i": ""}, "permerror", "d= is too long"),
        ({"d": "\u00e9" * 80 + ".test"}, "permerror", "d= or s= is not a name"),
        ({"h": "from:" * 1001}, "permerror", "h= names too many fields"),
        ({"bh": "AAAA"}, "fail", "the body hash does not fit the body"),
        ({"bh": "!!!!"}, "permerror", "bh= is not base64"),
    ],
)
async def test_what_a_signature_says_of_itself(
    tags: dict[str, str], verdict: str, reason: str
) -> None:
    [found] = await dkim.check(world(), signed(tags=tags), clock=lambda: 1_700_000_000.0)

    assert (found.verdict, found.reason) == (verdict, reason)


@pytest.mark.parametrize("tag", ["v", "a", "d", "s", "h", "bh"])
async def test_a_signature_without_a_tag_that_must_be_there(tag: str) -> None:
    content = signature(MAIL, without=tag) + MAIL

    assert await verdicts(content) == ["permerror"]


@pytest.mark.parametrize(
    ("record", "tags", "verdict", "reason"),
    [
        ("t=y", {}, "pass", "the domain is testing DKIM (t=y)"),
        ("t=s", {}, "pass", ""),
        ("t=s", {"i": "@sender.test"}, "pass", ""),
        ("t=y:s", {"i": "@sub.sender.test"}, "permerror", "the key is not for subdomains (t=s)"),
        ("h=sha1:sha256", {}, "pass", ""),
        ("h=sha1", {}, "permerror", "the key is for other hash algorithms (h=)"),
        ("s=tlsrpt", {}, "permerror", "the key is not for mail (s=)"),
        ("s=*", {}, "pass", ""),
    ],
)
async def test_d5_what_the_key_record_says_is_obeyed(
    record: str, tags: dict[str, str], verdict: str, reason: str
) -> None:
    resolver = world(f"v=DKIM1; {record}; p={rsa_signer().public_text}")

    [found] = await dkim.check(resolver, signed(tags=tags))

    assert (found.verdict, found.reason) == (verdict, reason)


async def test_d5_rsa_sha1_is_not_verified_and_its_key_not_asked_for() -> None:
    resolver = world()

    assert await verdicts(signed(tags={"a": "rsa-sha1"}), resolver) == ["policy"]
    assert resolver.asked == []


async def test_a_key_of_another_kind_is_not_used() -> None:
    assert await verdicts(signed(), world(ed25519_signer().record)) == ["permerror"]


async def test_an_unknown_algorithm_is_not_held_against_the_message() -> None:
    content = signed().replace(b"a=rsa-sha256", b"a=rsa-sha999", 1)

    assert await verdicts(content) == ["neutral"]


async def test_nobody_answers_for_the_key() -> None:
    resolver = FakeResolver({}, fail=[KEY_NAME])

    assert await verdicts(signed(), resolver) == ["temperror"]


async def test_an_internationalized_domain_is_asked_for_as_a_labels() -> None:
    resolver = world(name="s1._domainkey.xn--bcher-kva.test")

    [found] = await dkim.check(resolver, signed(tags={"d": "B\u00fccher.test"}))

    assert (found.verdict, found.domain) == ("pass", "xn--bcher-kva.test")


async def test_a_short_key_is_not_a_reason_for_a_sum() -> None:
    weak = rsa_signer(1024)
    short = weak.record.replace(weak.public_text, _SHORT)

    assert await verdicts(signed(signer=weak), world(short)) == ["policy"]


# The 512 bits of a key that anybody may factor.
_SHORT = (
    "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBANmBe10IgY+u7h3enWTukkqtUD5PR52T"
    "b/mPfjC0QJTocVBq6Za/PlzfV+Py92VaCak19F4WrbVTK5Gg5tW220MCAwEAAQ=="
)


async def test_d3_at_most_ten_signatures_are_tried() -> None:
    resolver = FakeResolver({"TXT": {f"s{n}._domainkey.sender.test": [] for n in range(500)}})
    fields = [signature(MAIL, {"s": f"s{n}"}, ed25519_signer()) for n in range(500)]

    found = await dkim.check(resolver, b"".join(fields) + MAIL)

    assert [each.verdict for each in found] == ["permerror"] * 10 + ["policy"]
    assert found[-1].reason == "490 more signatures were not tried"
    assert len(resolver.asked) == 10


async def test_d4_what_was_added_behind_the_signed_length_is_not_passed() -> None:
    body = len(MAIL.partition(b"\r\n\r\n")[2])
    content = signed(tags={"c": "simple/simple", "l": str(body)})

    assert await verdicts(content) == ["pass"]
    assert await verdicts(content + b"<b>buy</b>\r\n") == ["policy"]


@pytest.mark.parametrize(
    "content",
    [
        b" folded before anything\r\n" + signed(),
        signed(tags={"l": ""}),
        signed(tags={"x": "9" * 5000}),
        signed(tags={"i": "@"}),
        signed(tags={"i": "sender.test"}),
        b"DKIM-Signature:\r\n\r\n",
        b"DKIM-Signature: ;\r\n\r\n",
        b"DKIM-Signature: =\xff;\r\n\r\n",
    ],
)
async def test_d6_what_dkimpy_stumbles_over_is_a_verdict(content: bytes) -> None:
    [found] = await dkim.check(world(), content)

    assert found.verdict in ("permerror", "pass")


@pytest.mark.parametrize("form", ["simple/simple", "relaxed/relaxed"])
@pytest.mark.parametrize("line_end", [b"To: bob@example.org\r\n", b"yet? \r\n", b"dinner,\r\n"])
async def test_d7_a_bare_lf_is_not_the_crlf_that_was_signed(form: str, line_end: bytes) -> None:
    content = signed(tags={"c": form})

    altered = content.replace(line_end, line_end.replace(b"\r\n", b"\n"))

    assert await verdicts(content) == ["pass"]
    assert await verdicts(altered) == ["fail"]


@pytest.mark.parametrize("place", ["above", "below"])
async def test_a_second_from_that_was_not_signed_fails(place: str) -> None:
    other = b"From: mallory@example.com\r\n"
    content = signed()
    altered = (
        other + content
        if place == "above"
        else content.replace(b"\r\n\r\n", b"\r\n" + other + b"\r\n", 1)
    )

    assert await verdicts(altered) == ["fail"]


async def test_fields_are_taken_from_below() -> None:
    content = b"Received: two\r\nReceived: one\r\n" + MAIL
    field = signature(content, {"h": "from:received"})

    assert await verdicts(field + b"Received: three\r\n" + content) == ["pass"]
    assert await verdicts(field + content.replace(b"\r\nFrom", b"\r\nReceived: x\r\nFrom")) == [
        "fail"
    ]


async def test_every_signature_has_its_own_verdict_in_the_order_of_the_header() -> None:
    fields = [
        signature(MAIL),
        signature(MAIL, {"bh": "AAAA"}),
        b"DKIM-Signature: nonsense\r\n",
        signature(MAIL, {"c": "simple/simple"}, rsa_signer()),
    ]

    assert await verdicts(b"".join(fields) + MAIL) == ["pass", "fail", "permerror", "pass"]


@given(content=st.binary(max_size=300))
async def test_no_bytes_raise(content: bytes) -> None:
    assert set(await verdicts(content)) <= {"none", "permerror"}


_SOME = st.one_of(
    st.sampled_from([b"v=1", b"a=rsa-sha256", b"c=relaxed/simple", b"d=sender.test", b"s=s1"]),
    st.sampled_from([b"h=from", b"b=AAAA", b"bh=AAAA", b"i=@sender.test", b"l=", b"x=", b"i=1"]),
    st.binary(max_size=12),
)


@given(specs=st.lists(_SOME, max_size=14), tail=st.binary(max_size=60))
async def test_no_signature_raises(specs: list[bytes], tail: bytes) -> None:
    content = b"DKIM-Signature: " + b"; ".join(specs) + b"\r\nFrom: a@b\r\n\r\n" + tail

    assert set(await verdicts(content)) <= {"none", "permerror", "fail", "policy", "neutral"}


def test_ed25519_is_verified_without_pynacl() -> None:
    # dkimpy takes it where it is installed; who only runs the gateway does not have it.
    content = signed(signer=ed25519_signer()).decode()
    program = f"""if True:
        import asyncio, sys
        sys.modules["nacl"] = None
        from mailgw.checks import dkim
        from mailgw.dns import Answer
        class World:
            async def txt(self, name):
                return Answer(({ed25519_signer().record.encode()!r},))
        print(asyncio.run(dkim.check(World(), {content!r}.encode()))[0].verdict)
        """

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert ran.stdout.split() == [b"pass"]
