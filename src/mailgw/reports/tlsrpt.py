"""SMTP TLS reports (RFC 8460): JSON, mostly packed with gzip.

JSON is read in one go, so its size and the number of its members are bounded first; a report
of a large domain has some hundred members. Members of an unexpected type are passed by.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from mailgw.mail.report import TlsFailure, TlsPolicy, TlsReport
from mailgw.reports.archive import BadArchive, unpacked
from mailgw.reports.steps import Steps
from mailgw.reports.text import LONGEST_TEXT, told, whole_number

MOST_POLICIES = 200
MOST_FAILURES = 1000
_MOST_OCTETS = 2 << 20
_MOST_MEMBERS = 40_000
_MOST_STRINGS = 50


def read(chunks: Iterator[bytes]) -> Steps[TlsReport]:
    """Read a report as it was attached."""
    octets = bytearray()
    members = 0
    try:
        for piece in unpacked(chunks):
            octets += piece
            members += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
            if len(octets) > _MOST_OCTETS or members > _MOST_MEMBERS:
                return broken("it is too large")
            yield
    except BadArchive as trouble:
        return broken(str(trouble))
    try:
        # A byte order mark is not JSON (RFC 8259 8.1), but somebody will write one.
        document = msgspec.json.decode(bytes(octets).removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return broken("it is no JSON")
    yield
    return (yield from _report(document))


def broken(error: str) -> TlsReport:
    """A report of which nothing could be read."""
    return TlsReport(policies=[], total_policies=0, error=error)


def _report(document: object) -> Steps[TlsReport]:
    listed = _list(document, "policies")
    policies: list[TlsPolicy] = []
    truncated = len(listed) > MOST_POLICIES
    failures_left = MOST_FAILURES
    for each in listed[:MOST_POLICIES]:
        failures = _list(each, "failure-details")
        truncated = truncated or len(failures) > failures_left
        policies.append(_policy(each, failures[:failures_left]))
        failures_left = max(failures_left - len(failures), 0)
        yield
    return TlsReport(
        organization=_text(document, "organization-name"),
        contact=_text(document, "contact-info"),
        report_id=_text(document, "report-id"),
        begin=_text(_get(document, "date-range"), "start-datetime"),
        end=_text(_get(document, "date-range"), "end-datetime"),
        policies=policies,
        total_policies=len(listed),
        truncated=True if truncated else UNSET,
        error=UNSET if listed else "it has no policies",
    )


def _policy(document: object, failures: list[object]) -> TlsPolicy:
    policy, summary = _get(document, "policy"), _get(document, "summary")
    return TlsPolicy(
        policy_type=_text(policy, "policy-type"),
        policy_domain=_text(policy, "policy-domain"),
        policy_string=_texts(policy, "policy-string"),
        mx_host=_texts(policy, "mx-host"),
        successful=_number(summary, "total-successful-session-count"),
        failed=_number(summary, "total-failure-session-count"),
        failures=[_failure(each) for each in failures] or UNSET,
    )


def _failure(document: object) -> TlsFailure:
    return TlsFailure(
        result_type=_text(document, "result-type"),
        sending_mta_ip=_text(document, "sending-mta-ip"),
        receiving_mx_hostname=_text(document, "receiving-mx-hostname"),
        receiving_mx_helo=_text(document, "receiving-mx-helo"),
        receiving_ip=_text(document, "receiving-ip"),
        failed_session_count=_number(document, "failed-session-count"),
        additional_information=_text(document, "additional-information"),
        failure_reason_code=_text(document, "failure-reason-code"),
    )


def _get(document: object, name: str) -> object:
    return document.get(name) if isinstance(document, dict) else None


def _list(document: object, name: str) -> list[object]:
    found = _get(document, name)
    return found if isinstance(found, list) else []


def _text(document: object, name: str) -> str | UnsetType:
    found = _get(document, name)
    return told(found) if isinstance(found, str) else UNSET


def _texts(document: object, name: str) -> list[str] | UnsetType:
    found = _get(document, name)
    # RFC 8460 4.4 has mx-host as an array, its own example as a string.
    texts = found if isinstance(found, list) else [found]
    return [each[:LONGEST_TEXT] for each in texts[:_MOST_STRINGS] if isinstance(each, str)] or UNSET


def _number(document: object, name: str) -> int | UnsetType:
    found = _get(document, name)
    if isinstance(found, str):
        return whole_number(found)
    # A bool is an int in Python only.
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 10**15:
        return found
    return UNSET
