"""Looks side by side: each has its deadline, and none takes anything from the others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from doctor.looking import lines
from mailgw.doctor.examination import Look, aside, examine
from mailgw.doctor.observation import Observation, aligned, error, ok, size


async def sees() -> Sequence[Observation]:
    return [ok("disk", "is there")]


async def hangs() -> Sequence[Observation]:
    return await asyncio.Event().wait() and []


async def breaks() -> Sequence[Observation]:
    raise KeyError("amqp://guest:sesame@localhost/")


async def test_a_look_that_hangs_is_told_and_the_others_are_there_in_their_order() -> None:
    looks = [Look("first", hangs), Look("disk", sees), Look("last", hangs)]
    began = time.monotonic()

    seen = lines(await examine(looks, 0.2))

    assert seen == [
        "error first: nothing was to be seen within 0.2 s",
        "ok disk: is there",
        "error last: nothing was to be seen within 0.2 s",
    ]
    assert time.monotonic() - began < 2


async def test_a_look_that_fails_is_told_without_what_it_said() -> None:
    seen = lines(await examine([Look("broker", breaks), Look("disk", sees)]))

    assert seen == ["error broker: could not be looked at: KeyError", "ok disk: is there"]


async def test_what_is_looked_at_aside_holds_up_nobody() -> None:
    let_go = threading.Event()
    waiting = asyncio.create_task(aside(let_go.wait))

    await asyncio.sleep(0)
    let_go.set()

    assert await waiting is True


async def test_what_is_raised_aside_is_raised_here() -> None:
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        await aside(fails)


async def test_a_file_system_that_hangs_ends_with_the_deadline() -> None:
    let_go = threading.Event()

    async def see() -> Sequence[Observation]:
        await aside(let_go.wait)
        return []

    [seen] = await examine([Look("disk", see)], 0.1)

    let_go.set()
    assert seen.seen == "nothing was to be seen within 0.1 s"


def test_lines_stand_in_columns() -> None:
    seen = [ok("a", "is there"), error("longer", "is not", "make it")]

    assert list(aligned(seen)) == [
        "ok       a       is there",
        "error    longer  is not (make it)",
    ]


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 octets"), (999, "999 octets"), (16_777_216, "16.8MB"), (10**9, "1GB"), (1500, "1.5KB")],
)
def test_sizes_are_written_as_the_configuration_reads_them(octets: int, text: str) -> None:
    assert size(octets) == text
