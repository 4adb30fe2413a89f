"""The broker as the doctor sees it: a real one, in each bad state that it can have."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import aio_pika
import pytest

from doctor.looking import lines, only
from mailgw.config.sections.broker import BrokerSettings
from mailgw.doctor.broker import judge, look_at_broker
from mailgw.doctor.examination import Look, examine
from mailgw.doctor.observation import Observation
from mailgw.outlets.amqp_inspection import BrokerSeen
from parts import needs
from rabbitmq import RabbitMQ

pytestmark = needs("rabbitmq")

MB = 1_000_000


def settings(broker: RabbitMQ, **chosen: object) -> BrokerSettings:
    ours = BrokerSettings(address=(broker.url,), inbox=f"inbox-{uuid4().hex[:8]}")
    return replace(ours, **chosen)


async def look(ours: BrokerSettings, maxsize: int = 5 * MB) -> Sequence[Observation]:
    return await look_at_broker(ours, maxsize)


@asynccontextmanager
async def channel(broker: RabbitMQ) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(broker.url) as connection:
        yield await connection.channel()


@asynccontextmanager
async def queue(
    broker: RabbitMQ, ours: BrokerSettings, *, durable: bool = True, **arguments: object
) -> AsyncIterator[None]:
    """The inbox, made by somebody else."""
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    async with channel(broker) as here:
        made = await here.declare_queue(ours.inbox, durable=durable, arguments=named)
        try:
            yield
        finally:
            await made.delete(if_empty=False, if_unused=False)


@asynccontextmanager
async def login(broker: RabbitMQ, configure: str, write: str) -> AsyncIterator[str]:
    """The address for a user with these permissions."""
    name = f"user{uuid4().hex[:8]}"
    await broker.rabbitmqctl("add_user", name, "sesame")
    await broker.rabbitmqctl("set_permissions", name, configure, write, ".*")
    try:
        yield broker.url.replace("guest:guest", f"{name}:sesame")
    finally:
        await broker.rabbitmqctl("delete_user", name)


async def queues_at(broker: RabbitMQ) -> str:
    told = await broker.rabbitmqctl("list_queues", "--no-table-headers", "name", "messages")
    return "\n".join(sorted(told.split("\n")))


async def test_a_broker_with_the_queue_as_configured_is_all_right(broker: RabbitMQ) -> None:
    ours = settings(broker)
    async with queue(broker, ours, x_queue_type="quorum"):
        seen = lines(await look(ours))

    assert [line.split(" ")[0] for line in seen] == ["ok"] * 4
    assert "RabbitMQ 3." in seen[0] or "RabbitMQ 4." in seen[0]
    assert seen[0].endswith("takes the login, virtual host / (no TLS)")
    assert seen[2].startswith("ok default exchange: may be published to")
    assert seen[3] == f"ok queue {ours.inbox}: exists, as configured, with 0 messages"


async def test_a_look_leaves_nothing_behind(broker: RabbitMQ) -> None:
    ours = settings(broker)
    missing = replace(ours, local="local-that-is-missing")
    async with queue(broker, ours, x_queue_type="classic", x_max_length=7):
        before = await queues_at(broker)

        await look(missing)

        assert await queues_at(broker) == before
        assert f"{ours.inbox}\t0" in before


async def test_a_wrong_password_is_told_without_it(broker: RabbitMQ) -> None:
    ours = settings(broker, address=(broker.url.replace("guest:guest", "guest:sesame"),))

    [seen] = lines(await look(ours))

    assert seen == f"error broker 127.0.0.1:{broker.port}: virtual host /: it refuses the login"


async def test_a_missing_virtual_host_is_told(broker: RabbitMQ) -> None:
    [seen] = lines(await look(settings(broker, address=(f"{broker.url}nowhere",))))

    assert seen.endswith("virtual host nowhere: it refuses the virtual host")
    assert seen.startswith("error ")


async def test_a_certificate_that_nobody_trusts_is_told(broker: RabbitMQ) -> None:
    [seen] = lines(await look(settings(broker, address=(broker.tls_url,))))

    assert "its certificate is not trusted" in seen


async def test_a_trusted_certificate_and_an_unverified_one_are_told_apart(
    broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(broker.certificate_authority))
    assert ssl.get_default_verify_paths().cafile == str(broker.certificate_authority)
    ours = settings(broker, address=(broker.tls_url,))

    trusted, unverified = await look(ours), await look(replace(ours, verify=False))

    assert lines(trusted)[0].endswith("(TLS, its certificate is trusted)")
    assert lines(unverified)[0].endswith("(TLS, unverified)")


async def test_one_node_of_two_that_is_down_is_a_warning(
    broker: RabbitMQ, unused_tcp_port: int
) -> None:
    down = f"amqp://guest:guest@127.0.0.1:{unused_tcp_port}/"

    seen = await look(settings(broker, address=(down, broker.url)))

    assert only(seen, "warning broker").startswith(f"warning broker 127.0.0.1:{unused_tcp_port}:")
    assert only(seen, "note queue").endswith("is declared at the start: quorum")


async def test_a_missing_queue_that_we_may_not_declare_costs_mail(broker: RabbitMQ) -> None:
    async with login(broker, configure="^$", write=".*") as url:
        ours = settings(broker, address=(url,))
        seen = await look(ours)

    assert only(seen, f"error queue {ours.inbox}: does not exist, and the login may not declare it")


async def test_a_missing_queue_that_nobody_declares_costs_mail(broker: RabbitMQ) -> None:
    seen = await look(settings(broker, declare=False))

    assert "rabbitmq-declare is false" in only(seen, "error queue")


async def test_a_login_that_may_not_publish_is_an_error(broker: RabbitMQ) -> None:
    async with login(broker, configure=".*", write="^$") as url:
        seen = await look(settings(broker, address=(url,)))

    assert "the login may not publish to it" in only(seen, "error default exchange")


async def test_a_queue_that_may_not_be_compared_is_a_note(broker: RabbitMQ) -> None:
    async with login(broker, configure="^$", write=".*") as url:
        ours = settings(broker, address=(url,))
        async with queue(broker, ours, x_queue_type="quorum"):
            seen = await look(ours)

    assert "cannot be seen" in only(seen, "note queue")


async def test_a_queue_of_another_type_is_a_warning(broker: RabbitMQ) -> None:
    ours = settings(broker)
    async with queue(broker, ours, x_queue_type="classic"):
        seen = await look(ours)

    assert "is of type classic and used as it is" in only(seen, "warning queue")


async def test_all_differences_of_a_queue_are_found(broker: RabbitMQ) -> None:
    ours = settings(broker, queue_type="classic")
    theirs = {"x_message_ttl": 60_000, "x_expires": 3_600_000, "x_max_length": 5}
    async with queue(
        broker, ours, durable=False, x_queue_type="classic", x_max_priority=3, **theirs
    ):
        seen = [line for line in lines(await look(ours)) if f"queue {ours.inbox}" in line]

    said = "\n".join(seen)
    assert len(seen) == 5, seen
    assert "is not durable" in said
    assert "has x-message-ttl 60000" in said
    assert "has x-expires 3600000" in said
    assert "has x-max-length 5: where it is full, the oldest mail in it is dropped" in said
    assert "used as it is: x-max-priority 3" in said


async def test_a_full_queue_that_rejects_loses_nothing(broker: RabbitMQ) -> None:
    ours = settings(broker, queue_type="classic")
    limits = {"x_max_length": 5, "x_overflow": "reject-publish"}
    async with queue(broker, ours, x_queue_type="classic", **limits):
        seen = await look(ours)

    assert "clients hear 452" in only(seen, "note queue")
    assert not [line for line in lines(seen) if line.startswith("warning")]


async def test_an_exchange_that_is_missing_matters_where_we_do_not_declare_it(
    broker: RabbitMQ,
) -> None:
    declared = await look(settings(broker, exchange="mail-that-is-missing"))
    not_declared = await look(settings(broker, exchange="mail-that-is-missing", declare=False))

    assert only(declared, "note exchange").endswith("declared at the start")
    assert "all mail is refused" in only(not_declared, "error exchange")


async def test_an_exchange_of_another_type_is_told(broker: RabbitMQ) -> None:
    seen = await look(settings(broker, exchange="amq.fanout"))

    assert "type is fanout" in only(seen, "warning exchange amq.fanout")
    assert only(seen, "ok exchange amq.fanout")


async def test_an_alarm_is_seen(broker: RabbitMQ) -> None:
    await broker.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        [seen] = await examine([Look("broker", lambda: _alarms(broker))], 20)
    finally:
        await broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")

    assert "has an alarm and takes no messages" in str(seen)


async def _alarms(broker: RabbitMQ) -> list[Observation]:
    """The alarm is with the broker a moment after the command."""
    while True:
        found = [each for each in await look(settings(broker)) if "alarm" in each.seen]
        if found:
            return found


async def test_a_broker_that_stands_still_is_told_in_time(broker: RabbitMQ) -> None:
    broker.freeze()
    try:
        async with asyncio.timeout(9):
            [seen] = lines(await look(settings(broker)))
    finally:
        broker.thaw()

    # Which of the two depends on how far it came.
    assert seen.endswith(("no answer in time", "it stopped answering"))


@pytest.mark.parametrize(
    ("version", "maxsize", "encoding", "grade", "text"),
    [
        ((3, 13, 7), 100 * MB, "", "ok", "134.2MB by default, enough"),
        ((3, 13, 7), 120 * MB, "", "warning", "smtp-maxsize: 100MB"),
        ((4, 1, 0), 100 * MB, "", "warning", "16.8MB by default, and mail of 100MB makes"),
        ((4, 1, 0), 100 * MB, "", "warning", "max_message_size = 133398869"),
        ((4, 1, 0), 500 * MB, "", "warning", "(storage-above, or smtp-maxsize: 12MB)"),
        ((4, 1, 0), 12 * MB, "", "ok", "enough for mail of 12MB"),
        ((4, 1, 0), 16 * MB, "", "warning", "smtp-maxsize: 12MB"),
        ((4, 1, 0), 16 * MB, "gzip", "ok", "enough"),
    ],
)
def test_the_largest_message_is_held_against_smtp_maxsize(
    version: tuple[int, ...], maxsize: int, encoding: str, grade: str, text: str
) -> None:
    limit = 128 * 1024**2 if version < (4,) else 16 * 1024**2
    seen = BrokerSeen("mq", 5672, "/", product="RabbitMQ", version=version, limit=limit)
    ours = replace(BrokerSettings(address=("amqp://mq/",)), encoding=encoding)

    told = [line for line in lines(judge([seen], ours, maxsize)) if "takes messages" in line]

    assert [line.split(" ")[0] for line in told] == [grade]
    assert text in told[0]
