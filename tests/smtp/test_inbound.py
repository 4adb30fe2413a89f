"""What a client sent and nobody has read: lines, octets, and flat memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgw.smtp import reply
from mailgw.smtp.inbound import LONGEST_AUTH_LINE, LONGEST_COMMAND, Inbound
from mailgw.smtp.reply import Reply

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=5),
        st.sampled_from([b"\r\n", b"\n", b"\r", b"NOOP", b"AUTH ", b"\x16", b"A" * 1500]),
    ),
    max_size=12,
)


def lines_of(*pieces: bytes, auth: bool = False) -> list[bytes | Reply]:
    """All lines that come out of a stream in these pieces."""
    inbound = Inbound()
    found: list[bytes | Reply] = []
    for piece in pieces:
        inbound.receive(piece)
        while (line := inbound.take_line(auth=auth)) is not None:
            found.append(line)
            if line is reply.NOT_SMTP:
                return found
    return found


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        (b"", []),
        (b"NOOP", []),
        (b"NOOP\r", []),
        (b"NOOP\r\n", [b"NOOP"]),
        (b"\r\n\r\n", [b"", b""]),
        (b"a\r\nb\r\nc", [b"a", b"b"]),
        (b"a\rb\r\n", [b"a\rb"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"a\nb\r\n", [reply.BARE_LF_COMMAND, b"b"]),
        (b"\n", [reply.BARE_LF_COMMAND]),
        (b"\r\n\n", [b"", reply.BARE_LF_COMMAND]),
        (b"x" * (LONGEST_COMMAND - 2) + b"\r\n", [b"x" * (LONGEST_COMMAND - 2)]),
        (b"x" * (LONGEST_COMMAND - 1) + b"\r\n", [reply.LINE_TOO_LONG]),
        (b"x" * LONGEST_COMMAND + b"\r\n", [reply.LINE_TOO_LONG]),
        (b"x" * 9999 + b"\r\nNOOP\r\n", [reply.LINE_TOO_LONG, b"NOOP"]),
        (b"x" * 9999 + b"\nNOOP\r\n", [reply.LINE_TOO_LONG, b"NOOP"]),
        (b"auth " + b"A" * 9000 + b"\r\n", [b"auth " + b"A" * 9000]),
        (b"AUTH " + b"A" * LONGEST_AUTH_LINE + b"\r\n", [reply.LINE_TOO_LONG]),
        (b"\x16\x03\x01", [reply.NOT_SMTP]),
        (b"\x16\x03\n\r\n", [reply.NOT_SMTP]),
        (b"a\x16\r\n", [b"a\x16"]),
    ],
)
def test_lines_end_with_crlf(sent: bytes, lines: list[bytes | Reply]) -> None:
    assert lines_of(sent) == lines
    assert lines_of(*(bytes([octet]) for octet in sent)) == lines


def test_a_line_of_an_auth_exchange_may_be_longer() -> None:
    line = b"A" * (LONGEST_AUTH_LINE - 2)

    assert lines_of(line + b"\r\n", auth=True) == [line]
    assert lines_of(line + b"A\r\n", auth=True) == [reply.LINE_TOO_LONG]


@settings(deadline=None)
@given(PIECES)
def test_any_cut_gives_the_same_lines(pieces: list[bytes]) -> None:
    assert lines_of(*pieces) == lines_of(b"".join(pieces))


@settings(deadline=None)
@given(PIECES, st.booleans())
def test_what_is_kept_is_never_longer_than_a_line_may_be(pieces: list[bytes], auth: bool) -> None:
    inbound = Inbound()

    for piece in pieces * 20:
        inbound.receive(piece)
        while inbound.take_line(auth=auth) not in (None, reply.NOT_SMTP):
            pass
        kept = inbound.buffer[inbound.position :]
        assert len(kept) <= LONGEST_AUTH_LINE or kept.startswith(b"\x16")


@pytest.mark.parametrize("cut", range(14))
def test_discarded_octets_are_not_lines(cut: int) -> None:
    inbound = Inbound()
    inbound.discard(6)
    sent = b"QUIT\r\nNOOP\r\nx"

    found = []
    for piece in (sent[:cut], sent[cut:]):
        inbound.receive(piece)
        while (line := inbound.take_line()) is not None:
            found.append(line)

    assert found == [b"NOOP"]


def test_counted_octets_are_taken_as_they_come() -> None:
    inbound = Inbound()
    inbound.receive(b"abc")

    assert inbound.take(5) == b"abc"
    inbound.receive(b"defg\r\n")
    assert inbound.take(2) == b"de"
    assert inbound.take_line() == b"fg"


def test_cleared_octets_are_gone() -> None:
    inbound = Inbound()
    inbound.receive(b"NOOP\r\nQUIT\r\n")
    inbound.take_line()

    inbound.clear()

    assert inbound.take_line() is None
    inbound.receive(b"RSET\r\n")
    assert inbound.take_line() == b"RSET"
