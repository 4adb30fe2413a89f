"""What is declared at the broker, and what happens where something is there already."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from broker_tools import Settings, channel, document, fresh, opened, take

from mailgw.outlets.amqp import Amqp
from mailgw.outlets.amqp_queues import queue_names
from mailgw.plugins import Unavailable
from rabbitmq import RabbitMQ, eventually


async def queue_at(broker: RabbitMQ, name: str) -> tuple[str, str, str]:
    """Type, durable and arguments of the queue as the broker tells them."""
    told = await broker.rabbitmqctl(
        "list_queues", "--no-table-headers", "name", "type", "durable", "arguments"
    )
    [line] = [line.split("\t") for line in told.splitlines() if line.startswith(name + "\t")]
    return line[1], line[2], line[3]


@pytest.mark.parametrize(
    ("chosen", "kind", "durable", "argument"),
    [
        ({}, "quorum", "true", '{"x-queue-type","quorum"}'),
        ({"queue_type": "classic"}, "classic", "true", '{"x-queue-type","classic"}'),
        ({"queue_type": "classic", "lazy": True}, "classic", "true", '{"x-queue-mode","lazy"}'),
        ({"queue_type": "classic", "maxpriority": 4}, "classic", "true", '{"x-max-priority",4}'),
        ({"queue_type": "classic", "durable": False}, "classic", "false", "x-queue-type"),
        ({"durable": False}, "quorum", "true", '[{"x-queue-type","quorum"}]'),
        ({"lazy": True, "maxpriority": 4}, "quorum", "true", '[{"x-queue-type","quorum"}]'),
    ],
)
async def test_a_missing_queue_is_declared_as_configured(
    broker: RabbitMQ, chosen: dict[str, object], kind: str, durable: str, argument: str
) -> None:
    ours = replace(Settings(address=(broker.url,), inbox=fresh()), **chosen)

    async with opened(Amqp(ours)):
        told = await queue_at(broker, ours.inbox)

    assert told[:2] == (kind, durable)
    assert argument in told[2]


async def test_an_existing_queue_that_differs_is_used_with_one_warning(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(address=(broker.url,), inbox=fresh())
    async with channel(broker) as here:
        await here.declare_queue(ours.inbox, durable=True, arguments={"x-max-priority": 9})

    async with opened(Amqp(ours)) as outlet:
        for _ in range(3):
            await outlet.publish([document(ours.inbox)])

    assert len(await take(broker, ours.inbox)) == 3
    warnings = [
        r.getMessage()
        for r in caplog.records
        if r.name == "mailgw.amqp" and r.levelno >= logging.WARNING
    ]
    assert [w for w in warnings if w.startswith(f"amqp.differs queue={ours.inbox}")] == warnings
    assert len(warnings) == 1


async def test_a_queue_of_an_older_gateway_without_a_type_is_no_difference(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(address=(broker.url,), inbox=fresh(), queue_type="classic")
    async with channel(broker) as here:
        await here.declare_queue(ours.inbox, durable=True)

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox)])

    assert "amqp.differs" not in caplog.text


async def test_a_named_exchange_is_declared_and_bound_by_queue_name(broker: RabbitMQ) -> None:
    ours = Settings(
        address=(broker.url,), inbox=fresh(), local=fresh("local"), exchange=fresh("exchange")
    )

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox), document(ours.local), document(ours.local)])

    assert len(await take(broker, ours.inbox)) == 1
    [first, _] = await take(broker, ours.local)
    assert (first.exchange, first.routing_key) == (ours.exchange, ours.local)


async def test_declare_false_makes_nothing_and_says_what_is_missing(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(address=(broker.url,), inbox=fresh(), declare=False)

    async with opened(Amqp(ours)) as outlet:
        with pytest.raises(Unavailable):
            await outlet.publish([document(ours.inbox)])

    assert f"amqp.missing queue={ours.inbox}" in caplog.text
    assert ours.inbox not in await broker.rabbitmqctl("list_queues", "name")


async def test_without_the_right_to_declare_what_exists_is_used(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(
        address=(broker.url.replace("guest:guest", "writer:writer"),), inbox=fresh("given")
    )
    async with channel(broker) as here:
        await here.declare_queue(ours.inbox, durable=True)
    await broker.rabbitmqctl("add_user", "writer", "writer")
    await broker.rabbitmqctl("set_permissions", "writer", "^$", ".*", "^$")

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox)])

    assert len(await take(broker, ours.inbox)) == 1
    assert f"amqp.denied queue={ours.inbox}" in caplog.text


async def test_a_return_is_logged_once_a_queue_and_not_once_a_mail(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(address=(broker.url,), inbox=fresh())
    caplog.set_level(logging.INFO, "mailgw.amqp")

    async with opened(Amqp(ours)) as outlet:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await outlet.publish([document("nowhere")])
        await eventually(lambda: "amqp.returned" in caplog.text, "the log tells")

    assert caplog.text.count("amqp.returned") == 1


def test_the_queues_of_reports_and_verdicts_are_ours_too_and_each_once() -> None:
    settings = Settings(
        address=("amqp://127.0.0.1/",),
        inbox="inbox",
        local="local",
        reports="reports",
        quarantine="jail",
        refused="jail",
    )

    assert queue_names(settings) == ("inbox", "local", "reports", "jail")
