"""Reaching a broker: addresses, TLS, and what went wrong in plain words.

Which address comes next and how long to wait is decided here and nowhere else; the
library's own reconnecting is not used, because it knows one host and one interval.
Addresses hold passwords: only host and virtual host ever leave this module as text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

import aio_pika
from aio_pika.connection import make_url
from aiormq.abc import AbstractConnection as Link
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

# How soon a broker that stands still is noticed: after three of these (seconds).
_HEARTBEAT = 10
_CLOSE_LIMIT = 5.0
# RabbitMQ's max_message_size: 16 MiB by default since 4.0, 128 MiB before.
_LIMIT, _LIMIT_BEFORE_4 = 16 * 1024 * 1024, 128 * 1024 * 1024

# What aiormq's connection knows and keeps to itself. Its `ready` waits for this, and asking
# that three times a mail would cost as much as making the document.
_UNBLOCKED = "_Connection__connection_unblocked"

# What the libraries raise where no connection comes about. The last one is how aiormq
# says that the other side hung up during the handshake: a broker on its way down, or a
# balancer without a server.
_NO_CONNECTION = (AMQPError, OSError, EOFError, TimeoutError, RuntimeError, StopAsyncIteration)

# The libraries speak of every attempt and every closed socket. This room says it once
# per change, and without a traceback.
for _name in ("aiormq", "aio_pika"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class BrokerSettings(Protocol):
    """What this room needs of the configuration's broker section."""

    @property
    def address(self) -> tuple[str, ...]: ...
    @property
    def verify(self) -> bool: ...
    @property
    def inbox(self) -> str: ...
    @property
    def local(self) -> str: ...
    @property
    def reports(self) -> str: ...
    @property
    def quarantine(self) -> str: ...
    @property
    def refused(self) -> str: ...
    @property
    def exchange(self) -> str: ...
    @property
    def declare(self) -> bool: ...
    @property
    def durable(self) -> bool: ...
    @property
    def persistent(self) -> bool: ...
    @property
    def lazy(self) -> bool: ...
    @property
    def maxpriority(self) -> int | None: ...
    @property
    def encoding(self) -> str: ...
    @property
    def queue_type(self) -> str: ...
    @property
    def throttle(self) -> int: ...


class Unreachable(Exception):
    """No connection; the text says why and holds no credentials."""


@dataclass(frozen=True, slots=True)
class Address:
    """One broker. As text it is what a log may show."""

    url: str = field(repr=False)
    host: str
    port: int
    vhost: str

    def __str__(self) -> str:
        return f"host={self.host}:{self.port} vhost={self.vhost}"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before attempt number `n`: doubling, bounded, never in step."""

    first: float = 0.25
    longest: float = 10.0
    random: Callable[[], float] = random.random

    def delay(self, attempt: int) -> float:
        """Between half and all of the step, so that many gateways do not come at once."""
        step = min(self.longest, self.first * 2.0 ** min(attempt, 30))
        return step * (0.5 + self.random() / 2)


def read_addresses(urls: Sequence[str], *, verify: bool) -> tuple[Address, ...]:
    """The brokers in the order of the configuration. Raises Unreachable for a bad URL."""
    return tuple(_read_address(url, verify=verify) for url in urls)


def _read_address(text: str, *, verify: bool) -> Address:
    try:
        url = make_url(text)
        host = url.host
        if url.scheme not in ("amqp", "amqps") or not host:
            raise ValueError("scheme or host")
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(_HEARTBEAT))
        if not verify:
            url = url.update_query(no_verify_ssl="1")
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
    except (ValueError, TypeError):
        # Not chained: the library's text may quote the URL.
        raise Unreachable(
            "an address is not of the form amqp[s]://login:password@host/vhost"
        ) from None
    return Address(str(url), host, port, unquote(url.raw_path.removeprefix("/")) or "/")


async def connect(address: Address, timeout: float) -> aio_pika.Connection:
    """Open a connection and log in. Raises Unreachable."""
    connection = aio_pika.Connection(make_url(address.url))
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()
    except BaseException as error:
        await close(connection)
        if isinstance(error, _NO_CONNECTION):
            raise Unreachable(_reason(error)) from None
        raise
    return connection


async def close(connection: aio_pika.Connection) -> None:
    """Say goodbye, but not to somebody who no longer listens."""
    with contextlib.suppress(AMQPError, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(_CLOSE_LIMIT):
            await connection.close()


def link_of(connection: aio_pika.Connection) -> Link:
    """The thin connection under it. Raises Unreachable if it is gone already."""
    if connection.transport is None:
        raise Unreachable("the connection was closed")
    return connection.transport.connection


def is_blocked(link: Link) -> bool:
    """Whether the broker said connection.blocked and has not taken it back."""
    unblocked: asyncio.Event = getattr(link, _UNBLOCKED)
    return not unblocked.is_set()


def version_of(link: Link) -> tuple[int, ...]:
    """The server's version, (3, 10, 8); () where it does not say."""
    said = (getattr(link, "server_properties", None) or {}).get("version", "")
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def usual_limit(version: tuple[int, ...]) -> int:
    """The largest message that a broker takes, in octets, where nobody chose another limit.

    It cannot be asked for.
    """
    return _LIMIT_BEFORE_4 if version < (4,) else _LIMIT


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"no TLS: {cause.reason}"
    if isinstance(error, (AuthenticationError, ProbableAuthenticationError)):
        return "it refuses the login"
    if isinstance(error, ConnectionNotAllowed) or (
        isinstance(error, InvalidFrameError) and "Connection.Close" in str(error)
    ):
        return "it refuses the virtual host"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, StopAsyncIteration):
        return "it hung up before the connection was open"
    if isinstance(cause, OSError):
        return cause.strerror or str(cause) or type(cause).__name__
    return str(error) or type(error).__name__
