"""Whose domain is it? The DNS tree walk of RFC 9989 4.10, and the public suffix list behind it.

Laws: a walk asks at most eight questions, and none twice; a name that could not be asked
about is never taken for one that has no record.

The organizational domain is what the walk says. The public suffix list has its word in
two places only, both where the walk alone would be fooled or stuck:

- A record at a public suffix that says nothing of `psd=` counts as `psd=y`. RFC 9989 11.8
  names the danger: else one record at co.uk, or at a hoster that gives names to everybody,
  would make one organization of all who are below it, each passing for the other. A
  domain on the list that is one organization after all says `psd=n`.
- A public suffix that could not be asked about does not matter where a record was found
  below it: the organization begins below the suffix, whatever stands there.

Where a walk finds no record the domain stands for itself, and so it does with the list:
what decides alignment is a domain with a record, and a walk that led there has found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from publicsuffixlist import PublicSuffixList

from mailgw.checks.dmarc_record import Record, records
from mailgw.dns import Resolver, Unanswered

# RFC 9989 4.10 step 4: of a name with eight labels or more, seven are left after the first
# question.
_LABELS_LEFT = 7


class Suffixes(Protocol):
    """Which domains are public suffixes; names are in lower case and of A-labels."""

    def is_public(self, domain: str, *, accept_unknown: bool | None = None) -> bool: ...


class Node(NamedTuple):
    """What stands at one name of the tree.

    `record` is None where there is none, or `several`. `exists` is whether there is
    anything at all at the name that was asked about, which is _dmarc. below the domain.
    """

    record: Record | None
    several: bool
    exists: bool


class Found(NamedTuple):
    """A record, and the domain that it is for."""

    domain: str
    record: Record


@dataclass(frozen=True, slots=True)
class Walk:
    """What the way from a domain to the root showed.

    `organization` is the organizational domain. `published` is the record that holds for
    domains of it that have none of their own: its own, or that of its public suffix.
    """

    organization: str
    published: Found | None


class Tree:
    """The DNS as one message sees it: what was asked once is known."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._nodes: dict[str, Node] = {}
        self._silent: dict[str, Unanswered] = {}

    async def look(self, domain: str) -> Node:
        """What stands at _dmarc. of the domain. Raises Unanswered."""
        if domain in self._silent:
            raise self._silent[domain]
        node = self._nodes.get(domain)
        if node is None:
            try:
                answer = await self._resolver.txt(f"_dmarc.{domain}")
            except Unanswered as trouble:
                self._silent[domain] = trouble
                raise
            found = records(answer.records)
            # RFC 9989 4.10 steps 2 and 6: of several, none is taken.
            record = found[0] if len(found) == 1 else None
            node = self._nodes[domain] = Node(record, len(found) > 1, answer.exists)
        return node

    async def exists(self, domain: str) -> bool:
        """Whether there is such a domain (RFC 9989 3.2.13). Raises Unanswered.

        Asks only where it is not known: what has names below it exists (RFC 8020).
        """
        node = self._nodes.get(domain)
        if node is not None and node.exists:
            return True
        return (await self._resolver.a(domain)).exists

    async def walk(self, domain: str) -> Walk:
        """Find the organizational domain of a domain. Raises Unanswered."""
        suffixes = public_suffixes()
        found: list[Found] = []
        for name in path(domain):
            try:
                record = (await self.look(name)).record
            except Unanswered:
                if found and ("." not in name or _listed(suffixes, name)):
                    break
                raise
            if record is not None:
                found.append(Found(name, record))
                if _psd(found[-1], suffixes) != "u":
                    break
        return select(domain, found, suffixes)


def path(domain: str) -> tuple[str, ...]:
    """The names that a walk from a domain asks about, in their order: eight at most."""
    labels = domain.split(".")
    rest = labels[1:] if len(labels) <= _LABELS_LEFT else labels[-_LABELS_LEFT:]
    return domain, *(".".join(rest[start:]) for start in range(len(rest)))


def select(start: str, found: Sequence[Found], suffixes: Suffixes) -> Walk:
    """Choose among the records of a walk, the longest name first (RFC 9989 4.10.2)."""
    for each in found:
        psd = _psd(each, suffixes)
        if psd == "n":
            return Walk(each.domain, each)
        if psd == "y" and each.domain != start:
            below = _one_label_below(each.domain, start)
            own = next((other for other in found if other.domain == below), None)
            # RFC 9989 4.10.1: that of the suffix is for those who have none.
            return Walk(below, own or each)
    if found:
        return Walk(found[-1].domain, found[-1])
    return Walk(start, None)


def _psd(found: Found, suffixes: Suffixes) -> str:
    psd = found.record.psd
    return "y" if psd == "u" and _listed(suffixes, found.domain) else psd


def _listed(suffixes: Suffixes, domain: str) -> bool:
    return suffixes.is_public(domain, accept_unknown=False)


def _one_label_below(domain: str, start: str) -> str:
    labels = start.split(".")
    return ".".join(labels[-(domain.count(".") + 2) :])


@lru_cache(maxsize=1)
def public_suffixes() -> Suffixes:
    """The list. Reading it takes 50 ms, so whoever is going to need it asks at the start."""
    return PublicSuffixList()
