"""Address ranges as people write them, and whether an address is inside.

netaddr reads the text: networks (192.0.2.0/24), ranges (192.0.2.1-192.0.2.9), globs
(192.0.2.*, 192.0.2.1-9) and bare addresses, separated by `;`. Looking up is a bisection
over sorted intervals, because it happens for every connection. An IPv4 address inside
IPv6 (::ffff:192.0.2.1) is that IPv4 address, on both sides.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

import netaddr  # _interval is the only door to it

from mailgw.config.values import BadValue

_MAPPED = 0xFFFF << 32
_IPV4_MASK = (1 << 32) - 1
_LAST = {4: _IPV4_MASK, 6: (1 << 128) - 1}

# (version, first, last), both ends included.
Interval = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of addresses: `"192.0.2.1" in networks`. Empty by default, and false then.

    Anything that is not an address, or has a zone id, is not in it, unless it is
    `unlimited`, which holds whatever is asked.
    """

    intervals: tuple[Interval, ...] = ()
    unlimited: bool = False
    # Kept apart so that a look-up touches plain sorted integers only.
    _starts: dict[int, list[int]] = field(init=False, repr=False, compare=False)
    _ends: dict[int, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        merged = tuple(_merge(self.intervals))
        object.__setattr__(self, "intervals", merged)
        for name, position in (("_starts", 1), ("_ends", 2)):
            by_version = {v: [each[position] for each in merged if each[0] == v] for v in (4, 6)}
            object.__setattr__(self, name, by_version)

    def __contains__(self, address: str) -> bool:
        if not self.intervals or self.unlimited or "%" in address:
            return self.unlimited
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        version, number = _normal(ip.version, int(ip))
        at = bisect_right(self._starts[version], number) - 1
        return at >= 0 and number <= self._ends[version][at]

    def __bool__(self) -> bool:
        return self.unlimited or bool(self.intervals)

    @property
    def everyone(self) -> bool:
        """Whether all of IPv4 or all of IPv6 is in it: strangers are. A look-up still counts."""
        return self.unlimited or any(
            first == 0 and last == _LAST[v] for v, first, last in self.intervals
        )


def networks(text: str) -> Networks:
    """Read ranges separated by `;`; empty text is the empty set. Raises BadValue."""
    parts = [part.strip() for part in text.split(";")]
    return Networks(tuple(_interval(part) for part in parts if part))


def networks_or_everybody(text: str) -> Networks:
    """The same for a range of those who may: empty text sets no limit."""
    return networks(text) or EVERYBODY


def _interval(text: str) -> Interval:
    try:
        if netaddr.valid_glob(text):
            found = netaddr.IPRange(*netaddr.glob_to_iptuple(text))
        elif "-" in text:
            found = netaddr.IPRange(*(end.strip() for end in text.split("-")))
        else:
            found = netaddr.IPNetwork(text)
    except (netaddr.AddrFormatError, ValueError, TypeError):
        raise BadValue(
            "is not a list of address ranges", "try 192.0.2.0/24; 2001:db8::1, separated by ;"
        ) from None
    first, last = int(found.first), int(found.last)
    version, start = _normal(found.version, first)
    if version == found.version:
        return version, first, last
    # A range that leaves the mapped block is IPv6, not IPv4.
    if _normal(6, last)[0] == 4:
        return 4, start, last & _IPV4_MASK
    return 6, first, last


def _normal(version: int, number: int) -> tuple[int, int]:
    # RFC 4291 2.5.5.2: ::ffff:0:0/96 holds IPv4 addresses.
    if version == 6 and number >> 32 == _MAPPED >> 32:
        return 4, number & _IPV4_MASK
    return version, number


def _merge(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for version, first, last in sorted(intervals):
        if merged and merged[-1][0] == version and first <= merged[-1][2] + 1:
            before = merged.pop()
            merged.append((version, before[1], max(before[2], last)))
        else:
            merged.append((version, first, last))
    return merged


NOWHERE = Networks()
EVERYBODY = Networks(unlimited=True)
