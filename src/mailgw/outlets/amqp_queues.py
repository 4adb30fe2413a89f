"""The exchange and the queues at the broker: made where they are missing, else used.

A queue that exists already is used as it is: a difference is the operator's business
and a warning in the log. Whatever may raise a channel error has a channel of its own,
because the broker answers a mistake by closing the channel it was made on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import aio_pika
from aiormq.abc import AbstractChannel as Channel
from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from mailgw.outlets.amqp_connection import BrokerSettings

log = logging.getLogger("mailgw.amqp")


def queue_names(settings: BrokerSettings) -> tuple[str, ...]:
    """The queues that are ours to declare, each once."""
    names = (
        settings.inbox,
        settings.local,
        settings.reports,
        settings.quarantine,
        settings.refused,
    )
    return tuple(dict.fromkeys(name for name in names if name))


def queue_arguments(settings: BrokerSettings) -> dict[str, str | int]:
    """What a queue of ours is declared with."""
    arguments: dict[str, str | int] = {"x-queue-type": settings.queue_type}
    # Quorum queues know neither; their messages are on disk anyway.
    if settings.queue_type == "classic":
        if settings.lazy:
            arguments["x-queue-mode"] = "lazy"
        if settings.maxpriority is not None:
            arguments["x-max-priority"] = settings.maxpriority
    return arguments


def queue_durable(settings: BrokerSettings) -> bool:
    """Whether a queue of ours is declared durable; a quorum queue cannot be otherwise."""
    return settings.durable or settings.queue_type == "quorum"


async def prepare(connection: aio_pika.Connection, settings: BrokerSettings) -> None:
    """Declare what is missing, or with `declare: false` look whether it is there.

    Trouble with one of them is logged and not raised: publishing will tell, by a
    returned message or a closed channel, and the others must go on.
    """
    if settings.declare:
        await _declare(connection, settings)
    else:
        await _look(connection, settings)


async def _declare(connection: aio_pika.Connection, settings: BrokerSettings) -> None:
    if settings.exchange:
        await _attempt(
            connection,
            "exchange",
            settings.exchange,
            lambda channel: channel.exchange_declare(
                settings.exchange, exchange_type="direct", durable=settings.durable
            ),
        )
    # mypy has no type for a default that binds the name of this turn, here and below.
    for name in queue_names(settings):
        await _attempt(
            connection,
            "queue",
            name,
            lambda channel, name=name: channel.queue_declare(  # type: ignore[misc]  # see above
                name, durable=queue_durable(settings), arguments=queue_arguments(settings)
            ),
        )
        if settings.exchange:
            await _attempt(
                connection,
                "binding",
                name,
                lambda channel, name=name: channel.queue_bind(  # type: ignore[misc]  # see above
                    name, settings.exchange, routing_key=name
                ),
            )


async def _look(connection: aio_pika.Connection, settings: BrokerSettings) -> None:
    if settings.exchange:
        await _attempt(
            connection,
            "exchange",
            settings.exchange,
            lambda channel: channel.exchange_declare(settings.exchange, passive=True),
        )
    for name in queue_names(settings):
        await _attempt(
            connection,
            "queue",
            name,
            lambda channel, name=name: channel.queue_declare(name, passive=True),  # type: ignore[misc]  # see above
        )


async def _attempt(
    connection: aio_pika.Connection,
    kind: str,
    name: str,
    act: Callable[[Channel], Awaitable[object]],
) -> None:
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    try:
        await act(await channel.get_underlay_channel())
    except ChannelPreconditionFailed as error:
        log.warning("amqp.differs %s=%s, used as it is: %s", kind, name, error)
    except ChannelNotFoundEntity as error:
        log.warning("amqp.missing %s=%s: %s", kind, name, error)
    except ChannelAccessRefused as error:
        log.warning("amqp.denied %s=%s: %s", kind, name, error)
    except AMQPChannelError as error:
        log.warning("amqp.trouble %s=%s: %s", kind, name, error)
    finally:
        if not channel.is_closed:
            await channel.close()
