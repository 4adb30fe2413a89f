"""The outlet against a real broker: what is safe, and what is said when it is not."""

from __future__ import annotations

import asyncio
import gzip
import logging
from dataclasses import replace

import aio_pika
import pytest
from broker_tools import (
    QUICKLY,
    Settings,
    channel,
    count,
    document,
    end_of,
    fresh,
    opened,
    settle,
    take,
)

from mailgw.outlets.amqp import Amqp
from mailgw.plugins import Refused, Unavailable, Undeliverable
from mailgw.smtp import reply
from rabbitmq import MAX_MESSAGE, RabbitMQ, eventually


def settings(broker: RabbitMQ) -> Settings:
    return Settings(address=(broker.url,), inbox=fresh())


async def test_a_published_document_is_on_the_queue_with_its_properties(broker: RabbitMQ) -> None:
    ours = settings(broker)
    mail = document(ours.inbox, priority=3)

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([mail])

    [message] = await take(broker, ours.inbox)
    assert message.body == mail.body
    assert message.content_type == "application/json"
    assert message.content_encoding is None
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.message_id == mail.message_id
    assert message.timestamp == mail.received
    assert message.type == "mailgw.message"
    assert message.priority == 3
    assert message.headers["x-mailgw-schema"] == 1
    assert message.headers["x-mailgw-dedupe"] == mail.dedupe


async def test_all_documents_of_a_transaction_are_there_when_publish_returns(
    broker: RabbitMQ,
) -> None:
    ours = replace(settings(broker), local=fresh("local"))
    mails = [document(ours.inbox if n % 2 else ours.local) for n in range(40)]

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish(mails)

        assert await count(broker, ours.inbox) == 20
        assert await count(broker, ours.local) == 20


async def test_gzip_is_announced_and_is_the_document(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), encoding="gzip")
    small, large = document(ours.inbox, b"{}"), document(ours.inbox, b"[" + b"1," * 200_000 + b"1]")

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([small, large])

    messages = await take(broker, ours.inbox)
    assert [m.content_encoding for m in messages] == ["gzip", "gzip"]
    assert [gzip.decompress(m.body) for m in messages] == [small.body, large.body]


async def test_a_document_of_many_frames_arrives_whole_between_others(broker: RabbitMQ) -> None:
    ours = settings(broker)
    large = document(ours.inbox, b"x" * 3_000_000)
    others = [document(ours.inbox) for _ in range(20)]

    async with opened(Amqp(ours)) as outlet, asyncio.TaskGroup() as together:
        for mail in [*others[:10], large, *others[10:]]:
            together.create_task(outlet.publish([mail]))

    messages = await take(broker, ours.inbox)
    assert {m.message_id: m.body for m in messages} == {
        m.message_id: m.body for m in [large, *others]
    }


async def test_persistent_false_is_obeyed(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), persistent=False, queue_type="classic")

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox)])

    [message] = await take(broker, ours.inbox)
    assert message.delivery_mode == aio_pika.DeliveryMode.NOT_PERSISTENT


async def test_a_document_for_no_queue_is_not_safe_although_the_broker_acks_it(
    broker: RabbitMQ,
) -> None:
    ours = settings(broker)

    async with opened(Amqp(ours)) as outlet:
        with pytest.raises(Unavailable) as refused:
            await outlet.publish([document(fresh("nowhere"))])

        assert refused.value.reply is reply.MISCONFIGURED
        await outlet.publish([document(ours.inbox)])


async def test_one_recipient_without_a_queue_is_no_success_for_the_transaction(
    broker: RabbitMQ,
) -> None:
    ours = settings(broker)

    async with opened(Amqp(ours)) as outlet:
        with pytest.raises(Unavailable):
            await outlet.publish([document(ours.inbox), document("nowhere"), document("neither")])


async def test_the_same_id_twice_at_once_is_never_taken_for_an_ack(broker: RabbitMQ) -> None:
    ours = settings(broker)
    lost = document(fresh("nowhere"))

    async with opened(Amqp(ours)) as outlet:
        ends = await settle(*(asyncio.create_task(outlet.publish([lost])) for _ in range(10)))

    assert [type(end) for end in ends] == [Refused] * 10


async def test_the_same_id_twice_at_once_is_published_twice(broker: RabbitMQ) -> None:
    ours = settings(broker)
    mail = document(ours.inbox)

    async with opened(Amqp(ours)) as outlet, asyncio.TaskGroup() as together:
        for _ in range(10):
            together.create_task(outlet.publish([mail]))

    assert len(await take(broker, ours.inbox)) == 10


async def test_a_full_queue_is_storage_full(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), declare=False, queue_type="classic")
    async with channel(broker) as here:
        await here.declare_queue(
            ours.inbox,
            durable=True,
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        )

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox)])
        # One at a time: the limit may be overshot by a few.
        ends = [await end_of(outlet.publish([document(ours.inbox)])) for _ in range(5)]

    assert isinstance(ends[-1], Unavailable)
    assert ends[-1].reply is reply.STORAGE_FULL


async def test_a_document_above_the_limit_is_refused_before_it_is_sent(broker: RabbitMQ) -> None:
    ours = settings(broker)

    async with opened(Amqp(ours, max_message=1000)) as outlet:
        with pytest.raises(Undeliverable) as refused:
            await outlet.publish([document(ours.inbox), document(ours.inbox, b"x" * 1001)])
        await outlet.publish([document(ours.inbox, b"x" * 1000)])

    assert refused.value.reply is reply.TOO_BIG
    assert len(await take(broker, ours.inbox)) == 1


async def test_a_broker_with_a_lower_limit_is_believed_and_others_do_not_notice(
    broker: RabbitMQ,
) -> None:
    ours = settings(broker)
    too_big = document(ours.inbox, b"x" * (MAX_MESSAGE + 1))

    async with opened(Amqp(ours)) as outlet:
        big = asyncio.create_task(outlet.publish([too_big]))
        others = [asyncio.create_task(outlet.publish([document(ours.inbox)])) for _ in range(20)]
        [end] = await settle(big)
        ends = await settle(*others)

        assert isinstance(end, Undeliverable)
        assert ends == [None] * 20
        with pytest.raises(Undeliverable):
            await outlet.publish([too_big])
        assert outlet.trouble() is None
        await outlet.publish([document(ours.inbox)])


async def test_a_missing_exchange_is_a_4xx_until_it_is_back(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), exchange=fresh("exchange"), declare=False)

    async with opened(Amqp(ours)) as outlet, channel(broker) as here:
        acts = [asyncio.create_task(outlet.publish([document(ours.inbox)])) for _ in range(40)]
        ends = await settle(*acts)
        assert {type(end) for end in ends} == {Unavailable}

        exchange = await here.declare_exchange(ours.exchange, durable=True)
        queue = await here.declare_queue(ours.inbox, durable=True)
        await queue.bind(exchange, ours.inbox)
        await outlet.publish([document(ours.inbox)])

        assert outlet.trouble() is None
        await here.exchange_delete(ours.exchange)


async def test_a_deleted_exchange_and_queue_are_declared_again(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), exchange=fresh("exchange"))

    async with opened(Amqp(ours)) as outlet, channel(broker) as here:
        await outlet.publish([document(ours.inbox)])
        await here.exchange_delete(ours.exchange)
        await here.queue_delete(ours.inbox)

        with pytest.raises(Unavailable):
            await outlet.publish([document(ours.inbox)])
        await outlet.publish([document(ours.inbox)])

    assert len(await take(broker, ours.inbox)) == 1


async def test_transactions_larger_than_the_throttle_get_through_beside_each_other(
    broker: RabbitMQ,
) -> None:
    ours = replace(settings(broker), throttle=3)

    async with opened(Amqp(ours)) as outlet, asyncio.TaskGroup() as together:
        together.create_task(outlet.publish([document(ours.inbox) for _ in range(50)]))
        together.create_task(outlet.publish([document(ours.inbox) for _ in range(50)]))

    assert len(await take(broker, ours.inbox)) == 100


async def test_publishes_that_are_given_up_leave_nothing_behind(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), throttle=5)

    async with opened(Amqp(ours)) as outlet:
        acts = [asyncio.create_task(outlet.publish([document(ours.inbox)])) for _ in range(60)]
        for act in acts[::2]:
            asyncio.get_running_loop().call_soon(act.cancel)
        ends = await settle(*acts)
        # Were a slot or an id lost with them, this would wait for ever.
        await outlet.publish([document(ours.inbox) for _ in range(20)])

    assert {type(end) for end in ends[1::2]} == {type(None)}
    assert len(await take(broker, ours.inbox)) >= 30 + 20


async def test_close_waits_for_what_is_under_way(broker: RabbitMQ) -> None:
    ours = settings(broker)
    outlet = Amqp(ours)
    async with opened(outlet):
        acts = [asyncio.create_task(outlet.publish([document(ours.inbox)])) for _ in range(50)]
        await asyncio.sleep(0)
        await outlet.close()

        ends = await settle(*acts)

    assert ends == [None] * 50
    assert len(await take(broker, ours.inbox)) == 50


async def test_a_queue_name_that_amqp_cannot_carry_harms_nobody_else(broker: RabbitMQ) -> None:
    ours = settings(broker)

    async with opened(Amqp(ours)) as outlet:
        with pytest.raises(Unavailable) as refused:
            await outlet.publish([document("q" * 256)])
        await outlet.publish([document(ours.inbox)])

    assert refused.value.reply is reply.MISCONFIGURED


async def test_properties_larger_than_a_frame_do_not_end_the_connection(broker: RabbitMQ) -> None:
    ours = settings(broker)

    async with opened(Amqp(ours)) as outlet:
        with pytest.raises(Unavailable):
            await outlet.publish([document(ours.inbox, dedupe="d" * 200_000)])
        await outlet.publish([document(ours.inbox)])


async def test_the_log_names_the_broker_and_never_the_password(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mailgw.amqp")
    wrong = broker.url.replace("guest:guest", "guest:s3cret")
    outlet = Amqp(Settings(address=(wrong, broker.url), inbox=fresh()), backoff=QUICKLY)

    async with opened(outlet):
        await eventually(lambda: "amqp.connected" in caplog.text, "the log tells")

    assert f"amqp.connected host=127.0.0.1:{broker.port} vhost=/" in caplog.text
    assert "refuses the login" in caplog.text
    assert "s3cret" not in caplog.text + repr(outlet)
