"""Watches over the workers: starts them, replaces the dead, reloads, and ends them.

Laws: it serves no client itself, so whatever befalls a client befalls a worker. All
workers have the same configuration: a reload is prepared by each and taken over when the
last one is prepared, or by none. A worker that cannot even begin ends everything, with
its exit code; one that dies later is replaced.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mailgw.observe import log
from mailgw.process.crew import Crew, Hand
from mailgw.process.notify import Notifier
from mailgw.process.plan import (
    CannotReload,
    Current,
    Plan,
    Read,
    fingerprint,
    in_need_of_a_restart,
    renewed,
)
from mailgw.process.signals import Signals
from mailgw.process.trouble import CannotStart
from mailgw.process.worker import DRAIN

# A worker that has not prepared a reload by then will not.
_RELOAD_PATIENCE = 60.0
# What a worker may need above its own deadlines before it is killed, in seconds.
_SLACK = 10.0


@dataclass(slots=True)
class _Reload:
    """A reload under way: what is to come, and who is prepared for it."""

    number: int
    plan: Plan
    fingerprint: str
    restart: tuple[str, ...]
    deadline: float
    prepared: set[int] = field(default_factory=set)


class Supervisor:
    """Runs a crew until it is told to end. `ready` is called once, when all workers serve.

    `stop_listening` closes our own copies of the sockets on which the workers accept.
    """

    def __init__(
        self,
        crew: Crew,
        current: Current,
        read: Read,
        signals: Signals,
        notifier: Notifier,
        *,
        ready: Callable[[], None],
        stop_listening: Callable[[], None],
    ) -> None:
        self._crew = crew
        self._current = current
        self._read = read
        self._signals = signals
        self._notifier = notifier
        self._ready = ready
        self._stop_listening = stop_listening
        self._started = False
        self._reload: _Reload | None = None
        self._reloads = 0
        self._reload_again = False
        self._killing: float | None = None
        self._next_sign = 0.0
        self._failure: CannotStart | None = None
        self._code = 0

    def run(self) -> int:
        """Return the exit code: 0 when every worker ended well. Raises CannotStart."""
        self._crew.fill()
        while self._crew.hands or self._killing is None:
            self._wait()
            # Read before the dead are looked for: who dies later leaves another SIGCHLD.
            signals = self._signals.came()
            for hand in tuple(self._crew.hands.values()):
                self._hear(hand)
            for hand, code in self._crew.buried():
                self._hear(hand)
                self._ended(hand, code)
            for number in signals:
                self._obey(number)
            self._look_at_the_clock()
            self._begin_or_end_reload()
            # Not amid a reload: a new one would have what may be just about to change.
            if self._killing is None and self._reload is None:
                self._crew.fill()
        if self._failure is not None:
            raise self._failure
        return self._code

    # --- events -----------------------------------------------------------------------

    def _wait(self) -> None:
        """Until something is to be heard, or the next deadline."""
        deadlines = [self._killing, self._reload.deadline if self._reload else None]
        if self._killing is None and self._reload is None:
            deadlines.append(self._crew.due)
        if self._notifier.interval:
            deadlines.append(self._next_sign)
        nearest = min((each for each in deadlines if each is not None), default=None)
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        for hand in self._crew.hands.values():
            if not hand.channel.ended:
                poll.register(hand.channel, select.POLLIN)
        # One more than it takes: rounding down would come back too early, and again.
        wait = None if nearest is None else max(0.0, nearest - time.monotonic()) * 1000 + 1
        poll.poll(wait)

    def _hear(self, hand: Hand) -> None:
        for word, rest in hand.channel.hear():
            match word:
                case "ready":
                    hand.ready = True
                    self._worker_ready(hand)
                case "failed":
                    if self._started:
                        log.error("worker.failed", worker=hand.place, reason=rest)
                    elif self._failure is None:
                        self._failure = CannotStart(rest)
                case "prepared" if self._reload and rest == str(self._reload.number):
                    self._reload.prepared.add(hand.pid)
                case "refused":
                    number, _, reason = rest.partition(" ")
                    if self._reload and number == str(self._reload.number):
                        self._refuse([f"worker {hand.place}: {reason}"])

    def _worker_ready(self, hand: Hand) -> None:
        log.info("worker.ready", worker=hand.place, pid=hand.pid)
        if not self._started and self._killing is None and self._crew.all_ready:
            self._started = True
            self._ready()
            self._notifier.ready()

    def _ended(self, hand: Hand, code: int) -> None:
        if self._killing is not None:
            self._code = self._code or min(abs(code), 1)
        if not self._started and self._killing is None:
            if self._failure is None:
                self._failure = CannotStart("a worker ended while it started")
            self._failure.code = code if code > 0 else 1
            self._stop()
            self._crew.tell("cut")
        elif self._failure is not None:
            return  # one sentence is enough for who started us
        elif code:
            cause = {"signal": signal.Signals(-code).name} if code < 0 else {"code": str(code)}
            log.error("worker.died", worker=hand.place, pid=hand.pid, **cause)
        elif self._killing is None:
            log.warning("worker.ended", worker=hand.place, pid=hand.pid)

    def _obey(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._killing is None:
                self._stop()
            else:
                # Who asks twice does not want to wait for clients.
                self._crew.tell("cut")
        elif number == signal.SIGHUP:
            self._reload_again = True

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._notifier.interval and now >= self._next_sign:
            self._notifier.alive()
            self._next_sign = now + self._notifier.interval
        if self._killing is not None and now >= self._killing and self._crew.hands:
            log.error("serve.killed", workers=len(self._crew.hands))
            self._crew.kill()
            self._killing = now + _SLACK
        if self._reload is not None and now >= self._reload.deadline:
            self._refuse(["a worker did not answer in time"])

    def _stop(self) -> None:
        if self._failure is None:
            log.info("serve.stopping", workers=len(self._crew.hands))
        self._notifier.stopping()
        committing = self._current.plan.settings.smtp.confirm_timeout
        self._killing = time.monotonic() + DRAIN + 2 * committing + _SLACK
        self._reload, self._reload_again = None, False
        self._stop_listening()
        self._crew.tell("drain")

    # --- reload -----------------------------------------------------------------------

    def _begin_or_end_reload(self) -> None:
        if self._reload is not None:
            if self._reload.prepared >= {hand.pid for hand in self._crew.hands.values()}:
                self._take_over(self._reload)
        elif self._reload_again and self._started:
            self._reload_again = False
            self._begin_reload()

    def _begin_reload(self) -> None:
        log.reopen()
        log.info("reload.asked")
        self._notifier.reloading()
        self._reloads += 1
        try:
            configuration = self._read()
            plan = renewed(self._current.plan, configuration)
        except CannotReload as refused:
            self._refuse(refused.reasons)
            return
        self._reload = _Reload(
            self._reloads,
            plan,
            fingerprint(configuration),
            tuple(in_need_of_a_restart(plan.settings, configuration.settings)),
            time.monotonic() + _RELOAD_PATIENCE,
        )
        self._crew.tell("prepare", self._reload.number, self._reload.fingerprint)

    def _take_over(self, reload: _Reload) -> None:
        self._current.plan = reload.plan
        reload.plan.logs.use()
        self._reload = None
        self._crew.tell("take", reload.number)
        for key in reload.restart:
            log.warning("reload.needs-restart", key=key)
        log.info("reload.done", workers=len(self._crew.hands))
        self._notifier.ready()

    def _refuse(self, reasons: list[str]) -> None:
        if self._reload is not None:
            self._crew.tell("drop", self._reload.number)
            self._reload = None
        for reason in reasons:
            log.error("reload.refused", reason=reason)
        self._notifier.ready()
