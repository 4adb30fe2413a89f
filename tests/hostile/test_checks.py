"""Who a mail is from, B51-B53: authors, SPF records and name servers that were made to mislead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from gateway import Gateway, Json, content
from hostile.checked import (
    KEYS,
    SOON,
    examined,
    found,
    publish,
    text,
    took,
    verdicts,
    zone,
)
from hostile.world import peak
from nameserver import NameServer
from signers import MAIL, ed25519_signer
from signers import signed as signed_by

__all__ = ["KEYS"]  # the fixture `mx` reads them

OURSELVES = "v=spf1 ip4:127.0.0.1 -all"
# Who sends is evil.test, with everything in order, and wants to be taken for the bank.
ZONE = {
    "evil.test": [OURSELVES],
    "_dmarc.evil.test": ["v=DMARC1; p=none"],
    "ed._domainkey.evil.test": [ed25519_signer().record],
    "_dmarc.bank.test": ["v=DMARC1; p=reject"],
}


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with zone(ZONE) as server:
        yield server


@pytest.fixture(scope="module")
def surroundings(names: NameServer) -> Mapping[str, object]:
    return {"dns-server": f"127.0.0.1:{names.port}"}


REST = b"To: bob@ours.test\r\nSubject: x\r\n\r\nx\r\n"
EVIL, BANK = b"joe@evil.test", b"boss@bank.test"
# The header of a message, with the author that somebody may be shown.
AUTHORS = {
    "two fields": b"From: %b\r\nFrom: %b\r\n" % (EVIL, BANK),
    "two fields, turned": b"From: %b\r\nFrom: %b\r\n" % (BANK, EVIL),
    "two fields, far away": b"From: %b\r\n%bFrom: %b\r\n" % (EVIL, b"X: y\r\n" * 500, BANK),
    "two addresses": b"From: %b, %b\r\n" % (EVIL, BANK),
    "two addresses, turned": b"From: <%b>, Boss <%b>\r\n" % (BANK, EVIL),
    "a group": b"From: friends: %b, %b;\r\n" % (EVIL, BANK),
    "a group and one": b"From: bank:%b;, <%b>\r\n" % (BANK, EVIL),
    "blank before the colon": b"From : %b\r\nFrom: %b\r\n" % (BANK, EVIL),
    "tab before the colon": b"From: %b\r\nFrom\t: %b\r\n" % (EVIL, BANK),
    "blank before the name": b" From: %b\r\nFrom: %b\r\n" % (BANK, EVIL),
    "control in the name": b"From\x01: %b\r\nFrom: %b\r\n" % (BANK, EVIL),
    "NUL in the name": b"From: %b\r\nFrom\0: %b\r\n" % (EVIL, BANK),
    "behind a bare CR": b"X: y\rFrom: %b\r\nFrom: %b\r\n" % (BANK, EVIL),
    "address as a name": b"From: %b <%b>\r\n" % (BANK, EVIL),
    "two brackets": b"From: <%b><%b>\r\n" % (BANK, EVIL),
    "source route": b"From: <@bank.test:%b>\r\n" % EVIL,
    "two at signs": b"From: <boss@bank.test@evil.test>\r\n",
    "a quote that nobody closes": b'From: "x <%b>, <%b>\r\n' % (BANK, EVIL),
    "a comment that nobody closes": b"From: (x <%b>, %b\r\n" % (BANK, EVIL),
    "folded": b"From:\r\n %b\r\n ,\r\n %b\r\n" % (EVIL, BANK),
    "forty": b"From: " + b", ".join(b"u%d@evil.test" % n for n in range(40)) + b", %b\r\n" % BANK,
}


@pytest.mark.parametrize("name", AUTHORS)
def test_B51_who_has_two_authors_has_none_that_passes(mx: Gateway, name: str) -> None:
    honest = b"From: %b\r\n" % EVIL + REST
    signature = signed_by(honest, {"d": "evil.test", "s": "ed"}, ed25519_signer())
    signature = signature.removesuffix(honest)
    for message in (AUTHORS[name] + REST, AUTHORS[name] + signature + REST):
        document = examined(mx, message, "joe@evil.test")
        assert verdicts(document, "spf")[0] == "pass"
        [dmarc] = found(document, "dmarc")
        assert (dmarc["dmarc"], dmarc.get("policy")) == ("fail", "reject")
        shown = str(dmarc.get("authors", dmarc["header.from"]))
        assert "@bank.test" in shown
        assert "authors" not in dmarc or "@evil.test" in shown


NOBODY = {
    "no From": b"",
    "empty": b"From:\r\n",
    "blanks": b"From: \r\n \t\r\n",
    "a name alone": b"From: Boss of the Bank\r\n",
    "the null path": b"From: <>\r\n",
    "an empty group": b"From: undisclosed:;\r\n",
    "commas": b"From: " + b"," * 5_000 + b"\r\n",
    "an address literal": b"From: boss@[127.0.0.1]\r\n",
    "no domain": b"From: boss@\r\n",
    "no field": b"From %b\r\n" % BANK,
}


@pytest.mark.parametrize("name", NOBODY)
def test_B51_who_has_no_author_does_not_pass(mx: Gateway, name: str) -> None:
    document = examined(mx, NOBODY[name] + REST, "joe@evil.test")
    assert verdicts(document, "spf")[0] == "pass"
    assert verdicts(document, "dmarc") == ["permerror"]


@pytest.mark.parametrize("line", [b"\r\n", b" \r\nTo: x@y.test\r\n\r\n", b"\n"])
def test_B51_a_from_behind_the_end_of_the_header_is_text(mx: Gateway, line: bytes) -> None:
    document = examined(mx, b"X: y\r\n" + line + b"From: %b\r\n" % EVIL + REST, "joe@evil.test")
    assert verdicts(document, "dmarc")[0] != "pass"
    assert content(document).endswith(b"From: %b\r\n" % EVIL + REST)


def test_B51_more_authors_than_are_read_are_a_failure(mx: Gateway) -> None:
    many = b"From: " + b", ".join(b"u@evil%d.test" % n for n in range(5_000)) + b"\r\n"
    fields = b"".join(b"From: u@evil%d.test\r\n" % n for n in range(500))
    for header in (many, fields, b"From: " + b"(" * 60_000 + BANK + b"\r\n"):
        with peak(mx) as grown:
            document = examined(mx, header + REST, "joe@evil.test")
            assert grown() < 8_000_000
        [dmarc] = found(document, "dmarc")
        assert (dmarc["dmarc"], dmarc["policy"]) == ("fail", "reject")
        assert took(document) < SOON
        assert len(str(dmarc)) < 20_000


def test_B51_one_author_is_one(mx: Gateway) -> None:
    document = examined(mx, b'From: "boss@bank.test" <joe@evil.test>\r\n' + REST, "joe@evil.test")
    assert verdicts(document, "dmarc") == ["pass"]


# --- SPF ------------------------------------------------------------------------------


def spf_zone() -> dict[str, dict[tuple[str, str], list[str]]]:
    """What stands below <label>.test and what it is, by label: (name, type) -> records."""
    hosts = {(f"h{n}.mx.test", "A"): ["198.51.100.1"] for n in range(100)}
    return {
        "includes": {
            (f"i{n}.includes.test", "TXT"): [text(f"v=spf1 include:i{n + 1}.includes.test ~all")]
            for n in range(12)
        }
        | {("includes.test", "TXT"): [text("v=spf1 include:i0.includes.test -all")]},
        "flat": {(f"i{n}.flat.test", "TXT"): [text("v=spf1 -all")] for n in range(11)}
        | {
            ("flat.test", "TXT"): [
                text("v=spf1 " + "".join(f"include:i{n}.flat.test " for n in range(11)) + "+all")
            ]
        },
        "itself": {("itself.test", "TXT"): [text("v=spf1 include:itself.test +all")]},
        "circle": {
            ("circle.test", "TXT"): [text("v=spf1 redirect=b.circle.test")],
            ("b.circle.test", "TXT"): [text("v=spf1 redirect=circle.test")],
        },
        "mx": {
            ("mx.test", "TXT"): [
                text("v=spf1 " + "".join(f"mx:m{n}.mx.test " for n in range(10)) + "-all")
            ],
        }
        | {
            (f"m{n}.mx.test", "MX"): [f"{k} h{10 * n + k}.mx.test." for k in range(10)]
            for n in range(10)
        }
        | hosts,
        "voids": {
            ("voids.test", "TXT"): [
                text("v=spf1 " + "".join(f"a:v{n}.voids.test " for n in range(9)) + "+all")
            ]
        },
        "ptr": {
            ("ptr.test", "TXT"): [text("v=spf1 ptr -all")],
            ("1.0.0.127.in-addr.arpa", "PTR"): [f"p{n}.ptr.test." for n in range(200)],
        },
        "long": {("long.test", "TXT"): [text("v=spf1 " + "ip4:198.51.100.0/24 " * 2_900 + "+all")]},
        "macros": {
            ("macros.test", "TXT"): [
                text("v=spf1 " + " ".join(["exists:" + "%{l}" * 40 + ".macros.test"] * 75))
            ]
        },
        "terms": {("terms.test", "TXT"): [text("v=spf1 " + "ip4:198.51.100.1 " * 450 + "+all")]},
        "two": {("two.test", "TXT"): [text(OURSELVES), text("v=spf1 +all")]},
    }


SPF = {
    "includes": "permerror",
    "flat": "permerror",
    "itself": "permerror",
    "circle": "permerror",
    "mx": "fail",
    "voids": "permerror",
    "ptr": "fail",
    "long": "permerror",
    "macros": "permerror",
    "terms": "pass",
    "two": "permerror",
}


@pytest.mark.parametrize("name", SPF)
def test_B52_a_record_that_is_work_is_bounded(mx: Gateway, names: NameServer, name: str) -> None:
    names.records.update(spf_zone()[name])
    asked = sum(names.asked.values())
    with peak(mx) as grown:
        document = examined(mx, MAIL, f"joe@{name}.test")
        assert grown() < 8_000_000
    assert verdicts(document, "spf")[0] == SPF[name]
    assert took(document) < SOON
    # Ten terms of ten names each at most, for the sender; and what HELO and DMARC ask.
    assert sum(names.asked.values()) - asked < 130


def test_B52_answers_that_come_slowly_end_at_our_deadline(mx: Gateway, names: NameServer) -> None:
    slow = {f"i{n}.slow.test": [f"v=spf1 include:i{n + 1}.slow.test -all"] for n in range(9)}
    publish(names, slow | {"slow.test": ["v=spf1 include:i0.slow.test +all"]})
    for name in slow:
        # Asked again, it answers the fourth time.
        names.behaviour[name] = "deaf"
    names.behaviour["i4.slow.test"] = "silent"
    document = examined(mx, MAIL, "joe@slow.test")
    assert verdicts(document, "spf")[0] == "temperror"
    assert took(document) < 4.0 + SOON


# --- name servers ---------------------------------------------------------------------

RECORDS = {"": OURSELVES, "_dmarc.": "v=DMARC1; p=none", "ed._domainkey.": ed25519_signer().record}
UNKNOWN = ("temperror", "temperror", "temperror")
NOT_THERE = ("none", "permerror", "none")
# As a resolver says that DNSSEC was broken: SERVFAIL (RFC 4035 5.5). We validate nothing
# ourselves, so keys and signatures in a zone are no work for us.
SERVERS = {
    "servfail": UNKNOWN,
    "refused": UNKNOWN,
    "silent": UNKNOWN,
    "wrong-id": UNKNOWN,
    "garbage": UNKNOWN,
    "nxdomain": NOT_THERE,
    "nodata": NOT_THERE,
    "huge": ("permerror", "permerror", "none"),
    "many": ("permerror", "permerror", "none"),
    "circle": NOT_THERE,
    "alias-to-itself": NOT_THERE,
}


def mislead(names: NameServer, domain: str, how: str) -> None:
    """Make the name server behave so for all names that a mail of the domain asks about."""
    for label, record in RECORDS.items():
        name = f"{label}{domain}"
        if how == "nodata":
            names.records[name, "A"] = ["127.0.0.1"]
        elif how == "huge":
            names.records[name, "TXT"] = [text(record + " " + "x" * 60_000)]
        elif how == "many":
            names.records[name, "TXT"] = [text(f"{record} {n}") for n in range(400)]
        elif how == "circle":
            for n in range(8):
                names.records[f"{label}{n}.{domain}", "CNAME"] = [f"{label}{(n + 1) % 8}.{domain}."]
            names.records[name, "CNAME"] = [f"{label}0.{domain}."]
        elif how == "alias-to-itself":
            names.records[name, "CNAME"] = [f"{name}."]
        elif how != "nxdomain":
            # Whoever believed the answer would have a pass.
            names.records[name, "TXT"] = [text(record)]
            names.behaviour[name] = how


@pytest.mark.parametrize("how", SERVERS)
def test_B53_no_answer_is_no_pass(mx: Gateway, names: NameServer, how: str) -> None:
    domain = f"{how}.dns.test"
    mislead(names, domain, how)
    mail = MAIL.replace(b"sender.test", domain.encode())
    mail = signed_by(mail, {"d": domain, "s": "ed"}, ed25519_signer())
    with peak(mx) as grown:
        document = examined(mx, mail, f"anna@{domain}")
        assert grown() < 8_000_000
    outcome = tuple(verdicts(document, check)[0] for check in ("spf", "dkim", "dmarc"))
    assert outcome == SERVERS[how]
    assert took(document) < 4.0 + SOON


def test_B53_the_same_answers_are_a_pass_where_nothing_is_wrong(
    mx: Gateway, names: NameServer
) -> None:
    mislead(names, "usual.dns.test", "usual")
    mail = MAIL.replace(b"sender.test", b"usual.dns.test")
    mail = signed_by(mail, {"d": "usual.dns.test", "s": "ed"}, ed25519_signer())
    document: Json = examined(mx, mail, "anna@usual.dns.test")
    outcome = [verdicts(document, check)[0] for check in ("spf", "dkim", "dmarc")]
    assert outcome == ["pass", "pass", "pass"]
