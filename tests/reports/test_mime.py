from __future__ import annotations

import base64
import quopri
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.reports.mime import DEEPEST, MOST_PARTS, Part, header, read_parts
from mailgw.reports.text import Fields, decoded, parameters, readable

T = TypeVar("T")


def all_steps(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result


def parts(content: bytes) -> list[Part]:
    return all_steps(read_parts(content))


def contents(content: bytes) -> list[bytes]:
    return [b"".join(part.chunks()) for part in parts(content)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_parts_lie_between_the_delimiters(end: bytes) -> None:
    mail = end.join(
        [
            b'Content-Type: multipart/mixed; boundary="b"',
            b"",
            b"preamble",
            b"--b",
            b"",
            b"one",
            b"--b  ",
            b"Content-Type: text/html",
            b"",
            b"two--b",
            b"--bc",
            b"--b--",
            b"epilogue",
            b"--b",
            b"",
            b"none",
        ]
    )

    found = parts(mail)

    assert [part.kind for part in found] == ["text/plain", "text/html"]
    assert contents(mail) == [b"one", b"two--b" + end + b"--bc"]


def test_a_part_ends_with_the_message_where_nothing_else_ends_it() -> None:
    assert contents(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none") == [b"one"]


def test_a_multipart_without_parts_is_a_leaf() -> None:
    mail = b"Content-Type: multipart/mixed; boundary=b\n\ntext\n"

    assert [(part.kind, b"".join(part.chunks())) for part in parts(mail)] == [
        ("multipart/mixed", b"text\n")
    ]


def test_messages_in_the_message_are_not_looked_into() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=c\n\n--c\n\ndeep\n--c--"
    mail = (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
        + inner
        + b"\n--b--\n"
    )

    assert contents(mail) == [inner]


def test_parts_and_their_depth_are_bounded() -> None:
    many = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 1000
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(100)
    )

    assert len(parts(many)) == MOST_PARTS
    [leaf] = parts(deep)
    assert leaf.attributes["boundary"] == f"b{DEEPEST}"


@given(st.binary(max_size=100_000), st.integers(1, 200))
def test_base64_is_undone_however_its_lines_are_cut(octets: bytes, width: int) -> None:
    encoded = base64.b64encode(octets)
    lines = b"\r\n".join(encoded[at : at + width] for at in range(0, len(encoded), width))

    assert contents(b"Content-Transfer-Encoding: BASE64\r\n\r\n" + lines) == [octets]


@given(st.text(alphabet="aé =.\n", max_size=30_000))
def test_quoted_printable_is_undone(text: str) -> None:
    encoded = quopri.encodestring(text.encode())

    assert contents(b"Content-Transfer-Encoding: quoted-printable\n\n" + encoded) == [text.encode()]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ('multipart/Report; Report-Type="delivery-status"', "multipart/report", "delivery-status"),
        ("multipart/report (x); report-type = a", "multipart/report", "a"),
        ('multipart/report; report-type="a\\"b;c"', "multipart/report", 'a"b;c'),
        ("multipart/report; report-type*0=a; report-type*1=b", "multipart/report", "ab"),
        ("multipart/report; report-type=a; report-type=b", "multipart/report", "a"),
        ("", "", None),
        (";;;=;", "", None),
    ],
)
def test_parameters_are_read_as_they_are_written(
    value: str, kind: str, expected: str | None
) -> None:
    found, attributes = parameters(value)

    assert (found, attributes.get("report-type")) == (kind, expected)


def test_header_fields_are_unfolded_and_the_first_counts() -> None:
    fields = Fields("A: one\n\t two \nno field\nB c: x\na: three\n:y")

    assert fields.get("a") == "one two"
    assert fields.all("a") == ["one two", "three"]
    assert fields.names() == ["a"]


def test_a_header_ends_at_its_empty_line() -> None:
    assert header(b"A: b\r\nC: d\r\n\r\nE: f\r\n") == b"A: b\nC: d\n"
    assert header(b"A: b\rC: d\r\rE: f\r") == b"A: b\nC: d\n"


@pytest.mark.parametrize("charset", ["zip", "punycode", "rot13", "unicode_escape", "x" * 99, ""])
def test_a_charset_that_is_none_is_read_as_utf8(charset: str) -> None:
    assert decoded("ö\\x41".encode() + b"\xff", charset) == "ö\\x41\ufffd"


def test_encoded_words_are_readable() -> None:
    assert readable("=?utf-8?Q?a_=C3=B6?= and =?UTF-8?B?YsO2?= =?x") == "a ö and bö =?x"
