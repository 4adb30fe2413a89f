"""How often a client may be wrong about its login.

Laws: an address that was wrong too often is not asked about any more, however right it
is now, until a minute has passed since the first failure that counts. Logins that are
still being looked up count as if they had failed, so asking many at once buys no more
guesses than asking one after the other; they wait for each other and are not refused.
Memory is bounded: the addresses that failed first are forgotten first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

from mailgw.gate.credentials import CannotTell
from mailgw.gate.rates import MINUTE, client_of
from mailgw.smtp import reply
from mailgw.smtp.reply import Refusal

_MOST_REMEMBERED = 20_000
# Logins of one address that wait for others of it to be looked up.
_MOST_WAITING = 100


@dataclass(slots=True)
class _Failures:
    since: float
    count: int = 0


@dataclass(slots=True)
class _Asking:
    """What one address has under way; `ended` is set whenever some of it ends."""

    now: int = 0
    waiting: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Guesses:
    """Counts the failures of each client address; `limit` of them a minute, 0 for no limit.

    `clock` gives seconds that only go up. One for each process: every worker counts for
    itself.
    """

    def __init__(
        self,
        limit: int,
        clock: Callable[[], float] = monotonic,
        most_remembered: int = _MOST_REMEMBERED,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._most_remembered = most_remembered
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()
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
                    self._failed(client)
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
            left = self._limit - self._counted(client)
            if left <= 0:
                raise Refusal(reply.TOO_MANY_GUESSES)
            if asking.now < left:
                return
            if asking.waiting >= _MOST_WAITING:
                raise CannotTell("too many logins of one address at once")
            asking.ended.clear()
            asking.waiting += 1
            try:
                await asking.ended.wait()
            finally:
                asking.waiting -= 1

    def _counted(self, client: bytes) -> int:
        failures = self._failures.get(client)
        if failures is None or self._clock() - failures.since >= MINUTE:
            return 0
        return failures.count

    def _failed(self, client: bytes) -> None:
        if not self._counted(client):
            self._failures.pop(client, None)
            if len(self._failures) >= self._most_remembered:
                self._failures.popitem(last=False)
            self._failures[client] = _Failures(self._clock())
        self._failures[client].count += 1
