"""SPF (RFC 7208): may this client send for the domain of MAIL FROM, and for its HELO name?

Laws. pyspf decides, and asks nobody: a question that it has no answer to ends the run, is
put to our resolver, and the check runs again from its beginning. A run is short, and there
are no more of them than terms that ask. What a stranger's record can make us do is
bounded: questions by RFC 7208 4.6.4, its size and what has to be compared by us. The
domain's own explanation (exp=) is not fetched: we would not repeat it to anybody.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
import urllib.parse
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

from mailgw.dns import Resolver, Unanswered
from mailgw.mail.finding import Finding, Verdict
from mailgw.observe import log

with warnings.catch_warnings():
    # Its docstrings hold escapes that Python warns of whenever it compiles the module.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", SyntaxWarning)
    import spf

# RFC 7208 has no bounds for these. Records are asked to fit into 512 octets (3.4); what is
# published stays below ours many times over.
_MOST_OCTETS = 8_192
_MOST_TERMS = 512
_MOST_TERMS_TOGETHER = 1_024
_LONGEST_TERM = 512
_MOST_MACROS = 128
_MOST_MODIFIERS = 32
_MOST_ADDRESSES = 1_024
_LONGEST_NAME = 253
# Each question is a run, and then one decides: besides the terms, the first record is asked
# for, and the names of the client for a macro.
_RUNS_BESIDE_TERMS = 3

# RFC 7208 4.3: several labels, none empty or longer than 63. An address is no domain.
_DOMAIN = re.compile(r"(?!.{254})(?:[!-\-/-?A-Z^-~]{1,63}\.)+(?=[^.]*[^.0-9])[!-\-/-?A-Z^-~]{1,63}")
# What may be asked for, after macros: the DNS itself carries anything.
_NAME = re.compile(r"(?!.{254})(?:[ -\-/-~]{1,63}\.)*[ -\-/-~]{1,63}")
# RFC 7208 7.1, in forms that need one look at each character. "%" alone is an error.
_MACRO = re.compile(r"%(?:([%_-])|\{([a-z])([0-9]*)(r?)([.\-+,/_=]*)\})?", re.IGNORECASE)
_DOMAIN_END = re.compile(
    r"(?:\.(?=[0-9-]*[a-z-])[0-9a-z](?:[0-9a-z-]*[0-9a-z])?\.?"
    r"|%(?:[%_-]|\{[a-z][0-9]*r?[.\-+,/_=]*\}))\Z",
    re.IGNORECASE,
)
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
# ABNF strings have no case (RFC 5234 2.3); pyspf knows these two in lower case only.
_OUR_MODIFIERS = re.compile(r"(?<= )(?:redirect|exp)=", re.IGNORECASE)

# How pyspf begins to say it -> how we say it. What follows there may be the record's words.
_REASONS = {
    "Two or more": "more than one SPF record",
    "No valid SPF record for included domain": "an included domain has no SPF record",
    "redirect domain has no SPF record": "the redirect domain has no SPF record",
    "include has trivial recursion": "the record includes itself",
    "Unknown mechanism": "unknown mechanism in the record",
    "Invalid IP": "bad network in the record",
    "Invalid domain": "bad domain in the record",
    "Non-ascii": "the record is not ASCII",
}

_Question: TypeAlias = tuple[str, str]
# What is known so far by type and name; None: nobody answered.
_Known: TypeAlias = dict[_Question, tuple[str | bytes, ...] | None]
# What pyspf made of a term, by the term and the domain that it stands in.
_Terms: TypeAlias = dict[tuple[str, str], object]


@dataclass(frozen=True, slots=True)
class Limits:
    """RFC 7208 4.6.4: terms that ask the DNS, and those of them that find nothing."""

    lookups: int = 10
    void_lookups: int = 2


async def check(
    resolver: Resolver,
    *,
    ip: str,
    helo: str | None,
    reverse_path: str | None,
    hostname: str,
    limits: Limits,
) -> tuple[Finding, ...]:
    """Find out what the domains say about the client: MAIL FROM first, then HELO.

    `reverse_path` is None for the null sender, of whom the HELO name is all there is to
    check. Addresses and names may be anything that a client can write. Never raises for
    that; how long it takes is the caller's to bound (RFC 7208 4.6.4: 20 seconds or more).
    """
    identities = []
    if reverse_path is not None:
        local, _, domain = reverse_path.rpartition("@")
        identities.append(_Identity("smtp.mailfrom", reverse_path, local, _domain(domain)))
    if helo is not None or reverse_path is None:
        # RFC 7208 2.4: the mailbox "postmaster" at the name, for macros.
        identities.append(_Identity("smtp.helo", helo or "", "", _domain(helo or "")))
    client = _Client.of(ip, helo or "", hostname)
    async with asyncio.TaskGroup() as both:
        asked = [both.create_task(_find(resolver, client, who, limits)) for who in identities]
    return tuple(each.result() for each in asked)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Who is checked; `domain` is "" where that is no domain."""

    property: str
    written: str
    local: str
    domain: str


@dataclass(frozen=True, slots=True)
class _Client:
    """Who wants to send; an IPv4 address that is mapped into IPv6 is IPv4."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    helo: str
    hostname: str

    @classmethod
    def of(cls, ip: str, helo: str, hostname: str) -> _Client | None:
        """None where the client has no address, as on a unix socket."""
        try:
            # The zone of a link-local address is this machine's, not the client's.
            address = ipaddress.ip_address(ip.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(address, helo[:_LONGEST_NAME], hostname)

    @property
    def address_type(self) -> str:
        return "A" if self.address.version == 4 else "AAAA"


def _domain(text: str) -> str:
    """The domain in lower case and A-labels, "" for what is none (literals, single labels)."""
    name = text.removesuffix(".")
    if len(name) > _LONGEST_NAME:
        return ""
    if not name.isascii():
        # RFC 8616 4: U-labels are looked up as A-labels.
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return ""
    return name.lower() if _DOMAIN.fullmatch(name) else ""


async def _find(
    resolver: Resolver, client: _Client | None, who: _Identity, limits: Limits
) -> Finding:
    began = time.perf_counter()
    verdict: Verdict
    if not who.domain:
        verdict, reason = "none", "there is no domain to check"
    elif client is None:
        verdict, reason = "none", "the client has no IP address"
    else:
        verdict, reason = await _judge(resolver, client, who, limits)
    named = ((who.property, who.written),) if who.written else ()
    return Finding(
        "spf",
        verdict,
        properties=named,
        members=named,
        domain=who.domain,
        reason=reason,
        milliseconds=(time.perf_counter() - began) * 1000,
    )


async def _judge(
    resolver: Resolver, client: _Client, who: _Identity, limits: Limits
) -> tuple[Verdict, str]:
    known: _Known = {}
    terms: _Terms = {}
    for _ in range(limits.lookups + _RUNS_BESIDE_TERMS):
        run = _Run(client, who, limits, known, terms)
        try:
            return run.outcome()
        except _Need as need:
            await _learn(resolver, client, need.question, known)
        except Exception as trouble:  # noqa: BLE001 - whatever pyspf made of a stranger's text
            log.warning("spf.unreadable", domain=who.domain, error=repr(trouble))
            return "permerror", "the record cannot be evaluated"
        # Where every answer was kept, nothing above has waited: let the others have a turn.
        await asyncio.sleep(0)
    return "permerror", "too many questions"


async def _learn(resolver: Resolver, client: _Client, question: _Question, known: _Known) -> None:
    """Ask, and with it what the same term is sure to ask next."""
    kind, _ = question
    answer = known[question] = await _answer(resolver, question)
    if kind not in ("MX", "PTR") or not answer:
        return
    # RFC 7208 4.6.4: of more than ten exchangers none is asked for, of the client's own
    # names the first ten.
    if kind == "MX" and len(answer) > spf.MAX_MX:
        return
    names = {name for each in answer[: spf.MAX_PTR] if (name := _askable(str(each)))}
    await _learn_all(resolver, [(client.address_type, name) for name in names], known)


async def _learn_all(resolver: Resolver, questions: Iterable[_Question], known: _Known) -> None:
    new = [question for question in questions if question not in known]
    async with asyncio.TaskGroup() as together:
        asked = [together.create_task(_answer(resolver, question)) for question in new]
    known.update(zip(new, (each.result() for each in asked), strict=True))


async def _answer(resolver: Resolver, question: _Question) -> tuple[str | bytes, ...] | None:
    kind, name = question
    try:
        match kind:
            case "TXT":
                return (await resolver.txt(name)).records
            case "MX":
                return tuple(mx.host for mx in (await resolver.mx(name)).records)
            case "PTR":
                return (await resolver.ptr(name)).records
            case "A":
                return (await resolver.a(name)).records
            case _:
                return (await resolver.aaaa(name)).records
    except Unanswered:
        return None


def _askable(name: str) -> str:
    """The name as it is asked for, "" where the DNS cannot carry it (RFC 7208 4.3, 7.3)."""
    name = name.lower().removesuffix(".")
    return name if _NAME.fullmatch(name) else ""


class _Need(Exception):
    """pyspf has a question. None of its own errors, so it passes through all its handlers."""

    def __init__(self, question: _Question) -> None:
        super().__init__(question)
        self.question = question


class _Excess(spf.PermError):  # type: ignore[misc]  # pyspf has no types
    """More than we are ready to do; the message is in our words."""


class _Run(spf.query):  # type: ignore[misc]  # pyspf has no types
    """One run of pyspf, over what is known. Its names are pyspf's, which calls them."""

    def __init__(
        self, client: _Client, who: _Identity, limits: Limits, known: _Known, terms: _Terms
    ) -> None:
        local = who.local or "postmaster"  # RFC 7208 4.3
        sender = f"{local}@{who.domain}"
        super().__init__(i=str(client.address), s=sender, h=client.helo, receiver=client.hostname)
        # Not at the first "@", where pyspf cuts: a quoted local part may hold another domain.
        self.l, self.o, self.d = local, who.domain, who.domain
        self._client = client
        self._limits = limits
        self._known = known
        self._terms = terms
        self._terms_together = 0
        self._addresses = 0

    def outcome(self) -> tuple[Verdict, str]:
        """Decide, or raise _Need."""
        verdict = cast(Verdict, self.check()[0])
        match verdict:
            case "temperror":
                return verdict, self.prob
            case "permerror":
                return verdict, _reason(self.perm_error)
            case "none":
                return verdict, "no SPF record"
            case _:
                return verdict, ""

    # Where pyspf asks.

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> list[str | bytes]:
        """Answer out of what is known; the resolver has followed aliases already."""
        name = _askable(name)
        if not name:
            return []
        if (qtype, name) not in self._known:
            raise _Need((qtype, name))
        found = self._known[qtype, name]
        if found is None:
            raise spf.TempError(f"nobody answers about {qtype} records")
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > self._limits.void_lookups:
                raise _Excess("too many look-ups that find nothing")
        if qtype in ("A", "AAAA"):
            self._addresses += len(found)
            if self._addresses > _MOST_ADDRESSES:
                raise _Excess("too many addresses to compare with")
        return list(found)

    def dns_txt(
        self, domainname: str, rr: str = "TXT", ignore_void: bool = False
    ) -> list[str | bytes]:
        return self.dns(domainname, rr, ignore_void=ignore_void)

    def dns_spf(self, domain: str) -> str | None:
        record: str | None = super().dns_spf(domain)
        return record and self._weighed(record)

    def dns_mx(self, domainname: str) -> list[str | bytes]:
        hosts = self.dns(domainname, "MX")
        if len(hosts) > spf.MAX_MX:
            raise _Excess("too many mail exchangers")
        # What is limited are terms that find nothing (RFC 7208 4.6.4), not hosts: three that
        # have no IPv6 would make an error of every "mx".
        return [a for host in hosts for a in self.dns(str(host), self.A, ignore_void=True)]

    def dns_ptr(self, i: str) -> list[str | bytes]:
        return self.dns(str(self._client.address), "PTR")

    def validated_ptrs(self) -> list[str]:
        # RFC 7208 5.5: names that cannot be asked about do not match; that is no error.
        try:
            names = self.dns_ptr(self.i)[: spf.MAX_PTR]
        except spf.TempError:
            return []
        return [str(name) for name in names if self._leads_back(str(name))]

    def _leads_back(self, name: str) -> bool:
        try:
            return self.cidrmatch(self.dns(name, self.A, ignore_void=True), self.cidrmax)
        except spf.TempError:
            return False

    def get_explanation(self, spec: str) -> None:
        """It is the domain's own text, and one more question."""

    # What it costs.

    def check_lookups(self) -> None:
        self.lookups += 1
        if self.lookups > self._limits.lookups:
            raise _Excess("too many terms that ask the DNS")

    def _weighed(self, record: str) -> str:
        """The record, if it is one that we are ready to read."""
        terms = record.split(" ")
        self._terms_together += len(terms)
        if not record.isprintable():
            raise _Excess("control characters in the record")
        if (
            len(record) > _MOST_OCTETS
            or len(terms) > _MOST_TERMS
            or self._terms_together > _MOST_TERMS_TOGETHER
            or max(map(len, terms)) > _LONGEST_TERM
            or record.count("%") > _MOST_MACROS
            or record.count("=") > _MOST_MODIFIERS
        ):
            raise _Excess("the records are too long")
        return _OUR_MODIFIERS.sub(lambda found: found[0].lower(), record)

    def validate_mechanism(self, mech: str) -> object:
        # Runs repeat each other. What has a macro may have to ask, so it is read each time.
        if "%" in mech:
            return super().validate_mechanism(mech)
        found = self._terms.get((mech, self.d))
        if found is None:
            found = self._terms[mech, self.d] = super().validate_mechanism(mech)
        return found

    def cidrmatch(self, ipaddrs: Iterable[str | bytes], n: int) -> bool:
        """Whether the client is in one of the networks with a prefix of n bits."""
        version, beside = self._client.address.version, self.cidrmax - n
        mine = int(self._client.address) >> beside
        try:
            return any(_number(address, version) >> beside == mine for address in ipaddrs)
        except ValueError:
            raise spf.PermError("Invalid IP") from None

    # Macros. pyspf searches a term once per label for what is wrong in it, and again for
    # where they end, and cuts a name that is too long by one label only.

    def expand_domain(self, arg: str) -> str:
        if not _DOMAIN_END.search(arg):
            raise spf.PermError("Invalid domain")
        return self.expand(arg)

    def expand(self, s: str, stripdot: bool = True) -> str:
        expanded = _MACRO.sub(self._macro, s) if "%" in s else s
        expanded = expanded.removesuffix(".")
        if len(expanded) <= _LONGEST_NAME:
            return expanded
        # RFC 7208 7.3: labels are taken away on the left until it fits.
        return expanded[expanded.find(".", len(expanded) - _LONGEST_NAME - 1) + 1 :]

    def _macro(self, found: re.Match[str]) -> str:
        escape, letter, digits, reverse, delimiters = found.groups()
        if escape:
            return _ESCAPES[escape]
        if not letter:
            raise spf.PermError("bad macro")
        value = self._value(letter.lower())
        if digits or reverse or delimiters:
            parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
            if reverse:
                parts.reverse()
            # RFC 7208 7.3: no parts at all is an error, more than there are is all of them.
            kept = int(digits) if digits else len(parts)
            if not kept:
                raise spf.PermError("bad macro")
            value = ".".join(parts[-kept:])
        return urllib.parse.quote(value, "~", errors="replace") if letter.isupper() else value

    def _value(self, letter: str) -> str:
        match letter:
            case "p":
                return str(self.getp())
            case "s" | "l" | "o" | "d" | "i" | "h" | "v":
                return str(getattr(self, letter))
            case _:
                # RFC 7208 7.2: c, r and t belong into explanations, others nowhere.
                raise spf.PermError("bad macro")


@lru_cache(maxsize=8_192)
def _number(address: str | bytes, version: int) -> int:
    # The networks of large senders stand in the mail of the whole world.
    return int(ipaddress.IPv4Address(address) if version == 4 else ipaddress.IPv6Address(address))


def _reason(error: Exception) -> str:
    said = str(error.args[0])
    if isinstance(error, _Excess):
        return said
    for begin, reason in _REASONS.items():
        if said.startswith(begin):
            return reason
    return "the record is not valid"
