"""The canonical forms are dkimpy's, in any slicing, and in linear time."""

from __future__ import annotations

import itertools
import time

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from mailgw.checks.canonical import Body, relaxed_field, unsigned_field

LINES = st.lists(st.text(alphabet=" \tab\r\n\x0b\x00é", max_size=12).map(str.encode))
BODIES = LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines))
CUTS = st.lists(st.integers(0, 200), max_size=8)


def canonical(octets: bytes, cuts: list[int], *, relaxed: bool) -> bytes:
    body = Body(relaxed=relaxed)
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    slices = [octets[a:b] for a, b in itertools.pairwise(edges)]
    pieces = [piece for part in slices for piece in body.feed(part)]
    return b"".join([*pieces, *body.finish()])


@given(octets=BODIES, cuts=CUTS)
def test_any_body_in_any_slices_becomes_what_dkimpy_makes_of_it(
    octets: bytes, cuts: list[int]
) -> None:
    assert canonical(octets, cuts, relaxed=True) == Relaxed.canonicalize_body(octets)
    assert canonical(octets, cuts, relaxed=False) == Simple.canonicalize_body(octets)


@given(octets=st.binary(max_size=40), line=st.sampled_from([b"", b" ", b"\r", b" \r", b"\n\r\n"]))
def test_the_end_of_a_body_is_the_end_of_a_line(octets: bytes, line: bytes) -> None:
    ended = octets + line + b"\r\n"

    assert canonical(octets + line, [], relaxed=False) == Simple.canonicalize_body(octets + line)
    assert canonical(octets + line, [], relaxed=True) in (
        Relaxed.canonicalize_body(ended),
        Relaxed.canonicalize_body(octets + line),
    )


@pytest.mark.parametrize(
    ("octets", "relaxed", "simple"),
    [
        # The example of RFC 6376 3.4.5, and the empty bodies of 3.4.3 and 3.4.4.
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n", b" C \r\nD \t E\r\n"),
        (b"", b"", b"\r\n"),
        (b"\r\n\r\n", b"", b"\r\n"),
        (b" \r\n\t", b"", b" \r\n\t\r\n"),
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a \n b", b"a \n b\r\n", b"a \n b\r\n"),
    ],
)
def test_bodies_by_the_book(octets: bytes, relaxed: bytes, simple: bytes) -> None:
    assert canonical(octets, [], relaxed=True) == relaxed
    assert canonical(octets, [], relaxed=False) == simple


@given(name=st.sampled_from([b"Subject", b"SUBJECT \t"]), lines=LINES)
def test_a_field_becomes_what_dkimpy_makes_of_it(name: bytes, lines: list[bytes]) -> None:
    value = b"".join(b" " + line.translate(None, b"\r\n\x0b") + b"\r\n" for line in lines)
    value = value or b"\r\n"

    form = relaxed_field(name + b":" + value)

    assert form == b"%s:%s" % Relaxed.canonicalize_headers([(name, value)])[0]


@pytest.mark.parametrize(
    ("raw", "own"),
    [
        (b"S: a=1; b=abc; d=x\r\n", b"S: a=1; b=; d=x"),
        (b"S: a=1; b =\r\n\tab c\r\n ;d=x;\r\n", b"S: a=1; b =;d=x;"),
        (b"S:\tb=a=b=\r\n", b"S:\tb="),
        (b"S: bh=b; b=abc\r\n", b"S: bh=b; b="),
        (b"S: bh=b; xb=abc", b"S: bh=b; xb=abc"),
    ],
)
def test_a_signature_is_hashed_without_what_it_signs(raw: bytes, own: bytes) -> None:
    assert unsigned_field(raw) == own


@pytest.mark.parametrize(
    "unit", [b" ", b" \t", b"\r\n", b"\r", b" \r\n", b"\r\n ", b"a  ", b" " * 998 + b"\r\n"]
)
def test_d1_blanks_take_linear_time(unit: bytes) -> None:
    # 32,000 blanks took dkimpy 1.2 seconds, and four times that for twice as many.
    octets = unit * (1_000_000 // len(unit))

    before = time.thread_time()
    canonical(octets, [], relaxed=True)
    canonical(octets, list(range(0, len(octets), 65_536)), relaxed=True)
    relaxed_field(b"X:" + octets)
    unsigned_field(b"X: v=1; b" + octets + b"!; b")

    assert time.thread_time() - before < 1.0
