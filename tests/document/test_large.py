"""A message on disk becomes the same documents as one in memory, and is never held whole."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from document.world import BOB, EVERYBODY, MAIL, message
from mailgw.document.build import Builder
from mailgw.document.built import Built, Notes, TooLarge
from mailgw.mail.octets import SLICE
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.smtp.address import Address

OURS = "mx1.gateway.test"
LOCAL = Recipient(Address("anna", "ours.test"), local=True)
FORGED = b"Authentication-Results: mx1.gateway.test; dkim=pass\r\n"
BODY = b"\r\n" + b'caf\xc3\xa9 \x00 "quoted" \\ \r\n' * 60_000


def on_disk(content: bytes, folder: Path) -> Message:
    spool = Spool(0, folder)
    spool.write(content)
    return replace(message(b"", recipients=(BOB, LOCAL)), content=spool)


def told(built: list[Built]) -> list[tuple[bytes, bytes | None]]:
    return [(each.body, each.stored and each.stored[:]) for each in built]


@pytest.mark.parametrize("keys", [None, lambda size: f"mail/{size}"], ids=["mime", "key"])
@pytest.mark.parametrize("received", [False, True], ids=["as it came", "with Received"])
@pytest.mark.parametrize("results", [(), ("local",), ("local", "nonlocal")])
@pytest.mark.parametrize(
    "content",
    [
        b"Subject: x\r\n" + BODY,
        b"x-mq-priority: 7\r\nSubject: x\r\nX-MQ-Color: red\r\n" + BODY,
        FORGED + b"Subject: x\r\n" + FORGED + BODY,
        b"\r\nno header" + BODY,
        b" begins with a blank\r\n" + FORGED + b"Subject: x\r\n" + BODY,
        b"Subject: not UTF-8\r\n" + BODY + b"\xff",
        b"Subject: cut in a character\r\n" + BODY + b"\xc3",
        b"no line and no end" * 100_000,
        b"",
    ],
    ids=["plain", "x-mq", "forged", "no header", "blank", "binary", "cut", "endless", "empty"],
)
def test_it_makes_no_difference_where_a_message_waits(
    tmp_path: Path, content: bytes, results: tuple[str, ...], received: bool, keys: object
) -> None:
    builder = Builder(OURS, EVERYBODY, received=received, results=results)
    notes = Notes(keys=keys)  # type: ignore[arg-type]  # each parameter is one that fits
    in_memory = message(content, recipients=(BOB, LOCAL))

    built = builder.build(on_disk(content, tmp_path), notes)

    assert told(built) == told(builder.build(in_memory, notes))


def test_a_field_where_no_header_can_be_any_more_is_text(tmp_path: Path) -> None:
    # Nobody who reads headers looks so far, and nobody has to hold so much to take it out.
    content = b"no field here\r\n" * 100_000 + b"x-mq-priority: 7\r\n\r\nHello.\r\n"

    for mail in (on_disk(content, tmp_path), message(content)):
        built = Builder(OURS, EVERYBODY).build(mail, Notes(keys=lambda size: "mail/x"))[0]

        assert built.priority is None
        assert built.stored is not None
        assert built.stored[:] == content


def test_the_file_outlives_the_message_while_somebody_is_to_read_it(tmp_path: Path) -> None:
    mail = on_disk(b"x-mq-color: red\r\nSubject: x\r\n" + BODY, tmp_path)
    draft = Builder(OURS, EVERYBODY).draft(mail, Notes(keys=lambda size: "mail/x"))

    mail.content.close()

    stored = draft.documents()[0].stored
    assert stored is not None
    assert stored[:] == b"Subject: x\r\n" + BODY


@pytest.mark.parametrize(("keys", "most"), [(None, 1.2), (lambda size: "mail/x", 0.2)])
def test_what_is_held_is_the_json_and_nothing_beside_it(
    tmp_path: Path, keys: object, most: float
) -> None:
    size = 40 * SLICE
    mail = on_disk(b"Subject: x\r\n\r\n" + b"x" * size, tmp_path)
    builder = Builder(OURS, EVERYBODY, received=True)

    tracemalloc.start()
    built = builder.build(mail, Notes(keys=keys))  # type: ignore[arg-type]  # each parameter is one that fits
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert built[0].document.mime_size > size
    assert peak < most * size


def test_a_draft_says_how_much_will_be_held() -> None:
    builder = Builder(OURS, EVERYBODY, results=("local",))
    mail = message(MAIL, recipients=(BOB, BOB, LOCAL))

    both = builder.draft(mail).octets
    one = builder.draft(mail, Notes(keys=lambda n: "mail/x" if n > len(MAIL) else None)).octets
    none = builder.draft(mail, Notes(body=False)).octets

    assert both > 2 * len(MAIL)
    assert (one, none) == (len(MAIL), 0)


def test_what_nobody_takes_is_not_made() -> None:
    builder = Builder(OURS, EVERYBODY)

    with pytest.raises(TooLarge):
        builder.draft(message(MAIL), Notes(most=len(MAIL) - 1))
    builder.draft(message(MAIL), Notes(most=len(MAIL)))
    builder.draft(message(MAIL), Notes(most=1, keys=lambda size: "mail/x"))
    builder.draft(message(MAIL), Notes(most=1, body=False))


def test_what_grows_too_large_as_json_is_not_made_to_its_end(tmp_path: Path) -> None:
    # Control characters are six octets each in JSON.
    size = 10 * SLICE
    mail = on_disk(b"\r\n" + b"\x01" * size, tmp_path)
    draft = Builder(OURS, EVERYBODY).draft(mail, Notes(most=2 * size))

    tracemalloc.start()
    with pytest.raises(TooLarge):
        draft.documents()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 3.5 * size
