"""What each check costs, beside the stock use of the library that it stands on.

Laws: one message, one name server, and the DNS cached on both sides; everybody takes
turns, and what counts is the CPU time of the thread that checks.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiospamc
import checkdmarc.dmarc
import checks_world
import dkim
import dns.resolver
import spf
import uvloop
from checks_world import CLIENT, FOUR, HELO, HOSTNAME, SENDER
from processes import Failed, cpu_seconds

from mailgw.checks import arc as our_arc
from mailgw.checks import dkim as our_dkim
from mailgw.checks import dmarc as our_dmarc
from mailgw.checks import spf as our_spf
from mailgw.checks.runner import runner_of
from mailgw.checks.spamassassin import SpamAssassin
from mailgw.config.sections.checks import CheckSettings
from mailgw.mail.finding import Finding
from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.smtp.address import Address
from nameserver import NameServer
from spamd import Spamd

SIZE = 10_240
PEER = Peer("c1", CLIENT, 40000, CLIENT, 25, helo=HELO, esmtp=True)
_DOMAIN = SENDER.partition("@")[2]

# Does a check once.
Ours = Callable[[], Awaitable[Sequence[Finding]]]
Stock = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Check:
    """One check by us, and by the library as its documentation has it."""

    name: str
    ours: Ours
    stock: Stock
    said: str


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds a message, the rounds in their order."""

    name: str
    said: str
    ours: tuple[float, ...]
    stock: tuple[float, ...]


def message(content: bytes, spool_memory: int = 1_000_000) -> Message:
    """What the gateway knows of a mail when the final dot is in."""
    spool = Spool(spool_memory)
    spool.write(content)
    sender = Address(*SENDER.split("@"))
    bob = Recipient(Address("bob", "ours.test"), local=True)
    return Message("1abc", PEER, sender, (bob,), spool, datetime.now(UTC))


def measure(rounds: int, times: int) -> list[Cost]:
    """The four checks one by one, then all together as the gateway runs them."""
    content = checks_world.signed_mail(SIZE)
    with checks_world.name_server() as server, _stock_resolver(server), _loop() as loop:
        checks = loop.run_until_complete(_checks(content, server))
        for check in checks:
            _prove(loop, check)
        costs = {check.name: ([], []) for check in checks}
        for _ in range(rounds):
            for check in checks:
                ours, stock = costs[check.name]
                ours.append(loop.run_until_complete(_our_cost(check.ours, times)))
                stock.append(_stock_cost(check.stock, times))
    return [Cost(each.name, each.said, *map(tuple, costs[each.name])) for each in checks]


async def _checks(content: bytes, server: NameServer) -> list[Check]:
    resolver = checks_world.resolver(server)
    whole = message(content)
    limits = our_spf.Limits()
    runner = runner_of(CheckSettings(check=FOUR), resolver, HOSTNAME)

    async def by_spf() -> Sequence[Finding]:
        who = {"ip": CLIENT, "helo": HELO, "reverse_path": SENDER, "hostname": HOSTNAME}
        return await our_spf.check(resolver, **who, limits=limits)

    async def by_dkim() -> Sequence[Finding]:
        return await our_dkim.check(resolver, content)

    known = [*await by_spf(), *await by_dkim()]

    async def by_dmarc() -> Sequence[Finding]:
        return [await our_dmarc.check(resolver, content, known)]

    async def by_arc() -> Sequence[Finding]:
        return [(await our_arc.check(resolver, content)).finding]

    async def by_all() -> Sequence[Finding]:
        return (await runner.run(whole, content)).findings

    stock = [_stock_spf, lambda: dkim.verify(content), _stock_dmarc, lambda: _stock_arc(content)]
    return [
        Check("spf", by_spf, stock[0], "spf.check2, MAIL FROM and HELO as we do"),
        Check("dkim", by_dkim, stock[1], "dkim.verify"),
        Check("dmarc", by_dmarc, stock[2], "checkdmarc: query and parse, no more"),
        Check("arc", by_arc, stock[3], "dkim.arc_verify"),
        Check("all four", by_all, lambda: all(each() for each in stock), "one after the other"),
    ]


def _stock_spf() -> bool:
    return (
        spf.check2(CLIENT, SENDER, HELO)[0] == "pass" and spf.check2(CLIENT, "", HELO)[0] == "pass"
    )


def _stock_dmarc() -> bool:
    where = dns.resolver.get_default_resolver()
    found = checkdmarc.dmarc.query_dmarc_record(_DOMAIN, resolver=where)
    parsed = checkdmarc.dmarc.parse_dmarc_record(found["record"], _DOMAIN, resolver=where)
    return parsed["tags"]["p"]["value"] == "reject"


def _stock_arc(content: bytes) -> bool:
    return dkim.arc_verify(content)[0] == dkim.CV_Pass


def _prove(loop: asyncio.AbstractEventLoop, check: Check) -> None:
    """Both find out the truth, and the answers are cached from now on."""
    findings = loop.run_until_complete(_once(check.ours))
    if any(each.verdict != "pass" for each in findings) or not check.stock():
        raise Failed(f"{check.name}: the mail does not pass, {findings}")


async def _once(ours: Ours) -> Sequence[Finding]:
    return await ours()


async def _our_cost(ours: Ours, times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        await ours()
    return (time.thread_time() - began) / times * 1e3


def _stock_cost(stock: Stock, times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        stock()
    return (time.thread_time() - began) / times * 1e3


@contextmanager
def _stock_resolver(server: NameServer) -> Iterator[None]:
    """What dkimpy, pyspf and checkdmarc ask: dnspython's own, with its cache."""
    library = dns.resolver.Resolver(configure=False)
    library.nameservers = ["127.0.0.1"]
    library.port = server.port
    library.cache = dns.resolver.LRUCache()
    before, dns.resolver.default_resolver = dns.resolver.default_resolver, library
    try:
        yield
    finally:
        dns.resolver.default_resolver = before


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop that the gateway has."""
    loop = uvloop.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


# --- spamd ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpamCost:
    """Milliseconds a message, each round: our CPU, spamd's, and how long the answer took."""

    name: str
    client: tuple[float, ...]
    spamd: tuple[float, ...]
    waited: tuple[float, ...]


def measure_spamd(rounds: int, times: int) -> list[SpamCost]:
    """A real spamd is asked about the message: by our check, and by aiospamc as it comes."""
    content = checks_world.signed_mail(SIZE)
    spamd = Spamd()
    with _loop() as loop:
        try:
            spamd.start()
            return loop.run_until_complete(_ask_spamd(spamd.port, content, rounds, times))
        finally:
            spamd.close()


async def _ask_spamd(port: int, content: bytes, rounds: int, times: int) -> list[SpamCost]:
    ours = SpamAssassin("127.0.0.1", port)

    async def by_us() -> bool:
        return (await ours.check(content)).verdict in ("pass", "fail")

    async def as_it_comes() -> bool:
        answer = await aiospamc.symbols(content, host="127.0.0.1", port=port)
        return answer.status_code == 0

    askers = {"mailgw": by_us, "aiospamc.symbols": as_it_comes}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in askers}
    for ask in askers.values():
        await ask()
    for _ in range(rounds):
        for name, ask in askers.items():
            began, own, theirs = time.perf_counter(), time.thread_time(), _children_cpu()
            for _ in range(times):
                if not await ask():
                    raise Failed(f"{name}: spamd gave no verdict")
            spent = (time.thread_time() - own, _children_cpu() - theirs)
            waited = time.perf_counter() - began
            found[name].append(tuple(each / times * 1e3 for each in (*spent, waited)))
    await ours.close()
    return [SpamCost(name, *zip(*samples, strict=True)) for name, samples in found.items()]


def _children_cpu() -> float:
    """Of all that we started; spamd is alone here."""
    own = os.times()
    return cpu_seconds(os.getpid()) - own.user - own.system
