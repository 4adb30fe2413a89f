"""Documents whose message is kept elsewhere."""

from __future__ import annotations

import hashlib
import json

from document.world import BOB, CAROL, EVERYBODY, MAIL, message, read
from mailgw.document.build import Builder
from mailgw.document.built import Notes

OURS = "mx1.gateway.test"
BINARY = b"Subject: hi\r\n\r\n\xff\xfe\r\n"


def elsewhere(size: int) -> str | None:
    return f"mail/{size}"


def test_a_document_has_key_instead_of_mime_and_says_what_is_there() -> None:
    [built] = Builder(OURS, EVERYBODY).build(message(MAIL), Notes(keys=elsewhere))

    document = read(built)
    assert document["key"] == f"mail/{len(MAIL)}"
    assert "mime" not in document
    assert document["mime-size"] == len(MAIL)
    assert document["mime-sha256"] == hashlib.sha256(MAIL).hexdigest()
    assert built.stored == MAIL


def test_octets_that_are_no_text_need_no_encoding_there() -> None:
    [built] = Builder(OURS, EVERYBODY).build(message(BINARY), Notes(keys=elsewhere))

    assert "mime-encoding" not in read(built)
    assert built.stored == BINARY


def test_recipients_share_the_key_and_the_octets() -> None:
    mail = message(MAIL, recipients=(BOB, CAROL))

    first, second = Builder(OURS, EVERYBODY).build(mail, Notes(keys=elsewhere))

    assert first.document.key == second.document.key
    assert first.stored is second.stored


def test_what_has_no_key_stays_in_the_document() -> None:
    [built] = Builder(OURS, EVERYBODY).build(message(MAIL), Notes(keys=lambda size: None))

    assert read(built)["mime"] == MAIL.decode()
    assert built.stored is None


def test_what_is_left_out_is_not_kept_elsewhere_either() -> None:
    [built] = Builder(OURS, EVERYBODY).build(message(MAIL), Notes(keys=elsewhere, body=False))

    assert read(built)["mime"] == ""
    assert built.stored is None


def test_what_x_mq_headers_bring_stands_behind_the_key() -> None:
    mail = b"x-mq-priority: 7\r\nx-mq-color: red\r\nx-mq-key: mail/of-somebody-else\r\n" + MAIL

    [built] = Builder(OURS, EVERYBODY).build(message(mail), Notes(keys=elsewhere))

    document = json.loads(built.body)
    assert (document["priority"], document["color"]) == (7, "red")
    assert document["key"] == f"mail/{len(MAIL)}"
