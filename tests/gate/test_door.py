"""Who is let in, and that everybody who goes makes room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from doubles import Clock
from mailgw.config.networks import networks
from mailgw.gate.door import Door
from mailgw.gate.rates import Alone
from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply


def peer(address: str) -> Peer:
    return Peer("c1", address, 40000, "192.0.2.1", 25)


ANNA, NEIGHBOUR, BOB = peer("2001:db8::1"), peer("2001:db8::2"), peer("192.0.2.2")


def nobody() -> None:
    """Whom to tell does not matter here."""


def knock(door: Door, client: Peer) -> Reply | None:
    assert door.reserve(nobody)
    return door.enter(client)


def test_without_limits_everybody_is_let_in() -> None:
    door = Door()
    assert [knock(door, ANNA) for _ in range(1000)] == [None] * 1000


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("192.0.2.2", None),
        ("2001:db8::1", None),
        ("192.0.3.1", reply.NOT_IN_RANGE),
        ("2001:db9::1", reply.NOT_IN_RANGE),
        ("::ffff:192.0.2.2", None),
        ("", reply.NOT_IN_RANGE),
    ],
)
def test_only_clients_in_the_range_are_let_in(address: str, answer: Reply | None) -> None:
    counters = Alone()
    door = Door(counters, clients=networks("192.0.2.0/24; 2001:db8::/32"))
    assert knock(door, peer(address)) == answer
    assert counters.places == (1 if answer is None else 0)


def test_what_is_said_to_those_who_are_not_let_in() -> None:
    assert reply.NOT_IN_RANGE.wire.startswith(b"554 5.7.1 ")
    assert reply.TOO_MANY_CONNECTIONS.wire.startswith(b"421 4.7.0 ")
    assert reply.TOO_OFTEN.wire.startswith(b"421 4.7.0 ")


def test_one_client_has_so_many_connections_whichever_address_it_takes() -> None:
    door = Door(per_client=2)
    said = [knock(door, each) for each in (ANNA, NEIGHBOUR, ANNA, BOB)]
    assert said == [None, None, reply.TOO_MANY_CONNECTIONS, None]
    door.leave(NEIGHBOUR)
    assert [knock(door, ANNA) for _ in range(2)] == [None, reply.TOO_MANY_CONNECTIONS]


def test_so_many_connections_in_a_minute() -> None:
    clock = Clock(0.0)
    door = Door(Alone(clock), rate=2, per_client=1)
    for _ in range(2):
        assert knock(door, ANNA) is None
        door.leave(ANNA)
    assert knock(door, ANNA) == reply.TOO_OFTEN
    # Who was turned away takes no connection from who comes later.
    assert knock(door, ANNA) == reply.TOO_OFTEN
    clock.now += 120
    assert knock(door, ANNA) is None
    assert knock(door, ANNA) == reply.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize(
    "gone",
    [
        lambda door: door.release(),
        lambda door: [door.enter(BOB), door.leave(BOB)],
        lambda door: door.enter(peer("203.0.113.9")),
    ],
    ids=["never-entered", "left", "turned-away"],
)
def test_a_place_comes_back_whatever_became_of_its_client(gone: Callable[[Door], object]) -> None:
    door = Door(most=2, clients=networks("192.0.2.0/24"))
    for _ in range(10):
        assert door.reserve(nobody)
        assert door.reserve(nobody)
        assert not door.reserve(nobody)
        gone(door)
        gone(door)


def test_who_found_no_place_is_told_once_and_in_turn() -> None:
    door = Door(most=1)
    told: list[str] = []
    first, second = (lambda: told.append("first")), (lambda: told.append("second"))
    assert knock(door, ANNA) is None
    assert not door.reserve(first)
    assert not door.reserve(second)
    assert not door.reserve(first)
    door.leave(ANNA)
    assert told == ["first"]
    assert door.reserve(first)
    door.release()
    door.reserve(nobody)
    door.release()
    assert told == ["first", "second"]


def test_a_limit_set_later_counts_those_who_are_there() -> None:
    counters = Alone()
    before = Door(counters)
    assert [knock(before, ANNA), knock(before, ANNA)] == [None, None]
    after = Door(counters, most=3, per_client=2)
    assert knock(after, ANNA) == reply.TOO_MANY_CONNECTIONS
    assert knock(after, BOB) is None
    assert not after.reserve(nobody)
    before.leave(ANNA)
    assert knock(after, ANNA) is None
