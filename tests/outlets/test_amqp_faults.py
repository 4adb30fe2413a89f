"""Broken brokers: nothing unsafe is called safe, nothing hangs, all comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace

import pytest
from broker_tools import QUICKLY, Settings, document, end_of, fresh, opened, settle, take, within

from mailgw.outlets.amqp import Amqp
from mailgw.outlets.amqp_connection import Backoff
from mailgw.plugins import Unavailable
from mailgw.smtp import reply
from rabbitmq import RabbitMQ, eventually


@pytest.fixture
def own() -> Iterator[RabbitMQ]:
    """A node of the test's own, not started, for what the shared one must not suffer."""
    node = RabbitMQ()
    yield node
    node.close()


def settings(broker: RabbitMQ) -> Settings:
    return Settings(address=(broker.url,), inbox=fresh())


@contextlib.asynccontextmanager
async def alarm(broker: RabbitMQ) -> AsyncIterator[None]:
    """The broker is short of memory."""
    await broker.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        yield
    finally:
        await broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")


async def test_starts_before_the_broker_and_joins_it_when_it_comes(own: RabbitMQ) -> None:
    ours = settings(own)
    async with opened(Amqp(ours, backoff=QUICKLY), connected=False) as outlet:
        assert outlet.trouble() is reply.TRY_AGAIN
        with pytest.raises(Unavailable):
            await outlet.publish([document(ours.inbox)])

        await asyncio.to_thread(own.start)
        await eventually(lambda: outlet.trouble() is None, "the outlet joined")
        await outlet.publish([document(ours.inbox)])

    assert len(await take(own, ours.inbox)) == 1


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_every_confirmed_document_outlives_a_killed_broker(
    own: RabbitMQ, queue_type: str
) -> None:
    await asyncio.to_thread(own.start)
    ours = replace(settings(own), queue_type=queue_type)
    safe: list[str] = []
    stop = asyncio.Event()

    async def client(outlet: Amqp) -> None:
        while not stop.is_set():
            mail = document(ours.inbox, b"x" * 4096)
            if await end_of(outlet.publish([mail])) is None:
                safe.append(mail.message_id)
            else:
                await asyncio.sleep(0.01)

    async with opened(Amqp(ours, confirm_timeout=5, backoff=QUICKLY)) as outlet:
        clients = [asyncio.create_task(client(outlet)) for _ in range(20)]
        # RabbitMQ writes the register of quorum queues to disk half a second late. A
        # queue younger than that is forgotten by a kill, messages and all.
        await own.rabbitmqctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
        enough = len(safe) + 500
        await eventually(lambda: len(safe) > enough, "some are safe")
        await asyncio.to_thread(own.kill)
        await eventually(lambda: outlet.trouble() is reply.TRY_AGAIN, "the loss was noticed")
        await asyncio.to_thread(own.start)
        before = len(safe)
        await eventually(lambda: len(safe) > before + 200, "it goes on")
        stop.set()
        await asyncio.gather(*clients)

    there = [message.message_id for message in await take(own, ours.inbox)]
    assert set(safe) <= set(there)


async def test_a_frozen_broker_costs_no_more_than_the_deadline(broker: RabbitMQ) -> None:
    ours = replace(settings(broker), throttle=5)
    async with opened(Amqp(ours, confirm_timeout=1)) as outlet:

        def publish() -> Awaitable[None]:
            return within(1, outlet.publish([document(ours.inbox)]))

        broker.freeze()
        try:
            began = time.monotonic()
            ends = await asyncio.gather(*(end_of(publish()) for _ in range(20)))
            took = time.monotonic() - began
            late = await end_of(publish())
        finally:
            broker.thaw()

        assert took < 4
        assert {type(end) for end in [*ends, late]} == {TimeoutError}
        await outlet.publish([document(ours.inbox)])

    # Of those given up on, no more than the throttle let through may be there.
    assert len(await take(broker, ours.inbox)) <= 5 + 1


async def test_what_is_given_up_while_the_broker_stands_still_is_not_kept(
    broker: RabbitMQ,
) -> None:
    # Each may be a large mail, and before the heartbeat fails there may come many.
    class Parts(list[bytes]):
        """Parts that tell whether anybody has them."""

    ours = settings(broker)
    held = []
    async with opened(Amqp(ours, confirm_timeout=1)) as outlet:
        broker.freeze()
        try:
            for _ in range(8):
                parts = Parts([bytes(8_000_000)])
                held.append(weakref.ref(parts))
                publish = outlet.publish([replace(document(ours.inbox), parts=parts)])
                del parts
                waiting = asyncio.create_task(publish)
                await asyncio.wait([waiting], timeout=0.1)
                waiting.cancel()
                await asyncio.wait([waiting])
            del publish, waiting
            gc.collect()
            # The one that is half written has to be written to its end.
            assert sum(each() is not None for each in held) <= 1
        finally:
            broker.thaw()
        await outlet.publish([document(ours.inbox)])


async def test_close_does_not_wait_for_a_broker_that_stands_still(broker: RabbitMQ) -> None:
    ours = settings(broker)
    outlet = Amqp(ours, confirm_timeout=0.5)
    async with opened(outlet):
        broker.freeze()
        try:
            act = asyncio.create_task(outlet.publish([document(ours.inbox)]))
            await asyncio.sleep(0)
            began = time.monotonic()
            await outlet.close()
            took = time.monotonic() - began
            [end] = await settle(act)
        finally:
            broker.thaw()

    assert took < 9
    assert isinstance(end, Unavailable)


async def test_a_broker_short_of_memory_is_storage_full_and_then_forgotten(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mailgw.amqp")
    ours = settings(broker)
    async with opened(Amqp(ours, confirm_timeout=15, watch=0.02)) as outlet:
        async with alarm(broker):
            # The broker says so to who publishes, and only then.
            first = asyncio.create_task(outlet.publish([document(ours.inbox)]))
            await eventually(lambda: outlet.trouble() is reply.STORAGE_FULL, "it says so")
            refused = [await end_of(outlet.publish([document(ours.inbox)])) for _ in range(5)]
            await eventually(lambda: "amqp.blocked" in caplog.text, "the log tells")
        [end] = await settle(first)
        await eventually(lambda: "amqp.unblocked" in caplog.text, "the log tells")

        assert outlet.trouble() is None
        await outlet.publish([document(ours.inbox)])

    assert end is None
    assert [e.reply for e in refused if isinstance(e, Unavailable)] == [reply.STORAGE_FULL] * 5
    assert caplog.text.count("amqp.blocked") == 1
    assert len(await take(broker, ours.inbox)) == 2


async def test_a_publish_into_an_alarm_ends_at_the_deadline(broker: RabbitMQ) -> None:
    ours = settings(broker)
    async with opened(Amqp(ours, confirm_timeout=0.5)) as outlet, alarm(broker):
        end = await end_of(within(0.5, outlet.publish([document(ours.inbox)])))

    assert isinstance(end, TimeoutError)


async def test_connections_closed_by_the_operator_are_opened_again(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mailgw.amqp")
    ours = settings(broker)
    async with opened(Amqp(ours, backoff=QUICKLY)) as outlet:
        await broker.rabbitmqctl("close_all_connections", "maintenance")
        await eventually(lambda: caplog.text.count("amqp.connected") == 2, "it came back")
        await outlet.publish([document(ours.inbox)])

    assert caplog.text.count("amqp.lost") == 1


async def test_publishes_during_a_restart_end_and_the_rest_get_through(own: RabbitMQ) -> None:
    await asyncio.to_thread(own.start)
    ours = settings(own)
    async with opened(Amqp(ours, confirm_timeout=5, backoff=QUICKLY)) as outlet:
        acts = [asyncio.create_task(outlet.publish([document(ours.inbox)])) for _ in range(50)]
        await asyncio.to_thread(own.stop)
        ends = await settle(*acts)
        await asyncio.to_thread(own.start)
        await eventually(lambda: outlet.trouble() is None, "it came back")
        await outlet.publish([document(ours.inbox)])

    assert {type(end) for end in ends} <= {type(None), Unavailable}
    assert len(await take(own, ours.inbox)) >= ends.count(None) + 1


async def test_a_changed_password_is_a_4xx_logged_once_until_it_fits_again(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.rabbitmqctl("add_user", "gateway", "one")
    await broker.rabbitmqctl("set_permissions", "gateway", ".*", ".*", ".*")
    url = broker.url.replace("guest:guest", "gateway:one")
    ours = Settings(address=(url,), inbox=fresh())
    attempts = Counted(QUICKLY)

    async with opened(Amqp(ours, backoff=attempts.backoff)) as outlet:
        await broker.rabbitmqctl("change_password", "gateway", "two")
        await broker.rabbitmqctl("close_all_connections", "rotated")
        await eventually(lambda: attempts.made >= 4, "it has tried again and again")
        refused = await end_of(outlet.publish([document(ours.inbox)]))
        await broker.rabbitmqctl("change_password", "gateway", "one")
        await eventually(lambda: outlet.trouble() is None, "it came back")
        await outlet.publish([document(ours.inbox)])

    assert isinstance(refused, Unavailable)
    assert caplog.text.count("refuses the login") == 1


async def test_a_virtual_host_that_is_gone_is_named_in_the_log(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(address=(broker.url + "nowhere",), inbox=fresh())

    async with opened(Amqp(ours, backoff=QUICKLY), connected=False) as outlet:
        await eventually(lambda: "refuses the virtual host" in caplog.text, "the log tells")

        assert outlet.trouble() is reply.TRY_AGAIN
    assert "vhost=nowhere" in caplog.text


async def test_a_right_taken_away_is_a_4xx_and_comes_back(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mailgw.amqp")
    await broker.rabbitmqctl("add_user", "reader", "reader")
    await broker.rabbitmqctl("set_permissions", "reader", ".*", ".*", ".*")
    ours = Settings(
        address=(broker.url.replace("guest:guest", "reader:reader"),),
        inbox=fresh(),
        exchange=fresh("exchange"),
    )
    async with opened(Amqp(ours, backoff=QUICKLY)) as outlet:
        await outlet.publish([document(ours.inbox)])
        await broker.rabbitmqctl("set_permissions", "reader", ".*", "^$", ".*")
        await broker.rabbitmqctl("close_all_connections", "rights")
        await eventually(lambda: caplog.text.count("amqp.connected") == 2, "it came back")
        refused = await end_of(outlet.publish([document(ours.inbox)]))
        await broker.rabbitmqctl("set_permissions", "reader", ".*", ".*", ".*")
        await broker.rabbitmqctl("close_all_connections", "rights")
        await eventually(lambda: caplog.text.count("amqp.connected") == 3, "it came back")
        await outlet.publish([document(ours.inbox)])

    assert isinstance(refused, Unavailable)


async def test_the_next_address_is_taken_when_one_does_not_answer(broker: RabbitMQ) -> None:
    # Connections are accepted by the kernel and nobody speaks: a hung host.
    with socket.create_server(("127.0.0.1", 0)) as hung:
        silent = f"amqp://127.0.0.1:{hung.getsockname()[1]}/"
        ours = Settings(address=(silent, "amqp://127.0.0.1:1/", broker.url), inbox=fresh())
        async with opened(Amqp(ours, connect_timeout=0.5, backoff=QUICKLY)) as outlet:
            await outlet.publish([document(ours.inbox)])

    assert len(await take(broker, ours.inbox)) == 1


async def test_amqps_is_spoken_with_a_broker_whose_certificate_is_trusted(
    broker: RabbitMQ,
) -> None:
    url = f"{broker.tls_url}?cafile={broker.certificate_authority}"
    ours = Settings(address=(url,), inbox=fresh())

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox)])

    assert len(await take(broker, ours.inbox)) == 1


async def test_amqps_with_an_unknown_certificate_is_no_connection(
    broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Settings(address=(broker.tls_url,), inbox=fresh())

    async with opened(Amqp(ours, backoff=QUICKLY), connected=False) as outlet:
        await eventually(lambda: "certificate is not trusted" in caplog.text, "the log tells")

        assert outlet.trouble() is reply.TRY_AGAIN


async def test_amqps_without_verification_takes_any_certificate(broker: RabbitMQ) -> None:
    ours = Settings(address=(broker.tls_url,), inbox=fresh(), verify=False)

    async with opened(Amqp(ours)) as outlet:
        await outlet.publish([document(ours.inbox)])

    assert len(await take(broker, ours.inbox)) == 1


@pytest.mark.parametrize("bad", ["http://localhost/", "amqp://", "amqp://h:port/", "queue"])
async def test_an_address_that_is_none_is_said_at_open_without_its_password(bad: str) -> None:
    outlet = Amqp(Settings(address=(bad, "amqp://u:s3cret@[/"), inbox="inbox"))

    with pytest.raises(Unavailable) as refused:
        await outlet.open()

    assert refused.value.reply is reply.MISCONFIGURED
    assert "s3cret" not in str(refused.value)


def test_the_back_off_doubles_is_bounded_and_never_in_step() -> None:
    least = Backoff(random=lambda: 0.0)
    most = Backoff(random=lambda: 1.0)

    assert [most.delay(n) for n in range(8)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert [least.delay(n) for n in range(8)] == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert most.delay(10_000) == 10.0


class Counted:
    """A back-off that counts how often it was asked."""

    def __init__(self, steps: Backoff) -> None:
        self.made = 0
        self.backoff = replace(steps, random=self._random)

    def _random(self) -> float:
        self.made += 1
        return 1.0
