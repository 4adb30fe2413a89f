"""The message that a report is about, out of the header that came back with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from mailgw.mail.report import Original
from mailgw.reports.mime import Part
from mailgw.reports.steps import Steps
from mailgw.reports.text import LONGEST_TEXT, Fields, told

# RFC 3462 and RFC 6533, and two that are often written instead.
_RETURNED = frozenset(
    {
        "message/rfc822",
        "text/rfc822-headers",
        "message/global",
        "message/global-headers",
        "text/rfc822-header",
        "message/rfc822-headers",
    }
)
_LONGEST_HEADER = 64 << 10
_MOST_X_MQ = 100
_X_MQ = "x-mq-"

# VERP: "list+joe=example.org@...", or with a dash as qmail writes it. Of several signs the
# first plus or the last dash counts: a recipient may have a plus of its own.
_VERP = re.compile(r"[^@+]*\+([^@=]+)=([^@=]+\.[^@=]+)@|[^@=]*-([^@=-]+)=([^@=]+\.[^@=]+)@")
# The same form means something else in SRS and in BATV.
_NOT_VERP = re.compile(r"(?:srs[01]|prvs|msprvs1|btv1)[=+-]", re.IGNORECASE)


def returned(parts: Sequence[Part]) -> Steps[str]:
    """The header of the first message among the parts, "" where there is none."""
    for part in parts:
        if part.kind in _RETURNED:
            text = yield from part.text(_LONGEST_HEADER)
            return text.lstrip("\n").split("\n\n", 1)[0]
    return ""


def original(
    header: str, *, envelope: str = "", envelope_id: str = "", message_id: str = ""
) -> Original | UnsetType:
    """What the returned header, and the report besides it, tell of the message."""
    fields = Fields(header)
    envelope = _path(fields.get("return-path")) or _path(envelope)
    custom = {
        name.removeprefix(_X_MQ): fields.get(name)[:LONGEST_TEXT]
        for name in fields.names()
        if name.startswith(_X_MQ)
    }
    found = Original(
        message_id=told(fields.get("message-id") or message_id),
        subject=fields.text("subject"),
        from_=fields.text("from"),
        to=fields.text("to"),
        envelope=told(envelope),
        envelope_id=told(envelope_id),
        verp=told(_verp(envelope)),
        x_mq=dict(list(custom.items())[:_MOST_X_MQ]) or UNSET,
    )
    return found if found != Original() else UNSET


def _path(value: str) -> str:
    return value.strip().removeprefix("<").removesuffix(">").strip()


def _verp(address: str) -> str:
    if _NOT_VERP.match(address):
        return ""
    found = _VERP.match(address[:500])
    if found is None:
        return ""
    return f"{found[1] or found[3]}@{found[2] or found[4]}"
