"""Counts in really forked processes; run by test_shared.py as a program of its own.

A fork takes only the thread that calls it, so this is no place inside the process of the
tests. Prints one JSON object: what each step found.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable

from mailgw.gate.rates import client_of
from mailgw.process.shared import Column, SharedCounters

WORKERS = 4
ANNA, BOB = client_of("192.0.2.1"), client_of("2001:db8::1")
SHARED = SharedCounters(WORKERS, clock=lambda: 6000.0)


def each(work: Callable[[Column], int], workers: Iterable[int] = range(WORKERS)) -> list[int]:
    """What every worker has of its work, all at the same time, each in a process of its own."""
    wait, begin = os.pipe()
    crew = []
    for worker in workers:
        take, give = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(begin)
            os.read(wait, 1)  # until the parent has closed its end: all are there
            os.write(give, b"%d" % work(SHARED.of(worker)))
            os._exit(0)
        os.close(give)
        crew.append((pid, take))
    os.close(begin)
    os.close(wait)
    found = []
    for pid, take in crew:
        with os.fdopen(take) as reader:
            found.append(int(reader.read()))
        os.waitpid(pid, 0)
    return found


def often(ask: Callable[[Column], bool]) -> Callable[[Column], int]:
    return lambda counters: sum(ask(counters) for _ in range(20_000))


def leave(counters: Column) -> int:
    counters.disconnect(ANNA)
    return 0


def give_place_back(counters: Column) -> int:
    counters.free_place()
    return 0


def main() -> None:
    found: dict[str, object] = {}
    taken = each(often(lambda counters: counters.take_place(100)))
    found["places at once"] = sum(taken)
    found["places seen"] = each(lambda counters: counters.places)
    connected = each(often(lambda counters: counters.connect(ANNA, 50)))
    found["connections at once"] = sum(connected)
    found["messages at once"] = sum(
        each(often(lambda counters: counters.allow("messages", ANNA, 60)))
    )
    found["another client"] = each(lambda counters: counters.connect(BOB, 50))
    # A client and a place that one worker has become free for another.
    inside, seat = connected.index(max(connected)), taken.index(max(taken))
    each(leave, [inside])
    each(give_place_back, [seat])
    elsewhere = [(inside + 1) % WORKERS]
    found["room elsewhere"] = each(lambda counters: counters.connect(ANNA, 50), elsewhere)
    found["room again"] = each(lambda counters: counters.connect(ANNA, 50), [inside])
    found["place elsewhere"] = each(
        lambda counters: counters.take_place(100), [(seat + 1) % WORKERS]
    )
    found["place again"] = each(lambda counters: counters.take_place(100), [seat])
    # A worker dies: its clients are gone, those of the others are not, and rates go on.
    SHARED.clear(seat)
    left = SHARED.of(0).places
    found["gone by a death"] = 100 - left == taken[seat] - 1
    found["places after a death"] = left + sum(
        each(often(lambda counters: counters.take_place(100)))
    )
    found["messages after a death"] = each(lambda counters: counters.allow("messages", ANNA, 60))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
