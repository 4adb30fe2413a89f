"""What a bounce says in words: addresses that failed, and why.

There are as many forms as there were mail servers, so this reads what they have in common: an
explanation, in which an address is followed by its reason, and then a copy of the message.
flufl.bounce, which knows many forms by name, says which of the addresses failed where it
recognises one; it would take every message for one of them, so it is shown the explanation
only, and only of what the header suggests to be a bounce.

Laws: what is read is bounded, so that all of it takes a few milliseconds; nothing raises.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message

from flufl.bounce import all_failures
from msgspec import UNSET

from mailgw.mail.report import ReportedRecipient
from mailgw.reports.mime import Part
from mailgw.reports.steps import Steps
from mailgw.reports.text import told

# It logs each step it takes, and the message where it fails.
logging.getLogger("flufl.bounce").disabled = True

MOST_RECIPIENTS = 100
_LONGEST_TEXT = 32 << 10
_LONGEST_EXPLANATION = 6000
_LONGEST_REASON = 1000

_STATUS = re.compile(r"(?<![\d.])[245]\.[0-7]\.\d{1,3}(?!\.?\d)")
_REPLY = re.compile(r"(?<![\w.:/@+-])([45][0-5]\d)(?=[ -]|$|\.? )", re.MULTILINE)
_BETWEEN = re.compile(r"[\s<>()\[\]\"';:,|]+")
_ADDRESS = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250})")
_TAG = re.compile(r"<[^<>]*>")
# A line of a header, as a copy of the message begins with; three in a row are a header.
_HEADER = re.compile(
    r"^(?:return-path|received|from|to|cc|subject|date|message-id|mime-version|reply-to|sender"
    r"|content-type|delivered-to|dkim-signature|x-[a-z0-9-]{1,50}):[^\n]*(?:\n[ \t][^\n]*){0,50}"
    r"(?:\n[a-z][a-z0-9-]{1,50}:[^\n]*(?:\n[ \t][^\n]*){0,50}){2}",
    re.IGNORECASE | re.MULTILINE,
)
_DELAYED = re.compile(
    r"still being retried|will (?:keep|continue|be retried|retry)|not yet been delivered"
    r"|delivery .{0,30}delayed|do not need to resend|warning message only",
    re.IGNORECASE,
)
_FAILED = re.compile(
    r"(?:could ?n.?t|could not|cannot|can ?not|unable to|not able to|was not|wasn.t|were not"
    r"|not be) (?:be )?(?:able to )?(?:deliver|send|sent|reach|complete|accept)"
    r"|undeliver|not reach|did not receive|deliver[a-z]* .{0,60}fail"
    r"|fail.{0,40}(?:deliver|recipient|address)|permanent.{0,20}error|returned to sender"
    r"|user unknown|unknown user|no such user|mailbox (?:is )?full"
    r"|(?:mailbox|address|account|recipient|user) .{0,60}"
    r"(?:reject|unavailable|not exist|not found|disabled|invalid)"
    r"|not recognized|over quota|quota exceeded|error-for|does ?n.t exist|transcript of session"
    r"|delivery (?:status|delayed|to the following)|delayed|returned mail|message log follows",
    re.IGNORECASE,
)
_COPY_FOLLOWS = re.compile(
    r"(?<=\n)[ \t]{0,20}-{2,100}[^-\n]{0,60}"
    r"(?:below this line|copy of|original message|returned message)",
    re.IGNORECASE,
)
# Of the message, as some explanations quote it.
_QUOTED_FIELD = re.compile(r"[ \t>]*(?:to|from|cc|subject|sent|date|reply-to)\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prose:
    """What was found: recipients, whether it tells of a failure, and the copy's header.

    It is `convincing` where that would be a bounce whatever its subject is.
    """

    recipients: list[ReportedRecipient] = field(default_factory=list)
    speaks_of_failure: bool = False
    convincing: bool = False
    returned: str = ""


def prose(
    parts: Sequence[Part], *, not_these: frozenset[str] = frozenset(), named: Sequence[str] = ()
) -> Steps[Prose]:
    """Read the explanation among the parts.

    `named` are recipients known from elsewhere, `not_these` addresses that stand in the
    text for other reasons: the one who reports, and the one who is told.
    """
    text = yield from _explanation(parts)
    copy = _HEADER.search(text)
    yield
    explanation = (text[: copy.start()] if copy else text)[:_LONGEST_EXPLANATION]
    if line := _COPY_FOLLOWS.search(explanation):
        explanation = explanation[: line.start()]
    returned = text[copy.start() :].split("\n\n", 1)[0] if copy else ""
    reasons = _reasons(explanation)
    yield
    recognised = _recognised(explanation)
    failed = list(named) or recognised or list(reasons)
    yield
    delayed = _DELAYED.search(explanation) is not None
    recipients = [
        _recipient(address, reasons.get(address, ""), explanation, delayed=delayed)
        for address in dict.fromkeys(failed)
        if address.lower() not in not_these
    ]
    speaks = _FAILED.search(explanation) is not None
    known = bool(recognised) or any(each.status or each.reply for each in recipients)
    return Prose(
        recipients=recipients[:MOST_RECIPIENTS],
        speaks_of_failure=speaks,
        convincing=speaks and known,
        returned=returned,
    )


def _explanation(parts: Sequence[Part]) -> Steps[str]:
    # RFC 3462 3: the first part is for people. Plain text is better than HTML.
    readable = [each for each in parts if each.kind in ("text/plain", "text/html")] or [
        each for each in parts if each.kind.startswith("multipart/")
    ]
    readable.sort(key=lambda each: each.kind == "text/html")
    for part in readable[:3]:
        text = yield from part.text(_LONGEST_TEXT)
        if part.kind == "text/html":
            text = html.unescape(_TAG.sub(" ", text))
        if text.strip():
            return text
    return ""


def _reasons(explanation: str) -> dict[str, str]:
    """Each address with the text from it on to the next one, in their order."""
    found: dict[str, str] = {}
    last = ""
    for line in explanation.split("\n"):
        if "@" in line and not _QUOTED_FIELD.match(line):
            for word in _BETWEEN.split(line[:1000]):
                address = word.strip(".")
                if "@" in word and _ADDRESS.fullmatch(address) and len(found) < MOST_RECIPIENTS:
                    if address not in found:
                        found[address] = ""
                        last = address
                    break
        if last and len(found[last]) < _LONGEST_REASON:
            found[last] += f" {line.strip()}"
    return found


def _recognised(explanation: str) -> list[str]:
    """What flufl.bounce makes of it; it wants a message."""
    message = Message()
    message["Content-Type"] = "text/plain; charset=utf-8"
    message.set_payload(explanation)
    try:
        temporary, permanent = all_failures(message)
    except Exception:  # noqa: BLE001 - its detectors raise what they like on a stranger's text
        return []
    return sorted(address.decode("ascii", "replace") for address in temporary | permanent)


def _recipient(address: str, reason: str, explanation: str, *, delayed: bool) -> ReportedRecipient:
    status = _STATUS.search(reason) or _STATUS.search(explanation)
    reply = _REPLY.search(reason) or _REPLY.search(explanation)
    return ReportedRecipient(
        final_recipient=told(address),
        action="delayed" if delayed else "failed",
        status=status[0] if status else UNSET,
        reply=reply[1] if reply else UNSET,
        diagnostic=told(" ".join(reason.split())[:_LONGEST_REASON]),
    )
