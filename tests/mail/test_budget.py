"""Large mail waits for its turn, small mail does not, and nothing is held uncounted."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mailgw.mail.budget import SMALL, Budget
from rabbitmq import eventually

MB = 1_000_000
# Of these, 25 MB are for those who want little, up to 6.25 MB.
BUDGET = 100 * MB


class Crowd:
    """Mails that hold a share each until they are let go; `held` names them in their order."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.held: list[str] = []

    async def comes(self, name: str, octets: int) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, octets))
        await settle()

    async def goes(self, name: str) -> None:
        self._ends[name].set()
        await self.tasks[name]
        await settle()

    async def gives_up(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]
        await settle()

    async def _hold(self, name: str, octets: int) -> None:
        async with self._budget.share(octets):
            self.held.append(name)
            await self._ends[name].wait()
            self.held.remove(name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd(Budget(BUDGET))


async def test_there_are_as_many_at_once_as_there_is_room_for(crowd: Crowd) -> None:
    for name in "abc":
        await crowd.comes(name, 40 * MB)
    assert crowd.held == ["a", "b"]
    await crowd.goes("a")
    assert crowd.held == ["b", "c"]


async def test_nobody_overtakes_whoever_waits_for_much(crowd: Crowd) -> None:
    await crowd.comes("first", 60 * MB)
    await crowd.comes("much", 90 * MB)
    await crowd.comes("less", 30 * MB)
    assert crowd.held == ["first"]
    await crowd.goes("first")
    assert crowd.held == ["much"]
    await crowd.goes("much")
    assert crowd.held == ["less"]


async def test_who_wants_little_waits_for_nobody_who_wants_much(crowd: Crowd) -> None:
    for name in ("much", "more"):
        await crowd.comes(name, 100 * MB)
    for name in "abcde":
        await crowd.comes(name, 6 * MB)
    assert crowd.held == ["much", "a", "b", "c", "d"]
    await crowd.goes("b")
    assert crowd.held == ["much", "a", "c", "d", "e"]


async def test_what_is_small_does_not_wait_and_does_not_count(crowd: Crowd) -> None:
    for number in range(1000):
        await crowd.comes(str(number), SMALL)
    assert len(crowd.held) == 1000


async def test_who_wants_more_than_there_is_gets_all_of_it_alone(crowd: Crowd) -> None:
    await crowd.comes("some", 10 * MB)
    await crowd.comes("huge", 1000 * MB)
    await crowd.comes("other", 10 * MB)
    assert crowd.held == ["some"]
    await crowd.goes("some")
    assert crowd.held == ["huge"]
    await crowd.goes("huge")
    assert crowd.held == ["other"]


async def test_who_gives_up_waiting_keeps_nobody_waiting(crowd: Crowd) -> None:
    await crowd.comes("first", 60 * MB)
    await crowd.comes("much", 90 * MB)
    await crowd.comes("less", 30 * MB)
    await crowd.gives_up("much")
    assert crowd.held == ["first", "less"]


async def test_who_gives_up_in_the_moment_of_its_turn_gives_it_to_the_next() -> None:
    budget = Budget(BUDGET)
    crowd = Crowd(budget)
    async with budget.share(100 * MB):
        await crowd.comes("second", 100 * MB)
        await crowd.comes("third", 100 * MB)
    # Its turn has come, and it does not know it yet.
    crowd.tasks["second"].cancel()
    await settle()
    assert crowd.tasks["second"].cancelled()
    assert crowd.held == ["third"]


async def test_who_gave_up_before_its_turn_came_is_passed_over() -> None:
    budget = Budget(BUDGET)
    crowd = Crowd(budget)
    async with budget.share(100 * MB):
        await crowd.comes("second", 100 * MB)
        await crowd.comes("third", 100 * MB)
        crowd.tasks["second"].cancel()
    await settle()
    assert crowd.tasks["second"].cancelled()
    assert crowd.held == ["third"]


async def test_a_share_lasts_as_long_as_the_thread_that_works_on_it() -> None:
    budget, go_on, begun = Budget(BUDGET), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(20)

    async def hold() -> None:
        async with budget.share(100 * MB) as share:
            await share.aside(work)

    holding = asyncio.create_task(hold())
    await eventually(begun.is_set, "it works")
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    crowd = Crowd(budget)

    await crowd.comes("next", 100 * MB)

    assert crowd.held == []
    go_on.set()
    await eventually(lambda: crowd.held == ["next"], "its turn comes")


async def test_what_is_done_aside_gives_its_result_or_its_trouble() -> None:
    def fail() -> None:
        raise OSError("the disk")

    async with Budget(BUDGET).share(MB) as share:
        assert await share.aside(lambda: 42) == 42
        with pytest.raises(OSError, match="the disk"):
            await share.aside(fail)
