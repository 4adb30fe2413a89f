"""Where mail goes, and whether it is safe there."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from mailgw.config.rules.written import Remark, Written, error, is_loopback, note, warning
from mailgw.config.source import printable


def mail_has_a_place(written: Written) -> Iterator[Remark]:
    broker, store = written.settings.broker, written.settings.store
    if store.output == "null":
        yield warning("accepts mail and drops it, for benchmarks only", "output")
    elif not broker.address and not store.queue_store:
        yield error(
            "no broker and no embedded queue, so that mail has no place to go (set one of them)",
            "rabbitmq-address",
            "queue-store",
            "output",
        )
    if store.queue_store and broker.address and store.outage != "store":
        yield note(
            "not used while rabbitmq-address is set, except with rabbitmq-outage: store",
            "queue-store",
            "rabbitmq-address",
        )
    if store.queue_store and not store.queue_store.parent.is_dir():
        folder = printable(str(store.queue_store.parent))
        yield error(f'there is no folder "{folder}" (make it)', "queue-store")
    elif store.queue_store and store.queue_store.is_dir():
        yield error("is a folder (try a file in it, such as queue.sqlite)", "queue-store")


def outages_can_be_outlasted(written: Written) -> Iterator[Remark]:
    broker, store, smtp = written.settings.broker, written.settings.store, written.settings.smtp
    if store.outage == "store" and not store.queue_store:
        yield error(
            "there is no queue-store for the mail to wait in (set it, or try refuse)",
            "rabbitmq-outage",
            "queue-store",
        )
    elif store.outage == "store" and not broker.address:
        yield note(
            "without effect while rabbitmq-address is empty: queue-store is the queue",
            "rabbitmq-outage",
            "rabbitmq-address",
        )
    used = store.queue_store and (store.outage == "store" or not broker.address)
    if used and store.store_max is not None and store.store_max < 2 * smtp.maxsize:
        yield warning(
            "has no room for two mails of smtp-maxsize", "queue-store-max", "smtp-maxsize"
        )


def queues_differ(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    if broker.address and broker.inbox == broker.outbox:
        yield warning(
            "is rabbitmq-outbox too: a sender on it would relay whatever comes in",
            "rabbitmq-inbox",
            "rabbitmq-outbox",
        )


def queue_type_can_do_it(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    if not broker.address or broker.queue_type != "quorum":
        return
    quorum = "rabbitmq-queue-type"
    # A file of MailerQ's does not know the type, and has to start as it is.
    remark = error if quorum in written.entries else warning
    if broker.maxpriority is not None:
        yield remark(
            f"quorum queues have no such priorities (leave it empty, or {quorum}: classic)",
            "rabbitmq-maxpriority",
            quorum,
        )
    if not broker.durable:
        yield remark(
            f"quorum queues are always durable (try true, or {quorum}: classic)",
            "rabbitmq-durable",
            quorum,
        )
    if broker.lazy:
        yield warning("quorum queues have no lazy mode (try false)", "rabbitmq-lazy", quorum)


def broker_keeps_mail(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    if not broker.address:
        return
    if not broker.persistent:
        yield warning("a restart of the broker loses accepted mail (try true)", _PERSISTENT)
    elif not broker.durable and broker.queue_type == "classic":
        yield warning("a restart of the broker loses the queues (try true)", "rabbitmq-durable")


def broker_is_trusted(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    for address in broker.address:
        url = urlsplit(address)
        if url.scheme == "amqps" and not broker.verify:
            yield warning(
                "anybody on the way can be the broker (try true)",
                "rabbitmq-verify",
                "rabbitmq-address",
            )
        if url.scheme == "amqp" and not is_loopback(url.hostname or ""):
            yield warning(
                f"mail and password go to {url.hostname} in clear (try amqps)", "rabbitmq-address"
            )


_PERSISTENT = "rabbitmq-persistent"
