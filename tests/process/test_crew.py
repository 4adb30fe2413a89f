"""Processes that do little: what matters is when they are started, and what they hold."""

from __future__ import annotations

import os
import select
import signal
import time

from mailgw.process.channel import Channel
from mailgw.process.crew import Crew, Hand
from rabbitmq import wait_until


def idle(_place: int, channel: Channel) -> int:
    """Live until the other side ends or says so."""
    while not channel.ended:
        select.select([channel], [], [])
        for word, rest in channel.hear():
            if word == "exit":
                return int(rest)
    return 0


def buried(crew: Crew, count: int = 1) -> list[tuple[Hand, int]]:
    found: list[tuple[Hand, int]] = []
    wait_until(lambda: bool(found.extend(crew.buried()) or len(found) >= count), "they end")
    return found


def test_every_place_is_filled_and_each_worker_knows_its_own() -> None:
    def tell_place(place: int, channel: Channel) -> int:
        channel.say("place", place, "of\nmany")
        return place

    crew = Crew(3, tell_place)
    crew.fill()
    assert len(crew.hands) == 3
    ended: dict[int, tuple[int, list[tuple[str, str]]]] = {}

    def all_ended() -> bool:
        # What it said last is heard after its end.
        ended.update({h.place: (code, list(h.channel.hear())) for h, code in crew.buried()})
        return len(ended) == 3

    wait_until(all_ended, "they end")
    assert ended == {place: (place, [("place", f"{place} of many")]) for place in range(3)}


def test_the_first_who_dies_is_replaced_at_once_and_those_after_it_wait_longer_and_longer() -> None:
    crew = Crew(1, lambda _place, _channel: 1)
    waits = []
    for _ in range(3):
        crew.fill()
        assert crew.due is None
        buried(crew)
        assert crew.due is not None
        waits.append(crew.due - time.monotonic())
        wait_until(lambda: crew.due is not None and crew.due <= time.monotonic(), "it is due")
    assert waits[0] <= 0
    assert 0.3 < waits[1] <= 0.5
    assert 0.8 < waits[2] <= 1.0


def test_a_place_is_not_filled_before_its_time() -> None:
    crew = Crew(2, lambda place, channel: idle(place, channel) if place else 1)
    for _ in range(2):
        crew.fill()
        buried(crew)
    crew.fill()
    assert list(crew.hands) == [1]
    crew.tell("exit", 0)
    buried(crew)


def test_how_one_ended_is_told_and_its_place_is_cleared_first() -> None:
    cleared: list[int] = []
    crew = Crew(2, idle, cleared=cleared.append)
    crew.fill()
    os.kill(crew.hands[1].pid, signal.SIGKILL)
    [(hand, code)] = buried(crew)
    assert (hand.place, code, cleared) == (1, -signal.SIGKILL, [1])
    crew.hands[0].channel.say("exit", 7)
    [(hand, code)] = buried(crew)
    assert (hand.place, code, cleared) == (0, 7, [1, 0])


def test_each_worker_sees_the_end_of_its_own_channel_whoever_else_is_there() -> None:
    crew = Crew(3, idle)
    crew.fill()
    hands = list(crew.hands.values())
    for hand in hands:
        # As if the supervisor had gone, which closes all it has.
        hand.channel.close()
        assert [(each.pid, code) for each, code in buried(crew)] == [(hand.pid, 0)]


def test_what_is_not_theirs_is_let_go_before_they_work() -> None:
    reader, writer = os.pipe()

    def say_whether_it_is_open(_place: int, _channel: Channel) -> int:
        try:
            os.fstat(writer)
        except OSError:
            return 0
        return 1

    crew = Crew(1, say_whether_it_is_open, [lambda: os.close(writer)])
    crew.fill()
    [(_, code)] = buried(crew)
    os.close(reader)
    os.close(writer)
    assert code == 0


def test_a_bug_in_a_worker_is_its_end_and_nothing_of_ours_runs_on_in_it() -> None:
    def fail(_place: int, _channel: Channel) -> int:
        raise RuntimeError("a bug")

    crew = Crew(1, fail)
    crew.fill()
    [(_, code)] = buried(crew)
    assert code == 1


def test_those_who_do_not_listen_are_killed() -> None:
    def deaf(_place: int, channel: Channel) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        channel.say("deaf")
        while True:
            signal.pause()

    crew = Crew(2, deaf)
    crew.fill()
    crew.kill()
    assert {code for _, code in buried(crew, 2)} == {-signal.SIGKILL}


# --- the channel --------------------------------------------------------------------


def test_a_line_is_a_word_and_a_rest_and_the_end_is_seen() -> None:
    one, other = Channel.pair()
    one.say("ready")
    one.say("failed", "first\nsecond", 3)
    assert list(other.hear()) == [("ready", ""), ("failed", "first second 3")]
    assert not other.ended
    one.say("last")
    one.close()
    assert list(other.hear()) == [("last", "")]
    assert other.ended
    other.say("to nobody")
    other.close()


def test_who_does_not_listen_holds_nobody_up() -> None:
    one, other = Channel.pair()
    for _ in range(10_000):
        one.say("prepare", "x" * 10_000)
    one.close()
    assert next(other.hear())[0] == "prepare"
    other.close()
