"""`mailgw doctor`: what surrounds the configuration, or a domain's mail records.

Lends the looks what the gateway itself uses, and prints what they have seen. Its
exit code is that of check-config, so that a deployment can wait for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Sequence
from typing import NoReturn

import click

from mailgw.checks.spamassassin import SpamAssassin
from mailgw.cli.options import FAILED, configured
from mailgw.config import Settings
from mailgw.config.source import printable
from mailgw.config.values import BadValue, hostname
from mailgw.dns import AresResolver
from mailgw.doctor.domain import Auditor, NotInstalled, audit
from mailgw.doctor.looks import Instruments, look_around
from mailgw.doctor.observation import Grade, Observation, aligned
from mailgw.gate import entries
from mailgw.gate.database import BadDatabase
from mailgw.gate.locals import Sources
from mailgw.mail.finding import Finding
from mailgw.wire.tls import server_context

# Less than a look may take, so that spamd's own reason is told.
_SPAMD_PATIENCE = 8.0


@click.command()
@click.argument("domain", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@configured
def command(settings: Settings, domain: str | None, as_json: bool, strict: bool) -> None:
    """Look at what the configuration names, and say what will bite.

    Broker or embedded queue, spamd, resolver and DNS lists, certificates, ports, machine
    and local addresses: one line per finding, which begins with ok, note, warning or error.
    With DOMAIN, the mail records of that domain instead. Nothing is changed, published or
    bound. Exits with 0 where there are no errors, else with 2.
    """
    if domain is None:
        found = asyncio.run(_surroundings(settings))
    else:
        found = _domain(settings, domain)
    counts = {grade: sum(each.grade is grade for each in found) for grade in Grade}
    if as_json:
        click.echo(json.dumps(_document(found, counts), indent=2))
    else:
        for line in aligned(found):
            click.echo(printable(line))
        click.echo(
            f"{_counted(counts[Grade.ERROR], 'error')}, "
            f"{_counted(counts[Grade.WARNING], 'warning')}",
            err=True,
        )
    failed = counts[Grade.ERROR] or (strict and counts[Grade.WARNING])
    click.get_current_context().exit(FAILED if failed else os.EX_OK)


async def _surroundings(settings: Settings) -> tuple[Observation, ...]:
    checks, tls = settings.checks, settings.tls

    async def ask_spamd(content: bytes) -> Finding:
        patience = min(_SPAMD_PATIENCE, checks.spamassassin_timeout)
        spamd = SpamAssassin(checks.spamassassin_host, checks.spamassassin_port, patience=patience)
        try:
            return await spamd.check(content)
        finally:
            await spamd.close()

    def load_certificate() -> ssl.SSLContext:
        if tls.certificate is None or tls.key is None:
            raise ValueError("smtp-certificate and smtp-key are not both set")
        return server_context(tls.certificate, tls.key, tls.ciphers)

    instruments = Instruments(
        ask_spamd, load_certificate, lambda: _patterns(settings), socket.getfqdn
    )
    return await look_around(settings, instruments)


def _patterns(settings: Settings) -> int:
    """How many local addresses the gateway would know. Raises ValueError."""
    local = settings.local
    Sources(local.addresses, local.database).load()
    number = 0
    if local.addresses is not None:
        number += sum(1 for _ in entries.of_file(local.addresses))
    if local.database:
        try:
            number += sum(1 for _ in entries.of_table(local.database))
        except BadDatabase as trouble:
            raise ValueError(f"database-address: {trouble}") from None
    return number


def _domain(settings: Settings, text: str) -> tuple[Observation, ...]:
    try:
        name = hostname(text.removesuffix("."))
        auditor = Auditor.asking(settings.dns.server)
    except BadValue as bad:
        _fail(f'"{text}" {bad.wrong}')
    except NotInstalled as missing:
        _fail(str(missing))

    async def ask() -> tuple[Observation, ...]:
        dns = settings.dns
        resolver = AresResolver(
            dns.server, timeout=dns.timeout, min_ttl=dns.min_ttl, capacity=dns.capacity
        )
        try:
            return await audit(name, auditor, resolver)
        finally:
            await resolver.close()

    return asyncio.run(ask())


def _document(found: Sequence[Observation], counts: dict[Grade, int]) -> dict[str, object]:
    return {
        "findings": [
            {
                "grade": each.grade.value,
                "subject": each.subject,
                "seen": each.seen,
                "right": each.right,
            }
            for each in found
        ],
        "errors": counts[Grade.ERROR],
        "warnings": counts[Grade.WARNING],
    }


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}" + ("" if number == 1 else "s")


def _fail(sentence: str) -> NoReturn:
    click.echo(printable(f"mailgw doctor: {sentence}"), err=True)
    click.get_current_context().exit(FAILED)
