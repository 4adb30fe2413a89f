"""Questions to the DNS: what a name has, that it has nothing, or that nobody told.

Laws. "There is none" is an answer; "I could not find out" is Unanswered, never taken for
one another. Every question has a deadline, and so has who joins one that is under way.
Answers are kept for their time to live, in a bounded memory, whoever asks. Names come
from strangers: one that the DNS cannot carry does not exist, and is not asked about.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import aiodns
import pycares
from pycares import errno

from mailgw.observe import log

T = TypeVar("T")

# RFC 1035 2.3.4: 63 octets a label, 255 on the wire, which are 253 written down. Anything
# printable may be in a label; a backslash would be read as an escape.
_NAME = re.compile(r"(?!.{254})(?:[ -\-/-\[\]-~]{1,63}\.)*[ -\-/-\[\]-~]{1,63}")
# What c-ares consents to ask for. Macros of SPF make other names, out of local parts for one.
_USUAL_NAME = re.compile(r"[A-Za-z0-9._*/-]+")
# Answers of one type that are kept at most, and the octets that one may have.
_MOST_KEPT = 5_000
_LARGEST_KEPT = 4_096
# RFC 8767 4: nothing is kept for longer, whatever it says of itself.
_LONGEST_KEPT = 86_400
# RFC 9520 3.2: that nobody answers is remembered too, shortly.
_FAILURE_KEPT = 5.0
# c-ares goes down to this time-out where servers were fast, and up to that one.
_SHORTEST_TRY, _LONGEST_TRY = 0.25, 5.0
_NO_SUCH_NAME = errno.ARES_ENOTFOUND
_NO_DATA = errno.ARES_ENODATA


class Unanswered(Exception):
    """Nothing is known: no server answered in time, or it could not tell."""


@dataclass(frozen=True, slots=True)
class Mx:
    """A mail exchanger; `host` is "" where a domain takes no mail (RFC 7505)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The records of one type. `exists` is false where there is nothing by that name at all."""

    records: tuple[T, ...] = ()
    exists: bool = True


class Resolver(Protocol):
    """Names are ASCII, with or without the final dot. Each raises Unanswered."""

    async def a(self, name: str) -> Answer[str]: ...

    async def aaaa(self, name: str) -> Answer[str]: ...

    async def txt(self, name: str) -> Answer[bytes]:
        """The strings of a record are joined."""

    async def mx(self, name: str) -> Answer[Mx]:
        """The most preferred first."""

    async def ptr(self, address: str) -> Answer[str]:
        """Names of an address, in lower case and without the final dot."""

    async def close(self) -> None:
        """Whoever still waits gets Unanswered."""


def reversed_name(address: str) -> str:
    """The labels under which an address stands in a reverse zone or a list, without the zone.

    Raises ValueError for what is no address.
    """
    pointer = ipaddress.ip_address(address).reverse_pointer
    return pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


class AresResolver:
    """Asks `servers`, or those of the system where there are none.

    May be made anywhere; what it opens it opens at the first question, in the event loop
    of that. `timeout` is for a question, `min_ttl` the shortest time an answer is kept,
    both in seconds; that there is none is kept for `min_ttl`, since the library does not
    show the SOA record. `capacity` questions are in flight at once, more wait.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] = (),
        *,
        timeout: float,
        min_ttl: float,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        line = _Line(servers, timeout, capacity)
        self._line = line
        self._a = _Desk(line, "A", min_ttl, clock, _address)
        self._aaaa = _Desk(line, "AAAA", min_ttl, clock, _address)
        self._txt = _Desk(line, "TXT", min_ttl, clock, _text)
        self._mx = _Desk(line, "MX", min_ttl, clock, _exchanger)
        self._ptr = _Desk(line, "PTR", min_ttl, clock, _pointer)

    async def a(self, name: str) -> Answer[str]:
        return await self._a.ask(name)

    async def aaaa(self, name: str) -> Answer[str]:
        return await self._aaaa.ask(name)

    async def txt(self, name: str) -> Answer[bytes]:
        return await self._txt.ask(name)

    async def mx(self, name: str) -> Answer[Mx]:
        found = await self._mx.ask(name)
        return Answer(tuple(sorted(found.records, key=lambda mx: mx.preference)), found.exists)

    async def ptr(self, address: str) -> Answer[str]:
        try:
            zone = "ip6.arpa" if ":" in address else "in-addr.arpa"
            name = f"{reversed_name(address)}.{zone}"
        except ValueError:
            return Answer(exists=False)
        return await self._ptr.ask(name)

    async def close(self) -> None:
        desks = (self._a, self._aaaa, self._txt, self._mx, self._ptr)
        for desk in desks:
            desk.close()
        await self._line.close()


class _Line:
    """The way to the servers: bounded, and with a deadline."""

    def __init__(self, servers: Sequence[tuple[str, int]], timeout: float, capacity: int) -> None:
        self._given = tuple(servers)
        self._servers = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in servers]
        self._timeout = timeout
        self._slots = asyncio.Semaphore(capacity)
        self._library: aiodns.DNSResolver | None = None
        self._closed = False

    async def ask(self, name: str, kind: str) -> list[pycares.DNSRecord] | None:
        """The records of the answer, None where there is no such name. Raises Unanswered."""
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                if not _USUAL_NAME.fullmatch(name):
                    return await self._ask_otherwise(name, kind)
                return (await self._opened().query_dns(name, kind)).answer
        except TimeoutError:
            raise Unanswered(f"{kind} {name}: no answer in time") from None
        except aiodns.error.DNSError as trouble:
            if trouble.args[0] == _NO_SUCH_NAME:
                return None
            if trouble.args[0] == _NO_DATA:
                return []
            raise Unanswered(f"{kind} {name}: {trouble.args[-1]}") from None
        except pycares.AresError as trouble:
            raise Unanswered(f"cannot ask anybody: {trouble}") from None

    async def _ask_otherwise(self, name: str, kind: str) -> list[pycares.DNSRecord] | None:
        """The same, for a name that c-ares takes for a mistake; few are."""
        # Imported here, because it is large; what makes such names (SPF) has it loaded.
        import dns.asyncresolver
        import dns.exception
        import dns.name
        import dns.nameserver
        import dns.resolver

        if self._closed:
            raise Unanswered("the resolver is closed")
        labels = [*(label.encode("ascii") for label in name.split(".")), b""]
        try:
            library = dns.asyncresolver.Resolver(configure=not self._given)
            if self._given:
                library.nameservers = [dns.nameserver.Do53Nameserver(*at) for at in self._given]
            found = await library.resolve(
                dns.name.Name(labels), kind, raise_on_no_answer=False, lifetime=self._timeout
            )
        except dns.resolver.NXDOMAIN:
            return None
        except (dns.exception.DNSException, OSError) as trouble:
            raise Unanswered(f"{kind} {name}: {trouble}") from None
        ttl = found.chaining_result.minimum_ttl
        return [_as_by_c_ares(name, ttl, each) for each in found.rrset or ()]

    async def close(self) -> None:
        self._closed = True
        if self._library is not None:
            await self._library.close()

    def _opened(self) -> aiodns.DNSResolver:
        if self._closed:
            raise Unanswered("the resolver is closed")
        if self._library is None:
            first = min(_LONGEST_TRY, max(_SHORTEST_TRY, self._timeout / 4))
            self._library = aiodns.DNSResolver(
                self._servers or None,
                asyncio.get_running_loop(),
                timeout=first,
                tries=_tries(self._timeout),
            )
        return self._library


def _tries(timeout: float) -> int:
    """How often to ask, so that our own deadline is the first to pass.

    c-ares doubles its time-out with each try, but begins as low as its servers are fast:
    with few tries a slow answer would be given up on long before the deadline.
    """
    tries, span = 1, _SHORTEST_TRY
    while span < timeout and tries < 100:
        span += min(_LONGEST_TRY, _SHORTEST_TRY * 2**tries)
        tries += 1
    return tries


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """What an answer was, and until when it counts; None: nobody answered."""

    answer: Answer[T] | None
    until: float
    why: str = ""


class _Desk(Generic[T]):
    """The questions of one type: answers are kept, and nobody asks what is being asked."""

    def __init__(
        self,
        line: _Line,
        kind: str,
        min_ttl: float,
        clock: Callable[[], float],
        read: Callable[[object], tuple[T, int] | None],
    ) -> None:
        self._line = line
        self._kind = kind
        self._min_ttl = min_ttl
        self._clock = clock
        self._read = read
        # Whoever was asked for last stands last.
        self._kept: dict[str, _Kept[T]] = {}
        self._flights: dict[str, asyncio.Task[_Kept[T]]] = {}

    async def ask(self, name: str) -> Answer[T]:
        """Raises Unanswered."""
        name = name.lower().removesuffix(".")
        if not _NAME.fullmatch(name):
            return Answer(exists=False)
        kept = self._kept.pop(name, None)
        if kept is not None and self._clock() < kept.until:
            self._kept[name] = kept
        else:
            flight = self._flights.get(name) or self._take_off(name)
            try:
                # Who stops waiting must not take the answer from the others.
                kept = await asyncio.shield(flight)
            except asyncio.CancelledError:
                if flight.cancelled():
                    raise Unanswered("the resolver is closed") from None
                raise
        if kept.answer is None:
            raise Unanswered(kept.why)
        return kept.answer

    def close(self) -> None:
        for flight in self._flights.values():
            flight.cancel()

    def _take_off(self, name: str) -> asyncio.Task[_Kept[T]]:
        flight = asyncio.get_running_loop().create_task(self._find_out(name))
        self._flights[name] = flight
        flight.add_done_callback(lambda _: self._flights.pop(name, None))
        return flight

    async def _find_out(self, name: str) -> _Kept[T]:
        try:
            found = await self._line.ask(name, self._kind)
        except Unanswered as trouble:
            log.debug("dns.unanswered", reason=trouble)
            return self._keep(name, _Kept(None, self._clock() + _FAILURE_KEPT, str(trouble)))
        if not found:
            nothing: Answer[T] = Answer(exists=found is not None)
            return self._keep(name, _Kept(nothing, self._clock() + self._min_ttl))
        records, octets, ttl = self._sift(found)
        kept = _Kept(Answer(records), self._clock() + ttl)
        # A stranger who writes large records should not fill our memory with them.
        return self._keep(name, kept) if octets <= _LARGEST_KEPT else kept

    def _sift(self, found: Iterable[pycares.DNSRecord]) -> tuple[tuple[T, ...], int, float]:
        """The records that were asked for, their size, and how long all may be kept."""
        records, octets, ttl = [], 0, math.inf
        for each in found:
            # The way there counts too: a CNAME may end before what it points to.
            ttl = min(ttl, each.ttl)
            read = self._read(each.data)
            if read is not None:
                records.append(read[0])
                octets += read[1]
        return tuple(records), octets, min(max(ttl, self._min_ttl), _LONGEST_KEPT)

    def _keep(self, name: str, kept: _Kept[T]) -> _Kept[T]:
        if len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = kept
        return kept


def _as_by_c_ares(name: str, ttl: int, rdata: Any) -> pycares.DNSRecord:
    """A record of dnspython's, whose types differ in their fields, as the others come."""
    kind, family = int(rdata.rdtype), int(rdata.rdclass)
    match rdata.rdtype.name:
        case "A":
            return pycares.DNSRecord(name, kind, family, ttl, pycares.ARecordData(rdata.address))
        case "AAAA":
            return pycares.DNSRecord(name, kind, family, ttl, pycares.AAAARecordData(rdata.address))
        case "TXT":
            text = pycares.TXTRecordData(b"".join(rdata.strings))
            return pycares.DNSRecord(name, kind, family, ttl, text)
        case _:
            host = pycares.MXRecordData(rdata.preference, rdata.exchange.to_text())
            return pycares.DNSRecord(name, kind, family, ttl, host)


# What each type of record becomes, with its size; None for a record of another type.


def _address(data: object) -> tuple[str, int] | None:
    if isinstance(data, pycares.ARecordData | pycares.AAAARecordData):
        return data.addr, len(data.addr)
    return None


def _text(data: object) -> tuple[bytes, int] | None:
    if isinstance(data, pycares.TXTRecordData):
        return data.data, len(data.data)
    return None


def _exchanger(data: object) -> tuple[Mx, int] | None:
    if isinstance(data, pycares.MXRecordData):
        return Mx(data.priority, _plain(data.exchange)), len(data.exchange)
    return None


def _pointer(data: object) -> tuple[str, int] | None:
    if isinstance(data, pycares.PTRRecordData):
        return _plain(data.dname), len(data.dname)
    return None


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
