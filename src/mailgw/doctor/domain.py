"""What a domain says about its mail in the DNS, in the opinion of checkdmarc.

Laws. Each record is asked for by our own resolver first, and the library only judges what
is there: to it, a server that does not answer looks much like a record that is missing.
Nothing but the DNS is asked, no web server and no mail server, through the servers of the
configuration. What it says is bounded, and holds what strangers wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailgw.dns import Resolver, Unanswered
from mailgw.doctor.examination import Look, aside, examine
from mailgw.doctor.observation import Observation, error, note, ok, warning

# For all that one record leads to: an SPF record has ten look-ups.
DEADLINE = 20.0
# For one question of the library's.
_PATIENCE = 3.0
_MOST_WARNINGS = 20
_LONGEST = 300


class NotInstalled(Exception):
    """The library is an extra, and is not there."""


@dataclass(frozen=True, slots=True)
class Auditor:
    """The library, with the servers that it is to ask."""

    servers: Mapping[str, Any]

    @classmethod
    def asking(cls, servers: Sequence[tuple[str, int]]) -> Auditor:
        """Ask `servers`, or those of the system where there are none. Raises NotInstalled."""
        # Imported here: they are large, and the first is an extra.
        try:
            import checkdmarc  # noqa: F401 - is it there?
        except ImportError:
            raise NotInstalled(
                "checkdmarc is not installed (pip install 'mailgw[doctor]')"
            ) from None
        import dns.nameserver
        import dns.resolver

        # It also logs what it tells, and a program without a log would print that.
        logging.getLogger("checkdmarc").setLevel(logging.CRITICAL)
        resolver = dns.resolver.Resolver(configure=not servers)
        if servers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*each) for each in servers]
        resolver.timeout = min(1.0, _PATIENCE)
        resolver.lifetime = _PATIENCE
        # Both, because what it asks about DNSSEC and TLSA knows the second only.
        given = {"resolver": resolver, "nameservers": list(resolver.nameservers)}
        return cls({**given, "timeout": _PATIENCE, "retries": 0})

    def spf(self, domain: str) -> Sequence[Observation]:
        from checkdmarc.spf import check_spf

        told = check_spf(domain, **self.servers)
        seen = f"{told.get('record')} ({told.get('dns_lookups')} look-ups of 10)"
        return _told("spf", seen, told)

    def dmarc(self, domain: str) -> Sequence[Observation]:
        from checkdmarc import dmarc

        try:
            # Foreign records at _dmarc are ignored by receivers, and so is no error.
            found = dmarc.query_dmarc_record(domain, ignore_unrelated_records=True, **self.servers)
        except dmarc.DMARCRecordNotFound:
            return [warning("dmarc", "there is no record", f"TXT of _dmarc.{domain}: v=DMARC1; …")]
        except dmarc.DMARCError as trouble:
            return _told("dmarc", "", {"error": str(trouble)})
        warnings = list(found["warnings"])
        seen = f"{found['record']} (at {found['location']})"
        try:
            parsed = dmarc.parse_dmarc_record(
                found["record"], found["location"], ignore_unrelated_records=True, **self.servers
            )
        except dmarc.DMARCError as trouble:
            return _told("dmarc", seen, {"error": str(trouble), "warnings": warnings})
        return _told("dmarc", seen, {"warnings": warnings + list(parsed["warnings"])})

    def mx(self, domain: str) -> Sequence[Observation]:
        from checkdmarc.smtp import check_mx

        told = check_mx(domain, check_mx_tls=False, **self.servers)
        hosts = [f"{host['preference']} {host['hostname']}" for host in told["hosts"]]
        return _told("mx", ", ".join(hosts), told)

    def mta_sts(self, domain: str) -> Sequence[Observation]:
        from checkdmarc import mta_sts

        try:
            found = mta_sts.query_mta_sts_record(domain, **self.servers)
            parsed = mta_sts.parse_mta_sts_record(found["record"])
        except mta_sts.MTASTSRecordNotFound:
            return [note("mta-sts", "there is no record: TLS to this domain is not enforced")]
        except mta_sts.MTASTSError as trouble:
            return _told("mta-sts", "", {"error": str(trouble)})
        seen = f"{found['record']} (the policy itself is not fetched)"
        return _told("mta-sts", seen, {"warnings": [*found["warnings"], *parsed["warnings"]]})

    def tls_rpt(self, domain: str) -> Sequence[Observation]:
        from checkdmarc import smtp_tls_reporting as tls_rpt

        try:
            found = tls_rpt.query_smtp_tls_reporting_record(domain, **self.servers)
            parsed = tls_rpt.parse_smtp_tls_reporting_record(found["record"])
        except tls_rpt.SMTPTLSReportingRecordNotFound:
            return [note("tls-rpt", "there is no record: nobody reports failures of TLS")]
        except tls_rpt.SMTPTLSReportingError as trouble:
            return _told("tls-rpt", "", {"error": str(trouble)})
        warnings = [*found["warnings"], *parsed["warnings"]]
        return _told("tls-rpt", str(found["record"]), {"warnings": warnings})


async def audit(
    domain: str, auditor: Auditor, resolver: Resolver, deadline: float = DEADLINE
) -> tuple[Observation, ...]:
    """What there is to say about the mail of a domain. Raises nothing."""
    try:
        apex = await resolver.txt(domain)
    except Unanswered as trouble:
        return (error(domain, f"nobody could be asked about it: {trouble}", "dns-server"),)
    if not apex.exists:
        return (error(domain, "there is no such domain"),)

    async def mx() -> None:
        await resolver.mx(domain)

    def txt(label: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            await resolver.txt(f"{label}.{domain}")

        return ask

    async def spf() -> Sequence[Observation]:
        if not any(text.lower().split(b" ")[0] == b"v=spf1" for text in apex.records):
            return [warning("spf", "there is no record", f"TXT of {domain}: v=spf1 … -all")]
        return await aside(lambda: auditor.spf(domain))

    looks = [
        Look("mx", _after(mx, "mx", lambda: auditor.mx(domain))),
        Look("spf", spf),
        Look("dmarc", _after(txt("_dmarc"), "dmarc", lambda: auditor.dmarc(domain))),
        Look("mta-sts", _after(txt("_mta-sts"), "mta-sts", lambda: auditor.mta_sts(domain))),
        Look("tls-rpt", _after(txt("_smtp._tls"), "tls-rpt", lambda: auditor.tls_rpt(domain))),
    ]
    return await examine(looks, deadline)


def _after(
    ask: Callable[[], Awaitable[None]], subject: str, judge: Callable[[], Sequence[Observation]]
) -> Callable[[], Awaitable[Sequence[Observation]]]:
    """Judge a record only where somebody answers for it."""

    async def see() -> Sequence[Observation]:
        try:
            await ask()
        except Unanswered as trouble:
            return [error(subject, f"nobody could be asked for it: {trouble}")]
        return await aside(judge)

    return see


def _told(subject: str, seen: str, told: Mapping[str, Any]) -> list[Observation]:
    """What the library found, one line each; `seen` where there is no error."""
    trouble, warnings = told.get("error"), [str(each) for each in told.get("warnings", ())]
    found = [error(subject, _short(str(trouble)))] if trouble else []
    if not trouble and seen:
        found = [ok(subject, _short(seen))]
    found += [warning(subject, _short(each)) for each in warnings[:_MOST_WARNINGS]]
    if len(warnings) > _MOST_WARNINGS:
        found.append(note(subject, f"and {len(warnings) - _MOST_WARNINGS} warnings more"))
    return found


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
