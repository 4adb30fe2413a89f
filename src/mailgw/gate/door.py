"""Who may come in at all: decided by the address, before TLS and before the banner.

Nobody is looked up anywhere and nothing waits here, so a flood costs a few microseconds
a client. The address is the client's, also where a balancer spoke for it.
"""

from __future__ import annotations

from collections.abc import Callable

from mailgw.config.networks import EVERYBODY, Networks
from mailgw.gate.rates import Alone, Counters, client_of
from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply


class Door:
    """Lets everybody in where nothing else is said; None is no limit.

    `most` counts the clients of all workers, `per_client` those of one address, `rate` how
    many of one address are let in per minute. Who is turned away counts for none of them.
    Everybody is counted, with or without limits, so that a limit set by a reload finds the
    clients that are there.
    """

    def __init__(
        self,
        counters: Counters | None = None,
        *,
        clients: Networks = EVERYBODY,
        most: int | None = None,
        per_client: int | None = None,
        rate: int | None = None,
    ) -> None:
        self._counters = Alone() if counters is None else counters
        self._clients = clients
        self._most = most
        self._per_client = per_client
        self._rate = rate
        # Who waits for a place, in the order they asked.
        self._waiting: dict[Callable[[], None], None] = {}

    def reserve(self, again: Callable[[], None]) -> bool:
        """See wire.house.Door."""
        if self._counters.take_place(self._most):
            if self._waiting:
                self._waiting.pop(again, None)
            return True
        self._waiting[again] = None
        return False

    def release(self) -> None:
        """See wire.house.Door."""
        self._counters.free_place()
        if self._waiting:
            again = next(iter(self._waiting))
            del self._waiting[again]
            again()

    def enter(self, peer: Peer) -> Reply | None:
        """See wire.house.Door."""
        if peer.remote_ip not in self._clients:
            return self._turn_away(reply.NOT_IN_RANGE)
        client = client_of(peer.remote_ip)
        if not self._counters.connect(client, self._per_client):
            return self._turn_away(reply.TOO_MANY_CONNECTIONS)
        if self._rate is not None and not self._counters.allow("connections", client, self._rate):
            self._counters.disconnect(client)
            return self._turn_away(reply.TOO_OFTEN)
        return None

    def leave(self, peer: Peer) -> None:
        """See wire.house.Door."""
        self._counters.disconnect(client_of(peer.remote_ip))
        self.release()

    def _turn_away(self, refusal: Reply) -> Reply:
        self.release()
        return refusal
