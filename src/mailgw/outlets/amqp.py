"""RabbitMQ as an outlet: a document is safe when the broker has confirmed it.

Every message is mandatory and confirmed. An ack is the only success. A message that
came back, a nack, a channel or connection that went away and a confirm that does not
come in time are "not safe": the client tries again, and the consumer knows a duplicate
by its ids. Nothing is queued in here while the broker is away, and how long a publish may
take is its caller's to say, who cancels it then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Sequence

import aio_pika
from aiormq.abc import AbstractConnection as Link
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, ChannelInvalidStateError

from mailgw.mail.publication import Publication
from mailgw.outlets import amqp_connection
from mailgw.outlets.amqp_confirms import ChannelLost, Confirm, Nacked, Returned
from mailgw.outlets.amqp_connection import (
    Address,
    Backoff,
    BrokerSettings,
    Unreachable,
    is_blocked,
    link_of,
    read_addresses,
    usual_limit,
    version_of,
)
from mailgw.outlets.amqp_frames import Framer, compress
from mailgw.outlets.amqp_publisher import Publisher
from mailgw.outlets.amqp_queues import prepare, queue_names
from mailgw.plugins import Refused, Unavailable, Undeliverable
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

log = logging.getLogger("mailgw.amqp")

# What stays below the broker's limit: a larger message costs everybody the channel.
_MARGIN = 4096
_LIMIT_IN_TEXT = re.compile(r"larger than configured max size (\d+)")
# Octets of one transaction that may wait for their confirms at once.
_IN_FLIGHT = 32 * 1024 * 1024
# A queue that said nack is full for so long, in seconds; then the next mail tries it again.
_FULL_FOR = 2.0
# A channel that says nack is given up for a new one no more often than this, in seconds.
# RabbitMQ keeps "full" for each channel, and may forget to take it back: when the limit
# is lifted, and when a queue's leader died while the channel was opened (seen in 3.10).
_RENEW_AFTER = 5.0


class Amqp:
    """The `Output` that publishes to RabbitMQ.

    `confirm_timeout` is how long `close` waits for confirms still owed, in seconds.
    `max_message` is the largest body the broker takes, in octets; without it, what the
    broker's version takes by default. `watch` is how often, in seconds, the log learns of
    a change that the broker's library does not report.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        confirm_timeout: float = 30.0,
        connect_timeout: float = 10.0,
        max_message: int | None = None,
        backoff: Backoff | None = None,
        watch: float = 0.25,
    ) -> None:
        self._settings = settings
        self._confirm_timeout = confirm_timeout
        self._connect_timeout = connect_timeout
        self._max_message = max_message
        self._limit = max_message or usual_limit(()) - _MARGIN
        self._backoff = backoff or Backoff()
        self._watch_interval = watch
        self._learned: int | None = None
        self._gzip = settings.encoding == "gzip"
        self._slots = asyncio.Semaphore(max(1, settings.throttle))
        self._link: Link | None = None
        self._publisher: Publisher | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._served = False
        self._said: dict[Address, str] = {}
        self._blocked = False
        self._returned: set[str] = set()
        self._mend = False
        self._nacked = False
        # Where mail goes, and until when the queue counts as full.
        self._full = dict.fromkeys((settings.inbox, settings.local or settings.inbox), 0.0)

    # --- Output -----------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to connect, and to stay connected. Returns at once."""
        try:
            addresses = read_addresses(self._settings.address, verify=self._settings.verify)
        except Unreachable as error:
            raise Unavailable(f"rabbitmq-address: {error}", reply.MISCONFIGURED) from None
        if not addresses:
            raise Unavailable("rabbitmq-address is empty", reply.MISCONFIGURED)
        self._keeper = asyncio.create_task(self._keep_connected(addresses), name="amqp")

    @property
    def largest(self) -> int | None:
        """None where it is compressed first."""
        return None if self._gzip else self._limit

    def trouble(self) -> Reply | None:
        """As `unreachable`; also STORAGE_FULL for a moment after all queues said nack."""
        trouble = self.unreachable()
        if trouble is None and any(self._full.values()):
            # One that has room is reason enough to let the next mail come.
            return reply.STORAGE_FULL if min(self._full.values()) > time.monotonic() else None
        return trouble

    def unreachable(self) -> Reply | None:
        """TRY_AGAIN without a connection, STORAGE_FULL while the broker takes nothing."""
        if self._link is None:
            return reply.TRY_AGAIN
        if is_blocked(self._link):
            return reply.STORAGE_FULL
        return None

    def check(self, publications: Sequence[Publication]) -> None:
        """Raise Undeliverable for what the broker would never take, as far as it is known."""
        if not self._gzip:
            for publication in publications:
                self._check_size(publication.size)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Publish all and return when each is acked. See `Output.publish`."""
        trouble = self.unreachable()
        if trouble is not None or self._closing:
            raise Unavailable(
                "amqp: not connected, or blocked", trouble or reply.TRY_AGAIN, nowhere=True
            )
        self._under_way += 1
        # What the broker says no to is in no queue; of several, others may be in theirs.
        alone = len(publications) == 1
        try:
            self.check(publications)
            limit = self._limit
            try:
                await self._publish_all(publications)
            except ChannelLost:
                if self._limit == limit:
                    raise
                self.check(publications)
                # It was closed for what others sent: that is how the broker tells its limit,
                # once in a connection at most. Of ours some may be in their queues by then,
                # whatever is said of them the second time.
                alone = False
                await self._publish_all(publications)
        except Returned as error:
            raise self._came_back(error, nowhere=alone) from None
        except Nacked:
            self._nacked = True
            self._note_full(publications)
            raise Refused("amqp: the broker said nack", reply.STORAGE_FULL, nowhere=alone) from None
        except (ChannelLost, ChannelInvalidStateError) as error:
            # Perhaps it was this one that the broker closed the channel for.
            self.check(publications)
            raise Unavailable(f"amqp: {error}") from None
        except ValueError as error:
            raise Refused(f"amqp: cannot be carried: {error}", reply.MISCONFIGURED) from None
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    async def close(self) -> None:
        """Wait for the confirms under way, within the deadline, and disconnect."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._confirm_timeout):
                while self._under_way:
                    self._quiet.clear()
                    await self._quiet.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            if not self._keeper.cancelled():
                self._keeper.result()
            self._keeper = None

    # --- one transaction --------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise Undeliverable(f"amqp: {size} octets, and the broker takes {self._limit}")

    async def _publish_all(self, publications: Sequence[Publication]) -> None:
        confirms: list[Confirm] = []
        octets = 0
        try:
            for publication in publications:
                parts: Sequence[bytes] = publication.parts
                size = publication.size
                if self._gzip:
                    parts = await compress(parts)
                    size = sum(map(len, parts))
                    self._check_size(size)
                octets += size
                if octets > _IN_FLIGHT:
                    # A large mail to many: the next ones go when the last ones are safe.
                    for confirm in confirms:
                        await confirm
                    octets = size
                confirms.append(await self._send(publication, parts))
            for confirm in confirms:
                await confirm
        finally:
            for confirm in confirms:
                if not confirm.done():
                    confirm.cancel()

    async def _send(self, publication: Publication, parts: Sequence[bytes]) -> Confirm:
        await self._slots.acquire()
        try:
            while True:
                publisher = self._publisher or await self._next_publisher()
                earlier = publisher.earlier(publication.message_id)
                if earlier is None:
                    return publisher.send(publication, parts)
                await asyncio.wait({earlier})
        except BaseException:
            self._slots.release()
            raise

    async def _next_publisher(self) -> Publisher:
        """The channel that replaces the one just lost; ChannelLost if the link is gone too."""
        while self._publisher is None:
            if self._link is None:
                raise ChannelLost("the connection was lost")
            await self._ready.wait()
        return self._publisher

    def _note_full(self, publications: Sequence[Publication]) -> None:
        queues = {publication.queue for publication in publications}
        # Of several queues it is not known which one it was.
        if len(queues) == 1 and queues <= self._full.keys():
            self._full[queues.pop()] = time.monotonic() + _FULL_FOR

    def _came_back(self, error: Returned, *, nowhere: bool) -> Refused:
        queue = error.queue
        if queue not in self._returned:
            log.error("amqp.returned queue=%s reason=%r", queue, str(error))
            # Names may come from a message; the memory of them must not grow.
            if len(self._returned) < 1000:
                self._returned.add(queue)
        if queue in queue_names(self._settings):
            self._mend = True
        reason = f"amqp: returned, no queue {queue!r}"
        return Refused(reason, reply.MISCONFIGURED, nowhere=nowhere)

    # --- staying connected ------------------------------------------------------------

    async def _keep_connected(self, addresses: tuple[Address, ...]) -> None:
        turn = failures = 0
        while True:
            address = addresses[turn % len(addresses)]
            turn += 1
            self._served = False
            reason = await self._session(address)
            if self._said.get(address) != reason:
                self._said[address] = reason
                event = "lost" if self._served else "unreachable"
                log.warning("amqp.%s %s reason=%s", event, address, reason)
            failures = 0 if self._served else failures + 1
            # Rest once in each round through the addresses, not at each of them.
            if failures % len(addresses) == 0:
                await asyncio.sleep(self._backoff.delay(failures // len(addresses)))

    async def _session(self, address: Address) -> str:
        """Connect and serve until it ends; why it ended."""
        connection: aio_pika.Connection | None = None
        try:
            connection = await amqp_connection.connect(address, self._connect_timeout)
            async with asyncio.timeout(self._connect_timeout):
                await prepare(connection, self._settings)
            return await self._serve(connection, address)
        except Unreachable as error:
            return str(error)
        except TimeoutError:
            return "it stopped answering"
        except (AMQPError, ChannelInvalidStateError, OSError, RuntimeError) as error:
            return str(error) or type(error).__name__
        except Exception:
            log.exception("amqp.failed %s", address)
            return "an error of our own"
        finally:
            self._link = None
            self._ready.set()
            if connection is not None:
                await amqp_connection.close(connection)

    async def _serve(self, connection: aio_pika.Connection, address: Address) -> str:
        link = link_of(connection)
        self._choose_limit(link)
        reason = ""
        while not link.is_closed:
            if reason and self._settings.declare:
                # Most likely something that was there is gone: 404.
                async with asyncio.timeout(self._connect_timeout):
                    await prepare(connection, self._settings)
            channel = await self._open_channel(connection)
            if self._link is None:
                self._link = link
                self._served = True
                self._said.clear()
                self._returned.clear()
                log.info("amqp.connected %s", address)
            reason = await self._use(channel, link, connection)
            if not link.is_closed:
                log.warning("amqp.channel-lost %s reason=%s", address, reason)
        return reason or "the connection was lost"

    async def _open_channel(self, connection: aio_pika.Connection) -> Channel:
        async with asyncio.timeout(self._connect_timeout):
            channel = connection.channel(on_return_raises=True)
            await channel.initialize()
            thin = await channel.get_underlay_channel()
        if not isinstance(thin, Channel):
            raise TypeError("not the channel that this module was written for")
        return thin

    async def _use(self, channel: Channel, link: Link, connection: aio_pika.Connection) -> str:
        """Publish on this channel until it ends; why it ended."""
        framer = Framer(
            channel.number,
            channel.connection.connection_tune.frame_max,
            exchange=self._settings.exchange,
            persistent=self._settings.persistent,
            gzipped=self._gzip,
        )
        publisher = Publisher(channel, framer, self._slots.release)
        writing = asyncio.create_task(publisher.run(), name="amqp.writing")
        ends = {writing, channel.closing, link.closing}
        self._publisher = publisher
        self._ready.set()
        reason = "closing"
        self._nacked, renew_at = False, asyncio.get_running_loop().time() + _RENEW_AFTER
        try:
            while not (ended := await self._watch(ends, link)):
                if self._nacked and asyncio.get_running_loop().time() > renew_at:
                    return await self._leave(publisher, channel)
                if self._mend and self._settings.declare:
                    async with asyncio.timeout(self._connect_timeout):
                        await prepare(connection, self._settings)
                self._mend = False
            reason = self._why(ended, channel)
        finally:
            self._publisher = None
            self._ready.clear()
            if link.is_closed:
                self._link = None
                self._ready.set()
            publisher.fail(reason)
            writing.cancel()
            await asyncio.wait({writing})
            if not writing.cancelled():
                writing.exception()
        return reason

    async def _leave(self, publisher: Publisher, channel: Channel) -> str:
        """Give up a channel that owes nothing, or nothing that came in time; others wait."""
        self._publisher = None
        self._ready.clear()
        await publisher.idle(self._confirm_timeout)
        with contextlib.suppress(AMQPError, TimeoutError):
            async with asyncio.timeout(self._connect_timeout):
                await channel.close()
        return "it says nack, and a new one may not"

    async def _watch(
        self, ends: set[asyncio.Future[None]], link: Link
    ) -> set[asyncio.Future[None]]:
        """Look after a while, or as soon as something ended."""
        ended, _ = await asyncio.wait(
            ends, timeout=self._watch_interval, return_when=asyncio.FIRST_COMPLETED
        )
        blocked = not ended and is_blocked(link)
        if blocked != self._blocked:
            self._blocked = blocked
            log.warning("amqp.blocked" if blocked else "amqp.unblocked")
        return ended

    def _why(self, ended: set[asyncio.Future[None]], channel: Channel) -> str:
        error: BaseException | None = channel._close_exception
        for future in ended:
            if error is None and not future.cancelled():
                error = future.exception()
        text = str(error) if error is not None and str(error) else "the channel was lost"
        if said := _LIMIT_IN_TEXT.search(text):
            # Its administrator chose another limit. Known from now on, so that the same
            # mail does not come back for ever.
            self._learned = int(said[1])
            self._limit = min(self._limit, self._learned)
        return text

    def _choose_limit(self, link: Link) -> None:
        if self._max_message is None:
            usual = usual_limit(version_of(link)) - _MARGIN
            self._limit = min(usual, self._learned or usual)
