"""Addresses good and bad, strict and loose; IDN; no text makes another address of one."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mailgw
from mailgw.smtp.address import Address, BadAddress, parse_mailbox, parse_path, to_unicode

L64, L63 = "a" * 64, "a" * 63
# 254 octets with its "@": the longest that fits a path of 256.
LONGEST = f"b@{'a.' * 125}ab"

GOOD = [
    "a@b",
    "user@example.org",
    "first.last@example.org",
    "user+tag@example.org",
    "!#$%&'*+-/=?^_`{|}~@example.org",
    "0@0.0",
    "-@example.org",
    "a@a-b.example",
    "a@1-2.example",
    "a@xn--bcher-kva.example",
    f"{L64}@example.org",
    f"a@{L63}.org",
    LONGEST,
    "postmaster@example.org",
    "x%other.test@example.test",
    "other.test!x@example.test",
    '"a b"@example.org',
    '"a@b"@example.org',
    '"<>"@example.org',
    '"a\\"b"@example.org',
    '"a\\\\"@example.org',
    '""@example.org',
    '"a..b"@example.org',
    '"' + "a" * 62 + '"@example.org',
    "a@[192.0.2.1]",
    "a@[0.0.0.0]",
    "a@[IPv6:::]",
    "a@[IPv6:2001:db8::1]",
    "a@[ipv6:2001:DB8::1]",
    "a@[IPv6:::ffff:192.0.2.1]",
    "jürgen@example.org",
    "用户@例え.テスト",
    "a@bücher.example",
    "ñ" * 32 + "@example.org",
    '"ü ü"@example.org',
]

# Wrong however it is read.
BAD_ALWAYS = [
    "",
    "a",
    "@",
    "a@",
    "@example.org",
    "a@.",
    "a@.org",
    "a@org.",
    "a@example..org",
    "a@-example.org",
    "a@example-.org",
    "a@exa mple.org",
    "a@exam_ple.org",
    "a@example,org",
    "a@(comment)example.org",
    "a@=?utf-8?q?trusted.example?=",
    "a@" + "a" * 64 + ".org",
    "a@" + "a." * 127 + "aa",
    "a@[]",
    "a@[",
    "a@]",
    "a@[192.0.2]",
    "a@[192.0.2.256]",
    "a@[192.0.2.1.1]",
    "a@[192.0.02.1]",
    "a@[2001:db8::1]",
    "a@[IPv6:]",
    "a@[IPv6:192.0.2.1]",
    "a@[IPv6:2001:db8::1::2]",
    "a@[IPv6:fe80::1%eth0",
    "a@[IPv5:1]",
    "a@[tag:content]",
    "a@192.0.2.1]",
    "a@[192.0.2.1].org",
    "a@exämple..org",
    "a\0@example.org",
    "a@example.org\0",
    "a\t@example.org",
    "a\r\nb@example.org",
    "a@example.org\n",
    "a\x7f@example.org",
    "a\x1b[2J@example.org",
    "a\u202eb@example.org",
    "a\u200bb@example.org",
    "a\u00a0b@example.org",
    "a\u2028b@example.org",
    "a\ud800b@example.org",
    "a@ex\u200bample.org",
]

# Wrong in the grammar, and let pass where `smtp-validate-address` is loose.
BAD_STRICTLY = [
    ".a@example.org",
    "a.@example.org",
    "a..b@example.org",
    "a b@example.org",
    "a@b@example.org",
    "a,b@example.org",
    "a:b@example.org",
    "a;b@example.org",
    "a(comment)@example.org",
    "(comment)a@example.org",
    "a\\b@example.org",
    "[a]@example.org",
    '"a@example.org',
    'a"@example.org',
    '"a"b@example.org',
    '"a"."b"@example.org',
    '"a\\"@example.org',
    "a" * 65 + "@example.org",
    "ñ" * 33 + "@example.org",
    "é" * 20 + "@" + "a." * 125 + "aa",
    "Alice a@example.org",
    "a@example.org,b@example.org",
    "<a@example.org",
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("text", GOOD)
def test_a_good_address_is_taken_as_written(text: str, strict: bool) -> None:
    address = parse_mailbox(text, strict=strict)

    assert address.written == text
    assert (address.local, address.domain) == tuple(text.rpartition("@")[::2])
    assert parse_path(f"<{text}>", strict=strict) == (address, "")
    assert address.ascii == text.isascii()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("text", BAD_ALWAYS)
def test_a_bad_address_is_refused(text: str, strict: bool) -> None:
    with pytest.raises(BadAddress):
        parse_mailbox(text, strict=strict)


@pytest.mark.parametrize("text", BAD_STRICTLY)
def test_loose_takes_what_strict_refuses(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_mailbox(text, strict=True)

    assert parse_mailbox(text, strict=False).written == text


def test_even_a_loose_address_has_an_end() -> None:
    assert parse_mailbox("a" * 500 + "@example.org", strict=False).local == "a" * 500
    with pytest.raises(BadAddress):
        parse_mailbox("a" * 501 + "@example.org", strict=False)


# --- paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<>", None, ""),
        ("<> SIZE=1", None, " SIZE=1"),
        ("<a@b.test>", Address("a", "b.test"), ""),
        ("<a@b.test> SIZE=1 BODY=7BIT", Address("a", "b.test"), " SIZE=1 BODY=7BIT"),
        ("<a@b.test>x", Address("a", "b.test"), "x"),
        ("<a@b.test>>", Address("a", "b.test"), ">"),
        ("<@x.test:a@b.test>", Address("a", "b.test"), ""),
        ("<@x.test,@y.test:a@b.test> X", Address("a", "b.test"), " X"),
        ('<@x.test:"a>b"@b.test>', Address('"a>b"', "b.test"), ""),
        ('<"a>b"@b.test>x', Address('"a>b"', "b.test"), "x"),
        ('<"a\\">"@b.test>', Address('"a\\">"', "b.test"), ""),
        ("<postmaster>", Address("postmaster", ""), ""),
        ("<POSTmaster> X", Address("POSTmaster", ""), " X"),
        ("<@x.test:postmaster>", Address("postmaster", ""), ""),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_path_is_read_and_what_follows_is_handed_back(
    text: str, address: Address | None, rest: str, strict: bool
) -> None:
    assert parse_path(text, strict=strict) == (address, rest)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        ">",
        "< >",
        "<a@b.test",
        "<a@b.test SIZE=1",
        "<a",
        "<a>",
        "<@x.test>",
        "<@x.test:>",
        "<@x.test,a@b.test:>",
        '<"a>b@b.test>',
        "<postmaster@>",
        "<root>",
        "<p\u017fostmaster>",
        " <a@b.test>",
        "Alice <a@b.test>",
    ],
)
def test_a_broken_path_is_refused(text: str, strict: bool) -> None:
    with pytest.raises(BadAddress):
        parse_path(text, strict=strict)


@pytest.mark.parametrize("path", ["<a@" + "b." * 1000 + ">", "<" + "a." * 1000 + "@b.test>"])
def test_a_path_that_is_nearly_good_to_its_end_is_read_in_a_moment(path: str) -> None:
    # In exponential time, where there are two ways to read each of the labels.
    with pytest.raises(BadAddress):
        parse_path(path, strict=True)


def test_no_expression_has_a_possessive_group() -> None:
    # Before Python 3.11.5 they keep what they should give back: "<bob.@ours.test>" was read so.
    group = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+")
    sources = Path(mailgw.__file__).parent.rglob("*.py")
    lines = [line for source in sources for line in source.read_text("utf-8").splitlines()]

    assert lines
    assert not [line for line in lines if group.search(line)]


@pytest.mark.parametrize(
    ("text", "written", "rest"),
    [
        ("a@b.test", "a@b.test", ""),
        ("a@b.test SIZE=1", "a@b.test", " SIZE=1"),
        ("postmaster", "postmaster", ""),
        ("<a b@c.test> X", "a b@c.test", " X"),
    ],
)
def test_loose_does_without_brackets(text: str, written: str, rest: str) -> None:
    address, following = parse_path(text, strict=False)

    assert address is not None
    assert (address.written, following) == (written, rest)


@pytest.mark.parametrize("text", ["a@b.test", "<<a@b.test>>", "<a,b@c.test>"])
def test_strict_wants_one_address_in_brackets(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_path(text, strict=True)


# --- no text does harm --------------------------------------------------------------

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_LOCAL = re.compile(rf'{_ATOM}(\.{_ATOM})*|"([^"\\\x00-\x1f\x7f]|\\[\x20-\x7e\u0080-\U0010ffff])*"')
_WORDS = st.sampled_from(
    [
        "a",
        "b.test",
        "@",
        "@x.test:",
        "<",
        ">",
        '"',
        "\\",
        ".",
        " ",
        "[",
        "]",
        "IPv6:",
        "::1",
        "ü",
        "192.0.2.1",
        "xn--",
        "postmaster",
        "\0",
        "\r\n",
        "-",
        ",",
        "(c)",
        "=?utf-8?q?x?=",
        "\u202e",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(_WORDS, max_size=10).map("".join),
    st.lists(_WORDS, max_size=10).map("".join).map(lambda inner: f"<{inner}>"),
)
MAILBOXES = st.builds(
    "{}@{}".format,
    st.lists(
        st.sampled_from(["a", ".", '"', "\\", " ", "ü", "@", "+", "\0", "a" * 60]), max_size=6
    ).map("".join),
    st.lists(
        st.sampled_from(["a", ".", "-", "ü", "xn--", "[", "]", "1", "_", "b" * 60]), max_size=6
    ).map("".join),
)


@settings(deadline=None)
@given(TEXTS | MAILBOXES, st.booleans())
def test_no_text_makes_reading_raise_anything_but_bad_address(text: str, strict: bool) -> None:
    try:
        address, rest = parse_path(text, strict=strict)
    except BadAddress:
        return
    assert text.endswith(rest)
    if address is None:
        assert text == "<>" + rest
    else:
        # Cut out of the text, never put together or decoded.
        assert address.written in text
        assert str(address).isprintable()


@settings(deadline=None)
@given(MAILBOXES)
def test_a_strict_address_obeys_the_grammar(text: str) -> None:
    try:
        address = parse_mailbox(text, strict=True)
    except BadAddress:
        return
    if not address.domain:
        assert address.local.lower() == "postmaster"
        return
    assert _LOCAL.fullmatch(address.local)
    assert len(address.local.encode()) <= 64
    assert len(address.written.encode()) <= 254
    if not address.domain.startswith("["):
        labels = address.domain.split(".")
        assert all(1 <= len(label.encode()) <= 63 for label in labels)
        assert all(label[0] != "-" != label[-1] for label in labels)
    assert not any(unicodedata.category(c).startswith(("C", "Zl", "Zp")) for c in str(address))


# --- IDN ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "unicode"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org", "EXAMPLE.org"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("XN--BCHER-KVA.Example", "bücher.Example"),
        ("mail.xn--bcher-kva.xn--p1ai", "mail.bücher.рф"),
        ("xn--r8jz45g.xn--zckzah", "例え.テスト"),
        ("xn--strae-oqa.example", "straße.example"),
        ("bücher.example", "bücher.example"),
        # Not what an A-label stands for: as it is.
        ("xn--", "xn--"),
        ("xn--a", "xn--a"),
        ("xn--abc-", "xn--abc-"),
        ("xn--a-ecp.example", "xn--a-ecp.example"),
        ("xn--99999999.example", "xn--99999999.example"),
        ("xn--ls8h.example", "xn--ls8h.example"),  # a symbol, no letter
        ("xn--BCHER-kva_.example", "xn--BCHER-kva_.example"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
    ],
)
def test_a_labels_become_u_labels(domain: str, unicode: str) -> None:
    assert to_unicode(domain) == unicode


@pytest.mark.parametrize(
    "hidden", ["\u202e", "\u200b", "\x00", "\n", "@", ".", "\u0301", "u\u0308", "Ü", "\ufffd"]
)
def test_an_a_label_hides_no_character_that_does_harm(hidden: str) -> None:
    label = "xn--" + (hidden + "ü").encode("punycode").decode("ascii")

    assert to_unicode(label) == label


@settings(deadline=None)
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", max_size=59))
def test_whatever_is_decoded_encodes_to_the_same_label(tail: str) -> None:
    label = "xn--" + tail

    decoded = to_unicode(label)

    assert decoded == label or "xn--" + decoded.encode("punycode").decode("ascii") == label
    assert decoded.isprintable()
    assert not set(".@") & set(decoded)


def test_the_published_form_has_u_labels_and_the_reply_has_what_was_written() -> None:
    address = parse_mailbox("a@xn--bcher-kva.example")

    assert (str(address), address.written) == ("a@bücher.example", "a@xn--bcher-kva.example")
    assert str(Address("Postmaster", "")) == "Postmaster"
