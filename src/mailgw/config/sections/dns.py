"""How names are looked up."""

from __future__ import annotations

from mailgw.config.declare import key, section
from mailgw.config.values import duration, endpoints, seconds, whole


@section("dns")
class DnsSettings:
    """DNS"""

    server: tuple[tuple[str, int], ...] = key(
        "dns-server",
        endpoints,
        default="",
        doc="Servers to ask, address or address:port, IPv6 in brackets, separated by semicolons. "
        "Empty: the system's, from resolv.conf.",
    )
    timeout: float = key(
        "dns-timeout",
        duration,
        default="5",
        doc="Seconds to wait for an answer, all attempts together.",
    )
    min_ttl: int = key(
        "dns-min-ttl",
        seconds,
        default="60",
        doc="Shortest time for which an answer is kept, in seconds.",
    )
    capacity: int = key(
        "dns-capacity",
        whole(1, 100_000),
        default="100",
        doc="Questions in flight; the next ones wait.",
    )
