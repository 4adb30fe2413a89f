"""Our frames, read by pamqp: an encoder that agrees with nobody is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from mailgw.mail.publication import Publication
from mailgw.outlets.amqp_frames import Framer


def welcome(
    *,
    queue: str = "inbox",
    message_id: str = "k3x9a1",
    dedupe: str = "d41d8cd9",
    priority: int | None = None,
) -> Publication:
    return Publication(
        queue=queue,
        parts=(b'{"recipient":"bob@ours.test"}',),
        message_id=message_id,
        transaction_id="t1",
        dedupe=dedupe,
        received=datetime(2024, 5, 1, 8, 15, 42, tzinfo=UTC),
        priority=priority,
    )


WELCOME = welcome()


def read(pieces: list[bytes]) -> tuple[Basic.Publish, ContentHeader, list[ContentBody]]:
    wire, frames = b"".join(pieces), []
    while wire:
        used, channel, frame = pamqp.frame.unmarshal(wire)
        assert channel == 7
        frames.append(frame)
        wire = wire[used:]
    publish, header, *bodies = frames
    assert isinstance(publish, Basic.Publish)
    assert isinstance(header, ContentHeader)
    return publish, header, [b for b in bodies if isinstance(b, ContentBody)]


def framer(*, exchange: str = "", persistent: bool = True, gzipped: bool = False) -> Framer:
    return Framer(7, 4096, exchange=exchange, persistent=persistent, gzipped=gzipped)


def test_a_publication_is_mandatory_persistent_and_carries_its_ids() -> None:
    publish, header, bodies = read(list(framer().frames(WELCOME, WELCOME.parts)))

    properties = header.properties
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("", "inbox", True)
    assert properties.content_type == "application/json"
    assert properties.content_encoding is None
    assert properties.delivery_mode == 2
    assert properties.message_id == "k3x9a1"
    assert properties.timestamp == WELCOME.received
    assert properties.message_type == "mailgw.message"
    assert properties.priority is None
    assert properties.headers == {"x-mailgw-schema": 1, "x-mailgw-dedupe": "d41d8cd9"}
    assert [body.value for body in bodies] == [WELCOME.body]


def test_settings_show_in_the_properties() -> None:
    chosen = framer(exchange="mail", persistent=False, gzipped=True)

    publish, header, _ = read(list(chosen.frames(welcome(priority=4), [b"..."])))

    assert publish.exchange == "mail"
    assert header.properties.delivery_mode == 1
    assert header.properties.content_encoding == "gzip"
    assert header.properties.priority == 4


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 100_000])
def test_a_body_of_any_size_arrives_whole_in_frames_that_fit(size: int) -> None:
    body = bytes(i % 251 for i in range(size))

    pieces = list(framer().frames(WELCOME, [body]))

    _, header, bodies = read(pieces)
    assert header.body_size == size
    assert b"".join(b.value for b in bodies) == body
    assert all(len(b.value) + 8 <= 4096 for b in bodies)


@given(queue=st.text(max_size=60), message_id=st.text(min_size=1, max_size=60), dedupe=st.text())
def test_any_text_that_fits_is_carried_as_it_is(queue: str, message_id: str, dedupe: str) -> None:
    publication = welcome(queue=queue, message_id=message_id, dedupe=dedupe)

    publish, header, _ = read(list(framer().frames(publication, [b"{}"])))

    assert publish.routing_key == queue
    assert header.properties.message_id == message_id
    assert header.properties.headers == {"x-mailgw-schema": 1, "x-mailgw-dedupe": dedupe}


def test_a_queue_name_that_amqp_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="256 octets"):
        list(framer().frames(welcome(queue="q" * 256), [b"{}"]))
