"""How many clients, how often, how slow, and which of them are known to be bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.values import BadValue, optional, parts, pause, whole, word, zones

_MOST = 1_000_000
_ceiling = optional(whole(1, _MOST))


@dataclass(frozen=True, slots=True)
class Rate:
    """What one client address may do in a minute; None is without limit."""

    connections: int | None = None
    messages: int | None = None

    def __bool__(self) -> bool:
        return self != Rate()


def rate(text: str) -> Rate:
    """connections=60,messages=600, of which either may be left out; empty is no limit."""
    found: dict[str, int] = {}
    for part in parts(text, ","):
        name, sign, number = part.partition("=")
        name = name.strip().lower()
        if not sign or name not in ("connections", "messages"):
            raise BadValue("is not a rate", "try connections=60,messages=600")
        if name in found:
            raise BadValue(f"names {name} twice", "keep one")
        found[name] = whole(1, _MOST)(number.strip())
    return Rate(found.get("connections"), found.get("messages"))


@section("limits")
class LimitSettings:
    """How many, how often"""

    connections: int | None = key(
        "smtp-connections",
        _ceiling,
        default="",
        reload=True,
        doc="Connections at once, of all workers together; further clients wait until one ends. "
        "It limits outgoing connections too in MailerQ; here there are none. Empty: no limit.",
    )
    connections_in: int | None = key(
        "smtp-connections-in",
        _ceiling,
        default="",
        reload=True,
        doc="Incoming connections at once. Where smtp-connections is set too, the lower of both "
        "counts. Empty: no limit.",
    )
    per_ip: int | None = key(
        "smtp-connections-per-ip",
        _ceiling,
        default="",
        reload=True,
        doc="Connections at once from one client address; further ones are answered 421. Empty: "
        "no limit.",
    )
    rate: Rate = key(
        "smtp-rate",
        rate,
        default="",
        reload=True,
        doc="What one client address may do in a minute, such as connections=60,messages=600, of "
        "which either may be left out; beyond it 421 or 450 is the answer. Empty: no limit.",
    )
    minimum_rate: int = key(
        "smtp-minimum-rate",
        whole(0, 1_000_000_000),
        default="1000",
        reload=True,
        doc="Octets per second at which a message has to come; a slower client is closed with 421 "
        "once smtp-timeout is used up. 0: no limit.",
    )
    greeting_delay: float = key(
        "smtp-greeting-delay",
        pause,
        default="0",
        reload=True,
        doc="Seconds to wait before the banner. A client that speaks before it came is refused. "
        "0: no wait.",
    )
    dnsbl: tuple[str, ...] = key(
        "smtp-dnsbl",
        zones,
        default="",
        reload=True,
        doc="DNS lists of bad clients, by their zones, such as zen.example.org, separated by "
        "commas. A list that does not answer stops no mail. Empty: none.",
    )
    dnsbl_action: Literal["refuse", "log"] = key(
        "smtp-dnsbl-action",
        word("refuse", "log"),
        default="refuse",
        reload=True,
        doc="What to do with a client that is on a list: refuse it, or only log it.",
    )
