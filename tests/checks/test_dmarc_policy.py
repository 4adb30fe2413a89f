"""DMARC decided from facts: who is aligned, what is in doubt, and which domain is the worst."""

from __future__ import annotations

import pytest

from mailgw.checks.dmarc_policy import Identifier, Outcome, decide, identifiers, strictest, worst
from mailgw.checks.dmarc_record import read
from mailgw.checks.organization import Found
from mailgw.mail.finding import Finding

SPF = Identifier("spf", "mail.example.test", True)
DKIM = Identifier("dkim", "mail.example.test", True)


def result(
    *known: Identifier, record: str = "v=DMARC1; p=reject", **organizations: str | None
) -> str:
    """The result for example.test; organizations by the first label of who is of them."""
    owners = {
        "example.test" if label == "author" else f"{label}.example.test": owner
        for label, owner in organizations.items()
    }
    published = Found("example.test", read(record.encode()))
    return decide("example.test", published, "reject", known, owners).result


def test_only_what_passes_or_might_have_is_an_identifier() -> None:
    findings = [
        Finding("spf", "pass", domain="Bounce.test."),
        Finding("spf", "pass", domain="helo.test"),
        Finding("dkim", "pass", domain="a.test"),
        Finding("dkim", "fail", domain="b.test"),
        Finding("dkim", "policy", domain="c.test"),
        Finding("dkim", "temperror", domain="d.test"),
        Finding("dkim", "pass", domain="a.test"),
        Finding("dkim", "pass"),
        Finding("arc", "pass", domain="e.test"),
        Finding("spam", "pass", domain="f.test"),
    ]

    assert identifiers(findings) == (
        Identifier("spf", "bounce.test", True),
        Identifier("dkim", "a.test", True),
        Identifier("dkim", "d.test", False),
    )


def test_a_helo_that_passes_does_not_stand_in_for_a_mail_from_that_fails() -> None:
    findings = [
        Finding("spf", "fail", domain="example.test"),
        Finding("spf", "pass", domain="example.test"),
    ]

    assert identifiers(findings) == ()


@pytest.mark.parametrize(
    ("known", "tags", "expected"),
    [
        ((), "", "fail"),
        ((SPF,), "", "pass"),
        ((DKIM,), "", "pass"),
        ((SPF,), "aspf=s", "fail"),
        ((SPF,), "adkim=s", "pass"),
        ((DKIM,), "adkim=s", "fail"),
        ((DKIM,), "aspf=s", "pass"),
        ((DKIM._replace(domain="example.test"),), "adkim=s", "pass"),
        ((DKIM._replace(domain="other.test"), SPF), "", "pass"),
        ((DKIM._replace(domain="notexample.test"),), "", "fail"),
        ((DKIM._replace(domain="example.test.evil"),), "", "fail"),
    ],
)
def test_alignment_is_strict_or_relaxed_by_kind(
    known: tuple[Identifier, ...], tags: str, expected: str
) -> None:
    record = f"v=DMARC1; p=reject; {tags}"

    assert result(*known, record=record, author="example.test", mail="example.test") == expected


@pytest.mark.parametrize(
    ("known", "author", "mail", "expected"),
    [
        # A subdomain that is an organization of its own.
        ((DKIM,), "example.test", "mail.example.test", "fail"),
        # Nobody told whose it is.
        ((DKIM,), None, None, "temperror"),
        ((DKIM,), "example.test", None, "temperror"),
        # A time-out that might have been a pass.
        ((DKIM._replace(certain=False),), "example.test", "example.test", "temperror"),
        ((DKIM._replace(certain=False),), "example.test", "mail.example.test", "fail"),
        ((SPF._replace(certain=False), DKIM), "example.test", "example.test", "pass"),
        ((DKIM._replace(certain=False, domain="other.com"),), "example.test", None, "fail"),
    ],
)
def test_what_is_not_known_is_a_temperror_only_where_it_could_have_passed(
    known: tuple[Identifier, ...], author: str | None, mail: str | None, expected: str
) -> None:
    assert result(*known, author=author, mail=mail) == expected


def test_a_policy_that_could_not_be_chosen_is_a_temperror_but_not_for_mail_that_passes() -> None:
    published = Found("example.test", read(b"v=DMARC1; p=none; np=reject"))
    known = [Identifier("spf", "x.example.test", True)]

    assert decide("x.example.test", published, "", [], {}).result == "temperror"
    assert decide("x.example.test", published, "", known, {}).result == "pass"


def test_of_several_domains_the_strictest_that_fails_decides() -> None:
    milder_to_worse = [
        Outcome("pass", "", "reject"),
        Outcome("none", ""),
        Outcome("permerror", ""),
        Outcome("fail", "", "none"),
        Outcome("temperror", ""),
        Outcome("fail", "", "quarantine"),
        Outcome("fail", "", "reject"),
    ]

    for place in range(len(milder_to_worse)):
        assert worst(milder_to_worse[: place + 1]) == place
        assert worst(milder_to_worse[: place + 1][::-1]) == 0


def test_the_strictest_policy_is_found_whatever_the_result() -> None:
    outcomes = [Outcome("none", ""), Outcome("pass", "", "quarantine"), Outcome("pass", "", "none")]

    assert strictest(outcomes) == "quarantine"
    assert strictest([]) == ""
