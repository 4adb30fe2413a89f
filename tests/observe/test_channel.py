"""Who says something never waits; what waits has a bound, and what is lost is counted."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from errno import ENOSPC

import pytest

from mailgw.observe import channel
from mailgw.observe.channel import Channel
from mailgw.observe.destinations import Line

PATIENCE = 15.0


@dataclass
class Fussy:
    """A destination with room for as many lines as it is told, or with a trouble instead."""

    room: float = float("inf")
    trouble: OSError | None = None
    name: str = "fussy"
    texts: list[str] = field(default_factory=list)
    writes: int = 0
    reopened: int = 0

    def write(self, lines: Sequence[Line]) -> int:
        self.writes += 1
        if self.trouble is not None:
            raise self.trouble
        taken = int(min(self.room, len(lines)))
        self.room -= taken
        self.texts += [text for _, text in lines[:taken]]
        return taken

    def reopen(self) -> None:
        self.reopened += 1
        if self.trouble is not None:
            raise self.trouble


@dataclass
class Heard:
    """What a channel said of its troubles."""

    events: list[tuple[str, str, str]] = field(default_factory=list)

    def __call__(self, event: str, name: str, reason: str) -> None:
        self.events.append((event, name, reason))


def say(to: Channel, *texts: object) -> None:
    for text in texts:
        to.add(logging.INFO, str(text))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a destination rings no bell
            await asyncio.sleep(0.01)


async def test_a_turn_of_the_loop_is_one_write_to_each() -> None:
    one, other = Fussy(), Fussy()
    lines = Channel([one, other], Heard())
    lines.gather(asyncio.get_running_loop())
    say(lines, *range(100))
    assert one.writes == 0
    await asyncio.sleep(0)
    assert (one.writes, other.writes) == (1, 1)
    assert one.texts == other.texts == [str(number) for number in range(100)]


async def test_lines_of_other_threads_come_too() -> None:
    there = Fussy()
    lines = Channel([there], Heard())
    lines.gather(asyncio.get_running_loop())
    threads = [
        threading.Thread(target=lambda: say(lines, *range(1000)), daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    await until(lambda: len(there.texts) == 4000)
    for thread in threads:
        thread.join()
    assert sorted(there.texts) == sorted(str(number) for number in range(1000) for _ in range(4))


async def test_what_finds_no_room_comes_later_in_its_order_and_the_others_do_not_wait() -> None:
    busy, free = Fussy(room=2), Fussy()
    lines = Channel([busy, free], Heard())
    lines.gather(asyncio.get_running_loop())
    say(lines, 1, 2, 3)
    await asyncio.sleep(0)
    say(lines, 4)
    await asyncio.sleep(0)
    assert (busy.texts, free.texts) == (["1", "2"], ["1", "2", "3", "4"])
    busy.room = float("inf")
    await until(lambda: busy.texts == ["1", "2", "3", "4"])


async def test_a_trouble_is_told_once_and_its_end_too() -> None:
    heard, full = Heard(), Fussy(trouble=OSError(ENOSPC, "No space left on device"))
    lines = Channel([full], heard)
    lines.gather(asyncio.get_running_loop())
    for number in range(10):
        say(lines, number)
        await asyncio.sleep(0)
    full.trouble = None
    await until(lambda: len(full.texts) == 10)
    assert heard.events == [
        ("log.stuck", "fussy", "No space left on device"),
        ("log.resumed", "fussy", "lost 0 lines"),
    ]


async def test_what_waits_is_bounded_and_what_is_lost_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "MOST_WAITING", 50)
    heard, busy = Heard(), Fussy(room=0)
    lines = Channel([busy], heard)
    lines.gather(asyncio.get_running_loop())
    say(lines, *("x" * 10 for _ in range(12)))
    await asyncio.sleep(0)
    busy.room = float("inf")
    await until(lambda: bool(heard.events))
    assert busy.texts == ["x" * 10] * 5
    assert heard.events == [("log.resumed", "fussy", "lost 7 lines")]


async def test_while_one_is_stuck_nothing_is_tried_for_every_line() -> None:
    full = Fussy(trouble=OSError(ENOSPC, "No space left on device"))
    lines = Channel([full], Heard())
    lines.gather(asyncio.get_running_loop())
    for number in range(1000):
        say(lines, number)
        await asyncio.sleep(0)
    assert full.writes < 10
    lines.end()


async def test_at_the_end_what_waits_is_tried_a_last_time() -> None:
    busy = Fussy(room=0)
    lines = Channel([busy], Heard())
    lines.gather(asyncio.get_running_loop())
    say(lines, 1, 2)
    await asyncio.sleep(0)
    say(lines, 3)
    busy.room = float("inf")
    lines.end()
    assert busy.texts == ["1", "2", "3"]


async def test_what_was_said_before_goes_where_it_was_meant_to_go() -> None:
    old, new = Fussy(), Fussy()
    lines = Channel([old], Heard())
    lines.gather(asyncio.get_running_loop())
    say(lines, 1)
    lines.direct([new])
    say(lines, 2)
    await asyncio.sleep(0)
    assert (old.texts, new.texts) == (["1"], ["2"])


def test_a_file_that_cannot_be_opened_again_is_told() -> None:
    heard, fussy = Heard(), Fussy(trouble=PermissionError(13, "Permission denied"))
    lines = Channel([fussy], heard)
    lines.reopen()
    assert fussy.reopened == 1
    assert heard.events == [("log.kept", "fussy", "Permission denied")]


def child_says(lines: Channel, there: Fussy) -> bytes:
    """What a copy of this process, made now, writes by itself."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        say(lines, "the child's")
        os.write(writer, ",".join(there.texts).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


async def test_a_child_does_not_write_the_lines_of_its_parent() -> None:
    there = Fussy()
    lines = Channel([there], Heard())
    lines.gather(asyncio.get_running_loop())
    say(lines, "the parent's")
    assert child_says(lines, there) == b"the child's"
    await asyncio.sleep(0)
    assert there.texts == ["the parent's"]
