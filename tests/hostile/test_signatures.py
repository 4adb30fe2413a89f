"""Signatures, B45-B50 and B54, and what becomes of signed mail, G04 and G05.

What signs here is dkimpy's canonical forms and cryptography, and what reads our
Authentication-Results is authres: neither is what we verify and write with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping

import authres
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client import Client
from gateway import Gateway, Json, content
from hostile.checked import (
    KEYS,
    OURS,
    SOON,
    examined,
    found,
    publish,
    results,
    took,
    verdicts,
    zone,
)
from hostile.world import only, peak, taken
from nameserver import NameServer
from signers import DOMAIN, MAIL, chain, chain_world, ed25519_signer
from signers import signed as signed_by

__all__ = ["KEYS"]  # the fixture `mx` reads them

BANK = "bank.test"


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with zone(
        chain_world(51)
        | {
            f"ed._domainkey.{DOMAIN}": [ed25519_signer().record],
            f"_dmarc.{DOMAIN}": ["v=DMARC1; p=reject"],
            f"_dmarc.{BANK}": ["v=DMARC1; p=reject"],
        }
    ) as server:
        yield server


@pytest.fixture(scope="module")
def surroundings(names: NameServer) -> Mapping[str, object]:
    return {"dns-server": f"127.0.0.1:{names.port}"}


def signed(message: bytes = MAIL, **tags: str) -> bytes:
    """Signed with the small key; tags beside, or instead of, the usual ones."""
    return signed_by(message, {"s": "ed"} | tags, ed25519_signer())


def with_body(form: str, body: bytes, canonical: bytes) -> bytes:
    """A signed mail whose canonical body is known, since dkimpy takes long to find it."""
    message = b"From: anna@sender.test\r\nTo: bob@ours.test\r\nSubject: x\r\n\r\n" + body
    digest = base64.b64encode(hashlib.sha256(canonical).digest()).decode()
    return signed(message, c=f"relaxed/{form}", bh=digest)


BLANKS, TABS, LINES = b" " * 200_000, b"\t " * 100_000, b"\r\n" * 200_000
BODIES = {
    "blanks alone": ("relaxed", BLANKS + b"\r\n", b""),
    "blanks at an end": ("relaxed", b"x" + BLANKS + b"\r\n", b"x\r\n"),
    "blanks between": ("relaxed", b"x" + BLANKS + b"y\r\n", b"x y\r\n"),
    "tabs and blanks": ("relaxed", b"x" + TABS + b"y" + TABS + b"\r\n", b"x y\r\n"),
    "runs of both": ("relaxed", b"x \t " * 50_000 + b"\r\n", b"x " * 49_999 + b"x\r\n"),
    "empty lines": ("relaxed", b"x\r\n" + LINES, b"x\r\n"),
    "empty lines and text": ("relaxed", LINES + b"x\r\n", LINES + b"x\r\n"),
    "lines of blanks": ("relaxed", b" \t\r\n" * 200_000, b""),
    "empty lines, simple": ("simple", LINES, b"\r\n"),
    "blanks, simple": ("simple", BLANKS + b"\r\n" + LINES, BLANKS + b"\r\n"),
}


@pytest.mark.parametrize("name", BODIES)
def test_B45_a_body_of_nothing_has_its_verdict_within_a_second(mx: Gateway, name: str) -> None:
    mail = with_body(*BODIES[name])
    with peak(mx) as grown:
        document = examined(mx, mail)
        assert grown() < 10 * len(mail) + 8_000_000
    assert verdicts(document, "dkim") == ["pass"]
    assert took(document) < SOON


def test_B45_blanks_in_a_signed_header_take_no_longer(mx: Gateway) -> None:
    subject = b"Subject: dinner," + b" \t" * 20_000 + b"\r\n" + b" \r\n" * 5_000 + b" perhaps\r\n"
    # In the relaxed form it is the same subject.
    mail = signed().replace(b"Subject: dinner,\r\n\tperhaps\r\n", subject)
    document = examined(mx, mail)
    assert verdicts(document, "dkim") == ["pass"]
    assert took(document) < SOON


def test_B46_of_two_hundred_signatures_ten_are_tried(mx: Gateway, names: NameServer) -> None:
    fields = b"".join(signed(s=f"no{n}").removesuffix(MAIL) for n in range(199))
    document = examined(mx, fields + signed())
    assert verdicts(document, "dkim") == ["permerror"] * 10 + ["policy"]
    assert verdicts(document, "dmarc") == ["fail"]
    assert found(document, "dkim")[-1]["reason"] == "190 more signatures were not tried"
    assert sum(names.count(f"no{n}._domainkey.{DOMAIN}") for n in range(199)) == 10
    assert took(document) < SOON


def record_of(bits: int) -> str:
    """The record of an RSA key of so many bits that nobody has the other half of."""
    public = rsa.RSAPublicNumbers(65537, (0xA5 << (bits - 8)) | 1).public_key()
    octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(octets).decode()}"


RECORD = ed25519_signer().record
# What stands at the selector, the tags of the signature, verdict, and its reason.
KEYS_AND_TAGS: dict[str, tuple[list[str], dict[str, str], str, str]] = {
    "huge": ([record_of(16_384)], {"a": "rsa-sha256"}, "permerror", "larger than what is verified"),
    "tiny": ([record_of(512)], {"a": "rsa-sha256"}, "policy", "the key has 512 bits"),
    "revoked": (["v=DKIM1; k=ed25519; p="], {}, "permerror", "the key was revoked"),
    "testing": ([RECORD.replace("k=", "t=y; k=", 1)], {}, "pass", "t=y"),
    "expired": ([RECORD], {"t": "1000000000", "x": "1000000001"}, "policy", "has expired"),
    "backwards": ([RECORD], {"t": "2000000000", "x": "1000000000"}, "permerror", "before t="),
    "two-keys": ([record_of(2048), RECORD], {}, "pass", ""),
    "two-and-a-revoked": (["v=DKIM1; k=ed25519; p=", RECORD], {}, "pass", ""),
    "no-key": (["hello"], {}, "permerror", "no list of tags"),
    "long-record": ([RECORD + "; n=" + "x" * 5_000], {}, "permerror", "record is too large"),
    "many-names": ([RECORD], {"h": "from" + ":x" * 20_000}, "permerror", "field is too large"),
    "names-again": ([RECORD], {"h": "from" + ":from" * 1_200}, "permerror", "too many fields"),
}


@pytest.mark.parametrize("name", KEYS_AND_TAGS)
def test_B46_what_a_key_or_a_signature_may_be(mx: Gateway, names: NameServer, name: str) -> None:
    records, tags, verdict, reason = KEYS_AND_TAGS[name]
    publish(names, {f"{name}._domainkey.{DOMAIN}": records})
    document = examined(mx, signed(s=name, **tags))
    [outcome] = found(document, "dkim")
    assert outcome["dkim"] == verdict
    assert reason in outcome.get("reason", "")
    assert verdicts(document, "dmarc") == ["pass" if verdict == "pass" else "fail"]
    assert took(document) < SOON


def test_B46_a_key_that_nobody_answers_for_is_a_temperror_in_time(
    mx: Gateway, names: NameServer
) -> None:
    names.behaviour[f"silent._domainkey.{DOMAIN}"] = "silent"
    document = examined(mx, signed(s="silent"))
    assert verdicts(document, "dkim") == ["temperror"]
    assert verdicts(document, "dmarc") == ["temperror"]
    assert took(document) < 4.0 + SOON


def test_B47_what_stands_behind_the_signed_length_was_not_signed(mx: Gateway) -> None:
    length = str(len(MAIL.partition(b"\r\n\r\n")[2]))
    part = b"--b\r\nContent-Type: text/html\r\n\r\n<b>pay here</b>\r\n--b--\r\n"
    cut = signed(c="simple/simple", l=length)
    # The type is not among what was signed: who appends also chooses what is shown.
    typed = cut.replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", 1)
    for mail, verdict in [
        (cut, "pass"),
        (cut + part, "policy"),
        (typed + part, "policy"),
        (signed(c="simple/simple", l="0") + part, "policy"),
        (signed(l="0"), "policy"),
        (signed(l=length).replace(b"yet", b"now") + part, "fail"),
    ]:
        document = examined(mx, mail)
        assert verdicts(document, "dkim") == [verdict]
        assert verdicts(document, "dmarc") == ["pass" if verdict == "pass" else "fail"]


def test_B48_sha1_alone_is_no_pass(mx: Gateway, names: NameServer) -> None:
    mail = signed_by(MAIL, {"a": "rsa-sha1", "s": "old"})
    document = examined(mx, mail)
    assert verdicts(document, "dkim") == ["policy"]
    assert verdicts(document, "dmarc") == ["fail"]
    # There is no sum to do, so there is no key to ask for.
    assert not names.count(f"old._domainkey.{DOMAIN}")
    # Beside one of today it does no harm.
    both = mail.removesuffix(MAIL) + signed()
    assert verdicts(examined(mx, both), "dkim") == ["policy", "pass"]


# --- Authentication-Results -----------------------------------------------------------


def told(document: Json) -> list[tuple[str, str]]:
    """The results in our field, as somebody else's parser reads them."""
    field = authres.AuthenticationResultsHeader.parse(
        f"Authentication-Results: {results(document)[0]}"
    )
    assert field.authserv_id == OURS
    return [(each.method, each.result) for each in field.results]


def seen(document: Json) -> list[tuple[str, str]]:
    """The same as the document has them."""
    return [next(iter(each.items())) for each in document["checks"]]


# d= and s= of who wants to be taken for the bank, with a zone of his own (espoofer).
NAMES = {
    "NUL in d": (f"{BANK}\0.{DOMAIN}", "ed"),
    "NUL in s": (BANK, f"ed._domainkey.{DOMAIN}.\0"),
    "comment in d": (f"{BANK}(.{DOMAIN}", "ed"),
    "closed comment in d": (f"{BANK}(x).{DOMAIN}", "ed"),
    "apostrophe in d": (f"{BANK}'.{DOMAIN}", "ed"),
    "apostrophe in s": (BANK, f"ed._domainkey.{DOMAIN}.'"),
    "string in d": (f'"{BANK}".{DOMAIN}', "ed"),
    "blank in d": (f"{BANK} {DOMAIN}", "ed"),
    "blank in s": (DOMAIN, "ed dkim=pass header.d=bank.test"),
    "fold in d": (f"{BANK}\r\n .{DOMAIN}", "ed"),
    "field in d": (f"{DOMAIN}\r\n dkim=pass header.d={BANK}", "ed"),
    "backslash in d": (f"{BANK}\\.{DOMAIN}", "ed"),
    "results in i": (DOMAIN, "ed"),
}
IDENTITY = {"results in i": {"i": f'"; dkim=pass header.d={BANK} (@{DOMAIN}'}}


@pytest.mark.parametrize("name", NAMES)
def test_B49_odd_names_are_no_pass_and_stay_in_their_place(
    mx: Gateway, names: NameServer, name: str
) -> None:
    domain, selector = NAMES[name]
    # Whatever is asked for, the one who signed has the answer.
    escaped = domain.replace("\r\n ", "").replace("\0", "\\000").replace("(", "\\(")
    for asked in (f"ed._domainkey.{escaped.replace(')', chr(92) + ')')}", f"ed._domainkey.{BANK}"):
        names.records.setdefault((asked, "TXT"), [f'"{RECORD}"'])
    mail = MAIL.replace(b"anna@sender.test", b"boss@bank.test")
    mail = signed(mail, d=domain, s=selector, **IDENTITY.get(name, {}))
    document = examined(mx, mail)
    assert verdicts(document, "dkim") == ["permerror"]
    assert verdicts(document, "dmarc") == ["fail"]
    assert told(document) == seen(document)
    [field] = results(document)
    assert f"header.d={BANK} " not in field + " "
    assert f"header.d={BANK};" not in field
    # Its reasons, too, are our own words.
    assert all(each.get("reason", "").isascii() for each in document["checks"])


THEIRS = b"Authentication-Results: mx.theirs.test; dkim=pass header.d=theirs.test\r\n"
FORGED = [
    b"Authentication-Results: mx.ours.test; dkim=pass header.d=bank.test",
    b"AUTHENTICATION-RESULTS:mx.ours.test;dkim=pass header.d=bank.test",
    b"Authentication-Results : MX.Ours.TEST; dkim=pass header.d=bank.test",
    b"Authentication-Results\t:mx.ours.test 1; dkim=pass header.d=bank.test",
    b"Authentication-Results: mx.ours.test/1; dkim=pass header.d=bank.test",
    b"Authentication-Results: mx.ours.test.; dkim=pass header.d=bank.test",
    b"Authentication-Results: (a comment) mx.ours.test; dkim=pass header.d=bank.test",
    b"Authentication-Results: (a (b) \\) c)mx.ours.test(d) 1 (e); dkim=pass header.d=bank.test",
    b"Authentication-Results:\r\n\tmx.ours.test;\r\n dkim=pass\r\n header.d=bank.test",
    b"Authentication-Results:\r\n \r\n mx.ours.test\r\n ; dkim=pass header.d=bank.test",
    b'Authentication-Results: "mx.ours.test"; dkim=pass header.d=bank.test',
    b'Authentication-Results: "mx\\.ours.test"; dkim=pass header.d=bank.test',
    b"Authentication-Results: mx.(x)ours.test; dkim=pass header.d=bank.test",
    b"Authentication-Results: mx . ours . test; dkim=pass header.d=bank.test",
    b"Authentication-Results: mx.ours\0.test; dkim=pass header.d=bank.test",
    b"Authentication-Results: (mx.ours.test; dkim=pass header.d=bank.test",
    b"Authentication-Results: mx.ours.test dkim=pass header.d=bank.test",
    b"Authentication-Results: mx.ours.test",
]


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_B50_no_field_but_ours_says_that_it_is_ours(mx: Gateway, forged: bytes) -> None:
    # Behind the first of them, in the middle, at the end: and what is not ours is kept.
    mail = forged + b"\r\n" + THEIRS + forged + b"\r\n" + MAIL
    with Client(mx.port) as client:
        client.hello()
        assert client.mail(mail).startswith("250-2.0.0 ")
    document = only(mx)
    ours, *others = results(document)
    assert ours.startswith(f"{OURS};")
    assert others == ["mx.theirs.test; dkim=pass header.d=theirs.test"]
    assert content(document).endswith(b"\r\n" + THEIRS + MAIL)
    assert content(document).startswith(b"Authentication-Results: mx.ours.test;")
    assert BANK not in document["mime"]
    assert told(document) == seen(document)


def test_B50_hundreds_of_them_and_those_of_others(mx: Gateway) -> None:
    several = (FORGED[0] + b"\r\n") * 150 + MAIL
    like = [
        b"X-Authentication-Results: mx.ours.test; dkim=pass\r\n",
        b"Authentication-Results-Original: mx.ours.test; dkim=pass\r\n",
        b"Authentication-Results: notmx.ours.test; dkim=pass\r\n",
        b"Authentication-Results: mx.ours.test.theirs.test; dkim=pass\r\n",
        b'Authentication-Results: theirs.test; dkim=pass reason="mx.ours.test"\r\n',
    ]
    kept = b"".join(like) + MAIL + (FORGED[0] + b"\r\n") * 2
    for mail, left in [(several, MAIL), (kept, kept)]:
        with Client(mx.port) as client:
            client.hello()
            assert client.mail(mail).startswith("250-2.0.0 ")
        document = only(mx)
        assert content(document).endswith(b"\r\n" + left)
        assert told(document) == seen(document)
        ours = len(content(document)) - len(left)
        assert content(document)[:ours].count(b"uthentication-") == 1


# --- ARC ------------------------------------------------------------------------------


def instance(number: int, other: int) -> bytes:
    """A chain of three whose set of one number has another."""
    mail = chain(MAIL, 3)
    return mail.replace(b" i=%d;" % number, b" i=%d;" % other)


def without(number: int) -> bytes:
    header, _, body = chain(MAIL, 3).partition(b"From:")
    fields = [each for each in header.splitlines(True) if b" i=%d;" % number not in each]
    assert len(fields) == 6
    return b"".join(fields) + b"From:" + body


CHAINS = {
    "i=51": chain(MAIL, 51),
    "i=51 alone": instance(3, 51),
    "i=999": instance(3, 999),
    "i=0": instance(1, 0),
    "i=-1": chain(MAIL, 1).replace(b" i=1;", b" i=-1;"),
    "no first": without(1),
    "a gap": without(2),
    "a set twice": chain(MAIL, 1).removesuffix(MAIL) + chain(MAIL, 3),
    "the same number": instance(3, 2),
    "cv=pass at i=1": chain(MAIL, 1, {1: "pass"}),
    "cv=none at i=2": chain(MAIL, 2, {2: "none"}),
    "cv=fail": chain(MAIL, 2, {2: "fail"}),
    "two hundred seals": b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=r1.test; s=s1; b=AA\r\n" * 200
    + MAIL,
    "seal without signature": b"ARC-Seal: i=1; cv=none\r\n" + MAIL,
}


@pytest.mark.parametrize("name", CHAINS)
def test_B54_a_chain_that_cannot_be_fails(mx: Gateway, name: str) -> None:
    document = examined(mx, CHAINS[name])
    assert verdicts(document, "arc") == ["fail"]
    assert told(document) == seen(document)
    assert took(document) < SOON


def test_B54_fifty_sets_are_a_chain(mx: Gateway) -> None:
    document = examined(mx, chain(MAIL, 50))
    [arc] = found(document, "arc")
    assert (arc["arc"], arc["instances"]) == ("pass", 50)


# --- and what is signed besides -------------------------------------------------------

TAGGED = b"X-MQ-Tag: one\r\n two\r\n" + MAIL
HONOURED = pytest.mark.parametrize("mx", [{"smtp-auth-results": "local"}], indirect=True)


def test_G04_x_mq_is_checked_before_it_is_taken_out(mx: Gateway) -> None:
    mail = signed(TAGGED, h="from:to:subject:x-mq-tag")
    with Client(mx.port) as client:
        client.hello()
        assert client.mail(mail).startswith("250-2.0.0 ")
    document = only(mx)
    assert (verdicts(document, "dkim"), document["tags"]) == (["pass"], ["one two"])
    assert verdicts(document, "dmarc") == ["pass"]
    assert content(document).endswith(b"\r\n" + mail.replace(TAGGED, MAIL))
    # Whoever checks what was published finds it broken: the field says that it was not.
    assert told(document) == seen(document)


@HONOURED
def test_G05_the_results_are_in_the_mail_of_who_is_local_alone(mx: Gateway) -> None:
    mail = FORGED[0] + b"\r\nBcc: left in by its sender\r\n" + signed()
    with Client(mx.port) as client:
        client.hello()
        names = ["bob@ours.test", "x@other.test", "eve@ours.test"]
        assert client.mail(mail, *names).count(" for ") == 3
    bob, other, eve = documents = taken(mx)
    assert [each["recipient"] for each in documents] == names
    for document in (bob, eve):
        assert told(document) == seen(document)
        assert content(document).endswith(b"\r\n" + mail.partition(b"\r\n")[2])
        assert not any(name in str(document) for name in names if name != document["recipient"])
    # For who is not local nothing was taken out, and nothing was put on top.
    assert content(other) == mail
    assert [seen(each) for each in documents] == [seen(bob)] * 3
