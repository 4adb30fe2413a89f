"""After the final dot: 250 is said only when every document is safe."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loops import longest_hold
from mailgw.checks.runner import Result, Runner
from mailgw.config.sections.checks import CheckSettings
from mailgw.config.sections.document import Extract
from mailgw.document.build import Builder
from mailgw.intake import MOST_HEADER, MOST_HOPS, Examination, Intake
from mailgw.mail.finding import Finding
from mailgw.mail.peer import Peer
from mailgw.mail.publication import Publication
from mailgw.mail.report import DeliveryReport, Report
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.outlets.memory import Memory
from mailgw.outlets.router import Queues
from mailgw.plugins import Unavailable, Undeliverable
from mailgw.smtp import reply
from mailgw.smtp.address import Address

PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25, helo="client.test", esmtp=True)
BOB = Recipient(Address("bob", "ours.test"), local=True)
EVE = Recipient(Address("eve", "elsewhere.test"))
JOERG = Recipient(Address("jörg", "xn--kln-sna.test"))
CONTENT = b"Subject: hello\r\n\r\nHello.\r\n"
QUEUES = Queues("inbox", "local")


def kept(content: bytes) -> Spool:
    spool = Spool(1_000_000)
    spool.write(content)
    return spool


def message(
    *recipients: Recipient,
    content: Spool | None = None,
    transaction_id: str = "1abc",
    smtputf8: bool = False,
) -> Message:
    return Message(
        transaction_id=transaction_id,
        peer=PEER,
        reverse_path=Address("joe", "there.test"),
        recipients=recipients or (BOB,),
        content=content or kept(CONTENT),
        received=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        smtputf8=smtputf8,
    )


def intake(output: Memory, queues: Queues = QUEUES) -> Intake:
    return Intake(Builder("mx.ours.test", Extract()), queues, output)


class Failing(Memory):
    """An output where nothing becomes safe."""

    def __init__(self, trouble: Exception) -> None:
        super().__init__()
        self._trouble = trouble

    async def publish(self, publications: Sequence[Publication]) -> None:
        raise self._trouble


async def test_every_recipient_gets_a_document_in_its_queue() -> None:
    memory = Memory()
    said = await intake(memory).message(message(BOB, EVE))
    assert [each.queue for each in memory.publications] == ["local", "inbox"]
    assert [json.loads(each.body)["recipient"] for each in memory.publications] == [
        "bob@ours.test",
        "eve@elsewhere.test",
    ]
    assert said.wire.decode().splitlines() == [
        "250-2.0.0 Ok, your message has been queued using the following identifiers:",
        f"250-2.0.0 {memory.publications[0].message_id} for bob@ours.test",
        f"250 2.0.0 {memory.publications[1].message_id} for eve@elsewhere.test",
    ]


async def test_a_publication_says_what_its_document_says() -> None:
    memory = Memory()
    await intake(memory).message(message(BOB, content=kept(b"x-mq-priority: 7\r\n\r\n")))
    [publication] = memory.publications
    document = json.loads(publication.body)
    assert publication.message_id == document["message-id"]
    assert publication.transaction_id == document["transaction-id"] == "1abc"
    assert publication.dedupe == document["dedupe"]
    assert publication.received == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert publication.priority == 7


async def test_the_same_mail_sent_again_is_known_by_its_dedupe() -> None:
    memory = Memory()
    for transaction in ("1abc", "1abd"):
        await intake(memory).message(message(BOB, transaction_id=transaction))
    first, second = memory.publications
    assert first.message_id != second.message_id
    assert first.dedupe == second.dedupe


@pytest.mark.parametrize(
    ("smtputf8", "named"),
    [(True, "jörg@köln.test"), (False, "jörg@xn--kln-sna.test")],
)
async def test_a_recipient_is_named_as_the_client_can_read_it(smtputf8: bool, named: str) -> None:
    said = await intake(Memory()).message(message(JOERG, smtputf8=smtputf8))
    assert said.text.endswith(f" for {named}")


@pytest.mark.parametrize(
    ("trouble", "answer"),
    [
        (Unavailable("amqp://guest@10.1.2.3/ is away"), reply.TRY_AGAIN),
        (Unavailable("queue inbox is full", reply.STORAGE_FULL), reply.STORAGE_FULL),
        (Undeliverable("larger than 16 MiB"), reply.TOO_BIG),
    ],
)
async def test_what_is_not_safe_is_not_250_and_says_nothing_of_the_inside(
    trouble: Exception, answer: reply.Reply
) -> None:
    said = await intake(Failing(trouble)).message(message(BOB, EVE))
    assert said == answer
    assert str(trouble) not in said.text


async def test_a_bug_of_the_output_is_not_swallowed_and_the_content_is_closed() -> None:
    received = message(BOB)
    with pytest.raises(ZeroDivisionError):
        await intake(Failing(ZeroDivisionError())).message(received)
    assert received.content.read() == b""


async def test_the_content_is_closed_when_all_is_said() -> None:
    received = message(BOB)
    await intake(Memory()).message(received)
    assert received.content.read() == b""


async def test_a_spool_that_cannot_be_read_back_is_452(tmp_path: Path) -> None:
    spool = Spool(1, tmp_path)
    spool.write(b"more than one octet")
    assert spool._file is not None
    # As after a disk that died: what is behind the descriptor cannot be read.
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, spool._file.fileno())
    os.close(folder)
    said = await intake(Memory()).message(message(BOB, content=spool))
    assert said == reply.STORAGE_FULL


@pytest.mark.parametrize(("hops", "taken"), [(MOST_HOPS, True), (MOST_HOPS + 1, False)])
async def test_a_mail_that_went_in_circles_is_refused(hops: int, taken: bool) -> None:
    memory = Memory()
    content = b"Received: from a by b\r\n" * hops + CONTENT
    said = await intake(memory).message(message(BOB, content=kept(content)))
    assert said.positive is taken
    assert said == reply.MAIL_LOOP or taken
    assert len(memory.publications) == taken


@pytest.mark.parametrize(("more", "taken"), [(0, True), (1, False)])
async def test_a_header_has_an_end(more: int, taken: bool) -> None:
    memory = Memory()
    content = b"X: " + b"x" * (MOST_HEADER + more - 5) + b"\r\n\r\nHello.\r\n"

    said = await intake(memory).message(message(BOB, content=kept(content)))

    assert said.positive is taken
    assert said == reply.HEADER_TOO_BIG or taken
    assert len(memory.publications) == taken


async def test_octets_without_a_header_have_none_that_is_too_large() -> None:
    memory = Memory()

    said = await intake(memory).message(
        message(BOB, content=kept(bytes(range(256)) * (MOST_HEADER // 128)))
    )

    assert said.positive


@pytest.mark.parametrize(
    "content",
    [
        CONTENT + b"x" * 998 * 20_000,
        CONTENT + bytes(range(256)) * 80_000,
        b"X-MQ-Tag: a\r\n" * 60_000 + b"\r\n",
        b"X-MQ-Tag: a\r\n" + b" folded\r\n" * 90_000 + b"\r\n",
    ],
    ids=["text", "binary", "x-mq-fields", "folds"],
)
async def test_no_message_holds_the_others_up(content: bytes) -> None:
    memory = Memory()

    said, held = await longest_hold(intake(memory).message(message(BOB, content=kept(content))))

    assert said.positive
    # It takes 30 to 200 ms, most of it in another thread.
    assert held < 15


# --- what the checks found ---------------------------------------------------------

SPF_FAIL = Finding("spf", "fail")
SPF_UNKNOWN = Finding("spf", "temperror", reason="no answer in time")
STRICT = CheckSettings(
    check=("spf", "spam"), reject=("spf",), quarantine=("spam",), defer=("temperror",)
)
CASES = Queues("inbox", "local", "reports", "quarantine", "refused")


def checking(output: Memory, finding: Finding, deadline: float = 30) -> Intake:
    """An intake whose only check gives this finding."""

    async def check(_: Message, __: bytes) -> Result:
        return Result((finding,))

    return Intake(
        Builder("mx.ours.test", Extract()),
        CASES,
        output,
        examination=Examination(Runner({finding.check: check}), STRICT, deadline),
    )


async def test_refused_mail_is_kept_without_its_body_and_the_client_hears_why() -> None:
    memory = Memory()

    said = await checking(memory, SPF_FAIL).message(message(BOB, EVE))

    assert said == reply.SPF_FAILED
    assert [each.queue for each in memory.publications] == ["refused", "refused"]
    for each in memory.publications:
        document = json.loads(each.body)
        assert document["mime"] == ""
        assert document["mime-size"] == len(CONTENT)
        assert document["checks"] == [{"spf": "fail"}]
        assert [step["verdict"] for step in document["decision"]] == ["fail", "refuse", "refused"]


@pytest.mark.parametrize(
    "trouble",
    [Unavailable("away"), Undeliverable("too large"), OSError("disk"), ZeroDivisionError()],
)
async def test_a_refusal_stands_when_its_copy_cannot_be_kept(trouble: Exception) -> None:
    received = message(BOB)

    said = await checking(Failing(trouble), SPF_FAIL).message(received)

    assert said == reply.SPF_FAILED
    assert received.content.read() == b""


async def test_a_refusal_does_not_wait_for_its_copy_until_the_client_is_gone() -> None:
    class Stuck(Memory):
        async def publish(self, publications: Sequence[Publication]) -> None:
            await asyncio.Event().wait()

    began = time.monotonic()

    said = await checking(Stuck(), SPF_FAIL, deadline=0.2).message(message(BOB))

    assert said == reply.SPF_FAILED
    assert time.monotonic() - began < 5


async def test_what_is_put_off_leaves_nothing_behind() -> None:
    memory = Memory()

    said = await checking(memory, SPF_UNKNOWN).message(message(BOB))

    assert said == reply.SPF_UNKNOWN
    assert memory.publications == []


async def test_quarantined_mail_is_safe_there_and_the_client_hears_250() -> None:
    memory = Memory()

    said = await checking(memory, Finding("spam", "fail", score=6)).message(message(BOB, EVE))

    assert said.code == 250
    assert [each.queue for each in memory.publications] == ["quarantine", "quarantine"]


async def test_a_mail_that_went_in_circles_is_not_checked_first() -> None:
    content = b"Received: from a by b\r\n" * (MOST_HOPS + 1) + CONTENT

    said = await checking(Memory(), SPF_FAIL).message(message(BOB, content=kept(content)))

    assert said == reply.MAIL_LOOP


@pytest.mark.parametrize(
    ("recipients", "queues", "asked"),
    [((BOB, EVE), ["reports", "inbox"], 1), ((EVE,), ["inbox"], 0)],
)
async def test_only_mail_to_somebody_local_is_read_as_a_report(
    recipients: tuple[Recipient, ...], queues: list[str], asked: int
) -> None:
    memory, senders = Memory(), []

    async def read(_: bytes, sender: str | None) -> Report:
        senders.append(sender)
        return DeliveryReport(recipients=[], total_recipients=0)

    reading = Intake(Builder("mx.ours.test", Extract()), CASES, memory, read_report=read)

    assert (await reading.message(message(*recipients))).code == 250
    assert [each.queue for each in memory.publications] == queues
    assert senders == ["joe@there.test"] * asked
