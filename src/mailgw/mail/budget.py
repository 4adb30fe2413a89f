"""How many octets of large messages a process may hold at once.

Who is to hold one asks for a share first. Laws: first come, first served, in two lines, so
that nobody who wants little waits for one who wants very much. A share counts until
nothing holds its octets any more, also where nobody waits for the thread that does. One
that is larger than all there is gets all there is, alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeVar

T = TypeVar("T")

# Up to here nobody is asked: those are as many as there are clients, and no more.
SMALL: Final = 256 * 1024
# With less, mail of usual sizes would wait for the confirms of other mail.
LEAST: Final = 64 * 1024 * 1024
# Work on octets is the processor's; more threads would only hold more at a time.
_THREADS: Final = 2
# The first line is for what wants at most this part of the budget, and has that part of it.
_LITTLE: Final = 16
_FIRST: Final = 4


class Budget:
    """Gives shares of `octets`, and a quarter of that on top for those who want little."""

    def __init__(self, octets: int = LEAST) -> None:
        self._first, self._second = _Line(octets // _FIRST), _Line(octets)
        self._little = octets // _LITTLE
        # Its threads begin with the first work, so one may be made before a fork.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="large-mail")

    def share(self, octets: int) -> Share:
        """To be held for as long as so many octets are, by `async with`; waits for its turn."""
        line = self._first if octets <= self._little else self._second
        return Share(line if octets > SMALL else None, octets, self._pool)


class Share:
    """See `Budget.share`."""

    def __init__(self, line: _Line | None, octets: int, pool: ThreadPoolExecutor) -> None:
        self._line = line
        self._octets = octets
        self._pool = pool

    async def __aenter__(self) -> Share:
        if self._line is not None:
            self._octets = await self._line.take(self._octets)
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        if self._line is not None:
            self._line.give_back(self._octets)

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what makes or reads these octets in a thread. It is not broken off by cancelling."""
        running = self._pool.submit(work)
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            if not running.cancel():
                self._leave_to(running)
            raise

    def _leave_to(self, running: Future[T]) -> None:
        """Let the thread give back what it holds, when it has ended."""
        line, octets, loop = self._line, self._octets, asyncio.get_running_loop()
        self._line = None
        if line is None:
            return

        def ended(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop is gone, and the waiting with it
                loop.call_soon_threadsafe(line.give_back, octets)

        running.add_done_callback(ended)


class _Line:
    """Those who want some of `octets`, in the order in which they came."""

    def __init__(self, octets: int) -> None:
        self._all = self._free = octets
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, wanted: int) -> int:
        """Wait for so many, or for all there are; how many it were."""
        wanted = min(wanted, self._all)
        if not self._waiting and wanted <= self._free:
            self._free -= wanted
            return wanted
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, wanted)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(wanted)
            else:
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(entry)
                self._let_go()
            raise
        return wanted

    def give_back(self, taken: int) -> None:
        self._free += taken
        self._let_go()

    def _let_go(self) -> None:
        """Serve from the front, for as long as it suffices."""
        while self._waiting and self._waiting[0][1] <= self._free:
            turn, wanted = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)
