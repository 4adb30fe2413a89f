"""How often a client may be wrong, told by a clock that the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from doubles import Clock
from mailgw.gate.credentials import CannotTell
from mailgw.gate.guesses import Guesses
from mailgw.gate.rates import Alone
from mailgw.process.shared import SharedCounters
from mailgw.smtp.reply import Refusal

EVE, BOB = "192.0.2.66", "192.0.2.7"


@dataclass
class Source:
    """Answers what the test wants, when the test wants it."""

    asked: int = 0
    most_at_once: int = 0
    _now: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    right: bool = False

    async def __call__(self) -> bool:
        self.asked += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await self.may_answer.wait()
        self._now -= 1
        return self.right


async def wrong() -> bool:
    return False


async def right() -> bool:
    return True


async def away() -> bool:
    raise CannotTell("away")


async def refused(guesses: Guesses, address: str) -> bool:
    """Whether the address is not even asked about."""
    try:
        await guesses.ask(address, right)
    except Refusal as refusal:
        return refusal.reply.code == 421
    return False


async def test_after_the_last_failure_nobody_is_asked_for_the_rest_of_the_minute() -> None:
    clock = Clock(6000)
    guesses = Guesses(3, Alone(clock))
    for _ in range(3):
        assert await guesses.ask(EVE, wrong) is False
        clock.now += 10
    assert await refused(guesses, EVE)
    assert not await refused(guesses, BOB)
    clock.now = 6059
    assert await refused(guesses, EVE)
    clock.now = 6120
    for _ in range(3):
        assert await guesses.ask(EVE, wrong) is False
    assert await refused(guesses, EVE)


async def test_all_workers_count_together_and_a_reload_forgives_nothing() -> None:
    clock = Clock(6000)
    shared = SharedCounters(2, clock)
    one, other = (Guesses(3, shared.of(worker)) for worker in range(2))
    await one.ask(EVE, wrong)
    await one.ask(EVE, wrong)
    await other.ask(EVE, wrong)
    assert await refused(one, EVE)
    assert await refused(other, EVE)
    assert await refused(Guesses(3, shared.of(0)), EVE)
    assert not await refused(one, BOB)


async def test_what_succeeds_or_cannot_be_told_does_not_count_and_clears_nothing() -> None:
    guesses = Guesses(2)
    for _ in range(20):
        assert await guesses.ask(EVE, right)
        with pytest.raises(CannotTell):
            await guesses.ask(EVE, away)
    await guesses.ask(EVE, wrong)
    await guesses.ask(EVE, right)
    await guesses.ask(EVE, wrong)
    assert await refused(guesses, EVE)


async def test_no_limit() -> None:
    guesses = Guesses(0)
    for _ in range(1000):
        assert await guesses.ask(EVE, wrong) is False
    assert await guesses.ask(EVE, right)


async def test_asking_many_at_once_buys_no_more_guesses() -> None:
    guesses, source = Guesses(3), Source()
    tasks = [asyncio.create_task(guesses.ask(EVE, source)) for _ in range(50)]
    await asyncio.sleep(0)
    source.may_answer.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert source.asked == 3
    assert answers[:3] == [False] * 3
    assert all(isinstance(answer, Refusal) for answer in answers[3:])


async def test_many_right_logins_at_once_wait_for_each_other_and_all_succeed() -> None:
    guesses, source = Guesses(3), Source(right=True)
    source.may_answer.set()
    answers = await asyncio.gather(*(guesses.ask(EVE, source) for _ in range(50)))
    assert answers == [True] * 50
    assert source.most_at_once <= 3
    assert not guesses._asking


async def test_one_address_cannot_make_too_many_wait() -> None:
    guesses, source = Guesses(1), Source(right=True)
    tasks = [asyncio.create_task(guesses.ask(EVE, source)) for _ in range(101)]
    await asyncio.sleep(0)
    with pytest.raises(CannotTell):
        await guesses.ask(EVE, source)
    assert await guesses.ask(BOB, right)
    source.may_answer.set()
    assert await asyncio.gather(*tasks) == [True] * 101


async def test_who_is_cancelled_while_waiting_keeps_nobody_from_his_turn() -> None:
    guesses, source = Guesses(1), Source(right=True)
    first, second, third = (asyncio.create_task(guesses.ask(EVE, source)) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    source.may_answer.set()
    assert await asyncio.wait_for(third, 10)
    assert not guesses._asking


async def test_ipv6_clients_are_counted_by_their_network() -> None:
    guesses = Guesses(1)
    await guesses.ask("2001:db8:0:1::1", wrong)
    assert await refused(guesses, "2001:db8:0:1:ffff::2")
    assert not await refused(guesses, "2001:db8:0:2::1")
    await guesses.ask("fe80::1%eth0", wrong)
    assert await refused(guesses, "fe80::2%eth1")
