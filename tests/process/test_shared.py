"""Counts that several processes share: in one process, and in really forked ones."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from doubles import Clock
from gateway import ENVIRONMENT
from mailgw.gate.rates import client_of
from mailgw.process.shared import SharedCounters

ANNA, BOB = client_of("192.0.2.1"), client_of("192.0.2.2")


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    program = Path(__file__).with_name("forked.py")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("what", ["places", "connections", "messages"])
def test_workers_together_pass_no_limit(found: dict[str, object], what: str) -> None:
    most = {"places": 100, "connections": 50, "messages": 60}[what]
    assert found[f"{what} at once"] == most


def test_every_worker_sees_what_all_have(found: dict[str, object]) -> None:
    assert found["places seen"] == [100] * 4
    assert found["another client"] == [1] * 4


def test_who_leaves_one_worker_makes_room_in_another(found: dict[str, object]) -> None:
    assert (found["room elsewhere"], found["room again"]) == ([1], [0])
    assert (found["place elsewhere"], found["place again"]) == ([1], [0])


def test_a_worker_that_died_leaves_its_places_and_no_rate(found: dict[str, object]) -> None:
    assert found["gone by a death"] is True
    assert found["places after a death"] == 100
    assert found["messages after a death"] == [0] * 4


def test_columns_are_sums_for_all_and_written_by_one() -> None:
    shared = SharedCounters(2)
    one, other = shared.of(0), shared.of(1)
    assert [one.take_place(3), other.take_place(3), one.take_place(3)] == [True] * 3
    assert not other.take_place(3)
    assert [one.places, other.places] == [3, 3]
    shared.clear(0)
    assert other.places == 1


def test_a_worker_that_is_not_there_has_no_column() -> None:
    for worker in (-1, 2):
        with pytest.raises(ValueError, match="no worker"):
            SharedCounters(2).of(worker)


def test_connections_come_and_go() -> None:
    counters = SharedCounters(3).of(1)
    assert [counters.connect(ANNA, 2) for _ in range(3)] == [True, True, False]
    assert counters.connect(BOB, 2)
    counters.disconnect(ANNA)
    assert [counters.connect(ANNA, 2) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("seconds", "passed"),
    [(0.0, 0), (60.0, 0), (67.0, 1), (90.0, 5), (119.0, 9), (180.0, 10), (86_400.0, 10)],
)
def test_a_rate_holds_for_the_last_minute_in_all_columns(seconds: float, passed: int) -> None:
    clock = Clock(600.0)
    shared = SharedCounters(2, clock)
    one, other = shared.of(0), shared.of(1)
    for _ in range(5):
        assert one.allow("connections", ANNA, 10)
        assert other.allow("connections", ANNA, 10)
    clock.now += seconds
    # Which worker counts does not matter.
    asked = [each.allow("connections", ANNA, 10) for each in (one, other) * 10]
    assert sum(asked) == passed
    assert one.allow("messages", ANNA, 1)


def test_a_rate_counts_from_the_first_minute_of_the_clock() -> None:
    clock = Clock(0.0)
    counters = SharedCounters(1, clock).of(0)
    assert [counters.allow("messages", ANNA, 1) for _ in range(2)] == [True, False]
    clock.now = 61.0
    assert not counters.allow("messages", ANNA, 1)


def test_ten_thousand_clients_are_told_apart() -> None:
    shared = SharedCounters(2)
    workers = shared.of(0), shared.of(1)
    clients = [client_of(f"10.{n // 62500}.{n // 250 % 250}.{n % 250}") for n in range(10_000)]
    for client in clients:
        assert random.choice(workers).connect(client, None)
    # A count may be too high by one for a few, for nearly nobody by more, and is never too low.
    wrong = sum(not workers[0].connect(client, 2) for client in clients)
    assert wrong < 100
    shared.clear(0)
    shared.clear(1)
    assert all(workers[1].connect(client, 1) for client in clients[:100])


def test_nobody_knows_beforehand_where_a_client_is_counted() -> None:
    places = {tuple(SharedCounters(1).of(0)._find(ANNA, 0)) for _ in range(5)}
    assert len(places) == 5
