"""What the server says: replies as values, each with a name and one home.

A reply is built once and carries its own bytes; saying it is a copy. The class of
the enhanced code (RFC 3463) follows from the reply code, so the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# RFC 5321 4.5.3.1.5: a reply line holds 512 octets with the code and the CRLF.
_LONGEST_TEXT: Final = 480


@dataclass(init=False, unsafe_hash=True)
class Reply:
    """One reply: `code`, `detail` (subject and detail of the enhanced code, "" for none), `text`.

    `rule` is for the log alone: the key that decided so, "" where none did.
    `text` may hold several lines, split at "\\n". `wire` is the reply as sent. Control
    characters become "?", so that nothing a stranger or a plug-in brought can add a line.
    `positive`: the client may go on (2xx, 3xx). `closes`: the connection ends with it
    (RFC 5321 4.2.3: 221 and 421). Two are equal that say the same, whatever decided so.

    It sets its own fields, as every message has one made for it; see smtp.events. Those that are
    named below are what is compared.
    """

    code: Final[int]
    detail: Final[str]
    text: Final[str]

    def __init__(self, code: int, detail: str, text: str, rule: str = "") -> None:
        self.code = code
        self.detail = detail
        self.text = text
        self.rule: Final = rule
        self.wire: Final = _wire(code, f"{code // 100}.{detail} " if detail else "", text)
        self.positive: Final = code < 400
        self.closes: Final = code in (221, 421)

    def by(self, rule: str) -> Reply:
        """The same, decided by that rule."""
        return Reply(self.code, self.detail, self.text, rule)


class Refusal(Exception):
    """A reply that ends the work at hand, raised where returning it would be in the way."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


def _wire(code: int, enhanced: str, text: str) -> bytes:
    """The lines as RFC 5321 4.2.1 wants them."""
    *others, last = text.split("\n")
    said = "".join([f"{code}-{enhanced}{_clean(line)}\r\n" for line in others])
    return f"{said}{code} {enhanced}{_clean(last)}\r\n".encode("utf-8", "replace")


def _clean(line: str) -> str:
    if not line.isprintable():
        line = "".join(c if c.isprintable() else "?" for c in line)
    if len(line) * 4 > _LONGEST_TEXT:
        line = line.encode("utf-8")[:_LONGEST_TEXT].decode("utf-8", "ignore")
    return line


# --- it went well -----------------------------------------------------------------

OK: Final = Reply(250, "0.0", "Ok")
BYE: Final = Reply(221, "0.0", "Bye")
READY_FOR_TLS: Final = Reply(220, "0.0", "Ready to start TLS")
AUTHENTICATED: Final = Reply(235, "7.0", "Authentication successful")
SENDER_OK: Final = Reply(250, "1.0", "Sender ok")
RECIPIENT_OK: Final = Reply(250, "1.5", "Recipient ok")
START_DATA: Final = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
# RFC 5321 3.5.3: an address that we neither verify nor deny.
CANNOT_VERIFY: Final = Reply(252, "5.2", "Cannot verify, but will take mail and try")
HELP: Final = Reply(
    214,
    "0.0",
    "Commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\nSee RFC 5321",
)

# --- the client's grammar (answered by the session, no opinion needed) ------------

UNKNOWN_COMMAND: Final = Reply(500, "5.2", "Command not recognized")
LINE_TOO_LONG: Final = Reply(500, "5.2", "Line too long")
BARE_LF_COMMAND: Final = Reply(500, "5.2", "Lines end with CRLF, not with LF alone")
NOT_IMPLEMENTED: Final = Reply(502, "5.1", "Command not implemented")
BAD_SEQUENCE: Final = Reply(503, "5.1", "Bad sequence of commands")
NO_RECIPIENTS: Final = Reply(503, "5.1", "No valid recipients")
HELLO_FIRST: Final = Reply(503, "5.1", "Say EHLO first")
BAD_HELLO: Final = Reply(501, "5.4", "EHLO and HELO take a host name or an address literal")
NO_ARGUMENT: Final = Reply(501, "5.4", "This command takes no argument")
BAD_ARGUMENT: Final = Reply(501, "5.4", "Syntax error in the argument")
BAD_PARAMETER: Final = Reply(501, "5.4", "Syntax error in a parameter")
# RFC 5321 4.1.1.11 and RFC 1869 6: parameters that we did not offer.
UNKNOWN_PARAMETER: Final = Reply(555, "5.4", "Parameter not recognized or not offered")
BAD_SENDER: Final = Reply(501, "1.7", "Bad sender address syntax")
BAD_RECIPIENT: Final = Reply(501, "1.3", "Bad recipient address syntax")
# RFC 6531 3.5: such an address needs the SMTPUTF8 parameter.
NEEDS_SMTPUTF8_SENDER: Final = Reply(553, "6.7", "Non-ASCII sender address needs SMTPUTF8")
NEEDS_SMTPUTF8_RECIPIENT: Final = Reply(553, "6.7", "Non-ASCII recipient address needs SMTPUTF8")
TOO_MANY_ERRORS: Final = Reply(
    421, "7.0", "Too many errors, closing the connection", rule="smtp-max-errors"
)
# Cross-protocol requests (ALPACA): no line after the first is run.
NOT_SMTP: Final = Reply(421, "7.0", "This is an SMTP server")
BARE_NEWLINE: Final = Reply(
    550, "6.0", "Message holds a bare CR or LF, lines end with CRLF", rule="smtp-bare-newlines"
)
TOO_BIG: Final = Reply(552, "3.4", "Message exceeds the size limit", rule="smtp-maxsize")
HEADER_TOO_BIG: Final = Reply(552, "3.4", "Message header exceeds the size limit")

# --- TLS and AUTH -----------------------------------------------------------------

TLS_ACTIVE: Final = Reply(503, "5.1", "TLS is already active")
TLS_NOT_OFFERED: Final = Reply(502, "5.1", "STARTTLS is not offered here")
# RFC 4954 6: what was wrong with an AUTH command.
AUTH_DONE: Final = Reply(503, "5.1", "Already authenticated")
AUTH_NOT_OFFERED: Final = Reply(502, "5.1", "AUTH is not offered here")
AUTH_NEEDS_TLS: Final = Reply(538, "7.11", "Encryption required, start TLS first")
AUTH_UNKNOWN_MECHANISM: Final = Reply(504, "5.4", "Authentication mechanism not supported")
AUTH_BAD_BASE64: Final = Reply(501, "5.2", "Cannot decode base64")
AUTH_TOO_LONG: Final = Reply(500, "5.6", "Authentication exchange line is too long")
AUTH_CANCELLED: Final = Reply(501, "7.0", "Authentication cancelled")
# One text for unknown user and wrong password: a stranger must not learn which.
AUTH_FAILED: Final = Reply(535, "7.8", "Authentication credentials invalid", rule="smtp-auth")
AUTH_REQUIRED: Final = Reply(530, "7.0", "Authentication required", rule="smtp-auth")
# RFC 4954 6: who knows the logins cannot be asked, so this is no 535.
AUTH_UNAVAILABLE: Final = Reply(454, "7.0", "Temporary authentication failure", rule="smtp-auth")
TOO_MANY_GUESSES: Final = Reply(
    421, "7.0", "Too many failed logins, try again later", rule="smtp-auth-attempts"
)

# --- a rule says no ---------------------------------------------------------------

REFUSED: Final = Reply(550, "7.1", "Refused by policy")
RELAY_DENIED: Final = Reply(550, "7.1", "Relaying denied", rule="smtp-recipients")
NO_SUCH_RECIPIENT: Final = Reply(550, "1.1", "No such recipient here", rule="smtp-recipients")
# RFC 5321 4.5.3.1.10: 452, although 552 was once common; the accepted ones stand.
TOO_MANY_RECIPIENTS: Final = Reply(
    452, "5.3", "Too many recipients, send the rest separately", rule="smtp-max-recipients"
)
# RFC 5321 3.1: 554 instead of the banner is for whom no service is.
NOT_IN_RANGE: Final = Reply(554, "7.1", "Access denied", rule="smtp-range")
TOO_MANY_CONNECTIONS: Final = Reply(
    421, "7.0", "Too many connections from your address", rule="smtp-connections-per-ip"
)
TOO_OFTEN: Final = Reply(
    421, "7.0", "Too many connections in a minute, wait a while", rule="smtp-rate"
)
TOO_MANY_MESSAGES: Final = Reply(
    450, "7.1", "Too many messages in a minute, wait a while", rule="smtp-rate"
)
# RFC 5321 4.3.1: the client waits for the greeting.
TALKED_EARLY: Final = Reply(554, "5.1", "You spoke before the greeting", rule="smtp-greeting-delay")
# RFC 5321 6.3: more trace fields than any path has.
MAIL_LOOP: Final = Reply(554, "4.6", "Too many hops, this looks like a mail loop")

# --- what the checks found ---------------------------------------------------------

# RFC 7372 3.2: 5.7.23 for SPF fail, X.7.24 where SPF could not be evaluated.
SPF_FAILED: Final = Reply(550, "7.23", "SPF validation failed", rule="smtp-reject")
SPF_UNKNOWN: Final = Reply(
    451, "7.24", "SPF cannot be evaluated now, try again later", rule="smtp-defer"
)
# RFC 7489 10.3 and RFC 9989 name 5.7.1 for it.
DMARC_FAILED: Final = Reply(
    550, "7.1", "Refused, as the DMARC policy of the author's domain asks", rule="smtp-reject"
)
IS_SPAM: Final = Reply(550, "7.1", "Refused as spam", rule="smtp-reject")
# RFC 3463 3.5: X.4.3, a directory server could not be asked.
DNS_UNKNOWN: Final = Reply(
    451,
    "4.3",
    "DNS does not answer what is needed to check this, try again later",
    rule="smtp-defer",
)
UNCHECKED: Final = Reply(
    451, "3.0", "This message cannot be checked now, try again later", rule="smtp-defer"
)

# --- we are in trouble ------------------------------------------------------------

TIMEOUT: Final = Reply(
    421, "4.2", "Timeout waiting for the client, closing the connection", rule="smtp-timeout"
)
SHUTTING_DOWN: Final = Reply(421, "3.2", "Service is shutting down, try again later")
TRY_AGAIN: Final = Reply(451, "3.0", "Temporary failure, try again later")
STORAGE_FULL: Final = Reply(452, "3.1", "Temporarily no room for this message, try again later")
MISCONFIGURED: Final = Reply(451, "3.5", "Temporary failure, try again later")


@lru_cache(maxsize=16)
def banner(hostname: str) -> Reply:
    """The greeting (RFC 5321 4.2: the domain comes first)."""
    return Reply(220, "", f"{hostname} ESMTP mailgw")


def listed(zone: str) -> Reply:
    """The client is on the DNS list `zone`, where it may find out why."""
    return Reply(554, "7.1", f"Your address is listed in {zone}", rule="smtp-dnsbl")


def queued(identifiers: str) -> Reply:
    """The 250 after the final dot; `identifiers` holds one "id for recipient" a line."""
    return Reply(
        250,
        "0.0",
        "Ok, your message has been queued using the following identifiers:\n" + identifiers,
    )


def local_error(reference: str) -> Reply:
    """Our own bug: says so, and gives what finds the traceback in the log."""
    return Reply(451, "3.0", f"Local error, reference {reference}")
