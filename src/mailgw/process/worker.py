"""One worker process: one event loop that serves, reloads, and drains when it is asked to end.

A wish to end is no blow: what was begun with a client is finished, what was taken is
confirmed, and then the process exits with 0. The end of the supervisor is such a wish.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from mailgw.observe import log
from mailgw.plugins import Unavailable
from mailgw.process.channel import Channel
from mailgw.process.chores import Chores
from mailgw.process.plan import CannotReload, Current, Plan, Read, fingerprint, renewed
from mailgw.process.trouble import FAILED
from mailgw.wire.conversation import Conversation
from mailgw.wire.endpoint import Endpoint
from mailgw.wire.house import House
from mailgw.wire.listener import Listener

# How long clients may take to end what they began once we are asked to stop, in seconds.
# Docker's and systemd's patience are set above it.
DRAIN = 25.0
# How long a client that was accepted before a reload may need to get its conversation.
_ARRIVAL = 40.0
_LOOK_AGAIN = 1.0

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def work(
    current: Current, place: int, channel: Channel, read: Read, endpoints: Sequence[Endpoint]
) -> int:
    """Serve on the endpoints until told to end. Returns the exit code.

    Says "ready", or "failed" and why; hears "drain" and "cut", and for a reload "prepare",
    then "take" or "drop", all with its number.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Worker(current, place, channel, read).serve(endpoints))


def loop_factory() -> LoopFactory | None:
    """The fastest loop there is; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform; asyncio's own loop serves as well
        return None
    return uvloop.new_event_loop


class _Worker:
    def __init__(self, current: Current, place: int, channel: Channel, read: Read) -> None:
        self._current = current
        self._house = current.plan.house_for_worker()
        self._place = place
        self._channel = channel
        self._read = read
        self._listeners: list[Listener] = []
        self._stop, self._hurry, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._chores = Chores()
        self._preparing: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self._prepared: tuple[str, Plan] | None = None

    async def serve(self, endpoints: Sequence[Endpoint]) -> int:
        loop = asyncio.get_running_loop()
        end_of_log = log.gather(loop)
        loop.add_reader(self._channel, self._hear)
        # From whoever wants this one process to end. Twice is not more: systemd may send it
        # to all processes, and then the supervisor tells us too.
        # Not by the loop's own handler: taken back, that one leaves the signal deadly.
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self._stop.set))
        output = self._current.plan.output
        try:
            await output.open()
        except Unavailable as trouble:
            self._channel.say("failed", trouble)
            end_of_log()
            return FAILED
        self._listeners = [
            Listener(endpoint, self._house, on_idle=self._idle.set) for endpoint in endpoints
        ]
        for listener in self._listeners:
            listener.start()
        self._begin_background()
        self._channel.say("ready")
        await self._stop.wait()
        clients = sum(len(each.conversations) for each in self._listeners)
        log.info("serve.draining", worker=self._place, clients=clients)
        await self._drain()
        loop.remove_reader(self._channel)
        await output.close()
        await self._chores.end()
        await self._house.close()
        for listener in self._listeners:
            listener.close()
        log.info("serve.stopped", worker=self._place)
        end_of_log()
        # As for the supervisor: there is only the exit left, and its 0.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return 0

    # --- the supervisor ---------------------------------------------------------------

    def _hear(self) -> None:
        for word, rest in self._channel.hear():
            match word:
                case "drain":
                    self._stop.set()
                case "cut":
                    self._stop.set()
                    self._hurry.set()
                case "prepare":
                    log.reopen()
                    number, _, wanted = rest.partition(" ")
                    self._forget_preparation()
                    chore = self._prepare(number, wanted)
                    self._preparing = self._chores.begin(chore, "reload")
                case "take" if self._prepared is not None and self._prepared[0] == rest:
                    self._take_over(self._prepared[1])
                case "drop":
                    self._forget_preparation()
        if self._channel.ended:
            asyncio.get_running_loop().remove_reader(self._channel)
            if not self._stop.is_set():
                log.error("supervisor.died", worker=self._place)
            self._stop.set()

    # --- reload -----------------------------------------------------------------------

    async def _prepare(self, number: str, wanted: str) -> None:
        try:
            # In a thread: a million local addresses take their time, and clients have none.
            plan = await asyncio.to_thread(self._renewed, wanted)
        except CannotReload as refused:
            self._channel.say("refused", number, refused)
            return
        self._prepared = (number, plan)
        self._channel.say("prepared", number)

    def _renewed(self, wanted: str) -> Plan:
        configuration = self._read()
        if fingerprint(configuration) != wanted:
            raise CannotReload(["the configuration was changed again while it was read"])
        return renewed(self._current.plan, configuration)

    def _forget_preparation(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = self._prepared = None

    def _take_over(self, plan: Plan) -> None:
        """Newcomers meet the new house; who is there keeps the old one."""
        old, self._house = self._house, plan.house_for_worker(self._house.identifiers)
        self._current.plan = plan
        plan.logs.use()
        self._prepared = None
        for listener in self._listeners:
            listener.house = self._house
        self._begin_background()
        self._chores.begin(self._close_when_left(old), "old house")

    def _begin_background(self) -> None:
        """What the house wants done meanwhile, instead of what the one before it wanted."""
        for task in self._background:
            task.cancel()
        self._background = [
            self._chores.begin(chore(), "background") for chore in self._house.background
        ]

    async def _close_when_left(self, house: House) -> None:
        """Let go of an old house when the last one has gone who may have met it."""
        try:
            await asyncio.sleep(_ARRIVAL)
            left = self._conversations()
            while left:
                await asyncio.sleep(_LOOK_AGAIN)
                left &= self._conversations()
        finally:
            await house.close()
        del house
        # Its last conversations are cycles, which the collector is told not to hurry about.
        gc.collect()

    def _conversations(self) -> set[Conversation]:
        return set[Conversation]().union(*(each.conversations for each in self._listeners))

    # --- drain ------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let the clients finish what they began; cut those who do not, but no commit."""
        for listener in self._listeners:
            listener.stop()
        for conversation in self._conversations():
            conversation.drain()
        hurried = asyncio.create_task(self._hurry.wait())
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await self._until_idle(hurried)
        hurried.cancel()
        for conversation in self._conversations():
            conversation.cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._current.plan.settings.smtp.confirm_timeout):
                await self._until_idle(None)

    async def _until_idle(self, hurried: asyncio.Task[bool] | None) -> None:
        while not all(listener.idle for listener in self._listeners):
            self._idle.clear()
            waiter = asyncio.create_task(self._idle.wait())
            try:
                wanted = {waiter} if hurried is None else {waiter, hurried}
                done, _ = await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
            if hurried in done:
                return
