from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mailgw.reports.read import read
from reports.mails import aggregate, attached, bounce, delivery_status, multipart, report, zipped

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.eml"))
DMARC_NAME = "example.net!example.org!1!2.xml.gz"


def told(content: bytes, envelope: str | None = None) -> dict[str, Any] | None:
    found = asyncio.run(read(content, envelope))
    return None if found is None else msgspec.to_builtins(found)


@pytest.mark.parametrize("mail", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_report_of_each_type_is_read_whatever_its_line_ends(mail: Path, line_end: bytes) -> None:
    expected = json.loads(mail.with_suffix(".json").read_text("utf-8"))

    found = told(mail.read_bytes().replace(b"\n", line_end))

    assert found == expected
    assert found["type"] == mail.stem


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(aggregate(3), id="plain"),
        pytest.param(b"\xef\xbb\xbf" + aggregate(3), id="with a byte order mark"),
        pytest.param(b"\r\n" + aggregate(3), id="behind an empty line"),
        pytest.param(gzip.compress(aggregate(3)), id="gzip"),
        pytest.param(gzip.compress(aggregate(3)) + b"\0" * 64, id="gzip with padding"),
        pytest.param(zipped(("a.xml", aggregate(3))), id="zip"),
        pytest.param(zipped(("__MACOSX/a.xml", b""), ("b.xml", aggregate(3))), id="zip of a Mac"),
        pytest.param(zipped(("../../etc/a.xml", aggregate(3))), id="zip with a path"),
    ],
)
def test_a_dmarc_report_is_read_however_it_is_packed(packed: bytes) -> None:
    found = told(attached(packed, DMARC_NAME))

    assert found is not None
    assert "error" not in found
    assert [each["source-ip"] for each in found["records"]] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
    assert found["total-messages"] == 6


def test_a_tls_report_is_read_out_of_gzip() -> None:
    document = {"organization-name": "Example Net", "policies": [{"summary": {}}]}
    packed = gzip.compress(json.dumps(document).encode())
    mail = multipart('report; report-type="TLSRPT"', ("application/tlsrpt+gzip", packed))

    found = told(mail)

    assert found == {
        "type": "tls-rpt",
        "organization": "Example Net",
        "policies": [{}],
        "total-policies": 1,
    }


@pytest.mark.parametrize(
    ("mail", "kind", "error"),
    [
        (report("delivery-status"), "dsn", "there is no delivery-status part"),
        (report('"DELIVERY-STATUS"'), "dsn", "there is no delivery-status part"),
        (
            report("delivery-status", ("message/delivery-status", b"")),
            "dsn",
            "its delivery-status part names no recipient",
        ),
        (report("disposition-notification"), "mdn", "there is no disposition-notification part"),
        (
            report("disposition-notification", ("message/disposition-notification", b"a: b")),
            "mdn",
            "it has no disposition",
        ),
        (report("feedback-report"), "arf", "there is no feedback-report part"),
        (
            report("feedback-report", ("message/feedback-report", b"Version: 1\r\n")),
            "arf",
            "it has no Feedback-Type",
        ),
        (report("tlsrpt"), "tls-rpt", "there is no tlsrpt part"),
        (report("tlsrpt", ("application/tlsrpt+json", b"{")), "tls-rpt", "it is no JSON"),
        (report("tlsrpt", ("application/tlsrpt+json", b"[]")), "tls-rpt", "it has no policies"),
        (
            report("tlsrpt", ("application/tlsrpt+gzip", b"\x1f\x8b")),
            "tls-rpt",
            "the gzip data ends too early",
        ),
        (
            b"Subject: Report Domain: a Submitter: b Report-ID: c\r\n\r\nunused\r\n",
            "dmarc-aggregate",
            "there is no report attached",
        ),
        (
            attached(b"<feedback></feedback>"),
            "dmarc-aggregate",
            "it has no records",
        ),
        (
            attached(b"<html></html>"),
            "dmarc-aggregate",
            "what is attached is no DMARC report",
        ),
    ],
)
def test_a_broken_report_keeps_its_type_and_says_what_is_wrong(
    mail: bytes, kind: str, error: str
) -> None:
    found = told(mail)

    assert found is not None
    assert (found["type"], found["error"]) == (kind, error)


def test_what_was_read_before_the_end_of_a_cut_report_stays() -> None:
    whole = aggregate(3)

    found = told(attached(whole[: whole.index(b"10.0.0.2")]))

    assert found is not None
    assert found["organization"] == "Example Net"
    assert found["total-records"] == 2
    assert re.fullmatch(r"the XML is not well-formed \(line 1, column \d+\)", found["error"])


def test_verdict_words_are_in_lower_case() -> None:
    found = told(attached(aggregate().replace(b">pass<", b">PASS<")))

    assert found is not None
    [record] = found["records"]
    assert (record["dkim"], record["dkim-results"][0]["result"]) == ("pass", "pass")


def test_addresses_in_utf8_are_read() -> None:
    status = "Final-Recipient: utf-8; j\\x{00F6}@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    raw = "Final-Recipient: utf-8; jö@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"

    found = told(
        report(
            "delivery-status", ("message/global-delivery-status", (status + "\r\n" + raw).encode())
        )
    )

    assert found is not None
    assert [each["final-recipient"] for each in found["recipients"]] == ["jö@example.net"] * 2


def test_a_vague_status_gives_way_to_the_remote_servers() -> None:
    status = (
        b"Final-Recipient: rfc822; joe@example.net\r\nAction: failed (permanently)\r\n"
        b"Status: 5.0.0\r\nDiagnostic-Code: smtp; 550 5.7.26 no\r\n"
    )

    found = told(report("delivery-status", ("message/delivery-status", status)))

    assert found is not None
    [recipient] = found["recipients"]
    assert (recipient["action"], recipient["status"]) == ("failed", "5.7.26")


@pytest.mark.parametrize(
    ("path", "verp"),
    [
        ("<bounces+joe=example.net@example.org>", "joe@example.net"),
        ("<list-joe=example.net@example.org>", "joe@example.net"),
        ("<bounces+joe+tag=example.net@example.org>", "joe+tag@example.net"),
        ("<SRS0=a1b2=cd=example.net=joe@example.org>", None),
        ("<prvs=12345=joe@example.org>", None),
        ("<joe@example.org>", None),
    ],
)
def test_an_envelope_sender_that_names_the_recipient_is_read(path: str, verp: str | None) -> None:
    status = b"Final-Recipient: rfc822; u@example.net\r\nAction: failed\r\n"
    header = f"Return-Path: {path}\r\nSubject: x\r\n".encode()

    found = told(
        report(
            "delivery-status",
            ("message/delivery-status", status),
            ("text/rfc822-headers", header),
        )
    )

    assert found is not None
    assert found["original"]["envelope"] == path.strip("<>")
    assert found["original"].get("verp") == verp


FORWARDED = report("delivery-status", ("message/delivery-status", delivery_status(1)))


@pytest.mark.parametrize(
    "mail",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n\r\n", id="no header"),
        pytest.param(b"Subject: hello\r\n\r\nhello\r\n", id="ordinary"),
        pytest.param(
            multipart("mixed", ("text/plain", b"see"), ("message/rfc822", FORWARDED)),
            id="a forwarded report",
        ),
        pytest.param(
            multipart(
                "mixed",
                ("text/plain", b"see"),
                ("message/rfc822", attached(aggregate())),
                header="Subject: Fwd: Report Domain: example.org\r\n",
            ),
            id="a forwarded DMARC report",
        ),
        pytest.param(
            b"From: joe@example.net\r\nSubject: Re: failure notice\r\n\r\n"
            b"> could not be delivered to <ann@example.org>\r\n",
            id="an answer to a bounce",
        ),
        pytest.param(
            b"From: Postmaster <postmaster@example.net>\r\nSubject: your question\r\n\r\n"
            b"The mail to ann@example.org could not be delivered, 550 5.1.1 user unknown.\r\n",
            id="a postmaster who explains",
        ),
        pytest.param(
            b"Return-Path: <>\r\nSubject: Automatic reply: Order\r\n\r\n"
            b"I am away and cannot be reached, ask ann@example.org.\r\n",
            id="an answering machine",
        ),
        pytest.param(
            b"Return-Path: <>\r\nAuto-Submitted: auto-replied\r\nSubject: Abwesend: Order\r\n\r\n"
            b"I cannot be reached, ask ann@example.org or call 550 1234.\r\n",
            id="an answering machine in another language",
        ),
        pytest.param(
            attached(gzip.compress(b"<html/>"), "photos.gz", b"our dmarc meeting"),
            id="an attachment that is none",
        ),
        pytest.param(
            multipart("report; report-type=x", ("text/plain", b"x")), id="an unknown report"
        ),
    ],
)
def test_what_is_no_report_is_not_taken_for_one(mail: bytes) -> None:
    assert told(mail) is None


def test_a_report_need_not_come_from_nobody() -> None:
    """The form decides: whoever believes a report has to know who sent it."""
    found = told(FORWARDED, "joe@example.net")

    assert found is not None
    assert found["type"] == "dsn"


def test_a_dmarc_report_is_known_by_its_content_where_its_header_only_hints() -> None:
    found = told(attached(zipped(("x.xml", aggregate())), "x.zip", b"DMARC weekly"))

    assert found is not None
    assert (found["type"], found["total-records"]) == ("dmarc-aggregate", 1)


def test_the_envelope_tells_that_a_mail_is_from_nobody() -> None:
    mail = (
        b"From: Support <help@example.net>\r\nSubject: your mail\r\n\r\n"
        b"Your mail could not be delivered to <ann@example.org>: 550 5.1.1 user unknown\r\n"
    )

    found = [told(mail, "help@example.net"), told(mail, "")]

    assert [each and each["type"] for each in found] == [None, "bounce"]


def test_a_bounce_tells_each_recipient_with_its_reason() -> None:
    found = told(
        bounce(
            "I'm afraid I wasn't able to deliver your message to the following addresses.\n\n"
            "<ann@example.net>:\nRemote host said: 550 5.1.1 no such user\n\n"
            "<bob@example.net>:\nRemote host said: 452 4.2.2 mailbox full\n"
        )
    )

    assert found is not None
    assert [
        (each["final-recipient"], each["status"], each["reply"]) for each in found["recipients"]
    ] == [("ann@example.net", "5.1.1", "550"), ("bob@example.net", "4.2.2", "452")]


def test_a_bounce_is_read_in_html_too() -> None:
    text = "<p>Delivery to &lt;ann@example.net&gt; failed:</p>\n<p>550 5.1.1 user unknown</p>\n"

    found = told(bounce(text, header="Content-Type: text/html\r\n"))

    assert found is not None
    assert [each["final-recipient"] for each in found["recipients"]] == ["ann@example.net"]


def test_a_field_says_which_recipients_failed() -> None:
    mail = bounce("Something went wrong.", header="X-Failed-Recipients: ann@example.net\r\n")

    found = told(mail)

    assert found is not None
    assert [each["final-recipient"] for each in found["recipients"]] == ["ann@example.net"]


async def test_ordinary_mail_costs_next_to_nothing() -> None:
    mail = (
        b"From: joe@example.net\r\nTo: ann@example.org\r\nSubject: hello\r\n"
        + b"Received: from a.example by b.example with ESMTP id 1;\r\n\tFri, 20 Nov 2026\r\n" * 20
        + b"Content-Type: text/plain\r\n\r\n"
        + b"Hello there, how are you?\r\n" * 400
    )
    costs = []
    for _ in range(20):
        begin = time.thread_time()
        for _ in range(50):
            assert await read(mail, "joe@example.net") is None
        costs.append((time.thread_time() - begin) / 50)

    # Measured 25 us; the best of many, as other programs run beside the tests.
    assert min(costs) < 0.000_2
