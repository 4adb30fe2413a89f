"""Is this message a report, and what does it say?

The header decides whether a message is looked into at all, so that ordinary mail costs a few
microseconds, and only its own parts count, so that a report that somebody forwards is none.

Laws:

- A message that says what it is in a standard form (multipart/report with its type, a subject
  or an attachment of the form that RFC 7489 and RFC 8460 prescribe) is a report of that type,
  whoever sends it and however broken it is: `error` says what is wrong.
- A message in no such form is one only if what is in it is: an XML document that is a DMARC
  report; a text that tells of a failure, from somebody who sends bounces.
- An answering machine is no report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import UNSET

from mailgw.mail.octets import Octets
from mailgw.mail.report import AggregateReport, BounceReport, Report
from mailgw.reports import dmarc, dsn, notices, tlsrpt
from mailgw.reports.mime import Part, header, read_parts
from mailgw.reports.original import original, returned
from mailgw.reports.prose import MOST_RECIPIENTS, prose
from mailgw.reports.steps import Steps, in_turns
from mailgw.reports.text import Fields, decoded, parameters, readable

_Kind: TypeAlias = Literal["dsn", "mdn", "arf", "tls-rpt", "dmarc-aggregate", ""]

# All that is read of most messages.
_TELLING = frozenset(
    {
        "auto-submitted",
        "content-type",
        "content-disposition",
        "from",
        "return-path",
        "subject",
        "tls-report-domain",
        "to",
        "x-failed-recipients",
    }
)
_REPORT_TYPES: Mapping[str, _Kind] = {
    "delivery-status": "dsn",
    "global-delivery-status": "dsn",
    "disposition-notification": "mdn",
    "global-disposition-notification": "mdn",
    "feedback-report": "arf",
    "tlsrpt": "tls-rpt",
}
_PACKED = re.compile(
    r"(?:application/(?:x-)?(?:zip|gzip|gzip-compressed|zip-compressed|xml|octet-stream)"
    r"|text/xml|application/(?:[a-z.-]+\+)?(?:xml|gzip|zip))"
)
_TLS_PART = re.compile(r"application/tlsrpt(?:\+(?:gzip|json))?")
# RFC 7489 7.2.1.1: receiver ! policy domain ! begin ! end [! unique id] . extension
_DMARC_FILE = re.compile(
    r"[^!/\\]+![^!/\\]+!\d+!\d+(?:![^!]*)?(?:\.xml)?(?:\.gz|\.zip)?", re.IGNORECASE
)
_MOST_ATTACHMENTS = 5
_REPORT_FILE = re.compile(r".*\.(?:xml|gz|zip)", re.IGNORECASE | re.DOTALL)
_DMARC_SUBJECT = re.compile(r"(?:\[[^\]]*\]\s*)?report[ -]?domain\s*:", re.IGNORECASE)
_DMARC_WORD = re.compile(r"dmarc|report[ _-]?domain|aggregate[ _-]?report", re.IGNORECASE)

_NOBODY = re.compile(r"mailer[-_]?daemon|mail[-_]daemon|<>", re.IGNORECASE)
_DAEMON = re.compile(
    r"post_?master|mail[._ -]?deliver|mdaemon|microsoftexchange|mail administrator|mail system"
    r"|ndr administrator",
    re.IGNORECASE,
)
_NULL_PATH = re.compile(r"<>|<mailer-daemon[^>]*>|mailer-daemon\S*", re.IGNORECASE)
_BOUNCED = re.compile(
    r"undeliver|deliver[a-z]* .{0,30}(?:fail|status|notif|error|delay|problem|report)"
    r"|failure notice|failed|fail[a-z]* .{0,20}deliver|return(?:ed|ing) (?:mail|message|to sender)"
    r"|mail .{0,20}error|could ?n.t be|could not be|delayed mail|not delivered|non.?deliver"
    r"|mail (?:delivery )?(?:failure|system error)|could not send message",
    re.IGNORECASE,
)
_ANSWERED = re.compile(
    r"auto[a-z]*[ -]?(?:re(?:ply|spons)|answer)|out of (?:the )?office|vacation|\baway\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"(?:re|fwd?|aw|wg)\s*:", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s<>,;:\"]{1,64}@[^\s<>,;:\"]{1,255}")


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header suggests."""

    fields: Fields
    kind: _Kind
    perhaps_dmarc: bool
    perhaps_bounce: bool
    from_nobody: bool
    multipart_report: bool

    @property
    def worth_a_look(self) -> bool:
        return bool(self.kind) or self.multipart_report or self.perhaps_dmarc or self.perhaps_bounce


async def read(content: Octets, envelope: str | None = None) -> Report | None:
    """Recognise and read a report; None for all other mail.

    `envelope` is the sender of MAIL FROM, "" for the null sender, where it is known. Never
    raises because of what is in the message, and lets the event loop run every few
    milliseconds.
    """
    suggested = _look(content, envelope)
    if not suggested.worth_a_look:
        return None
    return await in_turns(_read(content, suggested))


def _look(content: Octets, envelope: str | None) -> _Header:
    fields = Fields(decoded(header(content)), only=_TELLING, most=50)
    kind, attributes = parameters(fields.get("content-type"))
    name = attributes.get("name", "")
    subject = readable(fields.get("subject"))
    multipart_report = kind == "multipart/report"
    told: _Kind = ""
    if multipart_report:
        told = _REPORT_TYPES.get(attributes.get("report-type", "").strip().lower(), "")
    elif kind.startswith("message/"):
        told = _REPORT_TYPES.get(kind.removeprefix("message/"), "")
    if not told and (_TLS_PART.fullmatch(kind) or "tls-report-domain" in fields):
        told = "tls-rpt"
    if not told and not multipart_report:
        name = name or parameters(fields.get("content-disposition"))[1].get("filename", "")
        if _DMARC_SUBJECT.match(subject) or _DMARC_FILE.fullmatch(name):
            told = "dmarc-aggregate"
    answered = _ANSWERED.search(subject) is not None
    nobody = not answered and _from_nobody(fields, envelope)
    attached = kind == "multipart/mixed" or _PACKED.fullmatch(kind) is not None
    return _Header(
        fields=fields,
        kind=told,
        perhaps_dmarc=attached
        and any(
            _DMARC_WORD.search(value) for value in (subject, fields.get("from"), fields.get("to"))
        ),
        perhaps_bounce="x-failed-recipients" in fields
        or nobody
        or (not answered and _is_daemon(fields)),
        from_nobody=nobody,
        multipart_report=multipart_report,
    )


def _from_nobody(fields: Fields, envelope: str | None) -> bool:
    return (
        envelope == ""
        or _NULL_PATH.fullmatch(fields.get("return-path")) is not None
        or _NOBODY.search(fields.get("from")) is not None
    )


def _is_daemon(fields: Fields) -> bool:
    return _DAEMON.search(fields.get("from")) is not None


def _read(content: Octets, suggested: _Header) -> Steps[Report | None]:
    if b"\n" not in content[:4096]:
        # Only where bare CR is carried; a report that comes like that is a small one.
        content = content[: 1 << 20].replace(b"\r", b"\n")
    parts = yield from read_parts(content)
    match _by_parts({part.kind for part in parts}, suggested.kind) or suggested.kind:
        case "dsn":
            return (yield from dsn.read(parts))
        case "mdn":
            return (yield from notices.read_disposition(parts))
        case "arf":
            return (yield from notices.read_feedback(parts))
        case "tls-rpt":
            return (yield from _tls(parts))
        case "dmarc-aggregate":
            return (yield from _aggregate(parts, prescribed=True))
    found: Report | None = None
    if suggested.perhaps_dmarc:
        found = yield from _aggregate(parts, prescribed=False)
    if found is None and (suggested.perhaps_bounce or suggested.multipart_report):
        found = yield from _bounce(parts, suggested)
    return found


def _by_parts(kinds: set[str], preferred: _Kind) -> _Kind:
    """The type that one of the parts shows, if possible the one that the header said."""
    shown: dict[_Kind, bool] = {
        "dsn": not kinds.isdisjoint(dsn.STATUS),
        "mdn": not kinds.isdisjoint(notices.DISPOSITION),
        "arf": not kinds.isdisjoint(notices.FEEDBACK),
        "tls-rpt": any(_TLS_PART.fullmatch(kind) for kind in kinds),
    }
    if shown.get(preferred):
        return preferred
    return next((kind for kind in shown if shown[kind]), "")


def _tls(parts: Sequence[Part]) -> Steps[Report | None]:
    attached = [part for part in parts if _TLS_PART.fullmatch(part.kind)] or [
        part
        for part in parts
        if part.name.lower().endswith((".json", ".json.gz", ".gz"))
        or part.kind == "application/json"
    ]
    if not attached:
        return tlsrpt.broken("there is no tlsrpt part")
    return (yield from tlsrpt.read(attached[0].chunks()))


def _aggregate(parts: Sequence[Part], *, prescribed: bool) -> Steps[AggregateReport | None]:
    """Look for a DMARC report among the attachments.

    `prescribed` is whether the header had the form of one; else only what is one counts.
    """
    broken: AggregateReport | None = None
    attached = [
        part for part in parts if _PACKED.fullmatch(part.kind) or _REPORT_FILE.fullmatch(part.name)
    ]
    for part in attached[:_MOST_ATTACHMENTS]:
        report, begun = yield from dmarc.read(part.chunks())
        if begun:
            return report
        if broken is None and (prescribed or _DMARC_FILE.fullmatch(part.name)):
            broken = report
    if broken is None and prescribed:
        return dmarc.broken("there is no report attached")
    return broken


def _bounce(parts: Sequence[Part], suggested: _Header) -> Steps[BounceReport | None]:
    fields = suggested.fields
    subject = readable(fields.get("subject"))
    not_these = {
        address.lower()
        for name in ("from", "to", "return-path")
        for address in _ADDRESS.findall(fields.get(name))
    }
    named = _ADDRESS.findall(" ".join(fields.all("x-failed-recipients")))
    found = yield from prose(parts, not_these=frozenset(not_these), named=named[:MOST_RECIPIENTS])
    says_so = _BOUNCED.search(subject) is not None and not _ANSWER.match(subject)
    top = yield from returned(parts)
    # A postmaster is a human being, too, who writes about mail that failed; and so does a
    # machine that answers in somebody's absence.
    if suggested.from_nobody:
        answers = fields.get("auto-submitted").lower().startswith("auto-replied")
        likely = found.convincing or (found.speaks_of_failure and (_is_daemon(fields) or top))
        is_one = says_so or (likely and bool(found.recipients) and not answers)
    else:
        is_one = says_so and (found.speaks_of_failure or bool(found.recipients))
    if not is_one and not named:
        return None
    return BounceReport(
        recipients=found.recipients,
        total_recipients=len(found.recipients),
        original=original(top or found.returned),
        error=UNSET if found.recipients else "it names no recipient",
    )
