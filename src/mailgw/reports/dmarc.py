"""DMARC aggregate reports, in the forms of RFC 7489, of RFC 9990 and of the drafts before.

The XML is parsed by defusedxml as it is unpacked, in small pieces: a document type
declaration or an entity ends it, nothing is fetched, and of 10 MB no more than the records
that are kept is ever held. What was read before something was wrong stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from msgspec import UNSET, UnsetType

from mailgw.mail.report import (
    AggregateRecord,
    AggregateReport,
    AuthResult,
    OverrideReason,
    PublishedPolicy,
)
from mailgw.reports.archive import BadArchive, unpacked
from mailgw.reports.steps import Steps
from mailgw.reports.text import LONGEST_TEXT, told, whole_number

MOST_RECORDS = 1000
_MOST_RESULTS = 20
_DEEPEST = 12
# About ten times as many as 10 MB of a true report have in a second of our time.
_MOST_ELEMENTS = 1_000_000
# A tag or comment longer than that makes expat read it again and again (CVE-2023-52425).
_LONGEST_TOKEN = 256 << 10

_ROOT = "feedback"
_RECORD = "/record"
# Elements that come several times, with values of their own.
_GROUPS = frozenset(
    {
        "/record/auth_results/dkim",
        "/record/auth_results/spf",
        "/record/row/policy_evaluated/reason",
    }
)
_Values: TypeAlias = dict[str, str]


class _Stop(Exception):
    """A bound was passed; the text says which."""


class _Collector:
    """What the parser tells its findings to."""

    def __init__(self) -> None:
        self.values: _Values = {}
        self.errors: list[str] = []
        self.records: list[AggregateRecord] = []
        self.total_records = 0
        self.total_messages = 0
        self.begun = False
        self._paths: list[str] = []
        self._text: list[str] = []
        self._elements = 0
        self._record: _Values = {}
        self._groups: dict[str, list[_Values]] = {}
        self._group: _Values | None = None

    def start(self, tag: str, _attributes: object) -> None:
        # Without its namespace, which there may be (RFC 9990) or not.
        name = tag.rpartition("}")[2][:100]
        self._elements += 1
        if self._elements > _MOST_ELEMENTS:
            raise _Stop("the XML has too many elements")
        if not self._paths:
            if name.lower() != _ROOT:
                raise _Stop("what is attached is no DMARC report")
            self.begun = True
            self._paths.append("")
            return
        if len(self._paths) > _DEEPEST:
            raise _Stop("the XML is nested too deeply")
        path = f"{self._paths[-1]}/{name}"
        self._paths.append(path)
        self._text.clear()
        if path in _GROUPS:
            self._group = {}
        elif path == _RECORD:
            self._record, self._groups = {}, {}

    def data(self, text: str) -> None:
        if len(self._text) < 100:
            self._text.append(text[:LONGEST_TEXT])

    def end(self, _tag: str) -> None:
        path = self._paths.pop()
        value = "".join(self._text).strip()[:LONGEST_TEXT]
        self._text.clear()
        if path in _GROUPS:
            groups = self._groups.setdefault(path, [])
            if self._group is not None and len(groups) < _MOST_RESULTS:
                groups.append(self._group)
            self._group = None
        elif path == _RECORD:
            self._end_record()
        elif not value:
            return
        elif self._group is not None:
            self._group.setdefault(path.rpartition("/")[2], value)
        elif path.startswith(_RECORD):
            if len(self._record) < 50:
                self._record.setdefault(path, value)
        elif path == "/report_metadata/error":
            if len(self.errors) < _MOST_RESULTS:
                self.errors.append(value)
        elif len(self.values) < 100:
            self.values.setdefault(path, value)

    def close(self) -> None:
        pass

    def _end_record(self) -> None:
        self.total_records += 1
        count = whole_number(self._record.get("/record/row/count", ""))
        if count is not UNSET:
            self.total_messages += count
        if len(self.records) < MOST_RECORDS:
            self.records.append(_record(self._record, self._groups, count))


def read(chunks: Iterator[bytes]) -> Steps[tuple[AggregateReport, bool]]:
    """Read a report as it was attached, and tell whether it is one at all."""
    found = _Collector()
    error = ""
    try:
        yield from _parse(unpacked(chunks), found)
    except BadArchive as trouble:
        error = str(trouble)
    except _Stop as trouble:
        error = str(trouble)
    except DefusedXmlException:
        error = "the XML has a document type or entities, which no report needs"
    except (ParseError, LookupError, ValueError) as trouble:
        # Its position is ours to tell, its text could be the stranger's.
        line, column = getattr(trouble, "position", (0, 0))
        error = f"the XML is not well-formed (line {line}, column {column})"
    if not error and found.total_records == 0:
        error = "it has no records"
    return _report(found, error), found.begun


def broken(error: str) -> AggregateReport:
    """A report of which nothing could be read."""
    return _report(_Collector(), error)


def _parse(pieces: Iterator[bytes], found: _Collector) -> Steps[None]:
    parser = DefusedXMLParser(target=found, forbid_dtd=True)
    fed = 0
    for piece in pieces:
        # White space before the declaration is not XML, but it is in mails.
        piece = piece if fed else piece.lstrip()
        if piece:
            parser.feed(piece)
            fed += len(piece)
            if fed - parser.parser.CurrentByteIndex > _LONGEST_TOKEN:
                raise _Stop("the XML has a tag that is too long")
        yield
    parser.close()


def _report(found: _Collector, error: str) -> AggregateReport:
    metadata = {
        path.removeprefix("/report_metadata/"): value
        for path, value in found.values.items()
        if path.startswith("/report_metadata/")
    }
    return AggregateReport(
        organization=_get(metadata, "org_name"),
        contact=_get(metadata, "email"),
        extra_contact=_get(metadata, "extra_contact_info"),
        report_id=_get(metadata, "report_id"),
        generator=_get(metadata, "generator"),
        begin=whole_number(metadata.get("date_range/begin", "")),
        end=whole_number(metadata.get("date_range/end", "")),
        version=_get(found.values, "/version"),
        errors=found.errors or UNSET,
        policy=_policy(found.values),
        records=found.records,
        total_records=found.total_records,
        total_messages=found.total_messages,
        truncated=True if found.total_records > len(found.records) else UNSET,
        error=error or UNSET,
    )


def _policy(values: _Values) -> PublishedPolicy | UnsetType:
    names = PublishedPolicy.__struct_fields__
    policy = PublishedPolicy(**{name: _get(values, f"/policy_published/{name}") for name in names})
    return policy if policy != PublishedPolicy() else UNSET


def _record(
    values: _Values, groups: dict[str, list[_Values]], count: int | UnsetType
) -> AggregateRecord:
    row, identifiers = "/record/row", "/record/identifiers"
    evaluated = f"{row}/policy_evaluated"
    return AggregateRecord(
        source_ip=_get(values, f"{row}/source_ip"),
        count=count,
        disposition=_lower(values, f"{evaluated}/disposition"),
        dkim=_lower(values, f"{evaluated}/dkim"),
        spf=_lower(values, f"{evaluated}/spf"),
        reasons=[
            OverrideReason(type=_lower(each, "type"), comment=_get(each, "comment"))
            for each in groups.get(f"{evaluated}/reason", [])
        ]
        or UNSET,
        header_from=_get(values, f"{identifiers}/header_from"),
        envelope_from=_get(values, f"{identifiers}/envelope_from"),
        envelope_to=_get(values, f"{identifiers}/envelope_to"),
        dkim_results=_results(groups.get("/record/auth_results/dkim", [])),
        spf_results=_results(groups.get("/record/auth_results/spf", [])),
    )


def _results(groups: list[_Values]) -> list[AuthResult] | UnsetType:
    return [
        AuthResult(
            domain=_get(each, "domain"),
            selector=_get(each, "selector"),
            scope=_lower(each, "scope"),
            result=_lower(each, "result"),
            human_result=_get(each, "human_result"),
        )
        for each in groups
    ] or UNSET


def _get(values: _Values, name: str) -> str | UnsetType:
    return told(values.get(name, ""))


def _lower(values: _Values, name: str) -> str | UnsetType:
    # Verdict words: some write "Pass" or "PASS".
    return told(values.get(name, "").lower())
