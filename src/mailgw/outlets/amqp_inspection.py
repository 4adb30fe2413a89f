"""A broker looked at from outside: what it is, and what would become of our mail there.

Laws. Nothing stays of a look: queues are asked for passively, one that is there is declared
as it is, one that is missing is declared in a way that no broker accepts, and what is
published is inside a transaction that is rolled back. Passwords do not leave the address.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import aio_pika
from aiormq.abc import AbstractChannel as Channel
from aiormq.exceptions import (
    AMQPChannelError,
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldValue

from mailgw.outlets.amqp_connection import (
    Address,
    BrokerSettings,
    Unreachable,
    close,
    connect,
    is_blocked,
    link_of,
    read_addresses,
    usual_limit,
    version_of,
)
from mailgw.outlets.amqp_queues import queue_arguments, queue_durable, queue_names

T = TypeVar("T")

# How long a broker that has an alarm may leave us without an answer: that is how it is seen.
_ALARM_LIMIT = 2.0
# Differences of one queue that are found, each by a question of its own.
_MOST_DIFFERENCES = 12
_DIFFERENCE = re.compile(
    r"inequivalent arg '([\w-]+)' for .*: received (.+?) but current is (.+)", re.DOTALL
)
_TYPED = re.compile(r"the value '(.*)' of type '(\w+)'", re.DOTALL)
_BARE = re.compile(r"'(.*)'", re.DOTALL)
# No broker makes a queue with it, but whether we may make one is looked at before.
_IMPOSSIBLE: dict[str, FieldValue] = {"x-max-length": -1}


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """A queue. `may_declare` is None where that cannot be known.

    `differences` are properties as (name, ours, theirs), "" for one that is not set; None
    where the queue could not be compared. `trouble` says why nothing is known.
    """

    name: str
    exists: bool = False
    may_declare: bool | None = None
    messages: int = 0
    differences: tuple[tuple[str, str, str], ...] | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class BrokerSeen:
    """A broker. Where `unreachable` is set it says why, and nothing else is known.

    `limit` is the largest message that it takes by default, in octets. `exchange_exists`
    is true for the default exchange; `may_publish` is None where that cannot be known.
    """

    host: str
    port: int
    vhost: str
    unreachable: str = ""
    encrypted: bool = False
    product: str = ""
    version: tuple[int, ...] = ()
    limit: int = 0
    exchange_exists: bool = True
    exchange_differs: str = ""
    queues: tuple[QueueSeen, ...] = ()
    may_publish: bool | None = None
    blocked: bool = False


async def inspect(settings: BrokerSettings, timeout: float) -> tuple[BrokerSeen, ...]:
    """Look at each address of the configuration, side by side.

    `timeout` is for reaching one and for what is asked of it, each, in seconds. Raises
    Unreachable for an address that cannot be read.
    """
    addresses = read_addresses(settings.address, verify=settings.verify)
    found = (_look_at(address, settings, timeout) for address in addresses)
    return tuple(await asyncio.gather(*found))


async def _look_at(address: Address, settings: BrokerSettings, timeout: float) -> BrokerSeen:
    connection = None
    try:
        connection = await connect(address, timeout)
        async with asyncio.timeout(timeout):
            return await _look_around(connection, address, settings)
    except Unreachable as trouble:
        why = str(trouble)
    except TimeoutError:
        why = "it stopped answering"
    except (AMQPError, ChannelInvalidStateError, OSError, RuntimeError) as trouble:
        why = str(trouble) or type(trouble).__name__
    finally:
        if connection is not None:
            await close(connection)
    return BrokerSeen(address.host, address.port, address.vhost, unreachable=why)


async def _look_around(
    connection: aio_pika.Connection, address: Address, settings: BrokerSettings
) -> BrokerSeen:
    link = link_of(connection)
    exists, differs = await _exchange(connection, settings)
    queues = [await _queue(connection, name, settings) for name in queue_names(settings)]
    # Last: with an alarm the broker reads nothing more on a connection that published.
    may_publish = await _may_publish(connection, settings) if exists else None
    version = version_of(link)
    return BrokerSeen(
        address.host,
        address.port,
        address.vhost,
        encrypted=address.url.startswith("amqps"),
        product=_text((link.server_properties or {}).get("product", "")),
        version=version,
        limit=usual_limit(version),
        exchange_exists=exists,
        exchange_differs=differs,
        queues=tuple(queues),
        may_publish=may_publish,
        blocked=is_blocked(link),
    )


async def _exchange(connection: aio_pika.Connection, settings: BrokerSettings) -> tuple[bool, str]:
    """Whether it exists, and the one thing that a declaration of ours would stumble over."""
    name = settings.exchange
    if not name:
        return True, ""
    try:
        await _ask(connection, lambda channel: channel.exchange_declare(name, passive=True))
        await _ask(
            connection,
            lambda channel: channel.exchange_declare(
                name, exchange_type="direct", durable=settings.durable
            ),
        )
    except ChannelNotFoundEntity:
        return False, ""
    except ChannelPreconditionFailed as trouble:
        found = _DIFFERENCE.search(str(trouble))
        return True, f"{found[1]} is {_plain(found[3])}" if found else str(trouble)
    except AMQPChannelError:
        pass  # there it is, and it is not ours to compare
    return True, ""


async def _queue(connection: aio_pika.Connection, name: str, settings: BrokerSettings) -> QueueSeen:
    try:
        told = await _ask(connection, lambda channel: channel.queue_declare(name, passive=True))
    except ChannelNotFoundEntity:
        return QueueSeen(name, may_declare=await _may_declare(connection, name, settings))
    except AMQPChannelError as trouble:
        return QueueSeen(name, trouble=str(trouble))
    differences = await _differences(connection, name, settings)
    return QueueSeen(
        name,
        exists=True,
        may_declare=None if differences is None else True,
        messages=told.message_count or 0,
        differences=differences,
    )


async def _may_declare(
    connection: aio_pika.Connection, name: str, settings: BrokerSettings
) -> bool | None:
    arguments = {**queue_arguments(settings), **_IMPOSSIBLE}
    try:
        await _ask(
            connection,
            lambda channel: channel.queue_declare(
                name, durable=queue_durable(settings), arguments=arguments
            ),
        )
    except ChannelAccessRefused:
        return False
    except ChannelPreconditionFailed:
        return True
    except AMQPChannelError:
        pass
    return None


@dataclass(slots=True)
class _Declaration:
    """What a queue is declared with: ours at first, then more and more what is there."""

    durable: bool
    arguments: dict[str, FieldValue]
    auto_delete: bool = False

    async def attempt(self, connection: aio_pika.Connection, name: str) -> None:
        """Raises ChannelPreconditionFailed, which names one difference."""
        await _ask(
            connection,
            lambda channel: channel.queue_declare(
                name,
                durable=self.durable,
                auto_delete=self.auto_delete,
                arguments=dict(self.arguments),
            ),
        )

    def take_over(self, what: str, theirs: str) -> None:
        """Be like the queue in this; `theirs` is as the broker wrote it."""
        if what == "durable":
            self.durable = _plain(theirs) == "true"
        elif what == "auto_delete":
            self.auto_delete = _plain(theirs) == "true"
        elif theirs == "none":
            self.arguments.pop(what, None)
        else:
            self.arguments[what] = _value(theirs)


async def _differences(
    connection: aio_pika.Connection, name: str, settings: BrokerSettings
) -> tuple[tuple[str, str, str], ...] | None:
    """How a queue that is there differs from ours; None where it cannot be told.

    The broker names one difference at a time. It is noted, and taken over for the next
    question, until what is declared is what is there, which changes nothing. (A queue that
    somebody deletes in that very moment would be made again.)
    """
    ours = _Declaration(queue_durable(settings), {**queue_arguments(settings)})
    found: dict[str, tuple[str, str]] = {}
    while len(found) < _MOST_DIFFERENCES:
        try:
            await ours.attempt(connection, name)
            break
        except ChannelPreconditionFailed as trouble:
            said = _DIFFERENCE.search(str(trouble))
        except AMQPChannelError:
            return None
        if said is None:
            return None
        if said[1] in found:
            break  # it was not understood, and would be told for ever
        found[said[1]] = _plain(said[2]), _plain(said[3])
        ours.take_over(said[1], said[3])
    return tuple((what, *both) for what, both in found.items())


async def _may_publish(connection: aio_pika.Connection, settings: BrokerSettings) -> bool | None:
    async def publish_and_take_back(channel: Channel) -> None:
        await channel.tx_select()
        await channel.basic_publish(
            b"", exchange=settings.exchange, routing_key=settings.inbox, timeout=_ALARM_LIMIT
        )
        await channel.tx_rollback(timeout=_ALARM_LIMIT)

    try:
        await _ask(connection, publish_and_take_back)
    except ChannelAccessRefused:
        return False
    except (AMQPChannelError, TimeoutError):
        return None
    return True


async def _ask(connection: aio_pika.Connection, act: Callable[[Channel], Awaitable[T]]) -> T:
    """Do it on a channel of its own, which a mistake would cost."""
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    thin = await channel.get_underlay_channel()
    try:
        return await act(thin)
    except ChannelInvalidStateError:
        # The broker closed it between two steps of ours: it said why.
        await asyncio.wait({thin.closing}, timeout=_ALARM_LIMIT)
        closed = thin.closing.done() and not thin.closing.cancelled()
        if closed and isinstance(why := thin.closing.exception(), AMQPChannelError):
            raise why from None
        raise
    finally:
        # With an alarm it would not answer to that either.
        if not channel.is_closed and not is_blocked(link_of(connection)):
            await channel.close()


def _plain(told: str) -> str:
    """A value as the broker writes it in a sentence; "" for none."""
    found = _TYPED.fullmatch(told) or _BARE.fullmatch(told)
    return found[1] if found else told if told != "none" else ""


def _value(told: str) -> FieldValue:
    found = _TYPED.fullmatch(told)
    if found is None:
        return _plain(told)
    if found[2] == "bool":
        return found[1] == "true"
    return found[1] if found[2] == "longstr" else _whole(found[1])


def _whole(text: str) -> FieldValue:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def _text(said: object) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text[:100]
