"""The session as its caller meets it: events, answers, and any octets in any cut."""

from __future__ import annotations

import tracemalloc
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgw.smtp import events, reply
from mailgw.smtp.address import Address
from mailgw.smtp.data import NewlinePolicy
from mailgw.smtp.extensions import Rules
from mailgw.smtp.inbound import LONGEST_AUTH_LINE
from mailgw.smtp.reply import Reply
from mailgw.smtp.session import Session
from smtp.house import HOST, House, open_gate

A, B = Address("a", "example.org"), Address("b", "example.test")
HELLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\n"
TO_DATA = HELLO + ENVELOPE + b"DATA\r\n"


def greeted(rules: Rules | None = None, *, tls: bool = False) -> Session:
    """A session that has said its banner, and whose banner was read."""
    session = Session(rules or Rules(HOST), tls=tls)
    assert session.next_event() == events.Connected()
    session.answer(reply.banner(HOST))
    session.data_to_send()
    return session


def told(session: Session, data: bytes) -> Session:
    """Let it hear this, and answer what it asks with yes."""
    session.receive(data)
    while (event := session.next_event()) is not None:
        if not isinstance(event, events.DataChunk | events.DataRefused | events.Reset):
            session.answer(open_gate(event, 0))
    session.data_to_send()
    return session


# --- events and answers -------------------------------------------------------------


def test_the_first_event_is_there_before_any_octet() -> None:
    session = Session(Rules(HOST))

    assert session.next_event() == events.Connected()
    assert session.data_to_send() == b""


def test_what_a_client_asks_comes_in_the_order_of_the_mails_path() -> None:
    house = House(Rules(HOST, auth=True, starttls=True), auth_in_clear=True)

    house.hear(HELLO, b"AUTH PLAIN AHVzZXIAcGFzcw==\r\n", b"NOOP\r\n", ENVELOPE)
    house.hear(b"RSET\r\n" + ENVELOPE + b"DATA\r\nx\r\n.\r\nSTARTTLS\r\n")

    assert house.events == [
        events.Connected(),
        events.Hello("client.example", True),
        events.Credentials("PLAIN", "user", "pass"),
        events.MailFrom(A),
        events.RcptTo(B),
        events.Reset(),
        events.MailFrom(A),
        events.RcptTo(B),
        events.DataRequested(),
        events.DataDone(b"x\r\n"),
        events.StartTls(),
    ]


def test_nothing_happens_while_an_answer_is_owed() -> None:
    session = greeted()
    session.receive(HELLO + b"NOOP\r\nNOOP\r\n")

    assert session.next_event() == events.Hello("client.example", True)
    assert session.next_event() is None
    assert session.data_to_send() == b""
    session.answer(reply.OK)
    assert session.next_event() is None
    assert session.data_to_send().count(b"250 2.0.0 Ok\r\n") == 2


def test_pipelined_replies_go_out_in_one_write() -> None:
    session = told(greeted(), HELLO)
    session.receive(ENVELOPE + b"DATA\r\n")

    for _ in range(3):
        event = session.next_event()
        assert event is not None
        session.answer(open_gate(event, 0))

    assert session.data_to_send() == (
        b"250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
    )
    assert session.data_to_send() == b""


def test_an_answer_that_nobody_asked_for_is_our_bug() -> None:
    session = greeted()

    with pytest.raises(RuntimeError):
        session.answer(reply.OK)


def test_a_message_comes_as_it_is_read_and_its_end_asks() -> None:
    session = told(greeted(), TO_DATA)

    session.receive(b"one\r\ntw")
    assert session.next_event() == events.DataChunk(b"one\r\ntw")
    assert session.next_event() is None
    session.receive(b"o\r\n.\r")
    assert session.next_event() == events.DataChunk(b"o")
    assert session.next_event() is None
    session.receive(b"\nNOOP\r\n")
    assert session.next_event() == events.DataDone(b"\r\n")
    session.answer(reply.TRY_AGAIN)
    assert session.next_event() is None
    assert session.data_to_send() == reply.TRY_AGAIN.wire + reply.OK.wire


def test_a_refused_message_is_told_not_asked() -> None:
    session = told(greeted(Rules(HOST, max_size=3)), TO_DATA)

    session.receive(b"too long\r\n.\r\n")

    assert session.next_event() == events.DataRefused(reply.TOO_BIG)
    assert session.data_to_send() == reply.TOO_BIG.wire
    assert session.next_event() is None


def test_sessions_share_nothing_but_their_rules() -> None:
    rules = Rules(HOST, auth=True, max_errors=3)
    first, second = House(rules, auth_in_clear=True), House(rules, auth_in_clear=True)

    first.hear(HELLO + b"AUTH PLAIN AHVzZXIAcGFzcw==\r\n" + ENVELOPE + b"WHAT\r\nWHAT\r\n")
    codes = second.codes(b"WHAT\r\n" + ENVELOPE)

    assert first.session.user == "user"
    assert second.session.user is None
    # Its own third error closes it, and nobody else.
    assert codes == [220, 500, 503, 503, 421]
    assert first.codes(b"DATA\r\n.\r\n") == [354, 250]


def test_credentials_do_not_show_the_password() -> None:
    assert repr(events.Credentials("PLAIN", "user", "secret")) == "Credentials('PLAIN', 'user')"


# --- what the caller may ask --------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "between", "reading"),
    [
        (b"", True, False),
        (HELLO, True, False),
        (HELLO + b"MAIL FROM:<>\r\n", False, False),
        (HELLO + ENVELOPE, False, False),
        (TO_DATA, False, True),
        (TO_DATA + b"x\r\n.\r\n", True, False),
        (HELLO + ENVELOPE + b"RSET\r\n", True, False),
        (HELLO + ENVELOPE + b"BDAT 3\r\na", False, True),
        (HELLO + ENVELOPE + b"BDAT 3\r\nabc", False, False),
        (HELLO + ENVELOPE + b"BDAT 3 LAST\r\nabc", True, False),
    ],
)
def test_it_tells_where_the_client_is(sent: bytes, between: bool, reading: bool) -> None:
    session = told(greeted(), sent)

    assert (session.between_transactions, session.reading_message) == (between, reading)
    assert not session.closed


def test_an_owed_answer_is_not_between_transactions() -> None:
    session = told(greeted(), HELLO)
    session.receive(b"MAIL FROM:<>\r\n")
    session.next_event()

    assert not session.between_transactions


@pytest.mark.parametrize("sent", [b"", HELLO, TO_DATA, TO_DATA + b"half", HELLO + b"MAIL FR"])
def test_a_421_may_be_said_at_any_time_and_is_the_last_word(sent: bytes) -> None:
    session = told(greeted(), sent)

    session.shut(reply.SHUTTING_DOWN)
    session.receive(b"\r\n.\r\nNOOP\r\n")

    assert session.next_event() is None
    assert session.data_to_send() == reply.SHUTTING_DOWN.wire
    assert session.closed


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        (b"EHLO client.example\r\n", events.Hello),
        (HELLO + b"MAIL FROM:<>\r\n", events.MailFrom),
        (HELLO + ENVELOPE, events.RcptTo),
        (TO_DATA, events.DataRequested),
        (TO_DATA + b".\r\n", events.DataDone),
        (HELLO + b"STARTTLS\r\n", events.StartTls),
        (HELLO + b"AUTH PLAIN AHVzZXIAcGFzcw==\r\n", events.Credentials),
    ],
)
def test_an_answer_that_closes_is_the_last_word(sent: bytes, asked: type[events.Event]) -> None:
    last = Reply(421, "", "that is all")
    house = House(
        Rules(HOST, starttls=True, auth=True),
        lambda event, accepted: last if isinstance(event, asked) else open_gate(event, accepted),
        auth_in_clear=True,
    )

    house.hear(sent + b"NOOP\r\nNOOP\r\n")

    assert house.said[-1] == ("421 that is all",)
    assert house.session.closed


# --- any octets, in any cut ---------------------------------------------------------

RULES = st.builds(
    partial(Rules, HOST),
    max_size=st.sampled_from([10, 10_000]),
    max_errors=st.sampled_from([2, 10]),
    addresses=st.sampled_from(["strict", "loose"]),
    newlines=st.sampled_from(["refuse", "carry", "repair"]),
    starttls=st.booleans(),
    auth=st.booleans(),
    dsn=st.booleans(),
)
# Pieces that carry a client far, among some that do not.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                HELLO,
                ENVELOPE,
                TO_DATA,
                b"DATA\r\n",
                b".\r\n",
                b"\r\n.\r\n",
                b"\n.\n",
                b"..x\r\n",
                b"BDAT 4\r\n",
                b"BDAT 4 LAST\r\n",
                b"BDAT 0 LAST\r\n",
                b"abcd",
                b"a\r\nb",
                b"\r",
                b"RSET\r\n",
                b"NOOP\r\n",
                b"QUIT\r\n",
                b"STARTTLS\r\n",
                b"HELO x\r\n",
                b"\n",
                b"AUTH PLAIN\r\n",
                b"AUTH LOGIN\r\n",
                b"AHVzZXIAcGFzcw==\r\n",
                b"*\r\n",
                b"\x16",
                b"MAIL FROM:<> SIZE=11\r\n",
                b"GET / HTTP/1.1\r\n",
                b"\xc3\xbc\xff\r\n",
                b"AUTH ",
                b"A" * 3000,
                b"BDAT 99999999999\r\n",
                b"RCPT TO:<\xc3\xbc@x.test>\r\n",
            ]
        ),
        st.binary(max_size=6),
    ),
    max_size=16,
)


def heard(rules: Rules, tls: bool, *pieces: bytes) -> House:
    house = House(rules, tls=tls, auth_in_clear=True)
    house.hear(*pieces)
    return house


@settings(deadline=None)
@given(RULES, st.booleans(), PIECES, st.lists(st.integers(0, 4000), max_size=20))
def test_any_cut_gives_the_same_replies_events_and_mail(
    rules: Rules, tls: bool, pieces: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join([HELLO, *pieces])
    places = [0, *sorted(cuts), len(stream)]
    whole = heard(rules, tls, stream)

    other = heard(rules, tls, *(stream[a:b] for a, b in pairwise(places)))
    in_turn = heard(rules, tls, HELLO, *pieces)

    for house in (other, in_turn):
        assert house.said == whole.said
        assert house.events == whole.events
        assert house.taken == whole.taken
        assert house.session.closed == whole.session.closed


@settings(deadline=None)
@given(RULES, st.booleans(), PIECES)
def test_a_client_that_is_closed_hears_nothing_more(
    rules: Rules, tls: bool, pieces: list[bytes]
) -> None:
    house = heard(rules, tls, *pieces)
    last_words = [lines for lines in house.said if lines[0][:3] in ("221", "421")]

    # There is one last word, it is the last, and it is there exactly when it is over.
    assert house.session.closed == bool(last_words)
    assert last_words in ([], house.said[-1:])


@settings(deadline=None)
@given(PIECES, st.lists(st.sampled_from([250, 354, 421, 451, 452, 550, 554]), min_size=1))
def test_whatever_is_answered_the_session_holds(pieces: list[bytes], codes: list[int]) -> None:
    answers = iter(codes * 1000)
    rules = Rules(HOST, starttls=True, auth=True)
    house = House(rules, lambda *_: Reply(next(answers), "", "x"), auth_in_clear=True)

    house.hear(HELLO, *pieces, b"\r\n.\r\nQUIT\r\n")

    assert all(each.recipients for each in house.taken)


@pytest.mark.parametrize("newlines", ["refuse", "carry", "repair"])
@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("a.\r\n", max_size=30).map(str.encode))
def test_no_body_is_a_command(newlines: NewlinePolicy, body: bytes) -> None:
    # As a client sends it: dots stuffed, its last line ended.
    stuffed = b"\r\n".join(
        b"." + line if line.startswith(b".") else line for line in body.split(b"\r\n")
    )
    house = House(Rules(HOST, newlines=newlines))

    house.hear(TO_DATA + stuffed + b"\r\n.\r\nNOOP\r\n")

    assert len(house.said) == 7
    content = body + b"\r\n"
    if newlines == "repair":
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert [each.content for each in house.taken] in (
        [content],
        [] if newlines == "refuse" else [content],
    )


# --- flat memory --------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        b"",
        HELLO + b"AUTH PLAIN\r\n",
        TO_DATA,
        HELLO + ENVELOPE + b"BDAT 9999999\r\n",
        HELLO + b"BDAT 99999999999 LAST\r\n",
        HELLO + b"STARTTLS\r\n",
        HELLO + b"QUIT\r\n",
    ],
    ids=["command", "auth", "data", "bdat", "refused bdat", "handshake", "closed"],
)
def test_a_session_keeps_little_whatever_comes(before: bytes) -> None:
    session = told(greeted(Rules(HOST, max_size=1000, starttls=True, auth=True)), before)
    told(session, b"")
    block = b"A" * 65_536

    tracemalloc.start()
    try:
        for _ in range(40):
            told(session, block)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < len(block) + LONGEST_AUTH_LINE


# --- for the log --------------------------------------------------------------------


def test_what_it_refused_by_itself_is_there_to_be_told_and_what_others_refused_is_not() -> None:
    session = told(
        greeted(Rules(HOST, max_errors=3)),
        b"NONSENSE\r\n" + HELLO + b"NOOP\r\nRCPT TO:<bob@ours.test>\r\nEHLO \r\n",
    )

    assert session.refused == [
        reply.UNKNOWN_COMMAND,
        reply.BAD_SEQUENCE,
        reply.BAD_HELLO,
        reply.TOO_MANY_ERRORS,
    ]
