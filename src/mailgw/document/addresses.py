"""Addresses to send from, where no x-mq-ip field names any.

Law: the address that the client connected to, where it is mappable and not unmappable;
else those that are the default; else none. Behind a trusted proxy the client connected
to what the PROXY header says, so a proxy that passes on what strangers tell it lets them
choose among the mappable addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailgw.config.networks import NOWHERE, Networks


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The values of `smtp-default-ips`, `smtp-mappable-ips` and `smtp-unmappable-ips`."""

    default: tuple[str, ...] = ()
    mappable: Networks = NOWHERE
    unmappable: Networks = NOWHERE

    def ips(self, arrival: str) -> tuple[str, ...]:
        """The addresses for mail that came to `arrival`, spelled as it is; () for none."""
        if arrival in self.mappable and arrival not in self.unmappable:
            return (arrival,)
        return self.default


ANY: Final = Outgoing()
