"""Delivery status notifications (RFC 3464, and RFC 6533 for addresses in UTF-8).

One that lacks its machine-readable part is read for what its prose says, as a bounce is, and
says so in `error`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import UNSET, UnsetType

from mailgw.mail.report import DeliveryReport, ReportedRecipient
from mailgw.reports.mime import Part
from mailgw.reports.original import original, returned
from mailgw.reports.prose import Prose, prose
from mailgw.reports.steps import Steps
from mailgw.reports.text import Fields, told, without_type

STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
MOST_RECIPIENTS = 500
_MOST_GROUPS = 20_000
_LONGEST_GROUP = 8 << 10
_LONGEST_STATUS = 1 << 20

_OF_RECIPIENT = ("final-recipient", "original-recipient", "action", "status")
_ACTION = re.compile(r"[a-z]+")
_STATUS = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?!\.?\d)")
_REPLY = re.compile(r"(?<![\w.:/@-])([245][0-5]\d)(?=[ -]|$)")
_X_HEX = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
# Bounded, so that a million empty lines are many matches and not one long one.
_EMPTY_LINES = re.compile(r"\n(?:[ \t]{0,100}\n){1,500}")
_BEGIN = re.compile(r"^(?:Reporting-MTA|Final-Recipient)[ \t]*:", re.IGNORECASE | re.MULTILINE)


class _Read:
    """What the groups of fields brought so far."""

    def __init__(self) -> None:
        self.recipients: list[ReportedRecipient] = []
        self.total = 0
        self.message: list[Fields] = []

    def take(self, group: str) -> None:
        fields = Fields(group, most=50)
        if any(name in fields for name in _OF_RECIPIENT):
            self.total += 1
            if len(self.recipients) < MOST_RECIPIENTS:
                self.recipients.append(_recipient(fields))
        # Some leave out the empty line between the fields of the message and the first
        # recipient's.
        if fields and len(self.message) < 4:
            self.message.append(fields)

    def get(self, name: str) -> str:
        return next((fields.get(name) for fields in self.message if name in fields), "")


def read(parts: Sequence[Part]) -> Steps[DeliveryReport]:
    """Read the parts of a delivery status notification."""
    status, error = yield from _status(parts)
    cut = len(status) >= _LONGEST_STATUS
    found = _Read()
    for number, group in enumerate(_groups(status)):
        if number == _MOST_GROUPS:
            cut = True
            break
        found.take(group[:_LONGEST_GROUP])
        if number % 20 == 0:
            yield
    header = yield from returned(parts)
    recipients, total = found.recipients, found.total
    if not recipients:
        error = error or "its delivery-status part names no recipient"
        guessed: Prose = yield from prose(parts)
        recipients, total = guessed.recipients[:MOST_RECIPIENTS], len(guessed.recipients)
        header = header or guessed.returned
    return DeliveryReport(
        reporting_mta=told(without_type(found.get("reporting-mta"))),
        arrival_date=told(found.get("arrival-date")),
        recipients=recipients,
        total_recipients=total,
        truncated=True if cut or total > len(recipients) else UNSET,
        original=original(header, envelope_id=found.get("original-envelope-id")),
        error=error or UNSET,
    )


def _status(parts: Sequence[Part]) -> Steps[tuple[str, str]]:
    """The text of the status part, and what is wrong."""
    for part in parts:
        if part.kind in STATUS:
            text = yield from part.text(_LONGEST_STATUS)
            return text, ""
    # The oldest ones and the most damaged have it in the middle of their text.
    for part in parts:
        if part.kind.startswith(("text/", "multipart/")):
            text = yield from part.text(64 << 10)
            if begin := _BEGIN.search(text):
                return text[begin.start() :], "the delivery-status is not a part of its own"
    return "", "there is no delivery-status part"


def _groups(status: str) -> Iterator[str]:
    """The groups of fields, which empty lines separate (RFC 3464 2.1)."""
    start = 0
    for empty in _EMPTY_LINES.finditer(status):
        yield status[start : empty.start()]
        start = empty.end()
    yield status[start:]


def _recipient(fields: Fields) -> ReportedRecipient:
    diagnostic = fields.get("diagnostic-code")
    kind, semicolon, rest = diagnostic.partition(";")
    if semicolon and kind.strip().isalnum():
        diagnostic = rest.strip()
    action = _ACTION.match(fields.get("action").lower())
    reply = _REPLY.search(diagnostic)
    return ReportedRecipient(
        final_recipient=_address(fields.get("final-recipient")),
        original_recipient=_address(fields.get("original-recipient")),
        action=action[0] if action else UNSET,
        status=_code(fields.get("status"), diagnostic),
        reply=reply[1] if reply else UNSET,
        remote_mta=told(without_type(fields.get("remote-mta"))),
        diagnostic=told(diagnostic),
        last_attempt=fields.text("last-attempt-date"),
        will_retry_until=fields.text("will-retry-until"),
    )


def _code(field: str, diagnostic: str) -> str | UnsetType:
    """The Status field's code; the remote server's where the field has none but "x.0.0"."""
    reported, said = _STATUS.search(field), _STATUS.search(diagnostic)
    if reported is None:
        return said[0] if said else UNSET
    vague = reported[0].endswith(".0.0") and said is not None and said[0][0] == reported[0][0]
    return said[0] if vague and said else reported[0]


def _address(value: str) -> str | UnsetType:
    """An address of RFC 3464 2.3.1 without its type; RFC 6533 3 for what is escaped in it."""
    address = without_type(value).strip("<> ")
    if "\\x{" in address:
        address = _X_HEX.sub(_character, address)
    return told(address)


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    # A surrogate is no character, and no JSON.
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        return found[0]
    return chr(number)
