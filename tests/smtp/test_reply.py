"""Replies: what goes out is always one reply, whatever text it was made of."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import replies
from mailgw.smtp import reply
from mailgw.smtp.reply import Refusal, Reply

NAMED = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}


@pytest.mark.parametrize(
    ("said", "wire"),
    [
        (Reply(250, "", "mx"), b"250 mx\r\n"),
        (Reply(250, "1.5", "Ok"), b"250 2.1.5 Ok\r\n"),
        (Reply(452, "5.3", "Too many"), b"452 4.5.3 Too many\r\n"),
        (Reply(550, "7.1", "No"), b"550 5.7.1 No\r\n"),
        (Reply(250, "", "a\nb\nc"), b"250-a\r\n250-b\r\n250 c\r\n"),
        (Reply(250, "0.0", "a\nb"), b"250-2.0.0 a\r\n250 2.0.0 b\r\n"),
        (Reply(250, "", ""), b"250 \r\n"),
        (Reply(550, "1.1", "no <ü@x.test>"), "550 5.1.1 no <ü@x.test>\r\n".encode()),
        (Reply(550, "", "a\r\n250 Ok\x00\x1b[2J\x85\u2028"), b"550-a?\r\n550 250 Ok??[2J??\r\n"),
    ],
)
def test_a_reply_is_said_line_by_line(said: Reply, wire: bytes) -> None:
    assert said.wire == wire


@settings(deadline=None)
@given(st.sampled_from([220, 250, 354, 421, 550]), st.sampled_from(["", "7.1"]), st.text())
def test_no_text_makes_more_than_one_reply_or_too_long_a_line(
    code: int, detail: str, text: str
) -> None:
    said = Reply(code, detail, text)

    lines = said.wire.decode("utf-8").split("\r\n")
    assert lines.pop() == ""
    assert len(replies(lines)) == 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("letter", ["a", "ü", "字", "\U0001f4ec"])
def test_a_line_holds_512_octets_at_most(letter: str) -> None:
    # RFC 5321 4.5.3.1.5, the CRLF included.
    said = Reply(550, "7.1", letter * 600)

    assert 480 <= len(said.wire) <= 512
    assert said.wire.decode("utf-8").endswith(letter + "\r\n")


@pytest.mark.parametrize("name", NAMED)
def test_a_named_reply_has_a_known_code_and_its_enhanced_code_fits(name: str) -> None:
    first = NAMED[name].wire.decode("ascii").split("\r\n")[0]

    found = re.fullmatch(r"([2345])[0-5][0-9][ -](?:([245])\.[0-7]\.[0-9]{1,2} )?[^ ].*", first)
    assert found is not None
    # RFC 2034 4: all but 3xx have one, and it is of the class of the reply.
    assert found[2] == (None if found[1] == "3" else found[1])


@pytest.mark.parametrize(
    ("said", "positive", "closes"),
    [
        (reply.OK, True, False),
        (reply.START_DATA, True, False),
        (reply.BYE, True, True),
        (reply.TIMEOUT, False, True),
        (reply.TRY_AGAIN, False, False),
        (reply.REFUSED, False, False),
    ],
)
def test_a_reply_tells_whether_the_client_may_go_on(
    said: Reply, positive: bool, closes: bool
) -> None:
    assert (said.positive, said.closes) == (positive, closes)


def test_equal_replies_are_equal_whoever_made_them() -> None:
    assert Reply(550, "7.1", "Refused by policy") == reply.REFUSED
    assert Reply(550, "7.1", "Refused") != reply.REFUSED


def test_the_reply_to_a_message_names_each_recipient_on_its_own_line() -> None:
    said = reply.queued("m1 for b@example.test\nm2 for c@example.test")

    assert said.wire == (
        b"250-2.0.0 Ok, your message has been queued using the following identifiers:\r\n"
        b"250-2.0.0 m1 for b@example.test\r\n"
        b"250 2.0.0 m2 for c@example.test\r\n"
    )


def test_our_own_bug_is_temporary_and_has_a_reference() -> None:
    assert reply.local_error("c1").wire == b"451 4.3.0 Local error, reference c1\r\n"


def test_a_refusal_carries_its_reply() -> None:
    assert Refusal(reply.REFUSED).reply is reply.REFUSED


def test_replies_are_compared_and_shown_by_what_they_say() -> None:
    said = Reply(550, "7.1", "No", rule="smtp-range")

    assert said == Reply(550, "7.1", "No") != Reply(551, "7.1", "No")
    assert hash(said) == hash(said.by("hook x.rcpt"))
    assert repr(said) == "Reply(code=550, detail='7.1', text='No')"
