"""RabbitMQ: where it is and how we publish."""

from __future__ import annotations

from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.urls import brokers, mask_brokers
from mailgw.config.values import (
    named_queue,
    optional,
    queue,
    size_of_at_least,
    truth,
    whole,
    word,
)


@section("broker")
class BrokerSettings:
    """RabbitMQ"""

    address: tuple[str, ...] = key(
        "rabbitmq-address",
        brokers,
        default="amqp://guest:guest@localhost/",
        mask=mask_brokers,
        doc="Address of the broker, amqp:// or amqps://; several nodes of a cluster are several "
        "full addresses, separated by commas. Empty: no broker, queue-store is the queue.",
    )
    verify: bool = key(
        "rabbitmq-verify",
        truth,
        default="true",
        doc="Check the broker's certificate; amqps only.",
    )
    inbox: str = key(
        "rabbitmq-inbox",
        named_queue,
        default="inbox",
        doc="Queue for received mail.",
        differs="safer here, never falls back to the outbox: a receiver must not become an open "
        "relay",
    )
    local: str = key(
        "rabbitmq-local",
        queue,
        default="",
        doc="Queue for mail to local addresses. Empty: rabbitmq-inbox.",
    )
    reports: str = key(
        "rabbitmq-reports",
        queue,
        default="",
        doc="Queue for reports to local addresses: what became of mail, complaints, and what "
        "others say about our domains. They are recognised and read only where it is set. Empty: "
        "reports are mail like any other.",
    )
    quarantine: str = key(
        "rabbitmq-quarantine",
        queue,
        default="",
        doc="Queue for what smtp-quarantine is about, whoever it is for.",
    )
    refused: str = key(
        "rabbitmq-refused",
        queue,
        default="",
        doc="Queue for the documents of mail that smtp-reject refused after the final dot. Empty: "
        "nothing is kept of it.",
    )
    refused_body: bool = key(
        "refused-body",
        truth,
        default="false",
        reload=True,
        doc="Whether these documents hold the message; else mime is empty in them, and size and "
        "digest say what it was.",
    )
    outbox: str = key(
        "rabbitmq-outbox",
        queue,
        default="outbox",
        sending=True,
        doc="Queue that a sender reads. Nothing is published to it; it is known so that a "
        "rabbitmq-inbox of the same name can be warned about.",
    )
    exchange: str = key(
        "rabbitmq-exchange",
        queue,
        default="",
        doc="Exchange to publish to, the queue's name being the routing key. Empty: the default "
        "exchange.",
    )
    declare: bool = key(
        "rabbitmq-declare",
        truth,
        default="true",
        doc="Declare queues and exchange at the start. A queue that exists is used as it is.",
    )
    durable: bool = key(
        "rabbitmq-durable",
        truth,
        default="true",
        doc="Declare queues and exchange durable. Quorum queues always are.",
    )
    persistent: bool = key(
        "rabbitmq-persistent",
        truth,
        default="true",
        doc="Publish persistent messages, which survive a restart of the broker.",
        differs="safer here, true: accepted mail survives a restart of the broker",
    )
    lazy: bool = key(
        "rabbitmq-lazy",
        truth,
        default="false",
        doc="Declare classic queues lazy. Quorum queues have no such mode.",
    )
    maxpriority: int | None = key(
        "rabbitmq-maxpriority",
        optional(whole(1, 255)),
        default="",
        doc="Declare priority queues with this many priorities, 1 to 255; classic queues only. "
        "Empty: none.",
    )
    encoding: Literal["", "gzip"] = key(
        "rabbitmq-encoding",
        word("", "gzip"),
        default="",
        doc="gzip publishes compressed documents, marked as such. Empty: plain JSON.",
    )
    queue_type: Literal["quorum", "classic"] = key(
        "rabbitmq-queue-type",
        word("quorum", "classic"),
        default="quorum",
        doc="Type of the queues we declare. A queue that exists is used as it is.",
        differs="safer here, quorum: replicated over the broker's nodes; classic is what MailerQ "
        "declares",
    )
    max_message: int | None = key(
        "rabbitmq-max-message-size",
        optional(size_of_at_least(65_536)),
        default="",
        doc="The broker's max_message_size, where it was changed: it cannot be asked for. Mail "
        "whose document would be larger is refused with 552. Empty: 16 MiB, and 128 MiB before "
        "RabbitMQ 4.",
    )
    throttle: int = key(
        "rabbitmq-throttle",
        whole(1, 1_000_000),
        default="1000",
        doc="Unconfirmed publishes in flight; the next ones wait.",
        differs="1000 instead of 100: every client waits for its confirm, so that 100 would cap "
        "the clients served at once, not the memory used",
    )
