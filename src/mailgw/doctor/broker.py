"""The broker: can we get there, may we do what we do there, and does it keep what it gets?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mailgw.config.sections.broker import BrokerSettings
from mailgw.doctor.observation import Observation, error, note, ok, size, warning
from mailgw.outlets.amqp_inspection import BrokerSeen, QueueSeen, inspect

# For reaching it, and for what is asked there: both together less than a look may take.
_PATIENCE = 4.5
# What a document holds besides the message, generously.
_AROUND = 64 * 1024
# RabbitMQ takes no higher max_message_size.
_HIGHEST_LIMIT = 512 * 1024 * 1024
_REJECTS = ("reject-publish", "reject-publish-dlx")


async def look_at_broker(settings: BrokerSettings, maxsize: int) -> list[Observation]:
    """Ask every address of `rabbitmq-address`; queues once, of the first that answers."""
    return list(judge(await inspect(settings, _PATIENCE), settings, maxsize))


def judge(
    brokers: Sequence[BrokerSeen], settings: BrokerSettings, maxsize: int
) -> Iterator[Observation]:
    """What is to be said of the brokers that were looked at."""
    reached = [each for each in brokers if not each.unreachable]
    for each in brokers:
        subject = f"broker {each.host}:{each.port}"
        if each.unreachable:
            grade = warning if reached else error
            yield grade(subject, f"virtual host {each.vhost}: {each.unreachable}")
            continue
        version = ".".join(map(str, each.version))
        secured = "TLS, its certificate is trusted" if settings.verify else "TLS, unverified"
        way = secured if each.encrypted else "no TLS"
        yield ok(
            subject, f"{each.product} {version} takes the login, virtual host {each.vhost} ({way})"
        )
        yield from _alarm(subject, each)
        yield _largest(subject, each, maxsize, settings)
    if reached:
        yield from _exchange(reached[0], settings)
        for queue in reached[0].queues:
            yield from _queue(queue, settings)


def _alarm(subject: str, seen: BrokerSeen) -> Iterator[Observation]:
    if seen.blocked:
        yield error(
            subject,
            "has an alarm and takes no messages: clients hear 452",
            "see rabbitmqctl status for memory and disk",
        )


def _largest(subject: str, seen: BrokerSeen, maxsize: int, settings: BrokerSettings) -> Observation:
    # JSON carries 8-bit mail in base64.
    needed = maxsize + _AROUND if settings.encoding == "gzip" else maxsize * 4 // 3 + _AROUND
    limit = settings.max_message or seen.limit
    why = "as rabbitmq-max-message-size says" if settings.max_message else "by default"
    taken = f"takes messages up to {size(limit)} {why}"
    if needed <= limit:
        return ok(subject, f"{taken}, enough for mail of {size(maxsize)}")
    fits = size((limit - _AROUND) * 3 // 4 // 10**6 * 10**6)
    raised = f"max_message_size = {needed} in its rabbitmq.conf"
    raise_it = f"{raised} and rabbitmq-max-message-size: {needed}, or "
    return warning(
        subject,
        f"{taken}, and mail of {size(maxsize)} makes documents up to {size(needed)}: larger "
        "ones are refused after the final dot",
        f"{raise_it if needed <= _HIGHEST_LIMIT else ''}storage-above, or smtp-maxsize: {fits}",
    )


def _exchange(seen: BrokerSeen, settings: BrokerSettings) -> Iterator[Observation]:
    name = settings.exchange
    subject = f"exchange {name}" if name else "default exchange"
    if not seen.exchange_exists and settings.declare:
        yield note(subject, "does not exist yet, and is declared at the start")
    elif not seen.exchange_exists:
        yield error(
            subject,
            "does not exist, and rabbitmq-declare is false: all mail is refused",
            "declare it, or rabbitmq-declare: true",
        )
    elif seen.may_publish is False:
        yield error(
            subject,
            "the login may not publish to it: all mail is refused",
            'rabbitmqctl set_permissions, write: "'
            + (f'{name}"' if name else 'amq\\.default" among others'),
        )
    elif seen.may_publish:
        yield ok(subject, "may be published to (tried in a transaction that was taken back)")
    elif not seen.blocked:
        yield note(subject, "whether it may be published to could not be found out")
    if seen.exchange_differs:
        yield warning(
            subject,
            f"is used as it is: {seen.exchange_differs}",
            "a durable exchange of type direct",
        )


def _queue(seen: QueueSeen, settings: BrokerSettings) -> Iterator[Observation]:
    subject = f"queue {seen.name}"
    if seen.trouble:
        yield error(subject, seen.trouble)
    elif not seen.exists:
        yield _missing(subject, seen, settings)
    elif seen.differences is None:
        yield note(
            subject,
            f"exists, with {_counted(seen.messages)}; the login may not declare it, so that its "
            "type and arguments cannot be seen",
        )
    else:
        told = list(_differences(subject, dict(_theirs(seen)), seen, settings))
        yield from told
        if not told:
            yield ok(subject, f"exists, as configured, with {_counted(seen.messages)}")


def _missing(subject: str, seen: QueueSeen, settings: BrokerSettings) -> Observation:
    if not settings.declare:
        return error(
            subject,
            "does not exist, and rabbitmq-declare is false: mail for it is refused",
            "declare it, or rabbitmq-declare: true",
        )
    if seen.may_declare is False:
        return error(
            subject,
            "does not exist, and the login may not declare it: mail for it is refused",
            f'rabbitmqctl set_permissions, configure: "{seen.name}", or declare it yourself',
        )
    return note(subject, f"does not exist yet, and is declared at the start: {settings.queue_type}")


def _theirs(seen: QueueSeen) -> Iterator[tuple[str, str]]:
    for what, _, theirs in seen.differences or ():
        yield what, theirs


def _differences(
    subject: str, theirs: dict[str, str], seen: QueueSeen, settings: BrokerSettings
) -> Iterator[Observation]:
    """What its properties that are not ours will do to mail."""
    if kind := theirs.pop("x-queue-type", ""):
        yield warning(
            subject,
            f"is of type {kind} and used as it is; rabbitmq-queue-type is {settings.queue_type}",
            f"rabbitmq-queue-type: {kind}, or move its messages and declare it anew",
        )
    if theirs.get("durable") == "false":
        yield warning(
            subject, "is not durable: a restart of the broker loses it", "a durable queue"
        )
    if theirs.pop("auto_delete", "") == "true":
        yield warning(subject, "is deleted with its last consumer", "a queue that stays")
    overflow = theirs.pop("x-overflow", "")
    for limit in ("x-max-length", "x-max-length-bytes"):
        if (most := theirs.pop(limit, "")) and overflow in _REJECTS:
            yield note(subject, f"has {limit} {most}: where it is full, clients hear 452")
        elif most:
            yield warning(
                subject,
                f"has {limit} {most}: where it is full, the oldest mail in it is dropped",
                "x-overflow: reject-publish, or no limit",
            )
    if ttl := theirs.pop("x-message-ttl", ""):
        yield warning(
            subject, f"has x-message-ttl {ttl}: mail is dropped after so many milliseconds"
        )
    if expires := theirs.pop("x-expires", ""):
        yield warning(
            subject, f"has x-expires {expires}: it is deleted after so many milliseconds unused"
        )
    theirs.pop("durable", None)
    if theirs:
        said = ", ".join(f"{what} {value or 'not set'}" for what, value in theirs.items())
        yield note(subject, f"exists, with {_counted(seen.messages)}, and is used as it is: {said}")


def _counted(messages: int) -> str:
    return f"{messages} message" + ("" if messages == 1 else "s")
