"""The tree walk: which names it asks about, and whose a domain turns out to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from doubles import FakeResolver
from mailgw.checks.dmarc_record import read
from mailgw.checks.organization import Found, Tree, path, public_suffixes, select
from mailgw.dns import Unanswered

LABELS = st.text("abc-", min_size=1, max_size=3)


def published(**tags: str) -> dict[str, list[str]]:
    """TXT records by domain, which is written with _ for a dot; the value is more tags."""
    return {
        f"_dmarc.{name.replace('_', '.')}": [f"v=DMARC1; p=none; {more}"]
        for name, more in tags.items()
    }


async def organization(world: dict[str, list[str]], domain: str, *silent: str) -> str:
    resolver = FakeResolver({"TXT": world}, fail=[f"_dmarc.{name}" for name in silent])
    return (await Tree(resolver).walk(domain)).organization


def test_rfc_9989_4_10_a_long_name_is_asked_about_and_then_its_last_seven_labels() -> None:
    assert path("a.b.c.d.e.f.g.h.i.j.mail.example.com") == (
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com",
        "h.i.j.mail.example.com",
        "i.j.mail.example.com",
        "j.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    )


@pytest.mark.parametrize("labels", range(1, 40))
def test_a_walk_is_of_eight_names_at_most_and_ends_at_the_top(labels: int) -> None:
    names = path(".".join(f"l{number}" for number in range(labels)))

    assert len(names) == min(labels, 8)
    assert names[-1] == f"l{labels - 1}"
    if labels > 1:
        assert names[1].count(".") + 1 == min(labels - 1, 7)


# --- RFC 9989 4.10.2 and appendix B.4 -----------------------------------------------


@pytest.mark.parametrize(
    ("world", "domain", "expected"),
    [
        # The three examples at the end of 4.10.2.
        (published(mail_example_com="", example_com=""), "a.mail.example.com", "example.com"),
        (
            published(mail_example_com="psd=n", example_com=""),
            "a.mail.example.com",
            "mail.example.com",
        ),
        (published(com="psd=y"), "a.mail.example.com", "example.com"),
        # 4.10.2 in its second rule.
        (
            published(mail_example_com="", example_com="psd=y"),
            "mail.example.com",
            "mail.example.com",
        ),
        # A suffix is its own organization.
        (published(example_com="psd=y", com=""), "example.com", "example.com"),
        # psd=u is what holds without it.
        (
            published(mail_example_com="psd=u", example_com="psd=u"),
            "mail.example.com",
            "example.com",
        ),
        # Nothing anywhere: for itself.
        ({}, "a.mail.example.com", "a.mail.example.com"),
        # Two records at a name are none.
        (
            {"_dmarc.example.com": ["v=DMARC1; p=none"] * 2} | published(mail_example_com=""),
            "a.mail.example.com",
            "mail.example.com",
        ),
        # B.4.1
        (published(example_com="", signing_example_com=""), "example.com", "example.com"),
        (published(example_com="", signing_example_com=""), "signing.example.com", "example.com"),
        # B.4.2
        (published(example_com=""), "a.b.c.d.e.f.g.h.i.j.k.example.com", "example.com"),
        # B.4.3
        (
            published(bank_example="psd=y", giant_bank_example=""),
            "giant.bank.example",
            "giant.bank.example",
        ),
        (
            published(bank_example="psd=y", giant_bank_example=""),
            "mail.giant.bank.example",
            "giant.bank.example",
        ),
        (
            published(bank_example="psd=y", giant_bank_example=""),
            "mail.mega.bank.example",
            "mega.bank.example",
        ),
        # A suffix right where the walk of a long name goes on.
        (
            published(c_d_e_f_g_example_com="psd=y"),
            "m.a.b.c.d.e.f.g.example.com",
            "b.c.d.e.f.g.example.com",
        ),
    ],
)
async def test_the_walk_finds_the_organization(
    world: dict[str, list[str]], domain: str, expected: str
) -> None:
    assert await organization(world, domain) == expected


async def test_rfc_9989_5_1_8_a_record_that_the_skipping_passes_by_is_not_found() -> None:
    world = published(example_com="", b_c_d_e_f_g_example_com="psd=n")

    assert await organization(world, "mail.a.b.c.d.e.f.g.example.com") == "example.com"


@pytest.mark.parametrize("psd", ["psd=y", "psd=n"])
async def test_the_walk_ends_where_somebody_says_what_a_domain_is(psd: str) -> None:
    resolver = FakeResolver({"TXT": published(example_test=psd)})

    await Tree(resolver).walk("mail.example.test")

    assert resolver.asked == [("TXT", "_dmarc.mail.example.test"), ("TXT", "_dmarc.example.test")]


async def test_no_name_is_asked_about_twice_not_even_a_silent_one() -> None:
    resolver = FakeResolver({"TXT": published(example_test="")}, fail=["_dmarc.b.example.test"])
    tree = Tree(resolver)

    for domain in ("a.example.test", "a.example.test", "x.a.example.test"):
        assert (await tree.walk(domain)).organization == "example.test"
    for _ in range(2):
        with pytest.raises(Unanswered):
            await tree.walk("b.example.test")

    assert len(resolver.asked) == len(set(resolver.asked))


# --- the public suffix list ---------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "domain", "expected"),
    [
        # A registry that forgot psd=y does not own everybody.
        (published(co_uk="", shop_co_uk=""), "mail.shop.co.uk", "shop.co.uk"),
        (published(co_uk=""), "mail.shop.co.uk", "shop.co.uk"),
        (published(com=""), "mail.example.com", "example.com"),
        # Nor does a hoster own those to whom it gives names, or they the hoster.
        (published(herokuapp_com=""), "evil.herokuapp.com", "evil.herokuapp.com"),
        (published(herokuapp_com=""), "herokuapp.com", "herokuapp.com"),
        # What a domain says of itself counts more.
        (published(herokuapp_com="psd=n"), "one.herokuapp.com", "herokuapp.com"),
        # Wildcards and their exceptions; A-labels.
        (published(kobe_jp="", city_kobe_jp=""), "mail.city.kobe.jp", "city.kobe.jp"),
        (published(**{"xn--90a3ac": ""}), "a.b.xn--90a3ac", "b.xn--90a3ac"),
        # A top that is on no list is like any other name.
        (published(corp=""), "mail.host.corp", "corp"),
    ],
)
async def test_a_record_at_a_listed_suffix_makes_no_organization_of_those_below(
    world: dict[str, list[str]], domain: str, expected: str
) -> None:
    assert await organization(world, domain) == expected


@pytest.mark.parametrize(
    ("world", "domain", "silent"),
    [
        (published(example_com=""), "mail.example.com", "com"),
        (published(shop_co_uk=""), "shop.co.uk", "co.uk"),
        (published(example_unlisted=""), "mail.example.unlisted", "unlisted"),
    ],
)
async def test_a_suffix_that_does_not_answer_is_not_needed_below_a_record(
    world: dict[str, list[str]], domain: str, silent: str
) -> None:
    (record,) = world

    assert f"_dmarc.{await organization(world, domain, silent)}" == record


@pytest.mark.parametrize(
    ("world", "domain", "silent"),
    [
        # It may have the record that decides.
        (published(mail_example_com=""), "mail.example.com", "example.com"),
        (published(example_com=""), "mail.example.com", "mail.example.com"),
        # Nothing below it: what the suffix says would hold.
        ({}, "example.com", "com"),
    ],
)
async def test_any_other_name_that_does_not_answer_leaves_the_organization_unknown(
    world: dict[str, list[str]], domain: str, silent: str
) -> None:
    with pytest.raises(Unanswered):
        await organization(world, domain, silent)


def test_the_list_may_be_a_local_file(tmp_path: Path) -> None:
    file = tmp_path / "suffixes.dat"
    file.write_text("// ours\ntest\nplatform.test\n*.wild.test\n!own.wild.test\n")
    with file.open("rb") as lines:
        suffixes = PublicSuffixList(source=lines)
    record = read(b"v=DMARC1; p=reject")

    def owner(start: str, *domains: str) -> str:
        return select(start, [Found(each, record) for each in domains], suffixes).organization

    assert owner("a.b.platform.test", "platform.test", "test") == "b.platform.test"
    assert owner("a.b.c.wild.test", "c.wild.test") == "b.c.wild.test"
    assert owner("a.own.wild.test", "own.wild.test") == "own.wild.test"
    assert owner("a.b.test", "test") == "b.test"


def test_the_list_is_read_once() -> None:
    assert public_suffixes() is public_suffixes()


# --- whatever is published ----------------------------------------------------------


@given(
    st.lists(LABELS, min_size=1, max_size=12),
    st.dictionaries(st.integers(0, 11), st.sampled_from(["", "psd=y", "psd=n", "psd=u"])),
    st.sets(st.integers(0, 11), max_size=2),
)
async def test_the_organization_is_the_domain_or_above_it_and_eight_questions_find_it(
    labels: list[str], tags: dict[int, str], silent: set[int]
) -> None:
    names = [".".join(labels[start:]) for start in range(len(labels))]
    world = {
        f"_dmarc.{names[place]}": [f"v=DMARC1; p=none; {tag}"]
        for place, tag in tags.items()
        if place < len(names)
    }
    fail = [f"_dmarc.{names[place]}" for place in silent if place < len(names)]
    resolver = FakeResolver({"TXT": world}, fail=fail)

    try:
        walk = await Tree(resolver).walk(names[0])
    except Unanswered:
        assert fail
    else:
        assert walk.organization in names
    assert len(resolver.asked) <= 8
