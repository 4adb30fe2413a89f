"""DMARC of a message: nobody slips through, and what nobody told is never a no."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import FakeResolver
from mailgw.checks import dmarc
from mailgw.dns import Answer
from mailgw.mail.finding import Finding, Verdict

REJECT = "v=DMARC1; p=reject; rua=mailto:dmarc@reports.test"
# One who protects the domain, one who does not, and one who is whoever he says he is.
WORLD = {
    "_dmarc.bank.test": [REJECT],
    "_dmarc.lax.test": ["v=DMARC1; p=none"],
    "_dmarc.careful.test": ["v=DMARC1; p=quarantine"],
    "_dmarc.evil.test": ["v=DMARC1; p=reject"],
}
EVIL = [Finding("spf", "pass", domain="evil.test"), Finding("dkim", "pass", domain="evil.test")]


def message(*fields: str) -> bytes:
    return "\r\n".join([*fields, "To: you@ours.test", "", "body", ""]).encode()


def resolver(
    texts: Mapping[str, Sequence[str]] = WORLD,
    *,
    exists: Sequence[str] = (),
    fail: Sequence[str] = (),
) -> FakeResolver:
    return FakeResolver({"TXT": texts, "A": {name: ["192.0.2.1"] for name in exists}}, fail)


def passed(*domains: str) -> list[Finding]:
    return [Finding("dkim", "pass", domain=domain) for domain in domains]


async def verdict(
    *fields: str, findings: Sequence[Finding] = (), of: FakeResolver | None = None
) -> tuple[Verdict, str]:
    found = await dmarc.check(of or resolver(), message(*fields), findings)
    return found.verdict, found.policy


async def test_the_finding_says_who_it_is_about_and_what_is_asked() -> None:
    world = {"_dmarc.example.test": ["v=DMARC1; p=none; sp=quarantine"]}

    found = await dmarc.check(
        resolver(world, exists=["news.example.test"]),
        message("From: Joe <Joe@News.Example.test>"),
        passed("other.test", "mail.example.test"),
    )

    assert (found.check, found.verdict, found.policy) == ("dmarc", "pass", "quarantine")
    assert found.domain == "news.example.test"
    assert found.properties == (("header.from", "news.example.test"),)
    assert found.members == (
        ("header.from", "Joe@News.Example.test"),
        ("policy", "quarantine"),
        ("record-domain", "example.test"),
        ("organizational-domain", "example.test"),
    )
    assert found.reason == "dkim passes and is aligned"
    assert found.milliseconds > 0


async def test_a_domain_of_u_labels_is_looked_up_and_compared_as_a_labels() -> None:
    world = {"_dmarc.xn--bnk-qla.test": [REJECT]}

    found = await dmarc.check(
        resolver(world), message("From: j@BÄNK.test"), passed("xn--bnk-qla.test")
    )

    assert (found.verdict, found.domain) == ("pass", "xn--bnk-qla.test")
    assert found.members[0] == ("header.from", "j@BÄNK.test")


async def test_without_a_record_there_is_nothing_to_say() -> None:
    found = await dmarc.check(resolver(), message("From: a@b.nowhere.test"), passed("nowhere.test"))

    assert (found.verdict, found.policy, found.domain) == ("none", "", "b.nowhere.test")


# --- nobody slips through -----------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        ["From: joe@evil.test", "From: ceo@bank.test"],
        ["From: ceo@bank.test", "From: joe@evil.test"],
        ["From: joe@evil.test", "From : ceo@bank.test"],
        [" From: ceo@bank.test", "From: joe@evil.test"],
        ["From: joe@evil.test", "From\0: ceo@bank.test"],
        ["From: joe@evil.test, ceo@bank.test"],
        ["From: Team: joe@evil.test, ceo@bank.test;"],
        ["From: ceo@bank.test <joe@evil.test>"],
        ["From: <@evil.test:ceo@bank.test>"],
        ["From: joe@evil.test\0ceo@bank.test"],
        ["From: joe@[192.0.2.1], ceo@bank.test"],
        ["From: joe@slow.test, ceo@bank.test"],
        ["From: joe@nowhere.test, ceo@bank.test"],
        ["From: joe@lax.test, joe@careful.test, ceo@bank.test"],
        ['From: "ceo@bank.test"'],
        ["From: =?utf-8?q?ceo=40bank=2Etest?="],
        ["From: x@" + "a" * 64 + ".test, ceo@bank.test"],
        ["From: " + ", ".join(f"x@{number}.test" for number in range(9)) + ", ceo@bank.test"],
        ["From: " + "x@evil.test, " * 200 + "ceo@bank.test"],
        ["From: " + "x" * 20_000 + " ceo@bank.test"],
        ["From: joe@evil.test"] * 12 + ["From: ceo@bank.test"],
    ],
    ids=lambda fields: fields[-1][:40],
)
async def test_a_domain_that_asks_for_reject_gets_it_whatever_stands_beside_it(
    fields: list[str],
) -> None:
    of = resolver(fail=["_dmarc.slow.test"])

    assert await verdict(*fields, findings=EVIL, of=of) == ("fail", "reject")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@lax.test, b@careful.test", ("fail", "quarantine")),
        ("a@careful.test, b@slow.test", ("fail", "quarantine")),
        # Who does not answer may ask for more than that.
        ("a@lax.test, b@slow.test", ("temperror", "")),
        ("a@lax.test, b@nowhere.test", ("fail", "none")),
        ("a@evil.test, b@lax.test", ("fail", "none")),
    ],
)
async def test_the_strictest_policy_of_those_that_fail_is_the_messages(
    value: str, expected: tuple[Verdict, str]
) -> None:
    of = resolver(fail=["_dmarc.slow.test"])

    assert await verdict(f"From: {value}", findings=EVIL, of=of) == expected


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        (["From: a@evil.test", "From: b@evil.test"], "reject"),
        (["From: a@evil.test", "From: nobody"], "reject"),
        (["From: a@evil.test, b@nowhere.test"], "reject"),
        (["From: a@evil.test, b@[192.0.2.1]"], "reject"),
        (['From: "a@evil.test"'], "reject"),
        (["From: a@nowhere.test, b@elsewhere.test"], ""),
        (["From: a@[192.0.2.1]"], ""),
        (["From: nobody"], ""),
        (["From:"], ""),
        (["Subject: no author"], ""),
    ],
)
async def test_a_message_without_just_one_author_domain_never_passes(
    fields: list[str], policy: str
) -> None:
    assert await verdict(*fields, findings=EVIL) == ("permerror", policy)


@pytest.mark.parametrize(
    "value",
    [
        "a@evil.test, b@EVIL.test.",
        "Evil, Inc. <a@evil.test>",
        '"ceo@bank.test" <a@evil.test>',
        "a@evil.test (ceo@bank.test)",
    ],
)
async def test_one_author_domain_may_pass_however_often_it_stands_there(value: str) -> None:
    assert await verdict(f"From: {value}", findings=EVIL) == ("pass", "reject")


async def test_several_authors_are_all_shown() -> None:
    found = await dmarc.check(resolver(), message("From: a@evil.test, b@bank.test"), EVIL)

    assert found.domain == "bank.test"
    assert found.members[:2] == (
        ("header.from", "b@bank.test"),
        ("authors", ("a@evil.test", "b@bank.test")),
    )


class Hanging(FakeResolver):
    """Never answers about a name that begins with _dmarc.hangs."""

    waiting: asyncio.Future[None] | None = None

    async def txt(self, name: str) -> Answer[bytes]:
        if name.startswith("_dmarc.hangs"):
            self.waiting = asyncio.get_running_loop().create_future()
            await self.waiting
        return await super().txt(name)


async def test_a_domain_that_hangs_does_not_hide_one_that_fails() -> None:
    of = Hanging({"TXT": WORLD})

    async with asyncio.timeout(30):
        found = await dmarc.check(of, message("From: a@hangs.test, b@bank.test"), EVIL)

    assert (found.verdict, found.policy) == ("fail", "reject")
    assert of.waiting is not None
    assert of.waiting.cancelled()


# --- what nobody told ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "silent", "findings", "expected"),
    [
        ("bank.test", "_dmarc.bank.test", passed("bank.test"), ("temperror", "")),
        ("a.bank.test", "_dmarc.a.bank.test", [], ("temperror", "")),
        ("a.bank.test", "_dmarc.bank.test", [], ("temperror", "")),
        # The policy is known and no organization is needed.
        ("bank.test", "_dmarc.test", [], ("fail", "reject")),
        ("bank.test", "_dmarc.test", passed("bank.test"), ("pass", "reject")),
        # Relaxed alignment hangs on a name that does not answer.
        ("bank.test", "_dmarc.a.bank.test", passed("a.bank.test"), ("temperror", "reject")),
        ("bank.test", "_dmarc.a.bank.test", passed("a.bank.test", "bank.test"), ("pass", "reject")),
        ("bank.test", "_dmarc.evil.test", passed("evil.test"), ("fail", "reject")),
    ],
)
async def test_a_question_without_an_answer_is_a_temperror_where_it_matters(
    domain: str, silent: str, findings: list[Finding], expected: tuple[Verdict, str]
) -> None:
    of = resolver(fail=[silent])

    assert await verdict(f"From: a@{domain}", findings=findings, of=of) == expected


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (Finding("spf", "temperror", domain="bank.test"), "temperror"),
        (Finding("spf", "temperror", domain="mail.bank.test"), "temperror"),
        (Finding("dkim", "temperror", domain="bank.test"), "temperror"),
        (Finding("dkim", "temperror", domain="other.test"), "fail"),
        (Finding("dkim", "permerror", domain="bank.test"), "fail"),
        (Finding("dkim", "policy", domain="bank.test"), "fail"),
        (Finding("spf", "softfail", domain="bank.test"), "fail"),
    ],
)
async def test_a_temperror_below_is_one_here_only_if_it_could_have_aligned(
    finding: Finding, expected: str
) -> None:
    assert await verdict("From: a@bank.test", findings=[finding]) == (expected, "reject")


@pytest.mark.parametrize(
    ("author", "exists", "fail", "expected"),
    [
        ("there.org.test", ["there.org.test"], [], ("fail", "quarantine")),
        ("gone.org.test", [], [], ("fail", "reject")),
        ("unknown.org.test", [], ["unknown.org.test"], ("temperror", "")),
        ("org.test", [], [], ("fail", "none")),
        # A name below it is there, so it is there.
        ("node.org.test", ["_dmarc.node.org.test"], ["node.org.test"], ("fail", "quarantine")),
    ],
)
async def test_np_is_for_names_that_are_known_not_to_exist(
    author: str, exists: list[str], fail: list[str], expected: tuple[Verdict, str]
) -> None:
    world = {"_dmarc.org.test": ["v=DMARC1; p=none; sp=quarantine; np=reject"]}

    assert (
        await verdict(f"From: a@{author}", of=resolver(world, exists=exists, fail=fail)) == expected
    )


async def test_whether_a_name_exists_is_asked_only_where_it_makes_a_difference() -> None:
    same = resolver({"_dmarc.org.test": ["v=DMARC1; p=none; sp=reject"]})
    different = resolver({"_dmarc.org.test": ["v=DMARC1; p=none; np=reject"]})

    for of in (same, different):
        await verdict("From: a@gone.org.test", of=of)

    assert ("A", "gone.org.test") not in same.asked
    assert different.asked.count(("A", "gone.org.test")) == 1


# --- RFC 9989, appendix B -----------------------------------------------------------

SIMPLE = {
    "_dmarc.example.com": ["v=DMARC1; p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com"],
    "_dmarc.signing.example.com": ["v=DMARC1; p=none"],
}
BANKS = {
    "_dmarc.bank.example": ["v=DMARC1; p=reject; psd=y"],
    "_dmarc.giant.bank.example": ["v=DMARC1; p=quarantine"],
}


@pytest.mark.parametrize(
    ("world", "author", "spf", "dkim", "expected"),
    [
        # B.1.1 and B.1.2: the same, a parent or child, strict and relaxed, a stranger.
        (SIMPLE, "example.com", "example.com", "", ("pass", "reject")),
        (SIMPLE, "example.com", "child.example.com", "", ("pass", "reject")),
        (SIMPLE, "child.example.com", "example.com", "", ("pass", "reject")),
        (SIMPLE, "child.example.com", "", "example.com", ("pass", "reject")),
        (SIMPLE, "example.com", "example.net", "sample.net", ("fail", "reject")),
        # B.3.1
        (SIMPLE, "example.com", "mail.example.com", "example.com", ("pass", "reject")),
        # B.4.1
        (SIMPLE, "example.com", "", "signing.example.com", ("pass", "reject")),
        # B.4.2
        (SIMPLE, "a.b.c.d.e.f.g.h.i.j.k.example.com", "example.com", "", ("pass", "reject")),
        (
            SIMPLE,
            "a.b.c.d.e.f.g.h.i.j.k.example.com",
            "",
            "signing.example.com",
            ("pass", "reject"),
        ),
        (SIMPLE, "a.b.c.d.e.f.g.h.i.j.k.example.com", "", "", ("fail", "reject")),
        # B.4.3
        (BANKS, "giant.bank.example", "mail.giant.bank.example", "", ("pass", "quarantine")),
        (BANKS, "giant.bank.example", "", "mail.mega.bank.example", ("fail", "quarantine")),
        # 4.10.1: the record of the suffix is for those who have none of their own.
        (BANKS, "new.bank.example", "", "giant.bank.example", ("fail", "reject")),
        (BANKS, "mail.giant.bank.example", "", "", ("fail", "quarantine")),
        # B.2.5: a subdomain that tests.
        (
            {"_dmarc.test.example.com": ["v=DMARC1; p=quarantine; t=y"]} | SIMPLE,
            "test.example.com",
            "",
            "",
            ("fail", "none"),
        ),
    ],
)
async def test_the_examples_of_rfc_9989_come_out_as_it_says(
    world: dict[str, list[str]],
    author: str,
    spf: str,
    dkim: str,
    expected: tuple[Verdict, str],
) -> None:
    findings = [
        Finding("spf", "pass" if spf else "fail", domain=spf),
        Finding("dkim", "pass" if dkim else "fail", domain=dkim),
    ]

    assert await verdict(f"From: a@{author}", findings=findings, of=resolver(world)) == expected


async def test_rfc_9989_11_8_a_subdomain_of_its_own_does_not_pass_for_its_sisters() -> None:
    world = {
        "_dmarc.mail.example.com": ["v=DMARC1; p=reject; psd=n"],
        "_dmarc.example.com": ["v=DMARC1; p=reject"],
    }
    findings = passed("mail.example.com")

    of = resolver(world)
    assert await verdict("From: a@evil.example.com", findings=findings, of=of) == ("fail", "reject")
    assert await verdict("From: a@x.mail.example.com", findings=findings, of=of) == (
        "pass",
        "reject",
    )


async def test_a_hosters_customer_passes_for_nobody_else() -> None:
    world = {"_dmarc.herokuapp.com": [REJECT], "_dmarc.co.uk": [REJECT]}
    of = resolver(world)

    for author, signer in [
        ("herokuapp.com", "evil.herokuapp.com"),
        ("victim.herokuapp.com", "evil.herokuapp.com"),
        ("victim.co.uk", "co.uk"),
        ("victim.co.uk", "evil.co.uk"),
    ]:
        assert await verdict(f"From: a@{author}", findings=passed(signer), of=of) == (
            "fail",
            "reject",
        )


# --- whatever comes -----------------------------------------------------------------

DOMAINS = st.lists(st.sampled_from(["a", "b", "com", "bank", "test"]), min_size=1, max_size=12).map(
    ".".join
)
RECORDS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                ["p=reject", "sp=x", "np=none", "psd=y", "psd=n", "t=y", "adkim=s", ";"]
            )
        ).map(lambda tags: "; ".join(["v=DMARC1", *tags])),
    ),
    max_size=2,
)
FINDINGS = st.lists(
    st.builds(
        Finding,
        st.sampled_from(["spf", "dkim", "arc"]),
        st.sampled_from(["pass", "fail", "temperror", "none"]),
        domain=st.one_of(DOMAINS, st.text(max_size=5)),
    ),
    max_size=4,
)


@given(
    st.one_of(st.binary(), DOMAINS.map(lambda name: f"From: a@{name}\r\n\r\n".encode())),
    st.dictionaries(DOMAINS.map(lambda name: f"_dmarc.{name}"), RECORDS, max_size=6),
    st.sets(DOMAINS.map(lambda name: f"_dmarc.{name}"), max_size=2),
    FINDINGS,
)
async def test_no_header_and_no_record_make_it_raise(
    content: bytes, world: dict[str, list[str]], silent: set[str], findings: list[Finding]
) -> None:
    found = await dmarc.check(resolver(world, fail=sorted(silent)), content, findings)

    assert found.verdict in ("none", "pass", "fail", "temperror", "permerror")
    assert found.policy in ("", "none", "quarantine", "reject")
    assert found.reason.isascii()
    assert found.reason.isprintable()


@given(DOMAINS, st.dictionaries(DOMAINS.map(lambda name: f"_dmarc.{name}"), RECORDS, max_size=6))
async def test_without_anybody_to_align_it_takes_nine_questions_at_most(
    author: str, world: dict[str, list[str]]
) -> None:
    of = resolver(world)

    await dmarc.check(of, message(f"From: a@{author}"), [])

    assert len(of.asked) == len(set(of.asked)) <= 9
    assert sum(kind == "TXT" for kind, _ in of.asked) <= 8
