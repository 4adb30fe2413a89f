"""The ledger itself: a loss, a change and a duplicate are seen, or the suite proves nothing."""

from __future__ import annotations

import hashlib
import itertools

from ledger import SENDER, Mail, judge, mails

from gateway import Json


def document(mail: Mail, identifier: str, dedupe: str = "", octets: bytes = b"") -> Json:
    octets = octets or mail.content
    return {
        "message-id": identifier,
        "envelope": SENDER,
        "recipient": mail.recipients[0],
        "dedupe": dedupe or mail.name,
        "mime": octets.decode(),
        "mime-size": len(octets),
        "mime-sha256": hashlib.sha256(octets).hexdigest(),
    }


ONE, TWO = itertools.islice(mails("a", 100, recipients=1), 2)
SENT = {mail.name: mail for mail in (ONE, TWO)}
BOTH = {ONE.name: (ONE, ("id1",)), TWO.name: (TWO, ("id2",))}


def test_what_was_promised_and_is_there_is_no_loss() -> None:
    assert judge(BOTH, SENT, [document(ONE, "id1"), document(TWO, "id2")]) == (2, (), 0, 0, ())


def test_a_promise_without_its_document_is_a_loss() -> None:
    found = judge(BOTH, SENT, [document(ONE, "id1")])
    assert found == (1, ("id2",), 0, 0, ())


def test_an_earlier_attempt_does_not_stand_for_the_promised_document() -> None:
    found = judge(BOTH, SENT, [document(ONE, "id0"), document(TWO, "id2")])
    assert found[1] == ("id1",)


def test_a_duplicate_is_counted_and_known_by_its_key() -> None:
    found = judge(BOTH, SENT, [document(ONE, "id0"), document(ONE, "id1"), document(TWO, "id2")])
    assert found == (3, (), 1, 0, ())


def test_a_duplicate_with_another_key_is_not_recognisable() -> None:
    again = document(ONE, "id1", dedupe="other")
    found = judge(BOTH, SENT, [document(ONE, "id0"), again, document(TWO, "id2")])
    assert found == (3, (), 1, 1, ())


def test_other_octets_and_mail_that_nobody_sent_are_strange() -> None:
    altered = document(TWO, "id2", octets=TWO.content + b"more\r\n")
    unknown = document(Mail("b-0", ("bob@ours.test",), b"Subject: b-0\r\n\r\n"), "id3")
    found = judge(BOTH, SENT, [document(ONE, "id1"), altered, unknown])
    assert found == (3, ("id2",), 0, 0, ("id2", "id3"))


def test_two_mails_with_one_key_are_strange() -> None:
    found = judge(BOTH, SENT, [document(ONE, "id1", "k"), document(TWO, "id2", "k")])
    assert found[4] == ("dedupe k",)
