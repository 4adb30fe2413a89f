"""The gateway in front of a real RabbitMQ."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from client import Client
from gateway import Gateway, content, running
from parts import needs
from rabbitmq import RabbitMQ, wait_until

pytestmark = needs("rabbitmq")

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


def fresh(word: str) -> str:
    """A queue that no other test has."""
    return f"{word}-{uuid.uuid4().hex[:8]}"


def take(broker: RabbitMQ, queue: str) -> AbstractIncomingMessage:
    """One message as the broker has it, taken off."""

    async def get() -> AbstractIncomingMessage:
        connection = await aio_pika.connect(broker.url)
        async with connection:
            channel = await connection.channel()
            source = await channel.get_queue(queue, ensure=False)
            message = await source.get(no_ack=True)
            assert message is not None
            return message

    return asyncio.run(get())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, broker: RabbitMQ) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("broker")
    (folder / "locals").write_text("@ours.test\n")
    keys = {
        "rabbitmq-address": broker.url,
        "rabbitmq-inbox": "e2e-inbox",
        "rabbitmq-local": "e2e-local",
        "local-addresses": folder / "locals",
    }
    with running(folder, keys) as started:
        connected(started)
        yield started


def connected(gateway: Gateway) -> None:
    """Return when the gateway would take mail."""

    def takes_mail() -> bool:
        with Client(gateway.port) as client:
            client.hello()
            return client.ask("MAIL FROM:<>").startswith("250 ")

    wait_until(takes_mail, "the gateway has joined the broker", 60)


def test_each_recipient_of_one_transaction_goes_to_its_own_queue(shared: Gateway) -> None:
    with Client(shared.port) as client:
        client.hello()
        said = client.mail(MESSAGE, "bob@ours.test", "x@elsewhere.test", "ann@OURS.test")
    inbox, local = shared.consume("e2e-inbox"), shared.consume("e2e-local")
    assert [document["recipient"] for document in inbox] == ["x@elsewhere.test"]
    assert [document["recipient"] for document in local] == ["bob@ours.test", "ann@OURS.test"]
    assert {content(document) for document in inbox + local} == {MESSAGE}
    named = {line.split()[-3] for line in said.splitlines()[1:]}
    assert named == {document["message-id"] for document in inbox + local}


def test_a_message_is_persistent_and_says_what_it_is(shared: Gateway, broker: RabbitMQ) -> None:
    with Client(shared.port) as client:
        client.hello()
        client.mail(MESSAGE, "x@elsewhere.test")
    message = take(broker, "e2e-inbox")
    document = json.loads(message.body)
    assert message.delivery_mode == 2
    assert message.content_type == "application/json"
    assert message.content_encoding is None
    assert message.message_id == document["message-id"]
    assert message.type == "mailgw.message"
    assert message.headers["x-mailgw-schema"] == 1
    assert message.routing_key == "e2e-inbox"


def test_large_mail_of_many_recipients_comes_out_octet_by_octet(shared: Gateway) -> None:
    message = b"Subject: large\r\n\r\n" + b"\xff\x00.\r\n" * 1_000_000
    with Client(shared.port) as client:
        client.hello()
        said = client.mail(message, *(f"u{n}@elsewhere.test" for n in range(3)))
    assert said.startswith("250-2.0.0 ")
    assert [content(each) == message for each in shared.consume("e2e-inbox")] == [True] * 3


def test_gzip(gateway: Callable[..., Gateway], broker: RabbitMQ) -> None:
    inbox = fresh("gzip")
    server = gateway(
        {
            "rabbitmq-address": broker.url,
            "rabbitmq-inbox": inbox,
            "rabbitmq-encoding": "gzip",
        }
    )
    connected(server)
    with Client(server.port) as client:
        client.hello()
        for _ in range(2):
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    message = take(broker, inbox)
    assert message.content_encoding == "gzip"
    assert content(json.loads(gzip.decompress(message.body))) == MESSAGE
    assert [content(document) for document in server.consume(inbox)] == [MESSAGE]


def test_a_classic_queue_that_exists_already_is_used_as_it_is(
    gateway: Callable[..., Gateway], broker: RabbitMQ
) -> None:
    inbox = fresh("classic")

    async def declare() -> None:
        connection = await aio_pika.connect(broker.url)
        async with connection:
            channel = await connection.channel()
            await channel.declare_queue(inbox, durable=True, arguments={"x-max-priority": 4})

    asyncio.run(declare())
    server = gateway({"rabbitmq-address": broker.url, "rabbitmq-inbox": inbox})
    connected(server)
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert [content(document) for document in server.consume(inbox)] == [MESSAGE]
    listed = broker.ctl("list_queues", "name", "type").splitlines()
    assert f"{inbox}\tclassic" in listed


def test_it_starts_before_the_broker_and_joins_when_it_comes(tmp_path: Path) -> None:
    broker = RabbitMQ()
    try:
        keys = {"rabbitmq-address": broker.url, "rabbitmq-inbox": "late"}
        with running(tmp_path, keys) as server:
            with Client(server.port) as client:
                client.hello()
                said = client.ask("MAIL FROM:<joe@there.test>")
                assert said == "451 4.3.0 Temporary failure, try again later"
                broker.start()
                connected(server)
                # The same session goes on.
                assert client.mail(MESSAGE).startswith("250-2.0.0 ")
            assert [content(document) for document in server.consume("late")] == [MESSAGE]
            assert server.stop() == 0
            assert "guest:guest" not in server.log
            assert "Traceback" not in server.log
    finally:
        broker.close()
