"""The octets of a message: against a reader that does it line by line, in any cut."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgw.smtp import reply
from mailgw.smtp.data import Body, DotReader, NewlinePolicy, Newlines
from mailgw.smtp.reply import Reply

# What meets at the end of a message, so that the search is not left to luck.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b".", b"\r", b"\n", b"\r\n", b"\r\n.", b".\r\n", b"\r\n.\r\n", b"a", b"\0"]
        ),
        st.binary(max_size=3),
    ),
    max_size=25,
)
POLICIES: tuple[NewlinePolicy, ...] = ("refuse", "carry", "repair")


def naive(stream: bytes) -> tuple[bytes, bytes] | None:
    """RFC 5321 4.5.2, word by word: (message, what follows it), None while it has no end."""
    message = b""
    while True:
        line, crlf, stream = stream.partition(b"\r\n")
        if not crlf:
            return None
        if line == b".":
            return message, stream
        message += line.removeprefix(b".") + crlf


def read(pieces: Iterable[bytes]) -> tuple[bytes, bytes, bool]:
    """Read pieces as the session does: (message so far, what was left, whether it ended)."""
    reader, buffer, message, ended = DotReader(), b"", b"", False
    for piece in pieces:
        buffer += piece
        if not ended:
            octets, position, ended = reader.read(buffer, 0)
            message, buffer = message + octets, buffer[position:]
            # What waits for more is the beginning of an end, and no longer.
            assert ended or b"\r\n.\r\n".startswith(buffer) or b".\r\n".startswith(buffer)
    return message, buffer, ended


@pytest.mark.parametrize(
    ("stream", "message", "rest"),
    [
        (b".\r\n", b"", b""),
        (b".\r\nQUIT\r\n", b"", b"QUIT\r\n"),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a\r\n.\r\n.\r\n", b"a\r\n", b".\r\n"),
        (b"..\r\n.\r\n", b".\r\n", b""),
        (b".a\r\n.\r\n", b"a\r\n", b""),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n", b""),
        (b"a\r\n.b\r\n..c\r\n.\r\nd", b"a\r\nb\r\n.c\r\n", b"d"),
        (b"a\n.\nb\r.\rc\r\n.\rd\r\n.\ne\r\n.\r\n", b"a\n.\nb\r.\rc\r\n\rd\r\n\ne\r\n", b""),
        (b"a\r\r\n.\r\n", b"a\r\r\n", b""),
        (b"\n.\r\n\r\n.\r\n", b"\n.\r\n\r\n", b""),
    ],
)
def test_a_message_ends_at_its_dot(stream: bytes, message: bytes, rest: bytes) -> None:
    assert read([stream]) == (message, rest, True)
    assert read(bytes([octet]) for octet in stream) == (message, rest, True)


@pytest.mark.parametrize(
    "stream", [b"", b".", b".\r", b"a", b"a\r\n", b"a\r\n.", b"a\r\n.\r", b"\n.\n"]
)
def test_a_message_without_its_dot_goes_on(stream: bytes) -> None:
    assert read([stream])[2] is False


@settings(deadline=None)
@given(PIECES)
def test_dots_are_read_as_the_naive_reader_does(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)

    message, rest, ended = read(pieces)

    expected = naive(stream)
    assert ended == (expected is not None)
    if expected is not None:
        assert (message, rest) == expected
    else:
        # What was handed on is the beginning of whatever message this becomes.
        for end in (b"\r\n.\r\n", b"x\r\n.\r\n", b"\n.\r\n", b".\r\n\r\n.\r\n"):
            whole = naive(stream + end)
            assert whole is None or whole[0].startswith(message)


@settings(deadline=None)
@given(PIECES)
def test_any_cut_gives_the_same_message(pieces: list[bytes]) -> None:
    stream = b"".join([*pieces, b"\r\n.\r\n"])

    assert read([*pieces, b"\r\n.\r\n"]) == read([stream])


@settings(deadline=None)
@given(st.binary() | PIECES.map(b"".join))
def test_a_stuffed_message_comes_back(message: bytes) -> None:
    message += b"\r\n"
    stuffed = re.sub(rb"(\A|\r\n)\.", rb"\1..", message)

    assert read([stuffed + b".\r\nQUIT"]) == (message, b"QUIT", True)


# --- newlines -----------------------------------------------------------------------


def has_bare(message: bytes) -> bool:
    without = message.replace(b"\r\n", b"")
    return b"\r" in without or b"\n" in without


def repaired(message: bytes) -> bytes:
    return message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


# Little else, so that every pair of neighbours is met.
ENDS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b""]), max_size=12)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "message", [b"", b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r\n", b"a\r\nb\rc\nd\r", b"\r\n\r\n\n"]
)
def test_newlines_are_treated_alike_octet_by_octet(message: bytes, policy: NewlinePolicy) -> None:
    newlines = Newlines(policy)

    given_back = b"".join(newlines.feed(bytes([octet]), last=False) for octet in message)
    given_back += newlines.feed(b"", last=True)

    assert given_back == (repaired(message) if policy == "repair" else message)
    assert newlines.bare == (policy == "refuse" and has_bare(message))


@settings(deadline=None)
@given(ENDS | PIECES, st.sampled_from(POLICIES))
def test_newlines_are_treated_as_the_policy_says_in_any_cut(
    pieces: list[bytes], policy: NewlinePolicy
) -> None:
    message, newlines = b"".join(pieces), Newlines(policy)

    given_back = b"".join(newlines.feed(piece, last=False) for piece in pieces)
    given_back += newlines.feed(b"", last=True)

    assert given_back == (repaired(message) if policy == "repair" else message)
    assert newlines.bare == (policy == "refuse" and has_bare(message))


@settings(deadline=None)
@given(ENDS)
def test_the_last_chunk_may_hold_the_last_octets(pieces: list[bytes]) -> None:
    refuse, repair = Newlines("refuse"), Newlines("repair")
    last = pieces.pop() if pieces else b""
    message = b"".join([*pieces, last])

    for piece in pieces:
        refuse.feed(piece, last=False)
    refuse.feed(last, last=True)
    given_back = b"".join(repair.feed(piece, last=False) for piece in pieces)

    assert refuse.bare == has_bare(message)
    assert given_back + repair.feed(last, last=True) == repaired(message)


# --- the body -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "policy", "chunks", "kept", "trouble"),
    [
        (10, "refuse", [b"abc\r\n"], b"abc\r\n", None),
        (10, "refuse", [b"a" * 10], b"a" * 10, None),
        (10, "refuse", [b"a" * 11], b"", reply.TOO_BIG),
        (10, "refuse", [b"a" * 6, b"a" * 5, b"b"], b"a" * 6, reply.TOO_BIG),
        (10, "refuse", [b"a\nb", b"c"], b"", reply.BARE_NEWLINE),
        (10, "refuse", [b"a\r", b"\nb"], b"a\r\nb", None),
        (10, "carry", [b"a\nb"], b"a\nb", None),
        (10, "repair", [b"a\nb"], b"a\r\nb", None),
        # What is published counts: seven octets become eleven.
        (10, "repair", [b"abc\n\n\n\n"], b"", reply.TOO_BIG),
        (10, "refuse", [b"a\nb", b"a" * 11], b"", reply.TOO_BIG),
        (0, "refuse", [b""], b"", None),
    ],
)
def test_a_body_knows_what_is_wrong_with_it(
    limit: int, policy: NewlinePolicy, chunks: list[bytes], kept: bytes, trouble: Reply | None
) -> None:
    body = Body(limit, policy)

    taken = [body.take(chunk, last=False) for chunk in chunks] + [body.take(b"", last=True)]

    assert (b"".join(taken), body.trouble) == (kept, trouble)
