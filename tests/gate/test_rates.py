"""The counts of one process, and what counts as one client."""

from __future__ import annotations

import pytest

from doubles import Clock
from mailgw.gate.gate import Gate
from mailgw.gate.rates import Alone, MessageRate, client_of
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.address import Address
from mailgw.smtp.events import MailFrom

ANNA, BOB = client_of("192.0.2.1"), client_of("192.0.2.2")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:0DB8:0000:0001::0001", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
        ("no address", "none either", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same


def test_places_run_out_and_come_back() -> None:
    counters = Alone()
    assert [counters.take_place(2) for _ in range(3)] == [True, True, False]
    assert counters.places == 2
    counters.free_place()
    assert [counters.take_place(2) for _ in range(2)] == [True, False]


def test_every_client_has_its_own_connections() -> None:
    counters = Alone()
    assert [counters.connect(ANNA, 2) for _ in range(3)] == [True, True, False]
    assert counters.connect(BOB, 2)
    counters.disconnect(ANNA)
    assert [counters.connect(ANNA, 2) for _ in range(2)] == [True, False]


def test_without_a_limit_everything_is_counted_and_passes() -> None:
    counters = Alone()
    assert all(counters.take_place(None) and counters.connect(ANNA, None) for _ in range(50))
    assert not counters.take_place(50)
    assert not counters.connect(ANNA, 50)


@pytest.mark.parametrize(
    ("seconds", "passed"),
    [
        # The minute before counts for the part of it that is within the last 60 seconds.
        (0.0, 0),
        (59.0, 0),
        (60.0, 0),
        (67.0, 1),
        (90.0, 5),
        (119.0, 9),
        (180.0, 10),
        (86_400.0, 10),
    ],
)
def test_a_rate_holds_for_the_last_minute(seconds: float, passed: int) -> None:
    clock = Clock(600.0)
    counters = Alone(clock)
    assert [counters.allow("messages", ANNA, 10) for _ in range(11)] == [True] * 10 + [False]
    clock.now += seconds
    assert sum(counters.allow("messages", ANNA, 10) for _ in range(20)) == passed


def test_messages_connections_and_clients_have_rates_of_their_own() -> None:
    counters = Alone(Clock(0.0))
    assert counters.allow("messages", ANNA, 1)
    assert counters.allow("connections", ANNA, 1)
    assert counters.allow("messages", BOB, 1)
    assert not counters.allow("messages", ANNA, 1)


def test_who_tries_in_vain_is_not_kept_out_for_ever() -> None:
    clock = Clock(0.0)
    counters = Alone(clock)
    counters.allow("messages", ANNA, 1)
    passed = 0
    for _ in range(300):
        clock.now += 1.0
        passed += counters.allow("messages", ANNA, 1)
    assert passed in (2, 3, 4)


def test_a_flood_of_clients_is_forgotten_from_its_beginning() -> None:
    counters = Alone(Clock(0.0))
    assert counters.allow("messages", ANNA, 1)
    for number in range(100_000):
        assert counters.allow("messages", b"%d" % number, 1)
    assert counters.allow("messages", ANNA, 1)
    assert not counters.allow("messages", b"99999", 1)


def test_a_message_too_many_is_refused_for_now() -> None:
    peer = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25)
    rate = MessageRate(Alone(Clock(0.0)), 2)
    assert [rate.refuse(peer) for _ in range(3)] == [None, None, reply.TOO_MANY_MESSAGES]
    assert reply.TOO_MANY_MESSAGES.wire.startswith(b"450 4.7.1 ")


def test_the_gate_says_so_at_mail_and_only_for_what_it_would_take() -> None:
    peer = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25)
    trouble = iter([reply.TRY_AGAIN, None, None])
    gate = Gate(
        "mx.ours.test",
        LocalAddresses.empty(),
        max_recipients=100,
        trouble=lambda: next(trouble),
        message_rate=MessageRate(Alone(Clock(0.0)), 1),
    )
    said = [gate.sender(peer, MailFrom(Address("joe", "there.test"))) for _ in range(3)]
    assert said == [reply.TRY_AGAIN, reply.SENDER_OK, reply.TOO_MANY_MESSAGES]
