"""Who wrote it: no address that a human might be shown is overlooked, whatever the bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.checks.author import Author, Authors, read_authors, to_ascii

MARKS = [*'@<>:"\\(),;[].\r\n\t \0\x01', "\r\n", "=?utf-8?q?", "=?x?b?", "?=", "\u200d", "\u3002"]
WORDS = ["a", "ä", "From", "from:", "From:", "bank.test", "joe@bank.test"]
PIECES = st.sampled_from([*MARKS, *WORDS])
# What compatibility folding (NFKC) makes plain letters of.
WIDE = "".join(chr(ord(each) + 0xFEE0) for each in "bank.test")
CONTENTS = st.one_of(
    st.binary(),
    st.lists(PIECES).map(lambda pieces: "".join(pieces).encode()),
    st.lists(PIECES).map(lambda pieces: b"From: " + "".join(pieces).encode() + b"\r\n\r\n"),
)


def authors(value: str) -> Authors:
    return read_authors(b"From: " + value.encode() + b"\r\nTo: you@ours.test\r\n\r\nbody\r\n")


def addresses(value: str) -> list[str]:
    return [author.address for author in authors(value).found]


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("joe@bank.test", "joe@bank.test"),
        ("<joe@bank.test>", "joe@bank.test"),
        ("Joe Doe <joe@bank.test>", "joe@bank.test"),
        ('"Doe, Joe" <joe@bank.test>', "joe@bank.test"),
        ("Doe, Joe <joe@bank.test>", "joe@bank.test"),
        ("joe@bank.test (Joe)", "joe@bank.test"),
        ("(a (nested \\) one)) joe@bank.test", "joe@bank.test"),
        ("=?utf-8?q?J=C3=B6?= <joe@bank.test>", "joe@bank.test"),
        ("Joe:\r\n <joe@bank.test>", "joe@bank.test"),
        ("joe @ bank (of) . test", "joe@bank.test"),
        ('"joe@home"@bank.test', '"joe@home"@bank.test'),
        ('"x" "joe doe"@bank.test', '"joe doe"@bank.test'),
        ("Team: joe@bank.test;", "joe@bank.test"),
        ("root@localhost", "root@localhost"),
        ("Sales @ home <joe@bank.test>", "joe@bank.test"),
        ("Sales @ home, Inc. <joe@bank.test>", "joe@bank.test"),
        ("jö@bänk.test", "jö@bänk.test"),
    ],
)
def test_the_usual_forms_have_one_author(value: str, address: str) -> None:
    found = authors(value)

    assert [author.address for author in found.found] == [address]
    assert (found.fields, found.complete, found.certain) == (1, True, True)


@pytest.mark.parametrize(
    "value",
    [
        '"ceo@bank.test" <joe@evil.test>',
        "=?utf-8?q?ceo=40bank=2Etest?= <joe@evil.test>",
        "joe@evil.test (ceo@bank.test)",
        '"a\\" <ceo@bank.test>" <joe@evil.test>',
    ],
)
def test_a_display_name_that_is_marked_as_one_is_no_author(value: str) -> None:
    assert addresses(value) == ["joe@evil.test"]


@pytest.mark.parametrize(
    "value",
    [
        "ceo@bank.test, joe@evil.test",
        "Team: ceo@bank.test, joe@evil.test;",
        "ceo@bank.test <joe@evil.test>",
        "ceo @ bank . test, <joe@evil.test>",
        "<ceo@bank.test> <joe@evil.test>",
        "<ceo@bank.test><joe@evil.test",
        "joe@evil.test\0ceo@bank.test",
        "joe@evil.test\0@bank.test",
        "ceo@bank.test@evil.test",
        "<@bank.test:joe@evil.test>",
        "<@evil.test,@bank.test:joe@evil.test>",
        '"ceo@bank.test <joe@evil.test>',
        "(ceo@bank.test <joe@evil.test>",
        '"a" <joe@evil.test> "ceo@bank.test',
        "joe@evil.test, ceo@[192.0.2.1], ceo@bank.test",
        "joe@evil.test, x@b\u00ad\u200bank。test",
        "joe@evil.test, x@BANK..TEST.",
        f"joe@evil.test, x@{WIDE}",
    ],
)
def test_every_address_that_somebody_may_be_shown_counts(value: str) -> None:
    assert {"bank.test", "evil.test"} <= set(authors(value).domains)


@pytest.mark.parametrize(
    "value",
    [
        '"ceo@bank.test"',
        "(ceo@bank.test)",
        "=?utf-8?q?ceo=40bank=2Etest?=",
        "=?utf-8?B?PGNlb0BiYW5rLnRlc3Q+?=",
        "=?utf-8?b?PGNlb0BiYW5rLnRlc3Q?=",
    ],
)
def test_where_there_is_no_address_what_looks_like_one_is_a_guess(value: str) -> None:
    found = authors(value)

    assert (found.domains, found.certain) == (("bank.test",), False)


@pytest.mark.parametrize(
    "header",
    [
        b"From: joe@evil.test\r\nFrom: ceo@bank.test\r\n\r\n",
        b"From: joe@evil.test\r\nfrom : ceo@bank.test\r\n\r\n",
        b"From: joe@evil.test\r\nFROM:\r\n\tceo@bank.test\r\n\r\n",
        b" From: ceo@bank.test\r\nFrom: joe@evil.test\r\n\r\n",
        b"From\0: ceo@bank.test\nFrom: joe@evil.test\n\n",
        b"To: x\r\n\0\tFrom: ceo@bank.test\r\nFrom: joe@evil.test\r\n\r\n",
        b"To: x\rFrom: ceo@bank.test\r\nFrom: joe@evil.test\r\n\r\n",
        b"To: x\r\n \r\nFrom: ceo@bank.test\r\nFrom: joe@evil.test\r\n\r\n",
        b"From: joe@evil.test\rFrom: ceo@bank.test\r\n\r\n",
    ],
)
def test_every_field_that_is_from_for_somebody_counts(header: bytes) -> None:
    found = read_authors(header + b"From: body@other.test\r\n")

    assert found.fields == 2
    assert set(found.domains) == {"bank.test", "evil.test"}


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (b"", 0),
        (b"To: x\r\n\r\nFrom: joe@bank.test\r\n", 0),
        (b"\r\nFrom: joe@bank.test\r\n\r\n", 0),
        (b"X-From: joe@bank.test\r\nResent-From: joe@bank.test\r\n\r\n", 0),
        (b"Subject: the next line\r\n From: is folded, joe@bank.test\r\n\r\n", 0),
        (b"From joe@bank.test Mon Jan  1 00:00:00 2024\r\n\r\n", 0),
        (b"From:\r\n\r\n", 1),
        (b"From: Joe\r\n\r\n", 1),
    ],
)
def test_without_a_from_field_or_an_address_there_is_no_author(content: bytes, fields: int) -> None:
    found = read_authors(content)

    assert (found.fields, found.found) == (fields, ())


@pytest.mark.parametrize(
    ("domain", "ascii_"),
    [
        ("Bank.TEST", "bank.test"),
        ("bank.test.", "bank.test"),
        ("bänk.test", "xn--bnk-qla.test"),
        ("BÄNK.test", "xn--bnk-qla.test"),
        ("ba\u0308nk.test", "xn--bnk-qla.test"),
        ("xn--BNK-qla.test", "xn--bnk-qla.test"),
        # Not "strasse": RFC 5891 has the letter.
        ("straße.test", "xn--strae-oqa.test"),
        ("日本。test", "xn--wgv71a.test"),
        (WIDE, "bank.test"),
        ("b\u200bank\ufe0f.test", "bank.test"),
        ("ba\u200dnk.test", "bank.test"),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.test", "xn--mgba3gch31f060k.test"),
        ("[192.0.2.1]", ""),
        ("x" * 64 + ".test", ""),
        ("ä" * 63 + ".test", ""),
        ("x." * 127 + "test", ""),
        ("。.", ""),
        ("", ""),
    ],
)
def test_a_domain_becomes_what_the_dns_knows_it_by(domain: str, ascii_: str) -> None:
    assert to_ascii(domain) == ascii_


def test_what_is_not_utf8_is_read_as_latin1() -> None:
    found = read_authors("From: jö@bänk.test\r\n\r\n".encode("latin-1"))

    assert found.found == (Author("jö@bänk.test", "xn--bnk-qla.test"),)


@pytest.mark.parametrize(
    "content",
    [
        b"From: a@a.test\r\n" * 11,
        b"From: " + b",".join(b"a%d@b.test" % number for number in range(51)),
        b"From: " + b"a@b.test," * 101,
        b"From: " + b"a" * 20_000 + b"@b.test\r\n",
        b"X: " + b"a" * 200_000 + b"\r\nFrom: a@b.test\r\n",
    ],
    ids=["fields", "addresses", "at signs", "long field", "long header"],
)
def test_what_is_more_than_anybody_writes_is_not_all_read(content: bytes) -> None:
    found = read_authors(content)

    assert not found.complete
    assert len(found.found) <= 50


@pytest.mark.parametrize(
    "piece",
    [
        *'@("<a[\\.\0\r',
        "()",
        '""',
        '"\\"',
        "<@",
        "@[",
        "@.",
        "a@a.",
        "a@b ",
        "a@b.test,",
        "äö",
        "=?a?q?",
        "=?a?q?=40?=",
        "\r\n ",
        "\r\n\0",
        "\r\nFrom:",
    ],
)
def test_a_hostile_header_takes_milliseconds(piece: str) -> None:
    content = b"From: " + piece.encode() * (4_000_000 // len(piece)) + b"\r\n\r\n"
    started = time.process_time()

    read_authors(content)

    # Some 5 ms on a slow machine; anything quadratic takes minutes.
    assert time.process_time() - started < 0.5


@given(CONTENTS)
def test_no_bytes_make_it_raise_and_every_domain_is_one_for_the_dns(content: bytes) -> None:
    found = read_authors(content)

    assert all(domain.isascii() and domain == domain.lower() for domain in found.domains)
    assert all(len(domain) <= 253 for domain in found.domains)
    assert len(set(found.found)) == len(found.found) <= 50
