"""How often a client may be wrong about its login.

Laws: an address that was wrong too often within a minute is not asked about any more,
however right it is now, at whichever worker it tries. Logins that are still being looked
up count as if they had failed, so asking many at once buys no more guesses than asking
one after the other; they wait for each other and are not refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mailgw.gate.credentials import CannotTell
from mailgw.gate.rates import Alone, Counters, client_of
from mailgw.smtp import reply
from mailgw.smtp.reply import Refusal

# Logins of one address that wait for others of it to be looked up.
_MOST_WAITING = 100


@dataclass(slots=True)
class _Asking:
    """What one address has under way; `ended` is set whenever some of it ends."""

    now: int = 0
    waiting: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Guesses:
    """Counts the failures of each client address; `limit` of them a minute, 0 for no limit."""

    def __init__(self, limit: int, counters: Counters | None = None) -> None:
        self._limit = limit
        self._counters = Alone() if counters is None else counters
        self._asking: dict[bytes, _Asking] = {}

    async def ask(self, address: str, question: Callable[[], Awaitable[bool]]) -> bool:
        """Ask about a login of this address, once it may, and remember where it was wrong.

        Raises Refusal, without asking, where it was wrong too often, and CannotTell as
        the question does, or where too many wait already. Neither counts as wrong.
        """
        if not self._limit:
            return await question()
        client = client_of(address)
        asking = self._asking.setdefault(client, _Asking())
        try:
            await self._turn(client, asking)
            asking.now += 1
            try:
                right = await question()
                if not right:
                    self._counters.note("guesses", client)
            finally:
                asking.now -= 1
                asking.ended.set()
        finally:
            if not asking.now and not asking.waiting:
                self._asking.pop(client, None)
        return right

    async def _turn(self, client: bytes, asking: _Asking) -> None:
        """Return when one more may be asked."""
        while True:
            left = self._limit - self._counters.recently("guesses", client)
            # Not even one: what has come within the last minute fades away by fractions.
            if left < 1:
                raise Refusal(reply.TOO_MANY_GUESSES)
            if asking.now + 1 <= left:
                return
            if asking.waiting >= _MOST_WAITING:
                raise CannotTell("too many logins of one address at once")
            asking.ended.clear()
            asking.waiting += 1
            try:
                await asking.ended.wait()
            finally:
                asking.waiting -= 1
