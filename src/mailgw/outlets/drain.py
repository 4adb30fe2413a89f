"""Handing on what waits in the store: in order, confirmed, and to an end under load.

Laws. The line is read from its oldest; a part of it is under way at once, and its documents
are taken off after their confirms. A broker that goes away again ends the run, and what was
not confirmed stays. A queue that is full waits with its documents, and the other queues go
on. What the broker refuses for good is tried a few times, in case a queue is just being
made again, and then set aside; it is told, and tried again later.

A run ends: towards the end, and wherever new mail comes faster than old mail goes, new mail
is held back for a moment before its 250, and its sender sends no more meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from mailgw.observe import log
from mailgw.outlets.backlog import Backlog, Look, Waiting, set_aside, taken_off
from mailgw.outlets.store import Store
from mailgw.plugins import Refused, Unavailable, Undeliverable
from mailgw.smtp import reply

if TYPE_CHECKING:
    from mailgw.outlets.waiting_room import Broker, Shared

T = TypeVar("T")
# A document that is refused, and what the broker says to it.
_No: TypeAlias = tuple[Waiting, Refused | Undeliverable]

# What is under way at once. More would hold up the event loop longer at a time.
_PART, _PART_OCTETS = 100, 4 * 1024 * 1024
# Less than this left, and new mail is held back for the last step, in seconds.
_NEAR_THE_END, _LAST_HOLD = 300, 1.0
# Where the line does not become shorter, new mail is held back for twice as long each time.
_FIRST_HOLD, _LONGEST_HOLD = 0.25, 5.0
_JUDGE_EVERY = 1.0
_TELL_EVERY = 10.0
# Before a document is set aside it is tried again after each of these, in seconds. The
# outlet makes a queue of ours that is gone within the first.
_TRIES = (0.5, 1.0, 2.0)
# A broker that does not answer, or a queue that is full, is left alone for so long.
_REST = 1.0
# Names of queues that may be kept in mind.
_MOST_QUEUES = 100


class Drain:
    """Drains one store into one broker; `run` needs the lease. `patience` is in seconds."""

    def __init__(self, broker: Broker, store: Store, shared: Shared, patience: float) -> None:
        self._broker = broker
        self._store = store
        self._shared = shared
        self._patience = patience
        self._backlog = Backlog(store.path)
        # SQLite's connections stay with their thread, and a disk may take its time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue-store-reader")
        self._not_before = 0.0
        self._due: float | None = None
        self._gone: set[str] = set()

    async def finds_something(self) -> bool:
        """Look at the file: whether any document is in line. Also asks whether there is room."""
        look = await self._read(self._backlog.look)
        self._due = look.due
        self._store.look()
        return look.oldest is not None

    def is_wanted(self) -> bool:
        """Whether there is anything to do that can be done now."""
        if time.monotonic() < self._not_before or self._broker.unreachable() is not None:
            return False
        return self._shared.something_waits or self._aside_is_due()

    async def run(self, ended: Callable[[], bool]) -> None:
        """Hand on until the line is empty, the broker goes away, or `ended`."""
        if self._aside_is_due():
            await self._try_those_aside()
        run = _Run()
        if self._shared.something_waits and not await self._empty_the_line(run, ended):
            self._not_before = time.monotonic() + _REST
            run.tell()

    async def _empty_the_line(self, run: _Run, ended: Callable[[], bool]) -> bool:
        while not ended():
            mark = self._shared.mark()
            look = await self._read(self._backlog.look)
            self._due = look.due
            if look.oldest is None:
                self._over(run, mark)
                return True
            self._judge(run, look)
            part = await self._next_part(run)
            if not part:
                if not run.full:
                    run.seen = 0  # somebody else's documents came in below: begin again
                    continue
                return False  # what is left waits for room in its queue
            if not await self._hand_on(run, part):
                return False
        return False

    def close(self) -> None:
        self._thread.submit(self._backlog.close)
        self._thread.shutdown(wait=False)

    # --- the line ---------------------------------------------------------------------

    async def _next_part(self, run: _Run) -> list[Waiting]:
        return await self._read(
            lambda: self._backlog.line(run.seen, _PART, _PART_OCTETS, without=tuple(run.full))
        )

    async def _hand_on(self, run: _Run, part: Sequence[Waiting]) -> bool:
        """Publish a part and take off what is confirmed. False: not now, the rest waits."""
        refused = await self._publish(run, part)
        for pause in _TRIES:
            hopeful = [waiting for waiting, no in refused or () if self._may_change(waiting, no)]
            if not hopeful:
                break
            await asyncio.sleep(pause)
            if self._broker.unreachable() is not None:
                return False
            again = await self._publish(run, hopeful)
            if refused is None or again is None:
                return False
            refused = [each for each in refused if each[0] not in hopeful] + again
        if refused is None:
            return False
        if refused:
            await self._set_aside(refused)
        run.seen = part[-1].number
        return True

    def _may_change(self, waiting: Waiting, no: Refused | Undeliverable) -> bool:
        """Whether it may be taken in a moment: its queue is perhaps just being made again."""
        return isinstance(no, Refused) and waiting.publication.queue not in self._gone

    async def _publish(self, run: _Run, part: Sequence[Waiting]) -> list[_No] | None:
        """Publish, take off what was confirmed, and tell what is refused; None: not now."""
        outcomes = await self._outcomes(part)
        safe: list[int] = []
        refused: list[_No] = []
        away = False
        for waiting, outcome in zip(part, outcomes, strict=True):
            match outcome:
                case None:
                    safe.append(waiting.number)
                case Refused() if outcome.reply is reply.STORAGE_FULL:
                    away = away or len(run.full) >= _MOST_QUEUES
                    run.full.add(waiting.publication.queue)
                case Refused() | Undeliverable():
                    refused.append((waiting, outcome))
                case Unavailable() | TimeoutError():
                    away = True
                case _:
                    raise outcome
        if safe:
            await self._store.change(taken_off(safe))
            run.handed_on += len(safe)
        return None if away else refused

    async def _outcomes(self, part: Sequence[Waiting]) -> list[BaseException | None]:
        # All begin in their order, and none waits for another's confirm.
        acts = [asyncio.ensure_future(self._broker.publish([each.publication])) for each in part]
        pending = set(acts)
        try:
            async with asyncio.timeout(self._patience):
                while pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
                    # Before the next channel is there, on which the rest would overtake.
                    if any(_means_away(act.exception()) for act in done):
                        break
        except TimeoutError:
            pass
        finally:
            late = [act for act in acts if act.cancel()]
            if late:
                await asyncio.wait(late)
        return [TimeoutError() if act.cancelled() else act.exception() for act in acts]

    # --- what is refused --------------------------------------------------------------

    async def _set_aside(self, refused: Sequence[_No]) -> None:
        rows = [(waiting, no.reason) for waiting, no in refused]
        await self._store.change(set_aside(rows, time.time()))
        waiting, no = refused[0]
        log.error(
            "outage.set-aside",
            documents=len(refused),
            queue=waiting.publication.queue,
            message=waiting.publication.message_id,
            reason=no.reason,
        )
        for waiting, no in refused:
            # One mail that is too large says nothing about its queue.
            if isinstance(no, Refused) and len(self._gone) < _MOST_QUEUES:
                self._gone.add(waiting.publication.queue)

    def _aside_is_due(self) -> bool:
        return self._due is not None and self._due <= time.time()

    async def _try_those_aside(self) -> None:
        """Try those set aside whose time has come; new mail does not wait for them."""
        self._gone.clear()
        run = _Run()
        part = await self._read(lambda: self._backlog.aside(time.time(), _PART, _PART_OCTETS))
        refused = await self._publish(run, part) if part else []
        if refused is None:
            self._not_before = time.monotonic() + _REST
        again = [(waiting, no.reason) for waiting, no in refused or ()]
        again += [(each, "queue full") for each in part if each.publication.queue in run.full]
        if again or not part:
            await self._store.change(set_aside(again, time.time()))
        if run.handed_on:
            log.info("outage.set-aside-taken", documents=run.handed_on)
        self._due = (await self._read(self._backlog.look)).due

    # --- to an end --------------------------------------------------------------------

    def _judge(self, run: _Run, look: Look) -> None:
        """Hold new mail back where this is the last step, or would not come to one."""
        left = look.last - run.seen if run.seen else look.last - (look.oldest or 0) + 1
        now = time.monotonic()
        run.left, run.oldest = left, time.time() - look.since.timestamp() if look.since else 0.0
        if left <= _NEAR_THE_END and not run.full:
            if now >= run.hold_again:
                run.hold_again = now + 2 * _LAST_HOLD
                self._shared.hold(_LAST_HOLD)
        elif now >= run.judge_again and not run.full:
            if run.left_before is not None and left > run.left_before * 0.9:
                # Kept for the rest of the run: without it the line would only grow again.
                run.hold = min(_LONGEST_HOLD, run.hold * 2 or _FIRST_HOLD)
            run.left_before = left
            run.judge_again = now + max(_JUDGE_EVERY, run.hold)
            # Never longer than a client can wait for its reply.
            self._shared.hold(min(run.hold, self._patience))
        if now >= run.tell_again:
            run.tell_again = now + _TELL_EVERY
            if not run.told or left > _NEAR_THE_END:
                run.tell()

    def _over(self, run: _Run, mark: int) -> None:
        self._gone.clear()
        self._shared.drained(mark)
        began = self._shared.end()
        if began is not None or run.handed_on:
            lasted = None if began is None else int(time.time()) - began
            log.info("outage.over", documents=run.handed_on, rate=run.rate, lasted=lasted)

    async def _read(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)


def _means_away(outcome: BaseException | None) -> bool:
    return isinstance(outcome, Unavailable) and not isinstance(outcome, Refused)


class _Run:
    """What one run has done so far."""

    def __init__(self) -> None:
        self.seen = 0
        self.full: set[str] = set()
        self.handed_on = 0
        self.left = 0
        self.oldest = 0.0
        self.left_before: int | None = None
        self.hold = 0.0
        self.judge_again = self.hold_again = self.tell_again = 0.0
        self.told = False
        self._began = time.monotonic()

    @property
    def rate(self) -> int:
        """Documents a second."""
        return round(self.handed_on / max(0.001, time.monotonic() - self._began))

    def tell(self) -> None:
        self.told = True
        log.info(
            "outage.draining",
            waiting=self.left,
            oldest=round(self.oldest),
            rate=self.rate,
            full=",".join(sorted(self.full)) or None,
        )
