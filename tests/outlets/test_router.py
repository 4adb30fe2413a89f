"""Where a document goes, and what it says of that."""

from __future__ import annotations

import pytest

from mailgw.mail.decision import Route, Step
from mailgw.mail.transaction import Recipient
from mailgw.outlets.router import Queues
from mailgw.smtp.address import Address

BOB = Address("bob", "ours.test")
INBOX = Route("inbox", Step("queue", "inbox", "rabbitmq-inbox", "inbox"))


@pytest.mark.parametrize(
    ("queues", "local", "report", "queue", "key"),
    [
        (Queues("inbox", "local"), False, False, "inbox", "rabbitmq-inbox"),
        (Queues("inbox", "local"), True, False, "local", "rabbitmq-local"),
        (Queues("inbox"), False, False, "inbox", "rabbitmq-inbox"),
        (Queues("inbox"), True, False, "inbox", "rabbitmq-inbox"),
        (Queues("same", "same"), True, False, "same", "rabbitmq-local"),
        (Queues("inbox", "local", "reports"), True, True, "reports", "rabbitmq-reports"),
        (Queues("inbox", "local", "reports"), True, False, "local", "rabbitmq-local"),
        (Queues("inbox", "local", "reports"), False, True, "inbox", "rabbitmq-inbox"),
        (Queues("inbox", "local"), True, True, "local", "rabbitmq-local"),
    ],
)
def test_where_a_document_goes(
    queues: Queues, local: bool, report: bool, queue: str, key: str
) -> None:
    route = queues.route(Recipient(BOB, local), report=report)

    assert (route.queue, route.step.key, route.step.value) == (queue, key, queue)


def test_a_verdict_has_queues_of_its_own() -> None:
    queues = Queues("inbox", quarantine="jail", refuse="waste")

    assert queues.quarantined == Route(
        "jail", Step("queue", "quarantine", "rabbitmq-quarantine", "jail")
    )
    assert queues.refused == Route("waste", Step("queue", "refused", "rabbitmq-refused", "waste"))


def test_without_a_queue_for_it_nothing_is_kept_of_refused_mail() -> None:
    assert Queues("inbox").refused is None
    assert Queues("inbox").quarantined == INBOX
