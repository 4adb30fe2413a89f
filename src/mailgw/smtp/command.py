"""A command line becomes a command, or the reply that says what is wrong with it.

Only grammar is judged here (RFC 5321 4.1.1 and the extensions' parameters); order is
the session's, opinion the gate's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailgw.smtp import events, reply
from mailgw.smtp.address import (
    LONGEST_LOCAL_PART,
    LONGEST_PATH,
    USUAL_PATH,
    Address,
    BadAddress,
    parse_path,
)
from mailgw.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Grammar:
    """Which forms and parameters are open to the client."""

    strict: bool = True
    dsn: bool = False
    auth: bool = False


@dataclass(frozen=True, slots=True)
class Auth:
    """`initial` is the base64 of the initial response, None where there is none."""

    mechanism: str
    initial: str | None


@dataclass(frozen=True, slots=True)
class Bdat:
    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A command whose whole effect is its reply: NOOP, VRFY, HELP."""

    reply: Reply
    verb: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Quit:
    pass


# A command that somebody else has to decide about is the event that asks.
Command = (
    events.MailFrom
    | events.RcptTo
    | events.DataRequested
    | events.Hello
    | events.StartTls
    | events.Reset
    | Auth
    | Bdat
    | Said
    | Quit
)

# RFC 5321 4.1.2: a domain or an address literal; "_" because so many hosts have it.
_HELLO_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:]{1,64}\]")
# RFC 5321 4.1.2: esmtp-keyword, and a value without "=", blanks and controls.
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^= ]+))?")
_SIZE: Final = re.compile(r"[0-9]{1,20}")
# What nearly every client writes, to be read in one go.
_USUAL: Final = re.compile(
    rf"(MAIL FROM|RCPT TO):{USUAL_PATH}"
    r"(?: SIZE=([0-9]{1,20}))?(?: BODY=(?:7BIT|(8BITMIME)))?"
)
# RFC 3461 4: xtext of printable characters; an encoded control character could end a
# line in a log or a header further on.
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))*")
_UTF8_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~\u0080-\U0010ffff]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))*")
_ADDRESS_TYPE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_NOTIFY_WORDS: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_LONGEST_ENVID: Final = 100  # RFC 3461 4.4
_LONGEST_ORCPT: Final = 500  # RFC 3461 4.2
_BDAT: Final = re.compile(r"([0-9]{1,20})( +[Ll][Aa][Ss][Tt])?")

# What browsers and other protocols send first. None of them is SMTP, and the lines that
# follow may have been chosen by somebody else (cross-protocol attacks).
_FOREIGN: Final = frozenset(
    {"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI"}
    | {"HOST:", "USER-AGENT:", "DESCRIBE", "SETUP", "REGISTER", "INVITE"}
)


def parse(line: bytes, grammar: Grammar) -> Command | Reply:
    """Read one line (without its CRLF)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return reply.BAD_ARGUMENT
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        verb, local, domain, size, eight_bit = usual.groups()
        if len(local) <= LONGEST_LOCAL_PART and len(local) + len(domain) <= LONGEST_PATH - 3:
            if verb == "MAIL FROM":
                return events.MailFrom(
                    Address(local, domain), int(size or 0), eight_bit is not None
                )
            if text.endswith(">"):
                return events.RcptTo(Address(local, domain))
    verb, _, argument = text.partition(" ")
    parser = _PARSERS.get(verb.upper())
    # upper() makes S and I of a long s and a dotless i: "R\u017fET" is no RSET.
    if parser is None or not verb.isascii():
        foreign = verb.upper() in _FOREIGN or verb.startswith("SSH-")
        return reply.NOT_SMTP if foreign else reply.UNKNOWN_COMMAND
    if not argument.isprintable():
        return reply.BAD_ARGUMENT
    # RFC 5321 4.1.1: trailing white space before the CRLF is to be tolerated.
    return parser(argument.rstrip(" "), grammar)


def _ehlo(argument: str, _: Grammar) -> Command | Reply:
    return events.Hello(argument, True) if _HELLO_NAME.fullmatch(argument) else reply.BAD_HELLO


def _helo(argument: str, _: Grammar) -> Command | Reply:
    return events.Hello(argument, False) if _HELLO_NAME.fullmatch(argument) else reply.BAD_HELLO


def _auth(argument: str, _: Grammar) -> Command | Reply:
    mechanism, _space, initial = argument.partition(" ")
    if not mechanism or not mechanism.isascii() or " " in initial:
        return reply.BAD_ARGUMENT
    return Auth(mechanism.upper(), initial or None)


def _mail(argument: str, grammar: Grammar) -> Command | Reply:
    if argument[:5].upper() != "FROM:":
        return reply.BAD_ARGUMENT
    try:
        # No blank may stand behind the colon (RFC 5321 3.3), but many clients put one.
        path, rest = parse_path(argument[5:].lstrip(" "), strict=grammar.strict)
    except BadAddress:
        return reply.BAD_SENDER
    if path is not None and not path.domain:
        return reply.BAD_SENDER
    if not rest and (path is None or path.ascii):
        return events.MailFrom(path)
    parameters = _parameters(rest)
    if isinstance(parameters, Reply):
        return parameters
    return _mail_with(path, parameters, grammar)


def _mail_with(
    path: Address | None, parameters: dict[str, str | None], grammar: Grammar
) -> Command | Reply:
    size, eight_bit, smtputf8, ret, envid = 0, False, False, "", ""
    for keyword, value in parameters.items():
        match keyword, value:
            case "SIZE", str() if _SIZE.fullmatch(value):
                size = int(value)
            case "BODY", str() if value.upper() in ("7BIT", "8BITMIME"):
                eight_bit = value.upper() == "8BITMIME"
            case "SMTPUTF8", None:
                smtputf8 = True
            case "RET", str() if grammar.dsn and value.upper() in ("FULL", "HDRS"):
                ret = value.upper()
            case "ENVID", str() if grammar.dsn and _is_xtext(value, _LONGEST_ENVID):
                envid = value
            case "AUTH", str() if grammar.auth and (value == "<>" or _is_xtext(value, 500)):
                pass  # RFC 4954 5: taken, and not relied on
            case "SIZE" | "BODY" | "SMTPUTF8", _:
                return reply.BAD_PARAMETER
            case "RET" | "ENVID", _ if grammar.dsn:
                return reply.BAD_PARAMETER
            case "AUTH", _ if grammar.auth:
                return reply.BAD_PARAMETER
            case _:
                return reply.UNKNOWN_PARAMETER
    if path is not None and not path.ascii and not smtputf8:
        return reply.NEEDS_SMTPUTF8_SENDER
    return events.MailFrom(path, size, eight_bit, smtputf8, ret, envid)


def _rcpt(argument: str, grammar: Grammar) -> Command | Reply:
    if argument[:3].upper() != "TO:":
        return reply.BAD_ARGUMENT
    try:
        path, rest = parse_path(argument[3:].lstrip(" "), strict=grammar.strict)
    except BadAddress:
        return reply.BAD_RECIPIENT
    if path is None:
        return reply.BAD_RECIPIENT
    if not rest:
        return events.RcptTo(path)
    parameters = _parameters(rest)
    if isinstance(parameters, Reply):
        return parameters
    return _rcpt_with(path, parameters, grammar)


def _rcpt_with(
    path: Address, parameters: dict[str, str | None], grammar: Grammar
) -> Command | Reply:
    notify, orcpt = "", ""
    for keyword, value in parameters.items():
        if not grammar.dsn or keyword not in ("NOTIFY", "ORCPT"):
            return reply.UNKNOWN_PARAMETER
        if value is None:
            return reply.BAD_PARAMETER
        if keyword == "NOTIFY":
            words = value.upper().split(",")
            # RFC 3461 4.1: NEVER stands alone.
            if words != ["NEVER"] and not _NOTIFY_WORDS.issuperset(words):
                return reply.BAD_PARAMETER
            notify = ",".join(words)
        else:
            kind, _semicolon, address = value.partition(";")
            # RFC 6533 3: utf-8-addr-xtext may stand where an xtext did.
            grammar_of_address = _UTF8_XTEXT if kind.lower() == "utf-8" else _XTEXT
            if (
                not address
                or len(value) > _LONGEST_ORCPT
                or not _ADDRESS_TYPE.fullmatch(kind)
                or not grammar_of_address.fullmatch(address)
            ):
                return reply.BAD_PARAMETER
            orcpt = value
    return events.RcptTo(path, notify, orcpt)


def _parameters(rest: str) -> dict[str, str | None] | Reply:
    """The ESMTP parameters behind a path, keywords in upper case."""
    if rest and not rest.startswith(" "):
        return reply.BAD_PARAMETER
    parameters: dict[str, str | None] = {}
    for word in rest.split():
        parameter = _PARAMETER.fullmatch(word)
        # RFC 4954's AUTH=<> and xtext may hold "=" only as "+3D", so one "=" is all.
        if parameter is None:
            return reply.BAD_PARAMETER
        keyword = parameter[1].upper()
        value: str | None = parameter[2]
        # RFC 6533 3: ORCPT is the one whose value may be UTF-8.
        foreign = value is not None and not value.isascii() and keyword != "ORCPT"
        if keyword in parameters or foreign:
            return reply.BAD_PARAMETER
        parameters[keyword] = value
    return parameters


def _is_xtext(value: str, longest: int) -> bool:
    return len(value) <= longest and _XTEXT.fullmatch(value) is not None


def _bdat(argument: str, _: Grammar) -> Command | Reply:
    chunk = _BDAT.fullmatch(argument)
    if chunk is None:
        return reply.BAD_ARGUMENT
    return Bdat(int(chunk[1]), chunk[2] is not None)


def _vrfy(argument: str, _: Grammar) -> Command | Reply:
    return Said(reply.CANNOT_VERIFY, "VRFY", argument) if argument else reply.BAD_ARGUMENT


def _noop(argument: str, _: Grammar) -> Command | Reply:
    return Said(reply.OK, "NOOP", argument)


def _alone(command: Command) -> Callable[[str, Grammar], Command | Reply]:
    """The parser of a command that takes no argument."""
    return lambda argument, _: reply.NO_ARGUMENT if argument else command


def _always(answer: Command | Reply) -> Callable[[str, Grammar], Command | Reply]:
    """The parser of a command whose argument does not matter."""
    return lambda _argument, _grammar: answer


_PARSERS: Final[dict[str, Callable[[str, Grammar], Command | Reply]]] = {
    "EHLO": _ehlo,
    "HELO": _helo,
    "STARTTLS": _alone(events.StartTls()),
    "AUTH": _auth,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _alone(events.DataRequested()),
    "BDAT": _bdat,
    "RSET": _alone(events.Reset()),
    "NOOP": _noop,
    "VRFY": _vrfy,
    "EXPN": _always(reply.NOT_IMPLEMENTED),
    "HELP": _always(Said(reply.HELP, "HELP")),
    "QUIT": _alone(Quit()),
}
