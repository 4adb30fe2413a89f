"""A line becomes a command, or the reply that says what is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgw.smtp import command, events, reply
from mailgw.smtp.address import Address
from mailgw.smtp.command import Auth, Bdat, Command, Grammar, Quit, Said, parse
from mailgw.smtp.reply import Reply

PLAIN, FULL = Grammar(), Grammar(dsn=True, auth=True)
A, B = Address("a", "x.test"), Address("b", "y.test")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"EHLO mx.example.org", events.Hello("mx.example.org", True)),
        (b"helo [192.0.2.1]", events.Hello("[192.0.2.1]", False)),
        (b"EHLO " + b"a" * 255, events.Hello("a" * 255, True)),
        (b"STARTTLS", events.StartTls()),
        (b"AUTH PLAIN", Auth("PLAIN", None)),
        (b"auth login dXNlcg==", Auth("LOGIN", "dXNlcg==")),
        (b"AUTH PLAIN =", Auth("PLAIN", "=")),
        (b"MAIL FROM:<>", events.MailFrom(None)),
        (b"MAIL FROM:<a@x.test>", events.MailFrom(A)),
        (b"mail from: <a@x.test>  ", events.MailFrom(A)),
        (b"MAIL FROM:<a@x.test> SIZE=12", events.MailFrom(A, size=12)),
        (b"MAIL FROM:<> SIZE=99999999999999999999", events.MailFrom(None, size=10**20 - 1)),
        (b"MAIL FROM:<a@x.test> BODY=8BITMIME", events.MailFrom(A, eight_bit=True)),
        (b"MAIL FROM:<a@x.test> body=7bit", events.MailFrom(A)),
        (b"MAIL FROM:<a@x.test> SMTPUTF8", events.MailFrom(A, smtputf8=True)),
        (
            "MAIL FROM:<ü@x.test> SMTPUTF8".encode(),
            events.MailFrom(Address("ü", "x.test"), smtputf8=True),
        ),
        (b"MAIL FROM:<a@x.test> RET=full", events.MailFrom(A, ret="FULL")),
        (b"MAIL FROM:<a@x.test> ENVID=aB+2B", events.MailFrom(A, envid="aB+2B")),
        (b"MAIL FROM:<a@x.test> AUTH=<>", events.MailFrom(A)),
        (b"MAIL FROM:<a@x.test> AUTH=b+40c", events.MailFrom(A)),
        (b"RCPT TO:<b@y.test>", events.RcptTo(B)),
        (b"RCPT TO:<Postmaster>", events.RcptTo(Address("Postmaster", ""))),
        (b"RCPT TO:<b@y.test> NOTIFY=never", events.RcptTo(B, notify="NEVER")),
        (b"RCPT TO:<b@y.test> NOTIFY=delay,failure", events.RcptTo(B, notify="DELAY,FAILURE")),
        (b"RCPT TO:<b@y.test> ORCPT=rfc822;b@y", events.RcptTo(B, orcpt="rfc822;b@y")),
        (
            "RCPT TO:<b@y.test> ORCPT=utf-8;ü@y".encode(),
            events.RcptTo(B, orcpt="utf-8;ü@y"),
        ),
        (b"DATA", events.DataRequested()),
        (b"DATA ", events.DataRequested()),
        (b"BDAT 0", Bdat(0, False)),
        (b"bdat 12 last", Bdat(12, True)),
        (b"BDAT 5  LAST", Bdat(5, True)),
        (b"RSET", events.Reset()),
        (b"NOOP", Said(reply.OK, "NOOP")),
        (b"NOOP anything, \xc3\xbc", Said(reply.OK, "NOOP", "anything, ü")),
        (b"VRFY someone", Said(reply.CANNOT_VERIFY, "VRFY", "someone")),
        (b"HELP", Said(reply.HELP, "HELP")),
        (b"QUIT", Quit()),
    ],
)
def test_a_line_is_a_command(line: bytes, wanted: Command) -> None:
    found = parse(line, FULL)

    assert (type(found), found) == (type(wanted), wanted)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", reply.UNKNOWN_COMMAND),
        (b" EHLO x", reply.UNKNOWN_COMMAND),
        (b"EHLO\tx", reply.UNKNOWN_COMMAND),
        (b"MAILFROM:<a@x.test>", reply.UNKNOWN_COMMAND),
        (b"XCLIENT ADDR=192.0.2.1", reply.UNKNOWN_COMMAND),
        ("R\u017fET".encode(), reply.UNKNOWN_COMMAND),
        ("DAtA\u200b".encode(), reply.UNKNOWN_COMMAND),
        (b"\xff", reply.BAD_ARGUMENT),
        (b"NOOP \x00", reply.BAD_ARGUMENT),
        (b"NOOP \rNOOP", reply.BAD_ARGUMENT),
        (b"EHLO", reply.BAD_HELLO),
        (b"EHLO a b", reply.BAD_HELLO),
        (b"EHLO " + b"a" * 256, reply.BAD_HELLO),
        (b"HELO <x>", reply.BAD_HELLO),
        (b"STARTTLS x", reply.NO_ARGUMENT),
        (b"DATA x", reply.NO_ARGUMENT),
        (b"RSET x", reply.NO_ARGUMENT),
        (b"QUIT x", reply.NO_ARGUMENT),
        (b"AUTH", reply.BAD_ARGUMENT),
        (b"AUTH PLAIN a b", reply.BAD_ARGUMENT),
        ("AUTH PLA\u0131N".encode(), reply.BAD_ARGUMENT),
        (b"MAIL", reply.BAD_ARGUMENT),
        (b"MAIL <a@x.test>", reply.BAD_ARGUMENT),
        (b"MAIL TO:<a@x.test>", reply.BAD_ARGUMENT),
        (b"MAIL FROM:", reply.BAD_SENDER),
        (b"MAIL FROM:a@x.test", reply.BAD_SENDER),
        (b"MAIL FROM:<postmaster>", reply.BAD_SENDER),
        (b"MAIL FROM:<a@x.test>x", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test>SIZE=1", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> SIZE=1,2", reply.BAD_PARAMETER),
        ("MAIL FROM:<a@x.test> SIZE=\u0661".encode(), reply.BAD_PARAMETER),
        ("MAIL FROM:<a@x.test> BODY=8B\u0131TM\u0131ME".encode(), reply.BAD_PARAMETER),
        ("MAIL FROM:<a@x.test> RET=HDR\u017f".encode(), reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> SMTPUTF8 smtputf8", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> -X=1", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> X=1=2", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> AUTH", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> AUTH=a+0A", reply.BAD_PARAMETER),
        (b"MAIL FROM:<a@x.test> X-MT=1", reply.UNKNOWN_PARAMETER),
        (b"MAIL FROM:<a@x.test> NOTIFY=NEVER", reply.UNKNOWN_PARAMETER),
        (b"MAIL FROM:<a@x.test> REQUIRETLS", reply.UNKNOWN_PARAMETER),
        ("MAIL FROM:<ü@x.test>".encode(), reply.NEEDS_SMTPUTF8_SENDER),
        (b"RCPT", reply.BAD_ARGUMENT),
        (b"RCPT FROM:<b@y.test>", reply.BAD_ARGUMENT),
        (b"RCPT TO:<>", reply.BAD_RECIPIENT),
        (b"RCPT TO:<b>", reply.BAD_RECIPIENT),
        (b"RCPT TO:<b@y.test> SIZE=1", reply.UNKNOWN_PARAMETER),
        (b"RCPT TO:<b@y.test> NOTIFY", reply.BAD_PARAMETER),
        (b"RCPT TO:<b@y.test> NOTIFY=NEVER,DELAY", reply.BAD_PARAMETER),
        ("RCPT TO:<b@y.test> NOTIFY=\u017fUCCESS".encode(), reply.BAD_PARAMETER),
        (b"RCPT TO:<b@y.test> ORCPT=b@y.test", reply.BAD_PARAMETER),
        (b"RCPT TO:<b@y.test> ORCPT=rfc822;a+0Ab", reply.BAD_PARAMETER),
        ("RCPT TO:<b@y.test> ORCPT=rfc822;ü@y".encode(), reply.BAD_PARAMETER),
        (b"BDAT", reply.BAD_ARGUMENT),
        (b"BDAT -1", reply.BAD_ARGUMENT),
        (b"BDAT 1 LAST LAST", reply.BAD_ARGUMENT),
        ("BDAT \u0661".encode(), reply.BAD_ARGUMENT),
        (b"VRFY", reply.BAD_ARGUMENT),
        (b"EXPN list", reply.NOT_IMPLEMENTED),
        (b"GET / HTTP/1.1", reply.NOT_SMTP),
        (b"post / HTTP/1.1", reply.NOT_SMTP),
        (b"Host: mx", reply.NOT_SMTP),
        (b"PRI * HTTP/2.0", reply.NOT_SMTP),
        (b"OPTIONS rtsp://mx RTSP/1.0", reply.NOT_SMTP),
        (b"INVITE sip:x SIP/2.0", reply.NOT_SMTP),
        (b"SSH-2.0-x", reply.NOT_SMTP),
    ],
)
def test_a_line_that_is_none_is_told_why(line: bytes, said: Reply) -> None:
    assert parse(line, FULL) == said


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a@x.test> RET=FULL",
        b"MAIL FROM:<a@x.test> ENVID=x",
        b"MAIL FROM:<a@x.test> AUTH=<>",
        b"RCPT TO:<b@y.test> NOTIFY=NEVER",
        b"RCPT TO:<b@y.test> ORCPT=rfc822;b@y.test",
    ],
)
def test_parameters_of_extensions_that_are_not_offered_are_not_recognised(line: bytes) -> None:
    assert parse(line, PLAIN) == reply.UNKNOWN_PARAMETER


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"MAIL FROM:a@x.test SIZE=1", events.MailFrom(A, size=1)),
        (b"RCPT TO:b@y.test", events.RcptTo(B)),
        (b"RCPT TO:<b..b@y.test>", events.RcptTo(Address("b..b", "y.test"))),
    ],
)
def test_loose_addresses_are_taken_where_the_grammar_is_loose(line: bytes, wanted: Command) -> None:
    assert parse(line, Grammar(strict=False)) == wanted
    assert parse(line, PLAIN) in (reply.BAD_SENDER, reply.BAD_RECIPIENT)


LINES = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            [
                b"EHLO",
                b"MAIL FROM:",
                b"RCPT TO:",
                b"BDAT",
                b"AUTH",
                b"VRFY",
                b"QUIT",
                b" ",
                b"\t",
                b"<a@x.test>",
                b"<",
                b">",
                b'"',
                b"\\",
                b"@",
                b"SIZE",
                b"=",
                b"1",
                b"BODY",
                b"RET",
                b"ENVID",
                b"NOTIFY",
                b"ORCPT",
                b"rfc822;",
                b"SMTPUTF8",
                b"+0D",
                b"\xc3\xbc",
                b"LAST",
                b"\x00",
                b"\r",
                b"\xff",
                b"\xc5\xbf",
                b"{0.__class__}",
                b"%n",
                b"xn--",
            ]
        ),
        max_size=12,
    ).map(b"".join),
)
GRAMMARS = st.builds(Grammar, strict=st.booleans(), dsn=st.booleans(), auth=st.booleans())


@settings(deadline=None)
@given(LINES, GRAMMARS)
def test_no_line_makes_parsing_raise(line: bytes, grammar: Grammar) -> None:
    found = parse(line, grammar)

    match found:
        case Reply():
            assert found.code >= 400
        case events.MailFrom():
            written = "" if found.reverse_path is None else found.reverse_path.written
            assert (written + found.ret + found.envid).isprintable()
            assert written.isascii() or found.smtputf8
        case events.RcptTo():
            assert (found.recipient.written + found.notify + found.orcpt).isprintable()
        case events.Hello():
            assert found.name.isascii()
            assert found.name.isprintable()
            assert " " not in found.name
        case _:
            assert isinstance(found, command.Command)
