"""Is the client on a list of bad clients? Asked of the DNS, before the banner (RFC 5782).

A list can only ever add a no: one that is down, or that refuses to answer us, stops no
mail, and after a few times is left alone for a while, so that it does not hold up every
client either.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailgw.config.networks import NOWHERE, Networks
from mailgw.dns import Resolver, Unanswered, reversed_name
from mailgw.mail.peer import Peer
from mailgw.observe import log
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

# Failures in a row after which a list is left alone, and for how many seconds.
_PATIENCE = 3
_REST = 60.0
# RFC 5782 2.1: what is listed has an address in there. What else a name may have, such as
# that of a zone which somebody else bought, means nothing.
_LISTED = "127."
# What the large lists say to resolvers that they do not serve: no answer, not a yes.
_BLOCKED = "127.255.255."


@dataclass
class _Zone:
    """One list and how it has been lately."""

    name: str
    failures: int = 0
    rests_until: float = 0.0


class Blocklists:
    """The lists of `smtp-dnsbl`. With `refuse` false a listed client is only logged.

    Clients in `exempt`, and those that are not of the public internet, are not asked
    about: no list can know them. The resolver is closed by whoever made it.
    """

    def __init__(
        self,
        zones: Sequence[str],
        resolver: Resolver,
        *,
        refuse: bool = True,
        exempt: Networks = NOWHERE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._zones = [_Zone(name) for name in zones]
        self._resolver = resolver
        self._refuse = refuse
        self._exempt = exempt
        self._clock = clock

    def concern(self, address: str) -> bool:
        """Whether the lists are to be asked about this client."""
        try:
            public = ipaddress.ip_address(address).is_global
        except ValueError:
            return False
        return public and address not in self._exempt

    async def refuse(self, peer: Peer) -> Reply | None:
        """Ask all lists at once; the reply for a client that is on one and is to be refused.

        Answers at the first list that has the client, where that decides.
        """
        now = self._clock()
        asked = [
            asyncio.ensure_future(self._has(zone, peer))
            for zone in self._zones
            if zone.rests_until <= now
        ]
        try:
            for first in asyncio.as_completed(asked):
                zone = await first
                if zone is not None and self._refuse:
                    return reply.listed(zone)
        finally:
            for each in asked:
                each.cancel()
        return None

    async def _has(self, zone: _Zone, peer: Peer) -> str | None:
        """The zone's name, if it lists the client."""
        try:
            answer = await self._resolver.a(f"{reversed_name(peer.remote_ip)}.{zone.name}")
        except Unanswered as trouble:
            self._failed(zone, str(trouble))
            return None
        codes = [each for each in answer.records if each.startswith(_LISTED)]
        if any(code.startswith(_BLOCKED) for code in codes):
            self._failed(zone, f"it answers {codes[0]}, which is to say that it does not serve us")
            return None
        zone.failures = 0
        if not codes:
            return None
        log.info(
            "dnsbl.listed",
            id=peer.connection_id,
            peer=peer.remote_ip,
            zone=zone.name,
            codes=",".join(codes[:8]),
        )
        return zone.name

    def _failed(self, zone: _Zone, reason: str) -> None:
        zone.failures += 1
        if zone.failures >= _PATIENCE:
            zone.rests_until = self._clock() + _REST
            log.warning("dnsbl.resting", zone=zone.name, seconds=int(_REST), reason=reason)
