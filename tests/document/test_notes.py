"""What is known of a message in its documents: checks, decision, report, and our own field."""

from __future__ import annotations

import pytest

from document.world import BOB, EVERYBODY, MAIL, message, read
from mailgw.document.build import Builder
from mailgw.document.built import Notes
from mailgw.mail.decision import Route, Step
from mailgw.mail.finding import Finding
from mailgw.mail.headers import read_fields
from mailgw.mail.report import DeliveryReport
from mailgw.mail.transaction import Recipient
from mailgw.smtp.address import Address

OURS = "mx1.gateway.test"
LOCAL = Recipient(Address("anna", "ours.test"), local=True)
FINDINGS = (
    Finding(
        "spf",
        "pass",
        properties=(("smtp.mailfrom", "alice@sender.test"),),
        members=(("smtp.mailfrom", "alice@sender.test"),),
    ),
    Finding("dkim", "fail", members=(("domain", "sender.test"),), reason="the body was changed"),
    Finding(
        "spam",
        "pass",
        members=(("score", 1.5), ("required-score", 5.0), ("symbols", ("A", "B"))),
        score=1.5,
    ),
)
FORGED = b"Authentication-Results: mx1.gateway.test; dkim=pass\r\n"
QUEUE = Step("queue", "local", "rabbitmq-local", "local")


def built(
    notes: Notes, results: tuple[str, ...] = (), content: bytes = MAIL, received: bool = False
) -> list[dict[str, object]]:
    builder = Builder(OURS, EVERYBODY, received=received, results=results)
    return [read(each) for each in builder.build(message(content, recipients=(LOCAL, BOB)), notes)]


def test_checks_are_objects_as_consumers_know_them() -> None:
    local, other = built(Notes(findings=FINDINGS))

    assert local["checks"] == [
        {"spf": "pass", "smtp.mailfrom": "alice@sender.test"},
        {"dkim": "fail", "domain": "sender.test", "reason": "the body was changed"},
        {"spam": "pass", "score": 1.5, "required-score": 5.0, "symbols": ["A", "B"]},
    ]
    assert other["checks"] == local["checks"]


def test_without_checks_there_is_no_such_property() -> None:
    assert all("checks" not in each for each in built(Notes()))


def test_no_text_of_a_stranger_in_a_finding_stops_a_document() -> None:
    finding = Finding("spf", "fail", members=(("smtp.helo", "\udcff"), ("list", ("\ud800",))))

    local, _ = built(Notes(findings=[finding]))

    assert local["checks"] == [{"spf": "fail", "smtp.helo": "?", "list": ["?"]}]


def test_the_decision_has_the_steps_of_all_and_then_the_queue_of_each() -> None:
    other = Step("queue", "inbox", "rabbitmq-inbox", "inbox")
    steps = [Step("verdict", "accept", "smtp-reject", "dmarc", 1.23456, "the client is known")]

    first, second = built(Notes([Route("local", QUEUE), Route("inbox", other)], steps=steps))

    verdict = {
        "step": "verdict",
        "verdict": "accept",
        "key": "smtp-reject",
        "value": "dmarc",
        "ms": 1.235,
        "reason": "the client is known",
    }
    assert first["decision"] == [
        verdict,
        {
            "step": "queue",
            "verdict": "local",
            "key": "rabbitmq-local",
            "value": "local",
            "ms": 0.0,
        },
    ]
    assert second["decision"] == [
        verdict,
        {
            "step": "queue",
            "verdict": "inbox",
            "key": "rabbitmq-inbox",
            "value": "inbox",
            "ms": 0.0,
        },
    ]


def test_a_report_is_told_to_local_recipients_alone() -> None:
    report = DeliveryReport(recipients=[], total_recipients=0)

    local, other = built(Notes(report=report))

    assert local["report"] == {"type": "dsn", "recipients": [], "total-recipients": 0}
    assert "report" not in other


def test_without_its_body_a_document_still_says_what_it_was() -> None:
    whole, _ = built(Notes())
    bare, _ = built(Notes(body=False), content=MAIL)
    binary, _ = built(Notes(body=False), content=b"\xff")

    assert bare["mime"] == ""
    assert (bare["mime-size"], bare["mime-sha256"]) == (whole["mime-size"], whole["mime-sha256"])
    assert binary["mime"] == ""
    assert "mime-encoding" not in binary


@pytest.mark.parametrize(
    ("results", "marked"),
    [
        ((), (False, False)),
        (("local",), (True, False)),
        (("nonlocal",), (False, True)),
        (("local", "nonlocal"), (True, True)),
    ],
)
def test_our_field_is_for_the_classes_that_are_to_have_it(
    results: tuple[str, ...], marked: tuple[bool, bool]
) -> None:
    documents = built(Notes(findings=FINDINGS), results, FORGED + MAIL)

    for document, is_marked in zip(documents, marked, strict=True):
        mime = str(document["mime"]).encode()
        assert document["mime-size"] == len(mime)
        own, *others = read_fields(mime)
        assert (b"spf=pass smtp.mailfrom=alice@sender.test;" in own.value) is is_marked
        if is_marked:
            assert mime[own.end :] == MAIL
        else:
            # Who does not write the field does not judge those of others.
            assert mime == FORGED + MAIL
        assert (own.raw == FORGED) is not is_marked
        assert len(others) == 2


def test_the_results_stand_above_the_received_field() -> None:
    local, other = built(Notes(findings=FINDINGS), ("local",), received=True)

    names = [each.name for each in read_fields(str(local["mime"]).encode())]
    assert names[:2] == ["authentication-results", "received"]
    assert str(other["mime"]).startswith("Received: ")


def test_recipients_of_one_class_share_their_message() -> None:
    builder = Builder(OURS, EVERYBODY, results=("local",))

    first, second, third, fourth = builder.build(
        message(MAIL, recipients=(LOCAL, BOB, LOCAL, BOB)), Notes(findings=FINDINGS)
    )

    assert first.parts[1] is third.parts[1]
    assert second.parts[1] is fourth.parts[1]
    assert first.parts[1] != second.parts[1]


def test_a_message_that_begins_with_a_blank_cannot_continue_our_results() -> None:
    content = b" ; dkim=pass header.d=bank.test\r\n" + FORGED + MAIL

    local, _ = built(Notes(findings=FINDINGS), ("local",), content)

    assert local["mime"] == (b" ; dkim=pass header.d=bank.test\r\n" + MAIL).decode()
