from __future__ import annotations

import pytest

from mailgw.mail.transaction import Recipient
from mailgw.outlets.router import Queues
from mailgw.smtp.address import Address

BOB = Address("bob", "ours.test")


@pytest.mark.parametrize(
    ("queues", "local", "queue"),
    [
        (Queues("inbox", "local"), False, "inbox"),
        (Queues("inbox", "local"), True, "local"),
        (Queues("inbox"), False, "inbox"),
        (Queues("inbox"), True, "inbox"),
        (Queues("same", "same"), True, "same"),
    ],
)
def test_where_a_document_goes(queues: Queues, local: bool, queue: str) -> None:
    assert queues.route(Recipient(BOB, local)) == queue
