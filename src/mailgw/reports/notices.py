"""Disposition notifications (RFC 8098) and feedback reports (RFC 5965, RFC 6591)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from mailgw.mail.report import DispositionReport, FeedbackReport
from mailgw.reports.mime import Part
from mailgw.reports.original import original, returned
from mailgw.reports.steps import Steps
from mailgw.reports.text import LONGEST_TEXT, Fields, told, whole_number, without_type

DISPOSITION = frozenset(
    {"message/disposition-notification", "message/global-disposition-notification"}
)
FEEDBACK = frozenset({"message/feedback-report"})
_LONGEST = 256 << 10
_MOST_VALUES = 100


def read_disposition(parts: Sequence[Part]) -> Steps[DispositionReport]:
    """Read the parts of a message disposition notification."""
    fields, error = yield from _fields(parts, DISPOSITION, "disposition-notification")
    header = yield from returned(parts)
    # RFC 8098 3.2.6: mode/mode; type/modifier,modifier
    modes, _, outcome = fields.get("disposition").partition(";")
    action, _, sending = modes.partition("/")
    disposition, _, modifiers = outcome.partition("/")
    if not error and not disposition.strip():
        error = "it has no disposition"
    errors = [value for name in ("error", "failure", "warning") for value in fields.all(name)]
    return DispositionReport(
        disposition=told(disposition.strip().lower()),
        action_mode=told(action.strip().lower()),
        sending_mode=told(sending.strip().lower()),
        modifiers=[word.strip().lower() for word in modifiers.split(",")[:20] if word.strip()]
        or UNSET,
        reporting_ua=fields.text("reporting-ua"),
        final_recipient=told(without_type(fields.get("final-recipient"))),
        original_recipient=told(without_type(fields.get("original-recipient"))),
        errors=[value[:LONGEST_TEXT] for value in errors[:20] if value] or UNSET,
        original=original(header, message_id=fields.get("original-message-id")),
        error=error or UNSET,
    )


def read_feedback(parts: Sequence[Part]) -> Steps[FeedbackReport]:
    """Read the parts of a feedback report."""
    fields, error = yield from _fields(parts, FEEDBACK, "feedback-report")
    header = yield from returned(parts)
    if not error and "feedback-type" not in fields:
        error = "it has no Feedback-Type"
    values = ("original-rcpt-to", "reported-domain", "reported-uri", "authentication-results")
    return FeedbackReport(
        feedback_type=told(fields.get("feedback-type").lower()),
        user_agent=fields.text("user-agent"),
        version=fields.text("version"),
        # RFC 5965 3.2 lets both be written.
        arrival_date=told(fields.get("arrival-date") or fields.get("received-date")),
        # Some add its name, as a comment.
        source_ip=told(fields.get("source-ip").partition(" ")[0]),
        reporting_mta=told(without_type(fields.get("reporting-mta"))),
        original_mail_from=told(fields.get("original-mail-from").strip("<> ")),
        original_rcpt_to=[
            value.strip("<> ")[:LONGEST_TEXT]
            for value in fields.all("original-rcpt-to")[:_MOST_VALUES]
        ]
        or UNSET,
        reported_domain=fields.texts("reported-domain", _MOST_VALUES),
        reported_uri=fields.texts("reported-uri", _MOST_VALUES),
        incidents=whole_number(fields.get("incidents")),
        authentication_results=fields.texts("authentication-results", _MOST_VALUES),
        auth_failure=told(fields.get("auth-failure").lower()),
        delivery_result=told(fields.get("delivery-result").lower()),
        identity_alignment=fields.text("identity-alignment"),
        dkim_domain=fields.text("dkim-domain"),
        dkim_identity=fields.text("dkim-identity"),
        dkim_selector=fields.text("dkim-selector"),
        spf_dns=fields.text("spf-dns"),
        original=original(
            header,
            envelope=fields.get("original-mail-from"),
            envelope_id=fields.get("original-envelope-id"),
        ),
        truncated=True if any(len(fields.all(name)) > _MOST_VALUES for name in values) else UNSET,
        error=error or UNSET,
    )


def _fields(parts: Sequence[Part], kinds: frozenset[str], name: str) -> Steps[tuple[Fields, str]]:
    for part in parts:
        if part.kind in kinds:
            text = yield from part.text(_LONGEST)
            fields = Fields(text.lstrip("\n").split("\n\n", 1)[0])
            return fields, "" if fields else f"its {name} part is empty"
    return Fields(""), f"there is no {name} part"
