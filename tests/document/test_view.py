"""The received log reads a document by the names of its JSON, and reads what the JSON says."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mailgw.config.sections.document import Extract
from mailgw.document.build import Builder
from mailgw.document.built import NOTHING_KNOWN, Built, Notes
from mailgw.document.view import reader
from mailgw.mail.decision import Route, Step
from mailgw.mail.finding import Finding
from mailgw.mail.peer import Peer, Tls
from mailgw.mail.report import DeliveryReport
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.observe.template import UnknownName
from mailgw.smtp.address import Address

PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25, tls=Tls("TLSv1.3", "X"), helo="client.test")
HEADERS = (
    b"x-mq-envelope: other@there.test\r\nx-mq-ip: 192.0.2.9\r\nx-mq-tag: one\r\nx-mq-tag: two\r\n"
    b"x-mq-delayed: 2026-02-03 04:05:06\r\nx-mq-priority: 7\r\nx-mq-my-name: spring\r\n"
    b"x-mq-smarthost-hostname: relay.test\r\nx-mq-smarthost-password: geheim\r\n\r\n"
)


def built(content: bytes = HEADERS, notes: Notes = NOTHING_KNOWN) -> Built:
    spool = Spool(1_000_000)
    spool.write(content)
    received = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    recipient = Recipient(Address("bob", "ours.test"), local=True, notify="NEVER")
    message = Message("1abc", PEER, Address("joe", "there.test"), (recipient,), spool, received)
    [document] = Builder("mx.ours.test", Extract()).build(message, notes)
    spool.close()
    return document


PATHS = [
    "message_id transaction_id received hostname envelope recipient dedupe mime_size mime_sha256",
    "connection.remote_ip connection.remote_port connection.local_ip connection.local_port",
    "connection.secure connection.helo connection.tls_version dsn.notify ips tags priority",
    "nextattempt.time smarthost.hostname my_name",
]


@pytest.mark.parametrize("path", " ".join(PATHS).split())
def test_a_property_is_what_the_json_says(path: str) -> None:
    document = built()
    said = json.loads(document.body)
    for name in path.split("."):
        said = said[name.replace("_", "-")]
    assert reader(tuple(path.split(".")))(document) == said


@pytest.mark.parametrize(
    "path", ["connection.user", "connection.proxy_ip", "mime_encoding", "pool", "queues.dsn", "x_y"]
)
def test_what_is_not_there_is_none(path: str) -> None:
    assert reader(tuple(path.split(".")))(built()) is None


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("mime", "is never logged"),
        ("smarthost.password", "is never logged"),
        ("smarthost", "has properties: name one of them"),
        ("connection", r"has properties: name one of them \(local_ip, "),
        ("connection.remote_pi", "there is no remote_pi in it"),
        ("recipient.domain", "there is no domain in it"),
        ("connections.remote_ip", "a document has no connections"),
        ("report.error", "report is told in a word"),
        ("checks.spf", "checks is told in a word"),
        ("decision.step", "decision is told in a word"),
    ],
)
def test_a_name_that_stands_for_nothing_is_told(path: str, complaint: str) -> None:
    with pytest.raises(UnknownName, match=complaint):
        reader(tuple(path.split(".")))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("report", "dsn"),
        ("report.type", "dsn"),
        ("checks", ["spf=pass", "dkim=none"]),
        ("decision", ["spf=pass", "queue=reports"]),
    ],
)
def test_what_has_many_parts_is_told_in_a_word_each(path: str, value: object) -> None:
    notes = Notes(
        [Route("r", Step("queue", "reports", "rabbitmq-reports", "r"))],
        [Finding("spf", "pass", members=(("smtp.helo", "x"),)), Finding("dkim", "none")],
        [Step("spf", "pass", "smtp-check", "spf")],
        DeliveryReport(recipients=[], total_recipients=0),
    )

    assert reader(tuple(path.split(".")))(built(notes=notes)) == value


@pytest.mark.parametrize("path", ["report", "report.type", "checks"])
def test_without_checks_and_reports_there_is_no_word_for_them(path: str) -> None:
    assert not reader(tuple(path.split(".")))(built())
