"""What workers remember together of transactions whose reply may not have been seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from doubles import Clock
from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.mail.unseen import Earlier
from mailgw.process.unseen import Table, UnseenReplies
from mailgw.smtp.address import Address

PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25)
WINDOW = 600.0


def message(name: str, content: bytes = b"Subject: hello\r\n\r\n") -> Message:
    spool = Spool(1_000_000)
    spool.write(content)
    spool.digest()
    bob = Recipient(Address("bob", "ours.test"))
    return Message(name, PEER, None, (bob,), spool, datetime(2026, 1, 2, tzinfo=UTC))


def workers(count: int = 2, clock: Clock | None = None) -> tuple[Table, list[UnseenReplies]]:
    table = Table(count, WINDOW, clock or Clock(1000.0))
    return table, [UnseenReplies(table, number) for number in range(count)]


def test_another_worker_finds_what_one_noted_until_the_window_is_over() -> None:
    clock = Clock(1000.0)
    _, [one, other] = workers(2, clock)
    assert one.empty
    assert other.empty
    one.note(message("1a"), safe=True)
    clock.now += WINDOW - 1
    assert not other.empty
    assert other.find(message("1b")) == Earlier("1a", True)
    assert other.find(message("1c", b"Subject: another\r\n\r\n")) is None
    clock.now += 1
    assert other.empty
    assert other.find(message("1d")) is None


def test_a_transaction_is_under_way_then_safe_and_does_not_find_itself() -> None:
    _, [one, other] = workers()
    one.note(message("1a"), safe=False)
    assert one.find(message("1a")) is None
    assert other.find(message("1b")) == Earlier("1a", False)
    one.note(message("1a"), safe=True)
    assert other.find(message("1b")) == Earlier("1a", True)


def test_one_that_failed_is_forgotten() -> None:
    _, [one, other] = workers()
    one.note(message("1a"), safe=False)
    one.forget(message("1a"))
    assert other.find(message("1b")) is None


def test_who_came_back_and_saw_the_reply_means_another_mail_the_next_time() -> None:
    _, [one, other] = workers()
    one.note(message("1a"), safe=True)
    assert other.find(message("1b")) == Earlier("1a", True)
    other.forget(message("1b"))
    assert [each.find(message("1c")) for each in (one, other)] == [None, None]


def test_who_came_back_and_was_lost_again_is_known_by_the_first_name() -> None:
    _, [one, other] = workers()
    one.note(message("1a"), safe=True)
    other.find(message("1b"))
    other.note(message("1b"), safe=True)
    assert one.find(message("1c")) == Earlier("1a", True)
    one.forget(message("1c"))
    assert other.find(message("1d")) is None


def test_two_that_wait_do_not_wait_for_each_other() -> None:
    _, [one, other] = workers()
    one.note(message("1a"), safe=False)
    for worker, name in ((one, "1b"), (other, "1c")):
        assert worker.find(message(name)) == Earlier("1a", False)
        worker.note(message(name), safe=False)
    one.forget(message("1a"))
    assert other.find(message("1c")) is None
    other.note(message("1c"), safe=False)
    assert one.find(message("1b")) == Earlier("1c", False)


def test_of_several_the_safe_one_is_found() -> None:
    _, [one, other] = workers()
    one.note(message("1a"), safe=False)
    other.note(message("1b"), safe=True)
    assert one.find(message("1c")) == Earlier("1b", True)


def test_a_message_that_nobody_hashed_is_not_remembered_and_not_hashed_for_it() -> None:
    _, [one, other] = workers()
    spool = Spool(1_000_000)
    spool.write(b"Subject: hello\r\n\r\n")
    one.note(replace(message("1a"), content=spool), safe=False)
    assert not spool.digest_known
    assert other.empty


def test_a_worker_that_dies_leaves_what_was_safe_and_nothing_under_way() -> None:
    table, [one, other] = workers()
    one.note(message("1a"), safe=True)
    one.note(message("1b", b"another\r\n"), safe=False)
    other.note(message("1c", b"a third\r\n"), safe=False)
    table.clear(0)
    assert other.find(message("1d")) == Earlier("1a", True)
    assert other.find(message("1e", b"another\r\n")) is None
    assert one.find(message("1f", b"a third\r\n")) == Earlier("1c", False)


def test_what_is_half_written_is_nothing() -> None:
    table, [one, other] = workers()
    one.note(message("1a"), safe=True)
    [place] = [
        place
        for place in range(len(table._cells))
        if bytes(table._cells[place : place + 2]) == b"1a"
    ]
    table._cells[place : place + 2] = b"9z"
    assert other.find(message("1b")) is None


def test_memory_is_bounded_in_a_flood_and_the_newest_are_kept() -> None:
    clock = Clock(1000.0)
    _, [one, other] = workers(2, clock)
    for number in range(20_000):
        clock.now += 0.01
        one.note(message(f"1x{number:x}", b"%d\r\n" % number), safe=True)
    found = [
        number
        for number in range(20_000)
        if other.find(message("1b", b"%d\r\n" % number)) == Earlier(f"1x{number:x}", True)
    ]
    assert len(found) <= 4096
    assert sum(number >= 19_000 for number in found) > 900
    assert len(one._known) <= 4096
    assert len(other._known) <= 4096


def test_only_contents_that_are_remembered_are_looked_for() -> None:
    clock = Clock(1000.0)
    table, [one, _] = workers(2, clock)
    digests = [message("1a", b"%d\r\n" % number).content.digest() for number in range(1000)]
    one.note(message("1a", b"7\r\n"), safe=True)
    assert table.may_hold(digests[7])
    assert sum(map(table.may_hold, digests)) < 10
    # What was in the filter goes with the last entry.
    clock.now += WINDOW
    one.note(message("1b", b"8\r\n"), safe=True)
    assert table.may_hold(digests[8])
    assert sum(map(table.may_hold, digests)) < 10


def test_a_name_too_long_is_not_remembered() -> None:
    _, [one, other] = workers()
    one.note(message("1" * 63), safe=True)
    assert other.empty
    one.note(message("1" * 62), safe=True)
    assert other.find(message("1b")) == Earlier("1" * 62, True)
