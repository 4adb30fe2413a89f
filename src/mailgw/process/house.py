"""Builds the house from Settings: every room gets its own section, and nothing else.

Building has no effect outside: whoever reloads builds a new house first, and keeps the
old one where that fails.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mailgw.checks.runner import runner_of
from mailgw.checks.verdict import Judgement
from mailgw.config.sections.access import AccessSettings
from mailgw.config.settings import Settings
from mailgw.config.urls import file_of
from mailgw.document.addresses import Outgoing
from mailgw.document.build import Builder
from mailgw.gate.credentials import Authenticator, BadLogins, Hardcoded
from mailgw.gate.door import Door
from mailgw.gate.gate import Gate
from mailgw.gate.guesses import Guesses
from mailgw.gate.locals import Locals, Sources
from mailgw.gate.rates import Alone, Counters, MessageRate
from mailgw.gate.recipients import BadLocalAddresses
from mailgw.intake import Examination, Intake, ReadReport, discard
from mailgw.mail.budget import LEAST, Budget
from mailgw.mail.headers import MOST_HEADER
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.transaction import Message
from mailgw.mail.unseen import Unseen
from mailgw.outlets.null import Null
from mailgw.outlets.router import Queues
from mailgw.outlets.store import Store
from mailgw.plugins import BadExtension, Output
from mailgw.process.extensions import Extensions
from mailgw.process.logs import received_log_of
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from mailgw.storage.bodies import Bodies, bodies_of
from mailgw.wire.house import Closer, House, Now
from mailgw.wire.tls import BadCertificate, server_context

if TYPE_CHECKING:
    from mailgw.dns import Resolver
    from mailgw.gate.dnsbl import Blocklists


# What `house_of` raises, each of them one line about one key.
TROUBLES = (BadCertificate, BadExtension, BadLocalAddresses, BadLogins)


class Witness(Protocol):
    """Who looks on while a house serves, and changes nothing."""

    def beside(self, resolver: Resolver) -> Resolver:
        """The resolver that is used instead; it gives the same answers."""

    def judged(self, judgement: Judgement) -> None:
        """What follows from the checks of a message."""


def output_of(settings: Settings) -> Output:
    """Where documents go: nowhere, the broker, the embedded queue, or one behind the other."""
    if settings.store.output == "null":
        return Null()
    path, deadline = settings.store.queue_store, settings.smtp.confirm_timeout
    if settings.broker.address:
        # Imported here: who has no broker need not wait for its library.
        from mailgw.outlets.amqp import Amqp
        from mailgw.outlets.waiting_room import WaitingRoom

        largest = settings.broker.max_message
        broker = Amqp(settings.broker, confirm_timeout=deadline, max_message=largest)
        if settings.store.outage == "store" and path is not None:
            return WaitingRoom(broker, Store(path, settings.store.store_max), deadline=deadline)
        return broker
    if path is None:
        raise ValueError("neither a broker nor an embedded queue: the rules let it pass")
    return Store(path, settings.store.store_max)


def house_of(
    settings: Settings,
    output: Output,
    identifiers: Identifiers,
    counters: Counters | None = None,
    witness: Witness | None = None,
    unseen: Unseen | None = None,
) -> House:
    """Everything a listener needs. Raises TROUBLES.

    What it opens while it serves ends with `house.close()`.
    """
    hostname = settings.listen.hostname or _system_name()
    counters = Alone() if counters is None else counters
    tls = None
    if settings.tls.certificate is not None and settings.tls.key is not None:
        tls = server_context(settings.tls.certificate, settings.tls.key, settings.tls.ciphers)
    local = settings.local
    locals_ = Locals.load(Sources(local.addresses, local.database), local.ttl)
    extensions = Extensions.of(settings.extensions)
    resolver = _resolver(settings)
    if resolver is not None and witness is not None:
        resolver = witness.beside(resolver)
    examination = _examination(settings, hostname, resolver, witness)
    # Where somebody looks on, or mail is dropped, nothing is to stay behind.
    kept = witness is None and settings.store.output == "queue"
    maxsize = settings.smtp.maxsize
    budget = _budget(settings.storage.largest_staying(maxsize))
    # With a budget of its own: who has a share of the other may want one of this.
    bodies = bodies_of(settings.storage, _budget(maxsize)) if kept else None
    rules = _rules(settings, hostname, extensions, tls=tls is not None)
    gate, intake = extensions.around(
        _gate(settings, hostname, output, bodies, counters, locals_, resolver),
        _intake(settings, hostname, output, examination, unseen, bodies, budget),
        rules,
        auth_in_clear=settings.access.auth_insecure_range,
        own_reply=settings.store.output == "null",
        budget=budget,
    )
    return House(
        rules=rules,
        door=_door(settings, counters),
        gate=gate,
        intake=intake,
        identifiers=identifiers,
        patience=settings.smtp.timeout,
        deadline=settings.smtp.confirm_timeout,
        spool_memory=settings.store.spool_memory,
        tls=tls,
        proxies=settings.access.proxy,
        auth_in_clear=settings.access.auth_insecure_range,
        background=(locals_.run,),
        closers=_closers(resolver, examination, bodies),
        greeting_delay=settings.limits.greeting_delay,
        minimum_rate=settings.limits.minimum_rate,
        unseen=unseen,
    )


def _rules(settings: Settings, hostname: str, extensions: Extensions, *, tls: bool) -> Rules:
    access, smtp = settings.access, settings.smtp
    return Rules(
        hostname=hostname,
        max_size=smtp.maxsize,
        max_errors=smtp.max_errors,
        addresses=smtp.validate_address,
        newlines=smtp.bare_newlines,
        starttls=tls,
        auth=bool(access.username or access.auth or extensions.authenticate),
        dsn=smtp.dsn,
        courtesies=extensions.reply_to_all,
    )


@functools.cache
def _system_name() -> str:
    # Once a process, and not in a worker: a name server that is slow now shall slow no client.
    return socket.getfqdn()


def _door(settings: Settings, counters: Counters) -> Door:
    limits = settings.limits
    ceilings = [each for each in (limits.connections, limits.connections_in) if each is not None]
    return Door(
        counters,
        clients=settings.access.range,
        most=min(ceilings, default=None),
        per_client=limits.per_ip,
        rate=limits.rate.connections,
    )


def _gate(
    settings: Settings,
    hostname: str,
    output: Output,
    bodies: Bodies | None,
    counters: Counters,
    locals_: Locals,
    resolver: Resolver | None,
) -> Gate:
    access, most = settings.access, settings.limits.rate.messages
    return Gate(
        hostname=hostname,
        locals=locals_,
        max_recipients=settings.smtp.max_recipients,
        trouble=_trouble(output, bodies),
        logins=_logins(access),
        guesses=Guesses(access.auth_attempts, counters),
        recipients=access.recipients,
        blocklists=None if resolver is None else _blocklists(settings, resolver),
        message_rate=None if most is None else MessageRate(counters, most),
        largest=lambda: _largest(output, bodies),
    )


def _trouble(output: Output, bodies: Bodies | None) -> Callable[[], Reply | None]:
    """What is known now to keep mail from becoming safe."""
    if bodies is None:
        return output.trouble
    return lambda: output.trouble() or bodies.trouble()


def _largest(output: Output, bodies: Bodies | None) -> int | None:
    """Of a message whose size was announced, and that surely cannot be published when larger."""
    # A field of its header may be taken out, and what is large may go elsewhere.
    if bodies is not None or output.largest is None:
        return None
    return output.largest + MOST_HEADER


def _resolver(settings: Settings) -> Resolver | None:
    """The one that all share who ask the DNS; None where nobody does."""
    if not settings.limits.dnsbl and not settings.checks.check:
        return None
    # Imported here: who asks nothing need not wait for the library.
    from mailgw.dns import AresResolver

    dns = settings.dns
    return AresResolver(dns.server, timeout=dns.timeout, min_ttl=dns.min_ttl, capacity=dns.capacity)


def _blocklists(settings: Settings, resolver: Resolver) -> Blocklists | None:
    limits = settings.limits
    if not limits.dnsbl:
        return None
    from mailgw.gate.dnsbl import Blocklists

    return Blocklists(
        limits.dnsbl,
        resolver,
        refuse=limits.dnsbl_action == "refuse",
        exempt=settings.access.auth_insecure_range,
    )


def _examination(
    settings: Settings, hostname: str, resolver: Resolver | None, witness: Witness | None
) -> Examination | None:
    """What is checked in a message; None where nothing is, or where it is dropped anyway."""
    if not settings.checks.check or resolver is None or settings.store.output == "null":
        return None
    runner = runner_of(settings.checks, resolver, hostname)
    told = None if witness is None else witness.judged
    return Examination(runner, settings.checks, settings.smtp.confirm_timeout, told)


def _closers(
    resolver: Resolver | None, examination: Examination | None, bodies: Bodies | None
) -> tuple[Closer, ...]:
    closers: list[Closer] = []
    if bodies is not None:
        closers.append(bodies.close)
    if examination is not None:
        closers.append(examination.runner.close)
    if resolver is not None:
        closers.append(resolver.close)
    return tuple(closers)


def _logins(access: AccessSettings) -> Authenticator | None:
    """Who knows the logins; None where nobody can authenticate. Raises BadLogins."""
    if not access.auth:
        return Hardcoded([(access.username, access.password)]) if access.username else None
    scheme = access.auth.partition("://")[0].lower()
    if scheme == "hardcoded":
        return Hardcoded.from_url(access.auth)
    # Imported here: who has logins elsewhere need not wait for these libraries.
    if (file := file_of(access.auth)) is not None:
        from mailgw.gate.password_file import PasswordFile

        return PasswordFile(file)
    from mailgw.gate.http_login import HttpLogin

    return HttpLogin(access.auth)


def _intake(
    settings: Settings,
    hostname: str,
    output: Output,
    examination: Examination | None,
    unseen: Unseen | None,
    bodies: Bodies | None,
    budget: Budget,
) -> Callable[[Message], Now[Reply]]:
    if settings.store.output == "null":
        return discard
    access, broker, document = settings.access, settings.broker, settings.document
    builder = Builder(
        hostname,
        document.extract,
        received=document.received,
        outgoing=Outgoing(access.default_ips, access.mappable_ips, access.unmappable_ips),
        notify=document.dsn_notify,
        ret=document.dsn_ret,
        results=settings.checks.auth_results,
    )
    queues = Queues(broker.inbox, broker.local, broker.reports, broker.quarantine, broker.refused)
    return Intake(
        builder,
        queues,
        output,
        received_log_of(settings),
        examination,
        broker.refused_body,
        _report_reader() if broker.reports else None,
        unseen,
        bodies,
        budget,
    ).message


def _budget(largest: int) -> Budget:
    """Room for one mail of that size, or for some smaller ones."""
    return Budget(max(LEAST, largest))


def _report_reader() -> ReadReport:
    # Imported here: who wants no reports need not wait for the libraries.
    from mailgw.reports.read import read

    return read
