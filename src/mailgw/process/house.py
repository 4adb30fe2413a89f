"""Builds the house from Settings: every room gets its own section, and nothing else.

Building has no effect outside: whoever reloads builds a new house first, and keeps the
old one where that fails.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from mailgw.config.settings import Settings
from mailgw.document.build import Builder
from mailgw.gate.credentials import Login
from mailgw.gate.door import Door
from mailgw.gate.gate import Gate
from mailgw.gate.recipients import LocalAddresses
from mailgw.intake import Intake, discard
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.transaction import Message
from mailgw.outlets.null import Null
from mailgw.outlets.router import Queues
from mailgw.outlets.store import Store
from mailgw.plugins import Output
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from mailgw.wire.house import House, Now
from mailgw.wire.tls import server_context


def output_of(settings: Settings) -> Output:
    """Where documents go: nowhere, the broker, or the embedded queue."""
    if settings.store.output == "null":
        return Null()
    if settings.broker.address:
        # Imported here: who has no broker need not wait for its library.
        from mailgw.outlets.amqp import Amqp

        return Amqp(settings.broker, confirm_timeout=settings.smtp.confirm_timeout)
    if settings.store.queue_store is None:
        raise ValueError("neither a broker nor an embedded queue: the rules let it pass")
    return Store(settings.store.queue_store)


def house_of(settings: Settings, output: Output, identifiers: Identifiers) -> House:
    """Everything a listener needs. Raises BadCertificate or BadLocalAddresses."""
    hostname = settings.listen.hostname or socket.getfqdn()
    tls = None
    if settings.tls.certificate is not None and settings.tls.key is not None:
        tls = server_context(settings.tls.certificate, settings.tls.key, settings.tls.ciphers)
    return House(
        rules=Rules(
            hostname=hostname,
            max_size=settings.smtp.maxsize,
            max_errors=settings.smtp.max_errors,
            addresses=settings.smtp.validate_address,
            newlines=settings.smtp.bare_newlines,
            starttls=tls is not None,
            auth=bool(settings.access.username),
            dsn=settings.smtp.dsn,
        ),
        door=Door(),
        gate=_gate(settings, hostname, output),
        intake=_intake(settings, hostname, output),
        identifiers=identifiers,
        patience=settings.smtp.timeout,
        deadline=settings.smtp.confirm_timeout,
        spool_memory=settings.store.spool_memory,
        tls=tls,
        auth_in_clear=settings.access.auth_insecure_range,
    )


def _gate(settings: Settings, hostname: str, output: Output) -> Gate:
    access = settings.access
    return Gate(
        hostname=hostname,
        locals=_local_addresses(settings.local.addresses),
        max_recipients=settings.smtp.max_recipients,
        trouble=output.trouble,
        login=Login(access.username, access.password) if access.username else None,
        recipients=access.recipients,
    )


def _intake(settings: Settings, hostname: str, output: Output) -> Callable[[Message], Now[Reply]]:
    if settings.store.output == "null":
        return discard
    builder = Builder(hostname, settings.document.extract, received=settings.document.received)
    queues = Queues(settings.broker.inbox, settings.broker.local)
    return Intake(builder, queues, output).message


def _local_addresses(path: Path | None) -> LocalAddresses:
    return LocalAddresses.empty() if path is None else LocalAddresses.load(path)
