"""The worker processes: started, heard, and replaced when they die.

Laws: a place is filled again at once, unless those in it die young time after time; then
it is left empty for longer and longer. No worker holds what is another one's or the
supervisor's own: each sees the end of exactly its own channel.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from mailgw.observe import log
from mailgw.process.channel import Channel
from mailgw.process.signals import held_back

# Who lived for less has died young.
_YOUNG = 10.0
# How long a place is left empty after the first young death, the second, and so on.
_PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

# What a worker does with its place and its channel; it returns the exit code.
Work = Callable[[int, Channel], int]


@dataclass(slots=True)
class Hand:
    """One worker as its supervisor sees it."""

    place: int
    pid: int
    channel: Channel
    born: float = field(default_factory=time.monotonic)
    ready: bool = False


@dataclass(slots=True)
class _Place:
    """Where a worker is, or will be from `due` on."""

    due: float = 0.0
    young_deaths: int = 0


class Crew:
    """`size` places for workers that do `work`. `let_go` is called in each one, before it.

    `cleared` is told the place of a worker that ended, before the place is filled again.
    """

    def __init__(
        self,
        size: int,
        work: Work,
        let_go: Sequence[Callable[[], None]] = (),
        cleared: Callable[[int], None] = lambda _place: None,
    ) -> None:
        self._work = work
        self._let_go = tuple(let_go)
        self._cleared = cleared
        self._places = [_Place() for _ in range(size)]
        self.hands: dict[int, Hand] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def all_ready(self) -> bool:
        return len(self.hands) == len(self) and all(hand.ready for hand in self.hands.values())

    @property
    def due(self) -> float | None:
        """When the next place wants to be filled, by the monotonic clock."""
        return min(
            (each.due for number, each in enumerate(self._places) if number not in self.hands),
            default=None,
        )

    def fill(self) -> None:
        """Start a worker in every place that is empty for long enough."""
        now = time.monotonic()
        for number, place in enumerate(self._places):
            if number not in self.hands and place.due <= now:
                try:
                    self.hands[number] = self._start(number)
                except OSError as trouble:  # no memory, no process: others may end
                    log.error("worker.not-started", worker=number, reason=trouble.strerror)
                    place.due = now + _PAUSES[1]

    def tell(self, *words: object) -> None:
        for hand in self.hands.values():
            hand.channel.say(*words)

    def kill(self) -> None:
        """End those who do not listen."""
        for hand in self.hands.values():
            with suppress(ProcessLookupError):
                os.kill(hand.pid, 9)

    def buried(self) -> Iterator[tuple[Hand, int]]:
        """Yield each worker that has ended with its exit code, negative for a signal.

        What it said last is still in its channel.
        """
        for hand in tuple(self.hands.values()):
            pid, status = os.waitpid(hand.pid, os.WNOHANG)
            if not pid:
                continue
            del self.hands[hand.place]
            self._cleared(hand.place)
            place, now = self._places[hand.place], time.monotonic()
            if now - hand.born >= _YOUNG:
                place.young_deaths = 0
            place.due = now + _PAUSES[min(place.young_deaths, len(_PAUSES) - 1)]
            place.young_deaths += 1
            yield hand, os.waitstatus_to_exitcode(status)
            hand.channel.close()

    def _start(self, place: int) -> Hand:
        ours, theirs = Channel.pair()
        # What waits in a buffer would be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        with held_back():
            pid = os.fork()
            if pid == 0:
                ours.close()
                for let_go in self._let_go:
                    let_go()
                for hand in self.hands.values():
                    hand.channel.close()
        if pid == 0:
            self._live(place, theirs)
        theirs.close()
        return Hand(place, pid, ours)

    def _live(self, place: int, channel: Channel) -> NoReturn:
        code = 1
        try:
            code = self._work(place, channel)
        except BaseException:  # noqa: BLE001 - here the process ends
            log.failure("worker.error", worker=place)
        finally:
            os._exit(code)
