"""Reports and mails that other projects collected, each with what we make of it.

outcomes.txt beside this file names every mail of the bounce corpus in which we differ from
what its authors expect, with the reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mailgw.reports.read import read
from reports.mails import attached, report

HERE = Path(__file__).parent
BESIDE_THE_PROJECT = HERE.parents[2] / "shared" / "vectors"
VECTORS = Path(os.environ.get("MAILGW_TEST_VECTORS", BESIDE_THE_PROJECT))
BOUNCES = VECTORS / "bounces" / "set-of-emails"
REPORTS = VECTORS / "reports"
EMAILS = VECTORS / "emails"
LICENCES = ("LICENSE", "COPYING", "MIT", "PSF")

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the corpora are not here (MAILGW_TEST_VECTORS names their folder)"
)

# The reports among the ordinary mails, and what they are.
REPORTS_AMONG_THE_MAILS = {
    "MimeKit/delivery-status-multiple-blank-lines.txt": "dsn",
    "MimeKit/delivery-status.anonymized.eml": "dsn",
    "MimeKit/delivery-status2.txt": "dsn",
    "MimeKit/disposition-notification.txt": "mdn",
    "cpython/msg_05.txt": "dsn",
    "cpython/msg_16.txt": "dsn",
    "cpython/msg_25.txt": "dsn",
    "cpython/msg_43.txt": "dsn",
    "mail-rb/mime_emails/raw_email_with_mimepart_without_content_type.eml": "dsn",
    "mail-rb/multipart_report_emails/multi_address_bounce1.eml": "dsn",
    "mail-rb/multipart_report_emails/multi_address_bounce2.eml": "dsn",
    "mail-rb/multipart_report_emails/report_422.eml": "dsn",
    "mail-rb/multipart_report_emails/report_530.eml": "dsn",
}


def told(content: bytes, envelope: str | None = None) -> dict[str, Any] | None:
    found = asyncio.run(read(content, envelope))
    return None if found is None else msgspec.to_builtins(found)


def test_of_the_mails_only_the_reports_are_taken_for_reports() -> None:
    mails = [
        path
        for path in EMAILS.rglob("*")
        if path.is_file()
        and path.suffix not in (".json", ".md")
        and not path.name.startswith(LICENCES)
    ]

    found = {path.relative_to(EMAILS).as_posix(): told(path.read_bytes()) for path in mails}

    assert len(mails) > 100
    assert {name: each["type"] for name, each in found.items() if each} == REPORTS_AMONG_THE_MAILS


def test_with_a_sender_no_ordinary_mail_becomes_a_report() -> None:
    mails = [
        path
        for path in EMAILS.rglob("*")
        if path.is_file() and path.relative_to(EMAILS).as_posix() not in REPORTS_AMONG_THE_MAILS
    ]

    assert [path.name for path in mails if told(path.read_bytes(), "joe@example.net")] == []


def test_without_a_sender_no_ordinary_mail_becomes_a_report_either() -> None:
    mails = [
        path
        for path in EMAILS.rglob("*")
        if path.is_file() and path.relative_to(EMAILS).as_posix() not in REPORTS_AMONG_THE_MAILS
    ]

    assert [path.name for path in mails if told(path.read_bytes(), "")] == []


def test_the_bounces_come_out_as_the_table_says() -> None:
    found = outcomes()

    counts, listed = table(HERE / "outcomes.txt")
    for kind in listed.keys() | found.keys():
        assert found.get(kind, set()) == listed.get(kind, set()), f"{kind} is not what is listed"
    assert tally() == counts


def expectations() -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = json.loads(
        (BOUNCES / "expected.json").read_text("utf-8")
    )
    return loaded


def bounces() -> dict[str, tuple[dict[str, Any] | None, list[dict[str, Any]]]]:
    """Each mail by folder and name: what we read, and what is expected of it."""
    expected = expectations()
    return {
        f"{path.parent.name}/{path.name}": (told(path.read_bytes()), expected.get(path.name, []))
        for path in sorted((BOUNCES / "maildir").rglob("*.eml"))
    }


def invented(status: str) -> bool:
    """Status codes that the corpus makes up from its own reason words, such as 5.0.911."""
    return re.fullmatch(r"[45]\.0\.9\d\d", status) is not None


def pairs(
    read_: dict[str, Any], expected: list[dict[str, Any]]
) -> list[tuple[dict[str, Any] | None, dict[str, Any]]]:
    recipients = read_.get("recipients", [])
    return [
        (recipients[number] if number < len(recipients) else None, wanted)
        for number, wanted in enumerate(expected)
    ]


def outcomes() -> dict[str, set[str]]:
    """The mails in which something is not as expected, by what it is."""
    found: dict[str, set[str]] = {}
    for name, (document, expected) in bounces().items():
        if document is None:
            found.setdefault("no-report", set()).add(name)
            continue
        if "error" in document:
            found.setdefault("broken", set()).add(name)
        if document["type"] not in ("dsn", "bounce"):
            continue
        for recipient, wanted in pairs(document, expected):
            if recipient is None:
                found.setdefault("no-recipient", set()).add(name)
                continue
            status, reply = recipient.get("status", ""), recipient.get("reply", "")
            if wanted["status"] != status and not invented(wanted["status"]):
                found.setdefault("status", set()).add(name)
            if wanted["reply"] != reply:
                found.setdefault("reply", set()).add(name)
    return found


def tally() -> dict[str, str]:
    """How many are what, and how many recipients agree of those that can be compared."""
    types: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for document, expected in bounces().values():
        types[document["type"] if document else "none"] += 1
        if document is None or document["type"] not in ("dsn", "bounce"):
            continue
        for recipient, wanted in pairs(document, expected):
            compared["recipient"] += 1
            if recipient is None:
                continue
            agreed["recipient"] += 1
            compared["reply"] += 1
            agreed["reply"] += recipient.get("reply", "") == wanted["reply"]
            if not invented(wanted["status"]):
                compared["status"] += 1
                agreed["status"] += recipient.get("status", "") == wanted["status"]
    return {name: str(count) for name, count in types.items()} | {
        name: f"{agreed[name]}/{compared[name]}" for name in compared
    }


def table(path: Path) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The counts of the table, and its names by kind."""
    counts: dict[str, str] = {}
    listed: dict[str, set[str]] = {}
    kind = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#     "):
            name, count = line.removeprefix("#     ").split()[:2]
            counts[name] = count
        elif line.startswith("    "):
            listed.setdefault(kind, set()).add(line.strip())
        elif line and not line.startswith(("#", " ")):
            kind = line.partition(":")[0]
    return counts, listed


@pytest.mark.parametrize("path", sorted((REPORTS / "mail-auth" / "arf").glob("*.eml")), ids=str)
def test_feedback_reports_say_what_another_reader_reads(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))

    found = told(path.read_bytes())

    assert found is not None
    assert found["type"] == "arf"
    assert "error" not in found
    assert found["feedback-type"].replace("-", "") == expected["feedback_type"].lower()
    assert found.get("user-agent") == expected["user_agent"]
    assert found.get("source-ip") == expected["source_ip"]
    assert found.get("original-mail-from", "") == (expected["original_mail_from"] or "").strip("<>")
    assert found.get("reported-domain", []) == expected["reported_domain"]
    assert found.get("reported-uri", []) == expected["reported_uri"]
    assert found.get("incidents", 1) == expected["incidents"]
    assert found.get("dkim-domain") == expected["dkim_domain"]


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *(REPORTS / "mail-auth" / "dmarc-feedback").glob("*.eml"),
            *(REPORTS / "mail-auth" / "dmarc-feedback").glob("*.xml"),
        ]
    ),
    ids=str,
)
def test_dmarc_reports_say_what_another_reader_reads(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    content = path.read_bytes()

    found = told(content if path.suffix == ".eml" else attached(content, path.name))

    assert found is not None
    assert found["type"] == "dmarc-aggregate"
    assert "error" not in found
    metadata = expected["report_metadata"]
    assert found["organization"] == metadata["org_name"].strip()
    assert found["report-id"] == metadata["report_id"]
    assert (found["begin"], found["end"]) == tuple(metadata["date_range"].values())
    assert found["policy"]["domain"] == expected["policy_published"]["domain"]
    rows = [each["row"] for each in expected["record"]]
    assert [each["source-ip"] for each in found["records"]] == [row["source_ip"] for row in rows]
    assert [each["count"] for each in found["records"]] == [row["count"] for row in rows]
    assert found["total-messages"] == sum(row["count"] for row in rows)
    assert [len(each.get("dkim-results", [])) for each in found["records"]] == [
        len(each["auth_results"]["dkim"]) for each in expected["record"]
    ]


BROKEN = {"invalid_xml.xml": "the XML is not well-formed (line 5, column 17)"}


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in ("aggregate", "aggregate_invalid", "extract_report")
        for path in (REPORTS / "parsedmarc" / folder).glob("*")
    ),
    ids=lambda path: path.name[:40],
)
def test_dmarc_reports_of_many_vendors_are_read(path: Path) -> None:
    content = path.read_bytes()

    found = told(content if path.suffix == ".eml" else attached(content, path.name))

    assert found is not None
    assert found["type"] == "dmarc-aggregate"
    assert found.get("error", "") == BROKEN.get(path.name, "")
    assert found["organization"]
    assert found["total-records"] > 0 or "error" in found


def test_tls_reports_say_what_is_in_them() -> None:
    folder = REPORTS / "mail-auth" / "tlsrpt"
    documents = [json.loads((folder / f"rpt0{n}.json").read_text("utf-8")) for n in (1, 2, 3)]
    plain = report("tlsrpt", ("application/tlsrpt+json", (folder / "rpt03.json").read_bytes()))
    mails = [(folder / f"rpt0{n}.eml").read_bytes() for n in (1, 2)] + [plain]

    found = [told(mail) for mail in mails]

    for each, document in zip(found, documents, strict=True):
        assert each is not None
        assert each["type"] == "tls-rpt"
        assert "error" not in each
        assert each["organization"] == document["organization-name"]
        assert each["report-id"] == document["report-id"]
        assert each["total-policies"] == len(document["policies"])
        for policy, wanted in zip(each["policies"], document["policies"], strict=True):
            summary = wanted["summary"]
            assert policy["successful"] == summary["total-successful-session-count"]
            assert policy.get("failed") == summary.get("total-failure-session-count")
            assert len(policy.get("failures", [])) == len(wanted.get("failure-details", []))


def test_tls_reports_of_other_vendors_are_read() -> None:
    folder = REPORTS / "parsedmarc" / "smtp_tls"
    mail = (folder / "google.com_smtp_tls_report.eml").read_bytes()
    plain = report("tlsrpt", ("application/tlsrpt+json", (folder / "rfc8460.json").read_bytes()))

    found = [told(mail), told(plain)]

    assert [each and (each["type"], each.get("error")) for each in found] == [("tls-rpt", None)] * 2


def test_failure_reports_of_dmarc_are_feedback_reports() -> None:
    found = [told(path.read_bytes()) for path in (REPORTS / "parsedmarc" / "failure").glob("*")]

    assert [
        each and (each["type"], each["feedback-type"], each.get("error")) for each in found
    ] == [("arf", "auth-failure", None)] * 2
