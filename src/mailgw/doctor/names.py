"""The DNS: does it answer, does it tell the truth, do the block lists serve us?"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from mailgw.dns import Answer, Resolver, Unanswered
from mailgw.doctor.observation import Observation, error, note, ok, warning

# It exists wherever the root of the DNS is known.
_THERE = "org"
# RFC 6761 6.4 for the one. The other nobody registers; resolvers that lie about names do so
# where somebody might have mistyped one.
_MISSING = ("mailgw-{}.invalid", "mailgw-{}.org")
_SLOW = 1.0
# RFC 5782 5: what every list of IPv4 addresses has, and has not.
_LISTED, _UNLISTED = "2.0.0.127", "1.0.0.127"
_BLOCKED = "127.255.255."


async def look_at_resolver(
    subject: str, resolver: Resolver, *, needed: bool, clock: Callable[[], float] = time.monotonic
) -> list[Observation]:
    """One server, or the system's. `needed`: something of the configuration asks the DNS."""
    grave = error if needed else note
    began = clock()
    try:
        there = await resolver.txt(_THERE)
    except Unanswered as trouble:
        used = "" if needed else ", and nothing configured asks it"
        return [grave(subject, f"does not answer{used}: {trouble}", "dns-server")]
    took = clock() - began
    if not there.exists:
        return [grave(subject, f'says that there is no "{_THERE}"', "a server that knows the root")]
    seen = [_in_time(subject, took)]
    lies = await asyncio.gather(*(_lie(resolver, name) for name in _MISSING))
    if lie := next(filter(None, lies), ""):
        right = "a resolver that says NXDOMAIN, such as one of your own"
        text = f"has an address for a name that does not exist ({lie}): SPF, DMARC and block lists"
        return [*seen, grave(subject, f"{text} go wrong with it", right)]
    return seen


def _in_time(subject: str, took: float) -> Observation:
    text = f"answers, in {took * 1000:.0f} ms"
    return warning(subject, text, "a server nearby") if took > _SLOW else ok(subject, text)


async def _lie(resolver: Resolver, form: str) -> str:
    name = form.format(secrets.token_hex(8))
    try:
        answer = await resolver.a(name)
    except Unanswered:
        return ""  # no lie, and slow or broken enough to be seen elsewhere
    return answer.records[0] if answer.records else ""


async def look_at_blocklist(zone: str, resolver: Resolver) -> list[Observation]:
    """One of `smtp-dnsbl`, by the addresses that every list knows."""
    subject = f"smtp-dnsbl {zone}"
    try:
        listed, unlisted = await asyncio.gather(
            resolver.a(f"{_LISTED}.{zone}"), resolver.a(f"{_UNLISTED}.{zone}")
        )
    except Unanswered as trouble:
        return [warning(subject, f"does not answer, and stops no mail: {trouble}")]
    codes = [each for each in (*listed.records, *unlisted.records) if each.startswith("127.")]
    if blocked := [each for each in codes if each.startswith(_BLOCKED)]:
        return [
            error(
                subject,
                f"does not serve this resolver ({blocked[0]}), and stops no mail",
                "a resolver of your own, or an account with the list",
            )
        ]
    if unlisted.records:
        return [
            error(
                subject,
                f"lists 127.0.0.1 ({unlisted.records[0]}), as a list that has ended does",
                "take it out of smtp-dnsbl",
            )
        ]
    if not any(each.startswith("127.") for each in listed.records):
        return [
            error(
                subject,
                "does not list 127.0.0.2, as RFC 5782 section 5 wants of every list",
                "its right name, or take it out of smtp-dnsbl",
            )
        ]
    return [ok(subject, f"lists 127.0.0.2 ({listed.records[0]}) and not 127.0.0.1")]


async def look_at_hostname(hostname: str, resolver: Resolver) -> list[Observation]:
    """Whether the name of the server leads to it and back."""
    subject = f"hostname {hostname}"
    if "." not in hostname.strip("."):
        return [warning(subject, "is no full name, as a banner wants it", "hostname: mx.DOMAIN")]
    try:
        found = await asyncio.gather(resolver.a(hostname), resolver.aaaa(hostname))
    except Unanswered as trouble:
        return [warning(subject, f"nobody could be asked for its address: {trouble}")]
    addresses = [address for answer in found for address in answer.records]
    if not addresses:
        return [warning(subject, "has no address in the DNS", "an A or AAAA record")]
    return list(await asyncio.gather(*(_back(subject, hostname, resolver, a) for a in addresses)))


async def _back(subject: str, hostname: str, resolver: Resolver, address: str) -> Observation:
    if not ipaddress.ip_address(address).is_global:
        return note(subject, f"is {address}, which the internet does not reach")
    answer = await _or_none(resolver.ptr(address))
    if answer is None:
        return warning(subject, f"is {address}; nobody could be asked for the name of that")
    names: Sequence[str] = answer.records
    if hostname.lower().rstrip(".") in names:
        return ok(subject, f"is {address}, and that is {hostname}")
    other = f"is {names[0]}" if names else "has no name"
    return warning(subject, f"is {address}, and that {other}", f"a PTR record for {hostname}")


async def _or_none(question: Awaitable[Answer[str]]) -> Answer[str] | None:
    try:
        return await question
    except Unanswered:
        return None
