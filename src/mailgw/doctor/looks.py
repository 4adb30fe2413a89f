"""Which looks a configuration asks for, and with what they are made.

What other rooms do for the gateway is lent to the looks as it is, so that they see what
the gateway would see; this room knows none of those rooms.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from mailgw.config import Settings
from mailgw.dns import AresResolver, Resolver
from mailgw.doctor.addresses import look_at_addresses
from mailgw.doctor.certificates import Presented, look_at_certificate
from mailgw.doctor.examination import DEADLINE, Look, aside, examine
from mailgw.doctor.machine import Load, look_at_machine
from mailgw.doctor.names import look_at_blocklist, look_at_hostname, look_at_resolver
from mailgw.doctor.observation import Observation
from mailgw.doctor.ports import look_at_ports
from mailgw.doctor.spamd import Ask, look_at_spamd
from mailgw.doctor.store import look_at_store

# Of the deadline of a look, what one question to the DNS may take: some ask two in turn.
_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Instruments:
    """What is lent: spamd, asked as for a mail; the certificate, loaded as for a listener
    (it raises where that cannot be); how many local addresses there are (it raises
    ValueError); and the name that a server without `hostname` has. All but the first block.
    """

    ask_spamd: Ask
    load_certificate: Callable[[], ssl.SSLContext]
    count_addresses: Callable[[], int]
    hostname: Callable[[], str]


async def look_around(
    settings: Settings, instruments: Instruments, deadline: float = DEADLINE
) -> tuple[Observation, ...]:
    """All that is to be seen, in a fixed order, after `deadline` seconds at the latest."""
    dns = settings.dns
    patience = min(dns.timeout, deadline * _SHARE)

    def resolver(servers: Sequence[tuple[str, int]]) -> Resolver:
        return AresResolver(servers, timeout=patience, min_ttl=0, capacity=dns.capacity)

    # Each server is asked alone, so that a dead one is not hidden by the next.
    single = [resolver([server]) for server in dns.server]
    usual = resolver(dns.server)
    try:
        looks = [
            *_outlet(settings),
            *_spamd(settings, instruments.ask_spamd),
            *_names(settings, single, usual, instruments),
            *_certificate(settings, instruments),
            *_machine(settings, instruments),
        ]
        return await examine(looks, deadline)
    finally:
        for each in (*single, usual):
            await each.close()


def _outlet(settings: Settings) -> Iterator[Look]:
    store, maxsize = settings.store, settings.smtp.maxsize
    if store.output == "null":
        return
    if settings.broker.address:
        # Imported here: who has no broker need not have its library loaded.
        from mailgw.doctor.broker import look_at_broker

        # What is larger goes to storage-address.
        staying = settings.storage.largest_staying(maxsize)
        yield Look("broker", lambda: look_at_broker(settings.broker, staying))
    elif (path := store.queue_store) is not None:
        user = settings.process.user
        yield Look("queue-store", _aside(lambda: look_at_store(path, maxsize, user)))


def _spamd(settings: Settings, ask: Ask) -> Iterator[Look]:
    checks = settings.checks
    if "spam" in checks.check:
        host = checks.spamassassin_host
        place = host if host.startswith("/") else f"{host}:{checks.spamassassin_port}"
        yield Look(f"spamd {place}", lambda: look_at_spamd(place, ask))


def _names(
    settings: Settings, single: Sequence[Resolver], usual: Resolver, instruments: Instruments
) -> Iterator[Look]:
    needed = bool(settings.checks.check or settings.limits.dnsbl)
    servers = {
        f"dns {address}:{port}": each
        for (address, port), each in zip(settings.dns.server, single, strict=True)
    }
    for subject, resolver in (servers or {"dns of the system": usual}).items():
        yield Look(subject, _asking(look_at_resolver, subject, resolver, needed=needed))
    for zone in settings.limits.dnsbl:
        yield Look(f"smtp-dnsbl {zone}", _asking(look_at_blocklist, zone, usual))

    async def hostname() -> Sequence[Observation]:
        name = settings.listen.hostname or await aside(instruments.hostname)
        return await look_at_hostname(name, usual)

    yield Look("hostname", hostname)


def _certificate(settings: Settings, instruments: Instruments) -> Iterator[Look]:
    tls, listen = settings.tls, settings.listen
    if tls.certificate is None or tls.key is None:
        return
    certificate, key = tls.certificate, tls.key

    def see() -> Sequence[Observation]:
        presented = Presented(
            certificate,
            key,
            ports=listen.port,
            secure_ports=listen.secure_port,
            hostname=listen.hostname or instruments.hostname(),
            clients_verify=bool(
                listen.secure_port or settings.access.auth or settings.access.username
            ),
            user=settings.process.user,
        )
        return look_at_certificate(presented, instruments.load_certificate)

    yield Look("certificate", _aside(see))


def _machine(settings: Settings, instruments: Instruments) -> Iterator[Look]:
    listen, local, limits = settings.listen, settings.local, settings.limits
    if local.addresses is not None or local.database:
        yield Look(
            "local addresses",
            _aside(
                lambda: look_at_addresses(
                    instruments.count_addresses,
                    file=local.addresses,
                    database=bool(local.database),
                    user=settings.process.user,
                )
            ),
        )
    ports = (*listen.port, *listen.secure_port)
    yield Look("ports", _aside(lambda: look_at_ports(listen.ip, ports)))
    ceilings = [each for each in (limits.connections, limits.connections_in) if each is not None]
    load = Load(
        clients=min(ceilings, default=None),
        maxsize=settings.smtp.maxsize,
        spool_memory=settings.store.spool_memory,
        user=settings.process.user,
    )
    yield Look("machine", _aside(lambda: look_at_machine(load)))


See = Callable[[], Awaitable[Sequence[Observation]]]


def _aside(look: Callable[[], Sequence[Observation]]) -> See:
    return lambda: aside(look)


def _asking(look: Callable[..., Awaitable[Sequence[Observation]]], *on: object, **how: bool) -> See:
    return lambda: look(*on, **how)
