"""The questions about a client, and how one who answers them can stand around another.

The wire asks through a protocol of its own that reads the same; this is that protocol as
the rules, the hooks and the handler of this room see it. Laws for those who stand around:
what they need not wait for is answered at once, and code that is not ours can raise, hang
or answer nonsense without anybody but its own client noticing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message, Recipient
from mailgw.smtp.events import Courtesy, MailFrom, RcptTo
from mailgw.smtp.reply import Reply

T = TypeVar("T")
# What is known at once, or must be waited for.
Now: TypeAlias = T | Awaitable[T]
Answer = Reply | Recipient
Intake = Callable[[Message], Now[Reply]]


class Policy(Protocol):
    """Who answers the wire's questions; `wire.house.Gate` says what each of them means."""

    def connected(self, peer: Peer, /) -> Now[Reply]: ...

    def hello(self, peer: Peer, /) -> Now[Reply]: ...

    def credentials(self, peer: Peer, username: str, password: str, /) -> Now[Reply]: ...

    def sender(self, peer: Peer, event: MailFrom, /) -> Now[Reply]: ...

    def recipient(self, peer: Peer, event: RcptTo, accepted: int, /) -> Now[Answer]: ...

    def data(self, peer: Peer, /) -> Now[Reply]: ...

    def courtesy(self, peer: Peer, event: Courtesy, /) -> Now[Reply]: ...

    def secured(self, peer: Peer, /) -> None: ...

    def gone(self, peer: Peer, /) -> None: ...

    async def close(self) -> None: ...


class Strangers:
    """Calls code that is not ours, and gives each of its coroutines `seconds`.

    What goes wrong comes out as an Exception, whatever it was: sys.exit() in a hook ends
    a reply and no worker.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Tasks need a hold. Those left when the loop ends are cancelled and awaited by it.
        self._tasks: set[asyncio.Task[object]] = set()

    def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Its result, which may have to be waited for with `wait`."""
        try:
            return function(*arguments)
        except (SystemExit, asyncio.CancelledError) as end:
            raise RuntimeError(f"raised {type(end).__name__}") from end

    async def wait(self, promised: Awaitable[object]) -> object:
        """What it comes to. Raises TimeoutError after the deadline, and does not wait for
        a coroutine that will not be cancelled.
        """
        task = self._start(promised)
        try:
            await asyncio.wait({task}, timeout=self._seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            task.cancel()
            raise TimeoutError(f"no answer within {self._seconds:g} seconds")
        if task.cancelled():
            raise RuntimeError("cancelled itself")
        return task.result()

    def watch(
        self, function: Callable[..., object], *arguments: object, failed: Callable[[], None]
    ) -> None:
        """Tell, and hold nobody up; `failed` is called in the exception's own context."""
        try:
            result = self.call(function, *arguments)
        except Exception:  # noqa: BLE001 - whatever it is, it is not ours
            failed()
            return
        if inspect.isawaitable(result):
            self._start(self._watched(result, failed), result)

    async def _watched(self, promised: Awaitable[object], failed: Callable[[], None]) -> None:
        try:
            await self.wait(promised)
        except Exception:  # noqa: BLE001 - whatever it is, it is not ours
            failed()

    def _start(
        self, promised: Awaitable[object], within: Awaitable[object] | None = None
    ) -> asyncio.Task[object]:
        """Wait for it in a task of its own; `within` is what it waits for in its turn."""
        task = asyncio.get_running_loop().create_task(_contained(promised))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        for each in (promised, within):
            if inspect.iscoroutine(each):
                task.add_done_callback(partial(_never_begun, each))
        return task

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # that of a task nobody waits for any more has been seen too


def _never_begun(coroutine: Coroutine[object, object, object], _: object) -> None:
    # The loop may end before a task has its first turn.
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()


async def _contained(promised: Awaitable[object]) -> object:
    # SystemExit in a task ends the loop, whoever waits for the task.
    try:
        return await promised
    except SystemExit as end:
        raise RuntimeError("raised SystemExit") from end
