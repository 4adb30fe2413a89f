"""Headers: read forgivingly, without raising, in linear time, and losing no octet."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.mail.headers import header_end, read_fields, remove

# Pieces that meet in broken headers, so that the search is not left to luck.
PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"X-MQ-Tag", b"Subject", b"\x00", b"\xff", b"."]
)
HEADERS = st.one_of(st.binary(), st.lists(PIECES).map(b"".join))


@pytest.mark.parametrize(
    ("content", "block"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"\nbody", b""),
        (b"\r\nX-A: no header\r\n\r\n", b""),
        (b"A: 1\r\n\r\nB: 2\r\n\r\n", b"A: 1\r\n"),
        (b"A: 1\n\nbody\r\n\r\nmore", b"A: 1\n"),
        (b"A: 1\r\n\nbody\r\n\r\n", b"A: 1\r\n"),
        (b"A: 1\n\r\nbody\n\n", b"A: 1\n"),
        (b"A: 1\n\n\r\n", b"A: 1\n"),
        (b"A: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n"),
        (b"A: 1\r\nB: 2", b"A: 1\r\nB: 2"),
        (b"A: 1\r\n \r\n\r\nbody", b"A: 1\r\n \r\n"),
        (b"A: 1\r\rB: 2\r\n\r\n", b"A: 1\r\rB: 2\r\n"),
    ],
)
def test_the_block_ends_before_the_first_empty_line(content: bytes, block: bytes) -> None:
    assert content[: header_end(content)] == block


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b"Subject: hi\r\n", "subject", b"hi"),
        (b"SUBJECT:hi", "subject", b"hi"),
        (b"Subject \t: hi\n", "subject", b"hi"),
        (b"Subject:\r\n", "subject", b""),
        (b"Subject: a\r\n b\r\n\tc\r\n", "subject", b"a b\tc"),
        (b"Subject:\r\n folded\r\n", "subject", b"folded"),
        (b"Subject: a: b\r\n", "subject", b"a: b"),
        (b"X-!#$%&'*+.^_`|~: v\r\n", "x-!#$%&'*+.^_`|~", b"v"),
        (b"no colon here\r\n", "", b"no colon here"),
        (b"From sender@a.test Mon Jan 01 10:00:00 2024\r\n", "", None),
        (b"two words: v\r\n", "", b"two words: v"),
        (b": no name\r\n", "", b": no name"),
        (b" folded: first line\r\n", "", b"folded: first line"),
        (b"Subject\r\n : folded before the colon\r\n", "", None),
        (b"S\xfcbject: v\r\n", "", None),
        (b"Sub\x00ject: v\r\n", "", None),
    ],
)
def test_a_line_is_a_field_or_has_no_name(line: bytes, name: str, value: bytes | None) -> None:
    (field,) = read_fields(line)

    assert (field.name, field.raw) == (name, line)
    assert value is None or field.value == value


def test_a_value_that_is_not_utf8_is_shown_with_replacement_characters() -> None:
    (field,) = read_fields(b"Subject: caf\xc3\xa9 caf\xe9\r\n")

    assert field.text == "café caf\N{REPLACEMENT CHARACTER}"


def test_reading_goes_on_behind_a_broken_line() -> None:
    names = [
        field.name for field in read_fields(b"From a\r\nA: 1\r\n!! broken\r\nB: 2\r\n\r\nC: 3")
    ]

    assert names == ["", "a", "", "b"]


def test_removed_fields_take_their_octets_and_no_other() -> None:
    content = b"A: 1\r\nX: 2\r\n folded\r\nB : 3\n\tx\nX: 4\r\n\r\nX: body\r\n"

    kept = remove(content, [field for field in read_fields(content) if field.name == "x"])

    assert kept == b"A: 1\r\nB : 3\n\tx\n\r\nX: body\r\n"


@given(HEADERS)
def test_fields_tile_the_block_exactly(content: bytes) -> None:
    end = header_end(content)
    fields = list(read_fields(content))

    assert b"".join(field.raw for field in fields) == content[:end]
    assert [field.start for field in fields] == [0, *[field.end for field in fields]][:-1]
    assert all(field.start < field.end for field in fields)


@given(HEADERS)
def test_no_bytes_make_a_value_raise_or_hold_a_line_end(content: bytes) -> None:
    for field in read_fields(content):
        assert b"\n" not in field.value
        assert field.text == field.value.decode("utf-8", "replace")


@given(HEADERS)
def test_the_block_is_followed_by_an_empty_line_or_by_nothing(content: bytes) -> None:
    rest = content[header_end(content) :]

    assert rest == b"" or rest.startswith((b"\r\n", b"\n"))


@pytest.mark.parametrize(
    "content",
    [
        b"X-Header: value\r\n" * 20_000,
        b"Subject: " + b"a" * 100_000 + b"\r\n",
        b"Subject:" + b"\r\n folded" * 20_000,
        b"a" * 300_000,
        b"a" + b" " * 300_000,
        b"\n " * 200_000,
        b"\r" * 300_000,
        b":" * 300_000,
    ],
    ids=lambda content: repr(content[:16]),
)
def test_large_and_odd_headers_are_read_in_linear_time(content: bytes) -> None:
    started = time.perf_counter()

    octets = sum(len(field.value) for field in read_fields(content))

    # Milliseconds when linear, minutes when quadratic: the bound is far from both.
    assert octets <= len(content)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("empty", [b"\n\n", b"\n\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("offset", range(-4, 5))
def test_an_end_is_found_wherever_it_stands_in_a_long_header(empty: bytes, offset: int) -> None:
    before = b"x" * (1024 * 1024 + offset)

    found = header_end(before + empty + b"body\n\n")

    assert found == len(before) + empty.index(b"\n") + 1
